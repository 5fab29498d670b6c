"""Small tables as they were written, and sums of their rows with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evt.evaluate.skipping import between
from evt.tables.filled import covariance_of

VERDICTS = ("held", "did not hold", "undecided")


@dataclass(frozen=True)
class Found:
    """A number that a claim wants above 0.

    text: what it is.
    value: the number.
    interval: half the width of its 95% interval.
    """

    text: str
    value: float
    interval: float

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`; undecided where the interval has 0 in it."""
        if abs(self.value) <= self.interval:
            return "undecided"
        return "held" if self.value > 0 else "did not hold"

    def __str__(self) -> str:
        return f"{self.text}: {self.value:+.2f} ±{self.interval:.2f}, {self.verdict}"


@dataclass(frozen=True)
class Written:
    """A small table, read again.

    rows: its cells by column; numbers that are missing are NaN.
    covariance: of the rows' accuracies over the resamples, (rows, rows); None where rows are not compared.
    """

    rows: Sequence[Mapping[str, Any]]
    covariance: np.ndarray | None

    def of(self, variant: str) -> dict[int, Any]:
        """The rows of a variant, by their places."""
        return {i: row for i, row in enumerate(self.rows) if row["variant"] == variant}

    def at(self, variant: str, r: float) -> int:
        """The place of a variant's first row with some r.

        Raises:
            LookupError: there is none.
        """
        found = [i for i, row in self.of(variant).items() if row["r"] == r]
        if not found:
            raise LookupError(f"no {variant} with r = {r:.0f}")
        return found[0]

    def at_cost(self, variant: str, gflops: float, *others: str) -> dict[int, float]:
        """The places of the two rows of a variant that cost nearest to so much, and the share of each that does.

        Rows of its own policies stand on no line with those of the usual one; `others` are variants that do.

        Raises:
            LookupError: all cost less, or all more.
        """
        usual = {i: row for i, row in self.of(variant).items() if not isinstance(row.get("policy"), str)}
        rows = usual | {i: row for name in others for i, row in self.of(name).items()}
        place = between(gflops, [row["gflops"] for row in rows.values()])
        if place is None:
            raise LookupError(f"no {variant} at {gflops:.3f} GFlops")
        places, (more, less, share) = list(rows), place
        return {places[less]: 1 - share, places[more]: share}

    def sum(self, text: str, *weights: Mapping[int, float], above: float = 0) -> Found:
        """The sum of rows' accuracies, by their places, each times a number, less what it is to be above."""
        w = np.zeros(len(self.rows))
        for places in weights:
            for place, weight in places.items():
                w[place] += weight
        value = sum(weight * accuracy(row) for weight, row in zip(w, self.rows, strict=True))
        assert self.covariance is not None
        # What is left of a row less itself is no number below 0 but for rounding.
        deviation = max(float(w @ self.covariance @ w), 0) ** 0.5
        return Found(text, value - above, 1.96 * deviation)


def accuracy(row: Mapping[str, Any]) -> float:
    """Of a row, mAP50 or top-1."""
    return float(row.get("map50", row.get("top1", nan)))


def read(
    folder: Path,
    name: str,
    variants: Sequence[str],
    numbers: Sequence[str],
    sparse: Sequence[str],
    covariance: bool,
) -> Written:
    """Read a table, with numbers in all cells of some columns, and in some cells of others, and rows of each variant.

    Raises:
        FileNotFoundError: it is missing, or its covariance, where that is wanted.
        ValueError: it is not so; the message says what is wrong.
    """
    path = folder / f"{name}.csv"
    table = _csv(path)
    parts = [str(column) for column in table if str(column).startswith("map50_part")]
    for column in ("variant", *sparse, *numbers):
        if column not in table:
            raise ValueError(f"{path}: has no column {column}; make reproduce-mini writes it")
    for column in (*sparse, *numbers, *parts):
        whole = column in sparse or table[column].notna().all()
        if not (whole and pd.api.types.is_numeric_dtype(table[column])):
            raise ValueError(f"{path}: column {column} has cells that are no numbers")
    for variant in variants:
        if table[table.variant == variant].empty:
            raise ValueError(f"{path}: has no rows of the variant {variant}")
    rows: Any = table.to_dict("records")
    return Written(rows, _covariance(covariance_of(path), len(rows)) if covariance else None)


def _covariance(path: Path, n: int) -> np.ndarray:
    """The covariance of n rows."""
    values = _csv(path).iloc[:, 1:].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if values.shape != (n, n) or not np.isfinite(values).all():
        raise ValueError(
            f"{path}: is not of the {n} rows of the table beside it; make reproduce-mini writes both"
        )
    return values


def _csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, index_col=False)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as a csv ({' '.join(str(error).split())})") from error
