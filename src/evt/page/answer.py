"""What the tables answer: where it helps, with what setting, against frame skipping and the rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, log2
from typing import Any

from evt.errors import DataError
from evt.page.tables import Row, Table, digits_of, signed

VERDICTS = ("ahead", "undecided", "behind")


@dataclass(frozen=True)
class Measured:
    """A row beside frame skipping at equal operations.

    row: what it is of.
    op_ratio: how many times fewer operations than the dense model.
    value: an error or an accuracy.
    difference: that, above frame skipping's.
    interval: half the width of the difference's 95% interval.
    less: whether less is better.
    digits: of value and difference.
    """

    row: Row
    op_ratio: float
    value: float
    difference: float
    interval: float
    less: bool
    digits: int

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`; undecided where the interval has 0 in it."""
        if abs(self.difference) <= self.interval:
            return "undecided"
        return "ahead" if self.gain > 0 else "behind"

    @property
    def gain(self) -> float:
        """By how much it is better, as a share of the mean of both."""
        both = abs(self.value) + abs(self.value - self.difference)
        return (-2 if self.less else 2) * self.difference / (both or 1)

    @property
    def share(self) -> int:
        """One of so many operations: the power of 2 that is nearest."""
        return int(2 ** round(log2(self.op_ratio)))

    @property
    def kind(self) -> str:
        """How it is coloured."""
        return {"ahead": "better", "undecided": "undecided", "behind": "worse"}[self.verdict]

    def __str__(self) -> str:
        difference = signed("minus_", self.difference, self.digits)
        return f"{self.value:.{self.digits}f}; {difference} ±{self.interval:.{self.digits}f}"


@dataclass(frozen=True)
class Family:
    """What differs in how much it spends alone.

    name: variant and policy.
    role: `own`, `published` or `rival`.
    whose: of a rival, whose it is.
    cells: by the measurement's title and the share of the operations, the row that is nearest to the share.
    """

    name: str
    role: str
    whose: str
    cells: Mapping[tuple[str, int], Measured]

    def count(self, verdict: str) -> int:
        """How often it is that."""
        return sum(cell.verdict == verdict for cell in self.cells.values())

    @property
    def counts(self) -> str:
        """All verdicts, in words."""
        return ", ".join(f"{verdict} in {self.count(verdict)}" for verdict in VERDICTS)

    @property
    def rank(self) -> tuple[int, float]:
        """How often it is ahead rather than behind; then, by how much in the sum."""
        return self.count("ahead") - self.count("behind"), sum(cell.gain for cell in self.cells.values())

    @property
    def settings(self) -> str:
        """What sets it, as `python -m evt.run -m` takes it, with all values at the shares."""
        values: dict[str, dict[str, None]] = {}
        for cell in self.cells.values():
            for name, x in cell.row.settings.items():
                values.setdefault(name if name == "policy" else f"policy.{name}", {})[x] = None
        values.pop("policy.tuned_r", None)  # of the weights
        variant = next(iter(self.cells.values())).row.variant
        return " ".join([f"variant={variant}", *(f"{name}={','.join(x)}" for name, x in values.items())])


@dataclass(frozen=True)
class Answer:
    """What the tables say of one use.

    title, of: the use, and what it was measured on.
    titles: of the measurements, and what is measured.
    shares: one of so many operations.
    families: all that were measured, the best first.
    """

    title: str
    of: str
    titles: Mapping[str, str]
    shares: Sequence[int]
    families: Sequence[Family]

    @property
    def best(self) -> Family | None:
        """The best of all that are no rivals; none where no interval is above 0 more often than below."""
        found = next((x for x in self.families if x.role != "rival"), None)
        return found if found is not None and found.rank[0] > 0 else None

    @property
    def rival(self) -> Family | None:
        """The best rival beside frame skipping."""
        return next((x for x in self.families if x.role == "rival"), None)

    @property
    def paper(self) -> Family | None:
        """The paper's method."""
        return next((x for x in self.families if x.name == "temporal"), None)

    @property
    def helps(self) -> str:
        """Whether the best is ahead of frame skipping wherever it was measured: `yes`, `partly` or `no`."""
        if self.best is None:
            return "no"
        return "yes" if self.best.count("ahead") == len(self.best.cells) else "partly"

    def where(self, verdict: str) -> str:
        """In which measurements, and at which shares, the best has a verdict."""
        assert self.best is not None
        found = []
        for title in self.titles:
            cells = self.best.cells
            shares = [x for x in self.shares if (title, x) in cells and cells[title, x].verdict == verdict]
            if shares:
                found.append(f"{title}: {', '.join(f'1/{x}' for x in shares)}")
        return "; ".join(found)

    @property
    def against_rival(self) -> str:
        """In how many of the places where both were measured the best one's mean is better than the rival's."""
        if self.best is None or self.rival is None:
            return ""
        both = self.best.cells.keys() & self.rival.cells.keys()
        better = sum(self.best.cells[place].gain > self.rival.cells[place].gain for place in both)
        return f"{better} of {len(both)}"


def answers(said: Mapping[str, Any], tables: Mapping[str, Table]) -> list[Answer]:
    """What the tables say, use by use.

    Args:
        said: page.yaml.
        tables: by name.

    Raises:
        DataError: a table is missing, or lacks a column.
    """
    return [_answer(use, said, tables) for use in said["uses"]]


def _answer(use: Mapping[str, Any], said: Mapping[str, Any], tables: Mapping[str, Table]) -> Answer:
    cells: dict[str, dict[tuple[str, int], Measured]] = {}
    for part in use["measured"]:
        if part["table"] not in tables:
            raise DataError(f"{part['table']}.csv: there is no such table; {use['writes']} writes it")
        for found in measured(tables[part["table"]], part, use["writes"]):
            if found.share == 1 or found.row.variant in ("base", "skip"):
                continue
            of_family = cells.setdefault(found.row.family, {})
            place = part["title"], found.share
            if place not in of_family or _away(found) < _away(of_family[place]):
                of_family[place] = found
    families = [Family(name, *_role(name, said), own) for name, own in cells.items()]
    return Answer(
        use["title"],
        use["of"],
        {part["title"]: part["name"] for part in use["measured"]},
        sorted({share for own in cells.values() for _, share in own}),
        sorted(families, key=lambda x: x.rank, reverse=True),
    )


def measured(table: Table, part: Mapping[str, Any], writes: str) -> list[Measured]:
    """All rows of a table that have a difference from frame skipping.

    Args:
        table: the table.
        part: a measurement of page.yaml.
        writes: the command that writes the table.

    Raises:
        DataError: the table lacks a column, or it has cells that are no numbers.
    """
    value = part["value"]
    difference = part.get("difference", f"{value}_minus_skip")
    names = ("op_ratio", value, difference, f"{difference}_interval")
    for name in ("variant", *names):
        if name not in table.cells:
            raise DataError(f"{table.name}.csv: has no column {name}; {writes} writes it")
        if name != "variant" and name not in table.numbers:
            raise DataError(
                f"{table.name}.csv: column {name} has cells that are no numbers, or none that is one"
            )
    if any(x <= 0 for x in table.numbers["op_ratio"]):
        raise DataError(f"{table.name}.csv: column op_ratio has numbers that are not above 0")
    digits = digits_of(table.numbers[value])
    found = []
    for row in table.rows:
        op_ratio, own, above, half = (table.numbers[name][row.place] for name in names)
        if not any(map(isnan, (op_ratio, own, above, half))):
            found.append(Measured(row, op_ratio, own, above, half, part["less"], digits))
    return found


def _away(found: Measured) -> float:
    return abs(log2(found.op_ratio / found.share))


def _role(family: str, said: Mapping[str, Any]) -> tuple[str, str]:
    if family in said["rivals"]:
        return "rival", said["rivals"][family]
    return ("published" if family.removesuffix(", fine-tuned") in said["published"] else "own"), ""
