"""The paper's tables, row by row beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import pandas as pd
import torch

from evt.data.video import DataError, Video
from evt.eventful import VARIANTS, Policy, Stream, Threshold, TopR, count_ops
from evt.harness.measure import inputs
from evt.models.vitdet import ViTDet


@dataclass(frozen=True)
class Row:
    """A row of one of the paper's ViTDet tables; gflops and map50 as printed there.

    setting: the policy's parameter, "r" or "h", which is the table's column.
    value: of that parameter, as printed; empty for variants without gates.
    """

    size: int
    variant: str
    setting: str
    value: str
    gflops: str
    map50: str

    @property
    def label(self) -> str:
        """A short name."""
        return (
            f"{self.size} {self.variant} {self.setting}={self.value}"
            if self.value
            else f"{self.size} {self.variant}"
        )

    @property
    def policy(self) -> Policy | None:
        """The policy of the row."""
        if not self.value:
            return None
        return TopR(int(self.value)) if self.setting == "r" else Threshold(float(self.value))

    @property
    def depends_on_frames(self) -> bool:
        """Whether the operations depend on what is seen.

        A threshold selects as many tokens as exceed it, and a pooled key is new where any of its tokens is.
        """
        variant = VARIANTS[self.variant]
        return isinstance(self.policy, Threshold) or (variant.pool > 1 and variant.sparse_qk)


def paper_table(name: str) -> list[Row]:
    """The rows of a table of the paper, in its order."""
    with (resources.files("evt.harness") / "paper" / f"{name}.csv").open() as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    setting = "h" if "h" in table.columns else "r"
    columns = table[["size", "variant", setting, "gflops", "map50"]]
    return [
        Row(int(size), variant, setting, value, gflops, map50)
        for size, variant, value, gflops, map50 in columns.itertuples(index=False)
    ]


@dataclass(frozen=True)
class Operations:
    """Mean operations of a first frame (the flush) and of a later one, over `frames` frames; 0 where from shapes."""

    first: float
    later: float
    frames: int = 0

    def mean(self, flush_rate: float) -> float:
        """Operations of a mean frame where this share of the frames are flushes."""
        return self.later + flush_rate * (self.first - self.later)


def operations_from_shapes(model: ViTDet, row: Row) -> Operations:
    """The operations of a row that needs no frames, counted on a model on torch's meta device."""
    stream = Stream(model.net, VARIANTS[row.variant], row.policy)
    frame = torch.empty(1, 3, model.size, model.size, device="meta")
    totals = []
    for _ in range(2):
        with count_ops() as ops:
            stream(frame)
        totals.append(ops.total())
    return Operations(first=totals[0], later=totals[1])


def operations_on_frames(model: ViTDet, row: Row, videos: Sequence[Video]) -> Operations:
    """The operations of a row, counted while it runs on frames."""
    stream = Stream(model.net, VARIANTS[row.variant], row.policy)
    totals: dict[bool, list[int]] = {True: [], False: []}
    for x, flush in inputs(model, videos, row.label):
        if flush:
            stream.reset()
        with count_ops() as ops:
            stream(x)
        totals[flush].append(ops.total())
    if not totals[False]:
        raise DataError(f"{videos[0].name} has no second frame; a table's rows need at least one later frame")
    first, later = (sum(part) / len(part) for part in (totals[True], totals[False]))
    return Operations(first, later, frames=len(totals[True]) + len(totals[False]))


def equal_as_printed(value: float, printed: str) -> bool:
    """Whether a value equals a printed one at the printed one's digits."""
    digits = len(printed.partition(".")[2])
    return f"{value:.{digits}f}" == printed
