"""What the rows of a table are of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from itertools import product
from typing import Any

import pandas as pd

from evt.build import build, class_of, configs, unset
from evt.checked import kinds_of
from evt.errors import ConfigError
from evt.evaluate.variants import check_policy, takes
from evt.eventful import VARIANTS, Variant
from evt.settings import changed
from evt.tokens import REDUCTIONS

UNNAMED = ("top_r", "threshold", "every", "run_length", "random_drop", "merge", "ats")
"""Of configs/policy those that a point need not name: no two that a variant takes have a setting in common."""

PATHS = ("fast", "reference")
"""What a point's `path` may be; without one a variant is on the reference path, where it can be."""


@dataclass(frozen=True)
class Point:
    """A row's run, by the columns that name it: variant, setting, and what is special about the model.

    cells: name and value of each, in their order; an empty text where there is none.
    """

    cells: tuple[tuple[str, Any], ...]

    def __getitem__(self, column: str) -> Any:
        return dict(self.cells).get(column, "")

    @property
    def given(self) -> dict[str, Any]:
        """The cells that are not empty."""
        return {name: x for name, x in self.cells if x != ""}

    def filled(self, **others: Any) -> Point:
        """It without empty cells, and with these values first, in columns where it has none."""
        return Point(tuple((others | self.given).items()))

    @property
    def settings(self) -> dict[str, Any]:
        """What it says of the policy: the name, unless that goes without saying, and settings."""
        return {name: x for name, x in self.given.items() if name in policy_columns()}

    @property
    def setting(self) -> str:
        """The same as a text, as in r=64; empty where there is nothing."""
        return " ".join(f"{name}={x}" for name, x in self.settings.items())

    @property
    def label(self) -> str:
        """All of it, for a user."""
        rest = [str(x) for name, x in self.given.items() if name not in self.settings]
        return " ".join([*rest, self.setting]).strip()

    def run(self) -> tuple[Any, Any]:
        """The `Variant`, and its policy where it takes one, or the `Reduction` of a model of whole clips.

        Raises:
            ConfigError: there is no such variant, it takes no such policy, or a setting is out of range.
        """
        name = self["variant"]
        if name not in (allowed := [*VARIANTS, *REDUCTIONS]):
            has = f"variant {name}" if name else "no variant"
            raise ConfigError(f"the point {self.label} has {has}; allowed are {', '.join(allowed)}")
        policy = self._policy()
        if name in REDUCTIONS:
            return policy, None
        return self._on_path(VARIANTS[name]), policy

    def _on_path(self, variant: Variant) -> Variant:
        """A variant on the path that the point names, or on its own."""
        path = self["path"]
        if path not in ("", *PATHS) or (path == "reference" and variant.rows):
            allowed = PATHS if not variant.rows else ("fast",)
            raise ConfigError(f"the point {self.label} has path {path}; it must be {' or '.join(allowed)}")
        return replace(variant, fast=path == "fast") if path else variant

    def _policy(self) -> Any:
        """The policy of configs/policy that it names, or the one without a name that has all its settings."""
        given, variant = self.settings, self["variant"]
        chosen = given.pop("policy", None)
        kinds = {name: class_of(node, "policy") for name, node in configs("policy").items()}
        taken = {name: kinds_of(cls).keys() for name, cls in kinds.items() if takes(variant, cls)}
        for name, own in taken.items():
            node = configs("policy")[name]
            meant = name == chosen if chosen else given and name in UNNAMED
            if meant and set(unset(node)) <= given.keys() <= own:
                return build(changed(node, **given), "policy")
        if taken or given or chosen:
            ways = ([*([] if name in UNNAMED else [f"policy={name}"]), *own] for name, own in taken.items())
            allowed = " or ".join(f"({', '.join(way)})" for way in ways) or "no policy"
            raise ConfigError(f"the point {self.label}: variant {variant} takes {allowed}")
        return None

    def phases(self) -> list[Point]:
        """The points whose mean it is: itself, but of frame skipping without a phase one with each.

        Raises:
            ConfigError: see `run`.
        """
        variant, policy = self.run()
        if not variant.hold or self["phase"] != "":
            return [self]
        return [Point((*self.cells, ("phase", phase))) for phase in range(policy.every)]


def checked_run(point: Point, model: Any) -> tuple[Any, Any]:
    """A point's run, which its model can do.

    Raises:
        ConfigError: it cannot, see `Point.run`; a variant lacks its policy, has one that it does not take, or is for
            models that see their input otherwise.
    """
    variant, policy = point.run()
    allowed = ["base", *REDUCTIONS] if model.sees == "clips" else list(VARIANTS)
    try:
        if point["path"] and model.sees == "clips":
            raise ConfigError("models of whole clips have one path; a point must name none")
        if point["variant"] not in allowed:
            raise ConfigError(f"the variant is for other models; it must be one of {', '.join(allowed)}")
        model.check(variant)
        check_policy(policy, variant, model)
    except ConfigError as error:
        raise ConfigError(f"the point {point.label}: {error}") from error
    return variant, policy


def data_read(units: Iterable[Any]) -> str:
    """The sha256 of videos' or clips' names and fingerprints, which change with what they show."""
    return hashlib.sha256("\n".join(f"{x.name}\t{x.fingerprint}" for x in units).encode()).hexdigest()


def files_read(points: Sequence[Point]) -> list[str]:
    """The sha256 of each file that a policy of points was read from."""
    policies = (point.run()[1] for point in points)
    return [policy.sha256 for policy in policies if hasattr(policy, "sha256")]


def policy_columns() -> list[str]:
    """The columns of points that say which policy: its name in configs/policy, and the settings of all there."""
    kinds = [kinds_of(class_of(node, "policy")) for node in configs("policy").values()]
    return list(dict.fromkeys(["policy", *(name for own in kinds for name in own)]))


def check_columns(points: Sequence[Point], *columns: str) -> None:
    """Refuse points that say more than their variant, which policy it has, and what a table's columns say.

    Raises:
        ConfigError: one does.
    """
    allowed = dict.fromkeys([*columns, "variant", *policy_columns()])
    for name in (name for point in points for name, _ in point.cells):
        if name not in allowed:
            raise ConfigError(f"a point has {name}, which is none of its columns: {', '.join(allowed)}")


def points_of(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    """The points that a config lists, each once; a list of values stands for a point with each.

    Raises:
        ConfigError: there is none, or one is not settings by name, or lacks the value of one.
    """
    if not isinstance(rows, list | tuple) or not rows:
        raise ConfigError(f"points is {rows!r}; it must be a list of points, such as [{{variant: base}}]")
    if others := [row for row in rows if not isinstance(row, Mapping) or not row]:
        raise ConfigError(f"a point is {others[0]!r}; it must be settings by name, such as {{variant: base}}")
    points = []
    for row in rows:
        values = {name: list(x) if isinstance(x, list | tuple) else [x] for name, x in row.items()}
        for name, own in values.items():
            if not own or any(isinstance(x, list | tuple | Mapping) for x in own):
                raise ConfigError(f"a point's {name} is {row[name]!r}; it must be a value, or a list of some")
        points += [Point(tuple(zip(values, cells, strict=True))) for cells in product(*values.values())]
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
        rows = zip(self.rows, self.points(), strict=True)
        found = (row[figure] for row, other in rows if other.given == point.given)
        return next(found, "")


def paper_table(name: str, *figures: str) -> Paper:
    """A table of the paper by its name, and which of its columns are figures."""
    with (resources.files("evt.tables") / "paper" / f"{name}.csv").open() as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    keys = [str(column) for column in table.columns if column not in figures]
    return Paper(table.to_dict("records"), keys)  # type: ignore[arg-type]


def agreement(value: Any, printed: str) -> str:
    """ "yes" or "no", whether a value equals a printed one at its digits; empty where either is not there."""
    if value == "" or not printed:
        return ""
    digits = len(printed.partition(".")[2])
    return "yes" if f"{value:.{digits}f}" == printed else "no"


def _number(text: str) -> Any:
    """What a cell of a CSV file holds: a whole number, another one, or a text."""
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        return float(text)
    return text
