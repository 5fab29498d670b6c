"""What evaluators have in common, and the loop that shows them sample after sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Protocol

from tqdm import tqdm

from evt.data.reading import read_or_skip
from evt.evaluate.kept import Kept
from evt.evaluate.ledger import Ledger
from evt.evaluate.trace import Seen, Subject, begin, observe

Found = tuple[dict[str, Any], dict[str, str]]
"""The figures of a run, for metrics.json, and what else it leaves in its folder: the text of each file."""


FORMAT = 3
"""Of the records of evaluators: a run takes none of another one for its own."""


class Evaluator(Protocol):
    """Adds up what samples were worth; of some of them as a record, for a ledger."""

    def update(self, seen: Seen, /) -> None:
        """Add a sample."""

    def record(self) -> Any:
        """All that was seen, for JSON."""

    def add(self, record: Any, /) -> None:
        """Add what another one has seen."""


@dataclass(frozen=True)
class Unit:
    """Samples that are kept together when they are done: the frames of a video, or a clip.

    name: unique in its data set.
    fingerprint: changes with what the samples are.
    """

    name: str
    fingerprint: str
    samples: Any


def evaluate(
    subject: Subject,
    units: Iterable[Unit],
    kinds: Mapping[str, Callable[[], Evaluator]],
    ledger: Ledger,
    key: str,
    bar: tqdm[NoReturn],
    skip: bool = False,
) -> tuple[dict[str, Any], dict[str, str], dict[str, Kept]]:
    """Show every sample to evaluators.

    Args:
        subject: what runs.
        units: what it runs on.
        kinds: what makes an evaluator that has seen nothing, by name.
        ledger: keeps finished units; those that it has already are not run again.
        key: names all that results depend on but for the unit.
        bar: goes on by 1 for each sample.
        skip: leave out units that cannot be read.

    Returns:
        The evaluators, by name; of each unit that was left out, by name, why; and what is kept of each other unit.

    Raises:
        DataError: a sample cannot be read or used, and is not to be left out; the message names it.
    """
    found = {name: new() for name, new in kinds.items()}
    skipped: dict[str, str] = {}
    kept: dict[str, Kept] = {}
    for unit in units:
        part = f"{key} {FORMAT} {unit.name} {unit.fingerprint}"
        if part in ledger:
            bar.update(len(unit.samples))
        else:
            own = {name: new() for name, new in kinds.items()}
            begin(getattr(subject.stream, "policy", None))
            for sample in unit.samples:
                seen = read_or_skip(unit.name, partial(observe, subject, sample), skip, skipped)
                bar.update()
                if seen is None:
                    break
                for evaluator in own.values():
                    evaluator.update(seen)
            if unit.name in skipped:
                continue
            ledger.put(part, {name: evaluator.record() for name, evaluator in own.items()})
        kept[unit.name] = Kept(unit.fingerprint, ledger[part])
        for name, evaluator in found.items():
            evaluator.add(ledger[part][name])
    return found, skipped, kept
