"""Where and with how many threads a command computes."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from omegaconf import DictConfig

from evt.build import choice
from evt.workers import n_processes


def build_device(cfg: DictConfig) -> torch.device:
    """The device that `device=...` names, after setting torch's thread count by `threads=...`.

    Raises:
        ConfigError: there is none of that name.
    """
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    available = {"cpu": torch.device("cpu")}
    if torch.cuda.is_available():
        available["cuda"] = torch.device("cuda")
    available["auto"] = available.get("cuda", available["cpu"])
    return choice(available, "device", cfg.device)


def processes() -> tuple[int, int]:
    """This process's rank and how many there are; joins those that torchrun started, each with a GPU of its own."""
    world = n_processes()
    if world > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        # One may wait long for another, whose videos take longer.
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(days=7))
        atexit.register(dist.destroy_process_group)
    return (dist.get_rank(), world) if world > 1 else (0, 1)
