"""What run-length tokenization drops of real clips, and what that saves at full size."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from omegaconf import DictConfig
from pydantic import Field, PositiveInt
from torch import Tensor

from evt.data.actions import Segment, videos_in
from evt.device import build_device
from evt.errors import DataError
from evt.evaluate.race import machine
from evt.evaluate.trace import timed
from evt.eventful import count_ops
from evt.models.loading import build_model
from evt.models.videomae import VideoMAE
from evt.settings import changed
from evt.tables.fill import said
from evt.tables.filled import FilledTable
from evt.tokens import Packed, RunLength
from evt.tokens.run_length import keep_mask

REPEATS = 3
"""Of a clip at a threshold that is timed."""


@dataclass(frozen=True)
class TokensTable:
    """Tokens, operations and time of real clips, brought to several frame rates, at several thresholds.

    clips: a folder of videos.
    fps: frame rates.
    thresholds: of run-length tokenization.
    timed_at: those at which the model runs, dense and reduced by turns; elsewhere tokens are only counted.
    views: of each clip, spread over its length.
    notes: below the table; may have {cfg}, {model} and {machine} in them.
    digits: of numbers in the Markdown table.

    Raises:
        ValueError: one of timed_at is not among the thresholds.
    """

    title: str
    model: str
    clips: Path | str
    fps: tuple[Annotated[float, Field(gt=0)], ...]
    thresholds: tuple[Annotated[float, Field(ge=0)], ...]
    timed_at: tuple[float, ...]
    views: PositiveInt
    notes: dict[str, str]
    digits: dict[str, int] = field(default_factory=dict)
    batch: None = None

    def __post_init__(self) -> None:
        if others := [x for x in self.timed_at if x not in self.thresholds]:
            raise ValueError(
                f"table.timed_at has {others[0]!r}; it must be among table.thresholds, {list(self.thresholds)}"
            )

    def work(self, cfg: DictConfig, folder: Path) -> TokensWork:
        """See `evt.tables.fill.Table`.

        Raises:
            DataError: there are no videos in the folder.
        """
        return TokensWork(self, cfg)


class TokensWork:
    """See `evt.tables.fill.Work`; a part is a clip at a frame rate: its name, its bytes and the rate."""

    def __init__(self, table: TokensTable, cfg: DictConfig) -> None:
        self._table, self._cfg, self._folder = table, cfg, Path(table.clips)
        if not self._folder.is_dir():
            raise DataError(f"{self._folder}: no such folder; set table.clips to one that has videos")
        paths = videos_in(self._folder)
        if not paths:
            raise DataError(f"{self._folder}: has no videos; set table.clips to a folder that has some")
        self._device = build_device(cfg)
        self._model, weights = build_model(cfg.model, self._device)
        self._model.views = replace(self._model.views, temporal_stride=1, temporal=table.views, spatial=1)
        self._shapes, _ = build_model(changed(cfg.model, checkpoint=None), torch.device("meta"))
        self.parts = [(path.name, path.stat().st_size, fps) for path in paths for fps in table.fps]
        self._notes = said(cfg, table.notes, model=self._model, machine=machine(self._device))
        self.read = [machine(self._device), weights.sha256]

    def measure(self, part: tuple[str, int, float]) -> list[dict[str, Any]]:
        """See `evt.tables.fill.Work`; a row for each threshold."""
        name, _, fps = part
        path = self._folder / name
        views = self._model.preprocess(Segment(path, name, fps))
        return [
            {"clip": path.stem, "fps": fps, **self._row(views, threshold)}
            for threshold in self._table.thresholds
        ]

    def tables(self, found: Sequence[list[dict[str, Any]]]) -> list[FilledTable]:
        """See `evt.tables.fill.Work`."""
        records = [row for rows in found for row in rows]
        return [FilledTable(self._cfg.table.name, self._table.title, records, self._notes)]

    @torch.no_grad()
    def _row(self, views: Tensor, threshold: float) -> dict[str, Any]:
        model = self._model
        keep = keep_mask(views, model.tubelet, threshold)
        lengths = keep.sum(1).tolist()
        dense, reduced = (_operations(self._shapes, n) for n in ([keep.shape[1]] * len(keep), lengths))
        row: dict[str, Any] = {
            "threshold": threshold,
            "kept": float(keep.float().mean()),
            "gflops": reduced / len(keep) / 1e9,
            "op_ratio": dense / reduced,
            "time_ratio": "",
            "masking_share": "",
        }
        if threshold in self._table.timed_at:
            seconds: dict[str, list[float]] = {"dense": [], "rlt": [], "mask": []}
            for _ in range(REPEATS):
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
