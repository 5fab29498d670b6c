"""The paper's tables, row by row beside ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING

import pandas as pd
from omegaconf import DictConfig, OmegaConf

import evt
from evt.data.video import Video
from evt.errors import DataError
from evt.evaluate.detection import detect
from evt.evaluate.ledger import Ledger
from evt.evaluate.shapes import operations_of_shapes
from evt.evaluate.trace import Subject
from evt.eventful import VARIANTS, Policy, Threshold, TopR
from evt.models.vitdet import ViTDet

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


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
        return self.depends_on_weights or (variant.pool > 1 and variant.sparse_qk)

    @property
    def depends_on_weights(self) -> bool:
        """Whether the operations also depend on the scale of the tokens, which untrained weights do not have."""
        return isinstance(self.policy, Threshold)


def paper_table(name: str) -> list[Row]:
    """The rows of a table of the paper, in its order."""
    with (resources.files("evt.tables") / "paper" / f"{name}.csv").open() as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    setting = "h" if "h" in table.columns else "r"
    columns = table[["size", "variant", setting, "gflops", "map50"]]
    return [
        Row(int(size), variant, setting, value, gflops, map50)
        for size, variant, value, gflops, map50 in columns.itertuples(index=False)
    ]


@dataclass(frozen=True)
class Cells:
    """What was measured for a row; None where it was not.

    first_ops, later_ops: mean operations of a first frame (the flush) and of a later one.
    frames: on how many frames; 0 where the operations follow from shapes.
    flush_rate: the flushes a frame among these frames.
    map50: in percent.
    """

    first_ops: float | None = None
    later_ops: float | None = None
    frames: int = 0
    flush_rate: float = 0
    map50: float | None = None

    def gflops(self, flush_rate: float) -> float | None:
        """GFlops of a mean frame where this share of the frames are flushes."""
        if self.first_ops is None or self.later_ops is None:
            return None
        return (self.later_ops + flush_rate * (self.first_ops - self.later_ops)) / 1e9


def cells_of_shapes(model: ViTDet, row: Row) -> Cells:
    """The operations of a row that needs no frames, of a model on the meta device."""
    ops = operations_of_shapes(model, VARIANTS[row.variant], row.policy)
    return Cells(ops.first.total(), ops.later.total())


def cells_on_frames(
    model: ViTDet,
    row: Row,
    videos: Sequence[Video],
    classes: Sequence[str],
    ledger: Ledger,
    key: str,
    accuracy: bool,
) -> Cells:
    """A row measured on frames, see `detect`; with its accuracy if that is asked for."""
    subject = Subject(model, model.stream(VARIANTS[row.variant], row.policy), decode=accuracy)
    cost, detection = detect(subject, videos, classes, ledger, key, row.label)
    first, later = cost.first, cost.later
    if not later.seconds:
        raise DataError(f"{videos[0].name} has no second frame; a table's rows need at least one later frame")
    frames = len(first.seconds) + len(later.seconds)
    return Cells(
        first.mean_ops,
        later.mean_ops,
        frames,
        len(first.seconds) / frames,
        detection.compute().map50 if accuracy else None,
    )


def row_key(cfg: DictConfig, row: DataclassInstance, weights: str | None) -> str:
    """Everything that a row's cells depend on: a resumed run takes up no other."""
    settings = {part: OmegaConf.to_container(cfg[part]) for part in ("model", "data")}
    return json.dumps([evt.__version__, asdict(row), settings, weights], sort_keys=True)


def equal_as_printed(value: float, printed: str) -> bool:
    """Whether a value equals a printed one at the printed one's digits."""
    digits = len(printed.partition(".")[2])
    return f"{value:.{digits}f}" == printed
