"""Tables 1, B, C and E of the paper (ViTDet on ImageNet VID), beside what this code gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from evt.data.loading import build_videos
from evt.data.vid import VID
from evt.data.video import Video
from evt.device import build_device
from evt.errors import ConfigError
from evt.evaluate.classes import class_names
from evt.evaluate.ledger import Ledger
from evt.evaluate.variants import check_budget
from evt.eventful import VARIANTS
from evt.models.loading import Weights, build_model
from evt.models.vitdet import ViTDet
from evt.report import FilledTable
from evt.settings import changed
from evt.tables.rows import (
    Cells,
    Row,
    cells_of_shapes,
    cells_on_frames,
    equal_as_printed,
    paper_table,
    row_key,
)

NO_DATA = (
    "`map50` needs ImageNet VID: `VID_ROOT=FOLDER` for make, `data=vid data.root=FOLDER` for this command, is the "
    "folder ILSVRC2015 with Data/VID/val/VIDEO/FRAME.JPEG and Annotations/VID/val/VIDEO/FRAME.xml."
)
NO_CHECKPOINT = (
    "`map50` needs trained weights: `WEIGHTS=FILE` for make, `model.checkpoint=FILE` for this command, is the "
    "published ViTDet checkpoint for VID, or one that `python -m evt.train task=vid` made."
)


def fill_detection_table(cfg: DictConfig, folder: Path) -> list[FilledTable]:
    """Fill the table that `cfg.table` names; goes on after the last row, and video on VID, that the folder holds."""
    if not isinstance(cfg.flush_rate, float | int) or not 0 < cfg.flush_rate <= 1:
        raise ConfigError(f"flush_rate is {cfg.flush_rate!r}; it must be above 0 and at most 1")
    device = build_device(cfg)
    videos = build_videos(cfg.data)
    on_vid, trained = isinstance(videos, VID), cfg.model.checkpoint is not None

    @cache
    def model(size: int) -> tuple[ViTDet, Weights]:
        return build_model(changed(cfg.model, size=size), device, ViTDet)

    @cache
    def unweighted(size: int) -> ViTDet:
        without_weights = changed(cfg.model, size=size, checkpoint=None)
        return build_model(without_weights, torch.device("meta"), ViTDet)[0]

    def measured(row: Row, key: str, chosen: Sequence[Video], accuracy: bool) -> Cells:
        network, weights = model(row.size)
        names = class_names(chosen if accuracy else [], network.n_classes, weights.classes)
        return cells_on_frames(network, row, chosen, names, Ledger(folder / "videos.jsonl"), key, accuracy)

    def fill(row: Row, key: str) -> Cells:
        if on_vid and trained:
            return measured(row, key, videos, accuracy=True)
        if not row.depends_on_frames:
            return cells_of_shapes(unweighted(row.size), row)
        if row.depends_on_weights and not trained:
            return Cells()
        # One video is enough for a count, and all of VID would take days.
        return measured(row, key, [next((v for v in videos if len(v) > 1), videos[0])], accuracy=False)

    rows = paper_table(cfg.table.name)
    for row in rows:  # what cannot be is found out now rather than after hours
        unweighted(row.size).check(VARIANTS[row.variant])
        check_budget(row.policy, unweighted(row.size).n_tokens)

    ledger = Ledger(folder / "rows.jsonl")
    filled = []
    for row in rows:
        key = row_key(cfg, row, model(row.size)[1].sha256 if trained else None)
        if key not in ledger:
            ledger.put(key, asdict(fill(row, key)))
            Ledger(folder / "videos.jsonl").finish()
        filled.append((row, Cells(**ledger[key])))

    accuracy = on_vid and trained
    flush_rate = _flush_rate(cfg, videos)
    records = [_record(row, cells, cells.flush_rate if accuracy else flush_rate) for row, cells in filled]
    data = videos[0].name
    if accuracy:
        assert isinstance(videos, VID)
        data = videos.name
    for record in records:
        record["data"] = data if record["frames"] else ""
        record["checkpoint"] = Path(cfg.model.checkpoint).name if trained and record["frames"] else ""
    missing = ([] if on_vid else [NO_DATA]) + ([] if trained else [NO_CHECKPOINT])
    notes = _notes(cfg, videos, trained) + missing
    return [FilledTable(cfg.table.name, cfg.table.title, records, notes, missing, ledger)]


def _flush_rate(cfg: DictConfig, videos: Sequence[Video]) -> float:
    """The flushes a frame of VID: its own where all of it is there, else those that the paper's values imply."""
    if not isinstance(videos, VID) or len(videos) < videos.n_found:
        return float(cfg.flush_rate)
    return sum(video.n_sequences for video in videos) / sum(map(len, videos))


def _record(row: Row, cells: Cells, flush_rate: float) -> dict[str, Any]:
    gflops = cells.gflops(flush_rate)
    return {
        "size": row.size,
        "variant": row.variant,
        row.setting: row.value,
        "gflops": "" if gflops is None else gflops,
        "gflops_paper": row.gflops,
        "map50": "" if cells.map50 is None else cells.map50,
        "map50_paper": row.map50,
        "frames": cells.frames or "",
        "data": "",
        "checkpoint": "",
        "interval": "",
        "gflops_equal": "" if gflops is None else "yes" if equal_as_printed(gflops, row.gflops) else "no",
    }


def _notes(cfg: DictConfig, videos: Sequence[Video], trained: bool) -> list[str]:
    rate = _flush_rate(cfg, videos)
    weights = "trained weights" if trained else f"seeded weights (seed {cfg.model.seed})"
    if isinstance(videos, VID) and trained:
        return [
            "GFlops and mAP50 are over all frames of `data`, the flush of each sequence's first frame included."
        ]
    return [
        f"GFlops are means over all frames with {rate:.4f} flushes a frame, "
        + (
            "as counted in this data set."
            if isinstance(videos, VID) and len(videos) == videos.n_found
            else "the rule behind every printed value: about 652 sequences in the 176,126 frames of VID val, each of "
            "which begins with a flush."
        ),
        "Where `frames` is empty, the operations follow from shapes alone and were counted on torch's meta device. "
        "Elsewhere they depend on which tokens change together, and were counted on these frames of `data` with "
        f"{weights}.",
        "`gflops_equal` compares at the paper's digits.",
    ]
