"""Tables as they are drawn: with the columns and the rows that a picture needs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def read_csv(path: Path, as_text: bool = False) -> pd.DataFrame:
    """A table; as text, its cells are as they are written.

    Raises:
        ValueError: it cannot be read as a csv, has no rows, or one of more or fewer cells than there are columns; the
            message says which.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            widths = [len(row) for row in csv.reader(file) if row]
        if wrong := next((i for i, width in enumerate(widths) if width != widths[0]), None):
            raise ValueError(f"row {wrong} has {widths[wrong]} cells, and there are {widths[0]} columns")
        table = pd.read_csv(path, dtype=str, keep_default_na=False) if as_text else pd.read_csv(path)
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise ValueError(
            f"{path}: cannot be read as a csv ({reason}); `python -m evt.reproduce` makes it"
        ) from error
    if table.empty:
        raise ValueError(f"{path}: has no rows; at least 1 is needed")
    return table


def require(table: pd.DataFrame, path: Path, texts: Sequence[str], numbers: Sequence[str]) -> None:
    """Refuse a table that lacks a column, or has something else than numbers, or nothing, in one of numbers.

    Raises:
        ValueError: the message names the file and the columns.
    """
    if lacking := [name for name in (*texts, *numbers) if name not in table]:
        raise ValueError(
            f"{path}: has no column {', '.join(lacking)}; its columns are {', '.join(map(str, table.columns))}"
        )
    for name in numbers:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise ValueError(f"{path}: column {name} has values that are no numbers")


def require_rows(table: pd.DataFrame, path: Path, variants: Sequence[str]) -> None:
    """Refuse a table without rows of a variant.

    Raises:
        ValueError: the message names the file, the variants, and those that there are.
    """
    found = set(table.variant)
    if lacking := [name for name in variants if name not in found]:
        raise ValueError(
            f"{path}: has no row of variant {', '.join(lacking)}; there are {', '.join(sorted(map(str, found)))}"
        )
