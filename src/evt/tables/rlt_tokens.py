"""What run-length tokenization drops of real clips, and what that saves at full size."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

import evt
from evt.data.actions import VIDEO_SUFFIXES, Segment
from evt.device import build_device
from evt.errors import ConfigError, DataError
from evt.evaluate.ledger import Ledger
from evt.evaluate.race import machine
from evt.evaluate.trace import timed
from evt.eventful import count_ops
from evt.models.loading import build_model
from evt.models.videomae import VideoMAE
from evt.report import FilledTable
from evt.settings import changed
from evt.tables.checks import check_counts, check_thresholds
from evt.tokens import Packed, RunLength
from evt.tokens.run_length import keep_mask


def fill_rlt_tokens(cfg: DictConfig, folder: Path) -> list[FilledTable]:
    """Tokenize the videos in `cfg.table.clips` at each frame rate and threshold; goes on after the last finished.

    Raises:
        ConfigError: a setting of the table is not of its kind.
        DataError: there are no videos in the folder, or one cannot be read.
    """
    check_counts(cfg.table, "table.", "views")
    check_thresholds(cfg.table, "timed_at")
    for fps in cfg.table.fps:
        if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < math.inf:
            raise ConfigError(f"table.fps has {fps!r}; it must be a finite number above 0")
    folder_of_clips = Path(cfg.table.clips)
    if not folder_of_clips.is_dir():
        raise DataError(f"{folder_of_clips}: no such folder; set table.clips to one that has videos")
    device = build_device(cfg)
    model, weights = build_model(cfg.model, device, VideoMAE)
    model.views = replace(model.views, temporal_stride=1, temporal=cfg.table.views, spatial=1)
    shapes, _ = build_model(changed(cfg.model, checkpoint=None), torch.device("meta"), VideoMAE)
    paths = sorted(x for x in folder_of_clips.glob("*") if x.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        raise DataError(f"{folder_of_clips}: has no videos; set table.clips to a folder that has some")
    ledger = Ledger(folder / "clips.jsonl")
    settings = json.dumps(
        [evt.__version__, machine(device), OmegaConf.to_container(cfg.table), weights.sha256]
    )
    records = []
    for path in tqdm(paths, desc=cfg.table.name, unit="clip"):
        for fps in cfg.table.fps:
            key = f"{path.name} {path.stat().st_size} {fps} {settings}"
            if key not in ledger:
                views = model.preprocess(Segment(path, path.name, fps))
                ledger.put(
                    key, [_row(model, shapes, views, threshold, cfg) for threshold in cfg.table.thresholds]
                )
            records += [{"clip": path.stem, "fps": fps, **row} for row in ledger[key]]
    return [FilledTable(cfg.table.name, cfg.table.title, records, _notes(cfg, model, device), [], ledger)]


@torch.no_grad()
def _row(
    model: VideoMAE, shapes: VideoMAE, views: Tensor, threshold: float, cfg: DictConfig
) -> dict[str, Any]:
    keep = keep_mask(views, model.tubelet, threshold)
    lengths = keep.sum(1).tolist()
    dense, reduced = (_operations(shapes, n) for n in ([keep.shape[1]] * len(keep), lengths))
    row: dict[str, Any] = {
        "threshold": threshold,
        "kept": float(keep.float().mean()),
        "gflops": reduced / len(keep) / 1e9,
        "op_ratio": dense / reduced,
        "time_ratio": "",
        "masking_share": "",
    }
    if threshold in cfg.table.timed_at:
        seconds: dict[str, list[float]] = {"dense": [], "rlt": [], "mask": []}
        for _ in range(3):
            seconds["mask"].append(timed(keep_mask, views, model.tubelet, threshold)[1])
            seconds["dense"].append(timed(model, views)[1])
            seconds["rlt"].append(timed(model, views, RunLength(threshold))[1])
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        row["time_ratio"] = medians["dense"] / medians["rlt"]
        row["masking_share"] = medians["mask"] / medians["dense"]
    return row


def _operations(shapes: VideoMAE, lengths: list[int]) -> int:
    """Operations on so many tokens of each view, counted on torch's meta device."""
    x = torch.zeros(sum(lengths), shapes.head.in_features, device="meta")
    with count_ops() as ops:
        shapes.classify(shapes.run_blocks(Packed(x, lengths)).x[: len(lengths)])
    return ops.total()


def _notes(cfg: DictConfig, model: VideoMAE, device: torch.device) -> list[str]:
    return [
        f"{cfg.table.views} views of {model.view_frames} successive frames at that rate, {model.size} pixels. "
        "`kept`: share of the tokens; GFlops are of a view.",
        "`time_ratio`: the dense model's median over that with run-length tokenization, masking included, all views "
        f"as one batch, by turns; `masking_share`: of the dense model's time. Machine: {machine(device)}.",
    ]
