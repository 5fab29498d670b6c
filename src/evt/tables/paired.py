"""How rows of a small table differ on the same videos or clips, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from evt.evaluate.skipping import between
from evt.metrics.bootstrap import Estimate
from evt.tables.points import Point

AT_EQUAL_OPERATIONS = ("skip", "temporal", "rows")
"""Variants that any row is compared with, by what they give for as many operations."""

ACCURACY = ("map50", "top1")
"""Figures whose columns of interval and differences have no name before them; a table has one of them at most."""


@dataclass(frozen=True)
class Row:
    """What was measured of a point.

    cells: by column, those that are the same on any videos.
    estimates: by column, those that are not.
    """

    point: Point
    cells: Mapping[str, Any]
    estimates: Mapping[str, Estimate]

    @classmethod
    def of(cls, point: Point, phases: Sequence[tuple[Mapping[str, Any], Mapping[str, Estimate]]]) -> Row:
        """The mean over a point's phases, of the cells and estimates of each."""
        cells, estimates = zip(*phases, strict=True)
        shares = [1 / len(phases)] * len(phases)
        return cls(
            point,
            {name: _mean([own[name] for own in cells]) for name in cells[0]},
            {name: Estimate.mixed(shares, [own[name] for own in estimates]) for name in estimates[0]},
        )

    @property
    def figures(self) -> dict[str, Any]:
        """All cells that were measured."""
        return {**self.cells, **{name: estimate.value for name, estimate in self.estimates.items()}}


def compared(row: Row, rows: Sequence[Row], weights: Collection[str]) -> dict[str, Any]:
    """The cells of a row that come of comparing it with others of its table, as far as there are any.

    `op_ratio`, `time_ratio`: of base, the dense model; by how much a row costs less, and does more in a second.
    `minus_base`: by how much accuracy is above that of base.
    `minus_skip`, `minus_temporal`, `minus_rows`: above that of frame skipping, or of the variant with a fixed r and
    on the same path, for as many operations, with base as what skips nothing; see `between`.
    `minus_fixed`: above that of its own variant with a fixed r, for as many operations, of rows with another policy.
    `interval`, and `_interval` behind the name of a difference: half the widths of the intervals of accuracy and of
    these differences. Of other estimates than `ACCURACY`, their name and `_` stand before that of the column.

    Args:
        row: which.
        rows: of the table, in its order.
        weights: the columns that say which weights a point's model has.
    """
    bases = _rivals(row.point, rows, "base", weights)[:1]
    own = _rivals(row.point, rows, row.point["variant"], weights)
    fixed = [other for other in own if _has_fixed_r(other.point)]
    at: dict[str, Mapping[str, Estimate]] = {}
    cells: dict[str, Any] = {}
    for base in bases:
        cells["op_ratio"] = _ratio(base.cells.get("gflops"), row.cells.get("gflops"))
        cells["time_ratio"] = _ratio(row.cells.get("clips_per_second"), base.cells.get("clips_per_second"))
        at["minus_base"] = base.estimates
    if "gflops" in row.cells:
        for variant in AT_EQUAL_OPERATIONS:
            rivals = _rivals(row.point, rows, variant, weights)
            if variant != "skip":
                rivals = [x for x in rivals if _has_fixed_r(x.point) and x.point["path"] == row.point["path"]]
            if rivals:
                at[f"minus_{variant}"] = _at_equal_operations(row, [*bases, *rivals])
        if fixed and not _has_fixed_r(row.point):
            at["minus_fixed"] = _at_equal_operations(row, fixed)
    for name, estimate in row.estimates.items():
        prefix = "" if name in ACCURACY else f"{name}_"
        cells[f"{prefix}interval"] = estimate.interval
        for column, rival in at.items():
            if name in rival:
                difference = estimate - rival[name]
                cells[f"{prefix}{column}"] = difference.value
                cells[f"{prefix}{column}_interval"] = difference.interval
    return cells


def compared_names(figures: Iterable[str]) -> Iterator[str]:
    """The columns that `compared` may make where a table has these figures."""
    yield from ("op_ratio", "time_ratio")
    for name in figures:
        prefix = "" if name in ACCURACY else f"{name}_"
        for variant in ("base", *AT_EQUAL_OPERATIONS, "fixed"):
            yield from (f"{prefix}minus_{variant}", f"{prefix}minus_{variant}_interval")
        yield f"{prefix}interval"


def covariance(rows: Sequence[Row]) -> pd.DataFrame | None:
    """How the accuracies of rows vary together from resample to resample, a row and a column for each of them.

    With it any sum of accuracies, each times a number, has an interval: 1.96 times the root of the numbers' quadratic
    form. None where accuracy is not measured, or there is one row alone.
    """
    accuracies = [x.resamples for row in rows for name, x in row.estimates.items() if name in ACCURACY]
    if len(accuracies) < 2:
        return None
    values = np.ma.masked_invalid(np.stack(accuracies))
    labels = [row.point.label for row in rows]
    return pd.DataFrame(np.ma.cov(values).filled(np.nan), labels, labels).rename_axis("row")


def _rivals(point: Point, rows: Sequence[Row], variant: str, weights: Collection[str]) -> list[Row]:
    """The rows of a variant on the point's model: with its weights if there are any, else with those of the first."""
    same = [
        row
        for row in rows
        if row.point["variant"] == variant and all(row.point[x] == point[x] for x in ("model", "size"))
    ]
    own = [row for row in same if all(row.point[x] == point[x] for x in weights)]
    return own or [row for row in same if all(row.point[x] == same[0].point[x] for x in weights)]


def _has_fixed_r(point: Point) -> bool:
    """Whether as many tokens pass in each frame."""
    return point["r"] != "" and point["policy"] in ("", "top_r")


def _at_equal_operations(row: Row, rivals: Sequence[Row]) -> Mapping[str, Estimate]:
    """What rivals give for as many operations, mixed of the two that are nearest; nothing outside their range."""
    place = between(row.cells["gflops"], [rival.cells["gflops"] for rival in rivals])
    if place is None:
        return {}
    more, less, share = place
    return {
        name: Estimate.mixed((share, 1 - share), (estimate, rivals[less].estimates[name]))
        for name, estimate in rivals[more].estimates.items()
    }


def _mean(cells: Sequence[Any]) -> Any:
    """Their mean; cells that are all the same are left as they are."""
    return cells[0] if all(cell == cells[0] for cell in cells) else fmean(cells)


def _ratio(more: Any, less: Any) -> Any:
    return more / less if more and less else ""
