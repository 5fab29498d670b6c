"""Tables as they were written, and how they are shown: intervals beside values, differences coloured by size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import pandas as pd

from evt.errors import DataError
from evt.tables.drawn import read_csv

LESS_IS_BETTER = ("gflops", "tflops", "error", "falls")
"""What names of columns begin with of which less is better."""
ACCURACIES = ("map50", "top1")
"""What a column `interval` is of."""
SHORT = 6
"""Numbers of so many characters are shown as they were written."""
FULL = 5
"""A difference from the paper has the full colour from so many percent or points on."""


@dataclass(frozen=True)
class Table:
    """A table, as its files have it.

    name: of its files, without the ending.
    title: what it is of.
    notes: what stands below it.
    cells: text, by row and column.
    """

    name: str
    title: str
    notes: Sequence[str]
    cells: pd.DataFrame

    @cached_property
    def numbers(self) -> dict[str, list[float]]:
        """The columns that have nothing but numbers, NaN where there is none."""
        found = {}
        for name in self.cells:
            texts = self.cells[name]
            values = pd.to_numeric(texts.where(texts != ""), errors="coerce")
            values = values.where(values.abs() < inf)
            if values.notna().equals(texts != "") and values.notna().any():
                found[str(name)] = values.tolist()
        return found

    @cached_property
    def rows(self) -> list[Row]:
        """Its rows, where it has a column `variant`."""
        before = takewhile(lambda x: x not in ("op_ratio", "gflops", "tflops"), map(str, self.cells))
        named = [
            x for x in before if x not in ("variant", "path", "share", "model", "trained", "kept", "size")
        ]
        return [
            Row(str(cells.get("variant", "")), _settings(named, cells), _detail(cells), i)
            for i, cells in enumerate(self.cells.to_dict("records"))
        ]


@dataclass(frozen=True)
class Row:
    """What a row is of.

    variant: its variant.
    settings: by name, in words.
    detail: how its model was trained, or the path that it ran on, where a table has several.
    place: in the table, from 0 on.
    """

    variant: str
    settings: Mapping[str, str]
    detail: str
    place: int

    @property
    def family(self) -> str:
        """Rows of one differ in how much they spend alone."""
        policy = self.settings.get("policy") or ("threshold" if "h" in self.settings else "")
        return f"{self.variant} {policy}".strip() + (", fine-tuned" if "tuned_r" in self.settings else "")

    @property
    def curve(self) -> str:
        """Rows of one are connected where they are drawn."""
        if "tuned_r" in self.settings:
            return f"{self.variant}, tuned for r = {self.settings['tuned_r']}"
        return ", ".join(filter(None, (self.family, self.detail)))

    @property
    def setting(self) -> str:
        """All settings in a line."""
        return " ".join(f"{name}={x}" for name, x in self.settings.items())


def _settings(names: Sequence[str], cells: Mapping[Any, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in (name for name in names if cells[name]):
        if name == "setting":
            found |= dict(x.partition("=")[::2] for x in cells[name].split())
        else:
            found[name] = cells[name]
    return found


def _detail(cells: Mapping[Any, str]) -> str:
    if trained := cells.get("trained"):
        return f"trained: {trained}"
    return "reference path" if cells.get("path") == "reference" else ""


def read_table(path: Path) -> Table:
    """A csv, and the title and the notes of the Markdown beside it, where there is one.

    Raises:
        DataError: it cannot be read, or has no rows.
    """
    beside = path.with_suffix(".md")
    try:
        cells = read_csv(path, as_text=True)
        lines = beside.read_text(encoding="utf-8").splitlines() if beside.exists() else []
    except OSError as error:
        raise DataError(f"{beside}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{beside}: cannot be read ({error})") from error
    except ValueError as error:
        raise DataError(str(error)) from error
    title = next((line[2:] for line in lines if line.startswith("# ")), path.stem)
    return Table(path.stem, title, [line[2:] for line in lines if line.startswith("- ")], cells)


@dataclass(frozen=True)
class Cell:
    """A cell as it is shown.

    text: what it says.
    key: what it is sorted by: a number, or the text.
    kind: `better`, `worse` or `other` than what it is compared with, `undecided`, or nothing.
    size: of the difference, from 0 to 1.
    """

    text: str
    key: float | str
    kind: str = ""
    size: float = 0


@dataclass(frozen=True)
class Column:
    """A column as it is shown.

    name: its own, or that of the csv with what is beside it.
    number: whether its cells are numbers.
    cells: from the first row down.
    """

    name: str
    number: bool
    cells: Sequence[Cell]


def shown(table: Table, printed: Mapping[str, str]) -> list[Column]:
    """The columns that have anything in them, intervals beside their values, and differences from what is printed.

    Args:
        table: the table.
        printed: columns of printed figures that are not called NAME_paper, and those of ours.
    """
    ours = {f"{name}_paper": name for name in map(str, table.cells) if f"{name}_paper" in table.cells}
    ours |= {theirs: own for theirs, own in printed.items() if {theirs, own} <= set(table.cells)}
    intervals = _intervals(table)
    found = []
    for name in map(str, table.cells):
        if name in intervals.values() or (not any(table.cells[name]) and name not in ours.values()):
            continue
        found.append(_column(table, name, intervals.get(name)))
        if name in ours and {name, ours[name]} <= table.numbers.keys():
            found.append(_difference(table, ours[name], name))
    return found


def _intervals(table: Table) -> dict[str, str]:
    """The columns of intervals that are shown beside others, by these."""
    own = {name: f"{name}_interval" for name in table.numbers if f"{name}_interval" in table.numbers}
    accuracy = next((name for name in ACCURACIES if name in table.numbers), None)
    return own | ({accuracy: "interval"} if accuracy and "interval" in table.numbers else {})


def _column(table: Table, name: str, interval: str | None) -> Column:
    texts = list(map(str, table.cells[name]))
    if name not in table.numbers:
        return Column(name, False, [Cell(text or "–", text) for text in texts])
    values = table.numbers[name]
    # Settings, and what is printed elsewhere, have the digits that they are known by.
    short = interval is None and all(len(text) <= SHORT for text in texts)
    digits = digits_of(values)
    texts = [
        "–" if isnan(x) else text if short else signed(name, x, digits)
        for text, x in zip(texts, values, strict=True)
    ]
    cells = [Cell(text, x) for text, x in zip(texts, values, strict=True)]
    if interval is not None:
        halves = table.numbers[interval]
        cells = [
            cell if isnan(half) else replace(cell, text=f"{cell.text} ±{half:.{digits}f}")
            for cell, half in zip(cells, halves, strict=True)
        ]
        if "minus_" in name:
            cells = list(_coloured(name, cells, values, halves))
    return Column(name if interval is None else f"{name} ±", True, cells)


def _coloured(
    name: str, cells: Sequence[Cell], values: Sequence[float], halves: Sequence[float]
) -> Iterator[Cell]:
    largest = max((abs(x) for x in values if not isnan(x)), default=0)
    for cell, value, half in zip(cells, values, halves, strict=True):
        if isnan(value) or isnan(half) or value == half == 0:
            yield cell
        elif abs(value) <= half:
            yield replace(cell, kind="undecided")
        else:
            yield replace(
                cell, kind=_kind(name, value), size=(abs(value) / largest) ** 0.5
            )  # small ones are seen, too


def _kind(name: str, difference: float) -> str:
    return "better" if (difference < 0) == name.startswith(LESS_IS_BETTER) else "worse"


def _difference(table: Table, ours: str, theirs: str) -> Column:
    """In percent of what is printed, in points of accuracies, or as it is where rows have units of their own."""
    points, mixed = ours.startswith(ACCURACIES), ours == "ours"
    cells = []
    for own, printed in zip(table.numbers[ours], table.numbers[theirs], strict=True):
        difference = own - printed if points or mixed else 100 * (own / printed - 1) if printed else nan
        if isnan(difference):
            cells.append(Cell("–", nan))
        else:
            kind = "other" if mixed else _kind(ours, difference)
            text = signed("minus_", difference, 2) + ("" if points or mixed else " %")
            cells.append(Cell(text, difference, kind, min(1, abs(difference) / FULL)))
    return Column(f"{ours} − {theirs}", True, cells)


def digits_of(values: Sequence[float]) -> int:
    """Of a column: three figures of its largest number, and none behind whole numbers."""
    there = [abs(x) for x in values if not isnan(x)]
    if all(x == int(x) for x in there):
        return 0
    largest = max(there)
    return 5 if largest < 0.01 else 3 if largest < 1 else 2 if largest < 100 else 1


def signed(name: str, value: float, digits: int) -> str:
    """A number; of a difference with its sign."""
    rounded = round(value, digits) + 0.0  # no minus before 0
    return f"{rounded:{'+' if 'minus_' in name else ''}.{digits}f}".replace("-", "−")
