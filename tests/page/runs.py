"""A run's folder as `evt.run trace=true` leaves it, for tests of what is shown of it."""

from __future__ import annotations

import json
from pathlib import Path

import hydra
import torch
from omegaconf import OmegaConf

from evt.evaluate.traces import Trace
from evt.settings import CONFIG_DIR

OVERRIDES = ["model=vitdet_mini", "policy.r=1", "data.n_videos=1", "data.n_frames=4", "data.size=[96,192]"]
BLOCKS = 2


def traced_run(folder: Path) -> Path:
    """Of 2 blocks, whose gates let the token of their own number pass, of 4 x 4, in each later frame of 4."""
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = hydra.compose("run", OVERRIDES)
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(cfg, folder / ".hydra/config.yaml")
    OmegaConf.save(OmegaConf.create(OVERRIDES), folder / ".hydra/overrides.yaml")
    about = {"code": {"commit": "0123456789abcdef", "changed": False}, "machine": {"device": "a machine"}}
    (folder / "run.json").write_text(json.dumps(about))
    passed = torch.eye(3 * BLOCKS, 16, dtype=torch.bool).repeat(4, 1, 1)
    passed[0] = True
    norms = torch.arange(1.0, 3 * BLOCKS + 1).repeat(4, 1)
    norms[0] = 0
    trace = Trace(
        passed,
        norms,
        torch.tensor([True, False, False, False]),
        torch.tensor([0.7, 0.2, 0.2, 0.3]),
        torch.tensor([0.0, 0.1, 0.2, 0.3]),
        torch.tensor([[0, 0, 0.5, 1]] * 4),  # the picture is the upper half of the square
        (4, 4),
    )
    trace.write(folder / "trace/sprites_val_000000.safetensors")
    return folder
