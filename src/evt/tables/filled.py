"""A table with its figures, and as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from evt.files import write


@dataclass(frozen=True)
class FilledTable:
    """A table with its figures.

    name, title: of its file, and above it.
    records: the rows, all with the same columns.
    notes: what qualifies them, for below the table.
    missing: what would fill the cells that are empty, for the terminal.
    covariance: of the rows' accuracies, see `evt.tables.paired.covariance`.
    """

    name: str
    title: str
    records: Sequence[dict[str, Any]]
    notes: Sequence[str]
    missing: Sequence[str] = field(default_factory=list)
    covariance: pd.DataFrame | None = None


def write_table(path: Path, table: FilledTable, digits: dict[str, int]) -> None:
    """Write a table as CSV to `path`, in full precision, and as Markdown beside it, for reading.

    Numbers in the Markdown table have the digits of their column. The covariance of the rows, where there is one,
    goes into another CSV file, see `covariance_of`.
    """
    write(path, pd.DataFrame(table.records).to_csv(index=False))
    if table.covariance is not None:
        write(covariance_of(path), table.covariance.to_csv(float_format="%.6g"))

    def cell(name: str, x: Any) -> str:
        return f"{x:.{digits[name]}f}" if isinstance(x, float) and name in digits else str(x)

    rows = [{name: cell(name, x) for name, x in record.items()} for record in table.records]
    lines = [f"# {table.title}", "", markdown(rows), "", *(f"- {note}" for note in table.notes)]
    write(path.with_suffix(".md"), "\n".join(lines) + "\n")


def covariance_of(path: Path) -> Path:
    """Where the covariance of a table's rows is, by the path of the table."""
    return path.with_name(f"{path.stem}_covariance.csv")


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """A table in Markdown, with the first column to the left and the others to the right."""
    frame = pd.DataFrame(rows)
    return frame.to_markdown(
        index=False, tablefmt="github", disable_numparse=True, stralign="right", colalign=("left",)
    )
