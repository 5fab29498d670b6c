"""Labelled clips whose classes a model numbers in another order: they are found by their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evt.data.actions import ActionClip, ActionData, LabelledClip

SHOWN = 3
"""Names that a message lists of each side."""


@dataclass(frozen=True)
class ByName:
    """A data set with its labels in the order of other names.

    data: the data set.
    labels: for each of its labels, the new one.
    classes: the other names.
    """

    data: ActionData
    labels: Sequence[int]
    classes: Sequence[str]

    @property
    def n_classes(self) -> int:
        """How many names there are."""
        return len(self.classes)

    @property
    def name(self) -> str:
        """That of the data set."""
        return self.data.name

    @property
    def missing(self) -> Sequence[str]:
        """Those of the data set."""
        return self.data.missing

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> LabelledClip:
        return self._renumbered(self.data[i])

    def __iter__(self) -> Iterator[LabelledClip]:
        return map(self._renumbered, self.data)

    def _renumbered(self, clip: ActionClip) -> LabelledClip:
        return LabelledClip(clip.name, self.labels[clip.label], clip.frames, clip.fingerprint)


def differences(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """What names two lists do not share, shortened, after what has them: the data, and the model."""
    sides = (("the data", ours, set(theirs)), ("the model", theirs, set(ours)))
    parts = []
    for who, names, others in sides:
        alone = [name for name in names if name not in others]
        if alone:
            more = f" and {len(alone) - SHOWN} more" if len(alone) > SHOWN else ""
            parts.append(f"{who} alone has {', '.join(map(repr, alone[:SHOWN]))}{more}")
    return "; ".join(parts)
