"""Where and with how many threads a command computes."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from evt.build import choice


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
