"""What the rows of a table are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from itertools import product
from typing import Any

import pandas as pd

from evt.errors import ConfigError
from evt.evaluate.variants import check_budget
from evt.eventful import VARIANTS, Every, Policy, Threshold, TopR
from evt.tokens import REDUCTIONS

POLICIES: dict[str, Callable[..., Policy]] = {"r": TopR, "h": Threshold, "every": Every}
SETTINGS = ("r", "h", "every", "threshold")
"""Columns that hold a variant's setting: the budget of a policy, or what a reduction of a clip's tokens takes."""


@dataclass(frozen=True)
class Point:
    """A row's run, by the columns that name it: variant, setting, and what is special about the model.

    cells: name and value of each, in their order; an empty text where there is none.
    """

    cells: tuple[tuple[str, Any], ...]

    def __getitem__(self, column: str) -> Any:
        return dict(self.cells).get(column, "")

    @property
    def setting(self) -> str:
        """The variant's setting, as in r=64; empty where it has none."""
        return " ".join(f"{name}={self[name]}" for name in SETTINGS if self[name] != "")

    @property
    def label(self) -> str:
        """All of it, for a user."""
        rest = [str(value) for name, value in self.cells if name not in SETTINGS and value != ""]
        return " ".join([*rest, self.setting]).strip()

    def run(self) -> tuple[Any, Policy | None]:
        """The `Variant`, and its policy where it has gates, or the `Reduction` of a model of whole clips.

        Raises:
            ConfigError: there is no such variant, or its setting is out of range.
        """
        name = self["variant"]
        values = {name: self[name] for name in SETTINGS if self[name] != ""}
        if len(values) > 1:
            raise ConfigError(f"a point has {self.setting}; it must have one of {', '.join(values)} alone")
        try:
            if name in REDUCTIONS:
                return REDUCTIONS[name](*values.values()), None
            if name in VARIANTS:
                phase = [] if self["phase"] == "" else [self["phase"]]
                policies = [POLICIES[setting](value, *phase) for setting, value in values.items()]
                return VARIANTS[name], policies[0] if policies else None
        except ValueError as error:
            raise ConfigError(str(error)) from error
        raise ConfigError(f"variant {name} is unknown; allowed are {', '.join([*VARIANTS, *REDUCTIONS])}")

    def phases(self) -> list[Point]:
        """The points whose mean it is: itself, but of frame skipping one a phase, which favours no frame.

        Raises:
            ConfigError: see `run`.
        """
        policy = self.run()[1]
        if not isinstance(policy, Every):
            return [self]
        return [Point((*self.cells, ("phase", phase))) for phase in range(policy.every)]


def checked_run(point: Point, model: Any) -> tuple[Any, Policy | None]:
    """A point's run, which its model can do.

    Raises:
        ConfigError: it cannot, see `Point.run`; a variant lacks its policy, has one that it does not take, or is for
            models that see their input otherwise.
    """
    variant, policy = point.run()
    if point["variant"] != "base" and (point["variant"] in REDUCTIONS) is not (model.sees == "clips"):
        raise ConfigError(f"the point {point.label} has a variant that is for other models")
    check_budget(policy, model.n_tokens)
    model.check(variant)
    try:
        model.stream(variant, policy)
    except ValueError as error:
        raise ConfigError(f"the point {point.label}: {error}") from error
    return variant, policy


def points_of(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    """The points that a config lists, each once; a list of values stands for a point with each.

    Raises:
        ConfigError: there is none, or one is not settings by name.
    """
    if not isinstance(rows, list | tuple) or not rows:
        raise ConfigError(f"points is {rows!r}; it must be a list of points, such as [{{variant: base}}]")
    if others := [row for row in rows if not isinstance(row, Mapping) or not row]:
        raise ConfigError(f"a point is {others[0]!r}; it must be settings by name, such as {{variant: base}}")
    points = (
        Point(tuple(zip(row, values, strict=True)))
        for row in rows
        for values in product(*(x if isinstance(x, list | tuple) else [x] for x in row.values()))
    )
    return list(dict.fromkeys(points))


@dataclass(frozen=True)
class Paper:
    """A table of the paper.

    rows: its rows, as printed.
    keys: the columns that name a row; the others are figures.
    """

    rows: Sequence[Mapping[str, str]]
    keys: Sequence[str]

    def points(self) -> list[Point]:
        """The runs of its rows, in its order."""
        return [Point(tuple((name, _number(row[name])) for name in self.keys)) for row in self.rows]

    def beside(self, point: Point, figure: str) -> str:
        """A figure of a row as printed; empty where the paper has no such row."""
        own = {name: str(value) for name, value in point.cells}
        found = (
            row[figure] for row in self.rows if all(str(_number(row[k])) == own.get(k, "") for k in self.keys)
        )
        return next(found, "")


def paper_table(name: str, *figures: str) -> Paper:
    """A table of the paper by its name, and which of its columns are figures."""
    with (resources.files("evt.tables") / "paper" / f"{name}.csv").open() as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    keys = [str(column) for column in table.columns if column not in figures]
    return Paper(table.to_dict("records"), keys)  # type: ignore[arg-type]


def equal_as_printed(value: float, printed: str) -> bool:
    """Whether a value equals a printed one at the printed one's digits."""
    digits = len(printed.partition(".")[2])
    return f"{value:.{digits}f}" == printed


def agreement(value: Any, printed: str) -> str:
    """ "yes" or "no"; empty where a value was not measured, or not printed."""
    if value == "" or not printed:
        return ""
    return "yes" if equal_as_printed(value, printed) else "no"


def _number(text: str) -> Any:
    """What a cell of a CSV file holds: a whole number, another one, or a text."""
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        return float(text)
    return text
