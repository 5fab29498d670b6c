"""python -m evt.occupancy: where objects tend to be in labelled videos, for policy=regions.

python -m evt.occupancy model=vitdet_mini data.split=train out=where.json
python -m evt.run model=vitdet_mini variant=frame policy=regions policy.map=where.json
python -m evt.occupancy data=vid data.root=ILSVRC2015 data.split=train out=where.json
"""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from evt.cli import run_command
from evt.data.loading import build_data
from evt.errors import ConfigError
from evt.evaluate.occupancy import Occupancy
from evt.evaluate.sealed import check_sealed
from evt.models.loading import build_model
from evt.report import columns
from evt.settings import changed


def occupancy_task(cfg: DictConfig) -> dict[str, Any]:
    """Look at the videos that the config names, write the map, and print how large it is; these figures.

    Raises:
        ConfigError: the model has no detector, or the data no boxes.
        DataError: the videos cannot be used, or no frame has boxes.
    """
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    path = folder / "occupancy.json" if cfg.out is None else Path(str(cfg.out))
    check_sealed(path, Occupancy, "evt.occupancy")
    # How frames are cut into tokens depends on no weights.
    model, _ = build_model(changed(cfg.model, checkpoint=None), torch.device("meta"))
    if not hasattr(model, "in_tokens"):
        raise ConfigError(f"model is {cfg.model.name}, which has no detector; it must be a ViTDet, as vitdet")
    videos = build_data(cfg.data, "data", "videos", "classes").videos()
    name = f"{cfg.data.name} {cfg.data.get('split', '')}".strip()
    frames = tqdm(chain.from_iterable(videos), total=sum(map(len, videos)), desc=name, unit="frame")
    found = Occupancy.of(model, frames, name)
    found.write(path)
    share = torch.tensor(found.share)
    rows = [[f"{x:g}", f"{(share >= x).float().mean():.3f}"] for x in (0.01, 0.1, 0.5)]
    print(f"\n{found.data}, {found.n_frames} frames, {found.grid[0]} x {found.grid[1]} tokens")
    print(columns([["an object in a share of frames of at least", "tokens"], *rows]))
    print(f"written to {path}")
    return {"frames": found.n_frames, "mean": float(share.mean())}


if __name__ == "__main__":
    run_command("occupancy", occupancy_task)
