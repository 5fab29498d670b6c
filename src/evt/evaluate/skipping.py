"""What frame skipping would have given: the dense model's outputs, held for some frames."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from evt.evaluate.trace import Seen, Step
from evt.eventful import Every
from evt.metrics.agreement import relative_l2

LAGS = 16
"""Of so many frames at most the output is held: to compare, as many outputs of the dense model are in memory."""


@dataclass
class Skipping:
    """An evaluator: how far the dense model's output of a later frame is from those of the frames before.

    errors: relative L2 error by lag, in frames, in the sum of all later frames; a frame that is nearer to the flush
        than the lag has the flush's output.
    frames: how many these were.
    ops, dense_ops: operations of the variant and of the dense model on them.
    """

    errors: list[float] = field(default_factory=lambda: [0.0] * LAGS)
    frames: int = 0
    ops: int = 0
    dense_ops: int = 0
    _before: deque[Tensor] = field(default_factory=lambda: deque(maxlen=LAGS))

    def update(self, seen: Seen) -> None:
        """See `Evaluator`; the dense model must have run beside."""
        for step, dense in zip(seen.steps, seen.dense, strict=True):
            if step.first:
                self._before.clear()
            else:
                held = [relative_l2(output, dense.output) for output in self._before]
                for lag in range(1, LAGS):
                    self.errors[lag] += held[min(lag, len(held)) - 1]
                self.frames += 1
                self.ops += step.ops.total()
                self.dense_ops += dense.ops.total()
            self._before.appendleft(dense.output)

    def record(self) -> dict[str, Any]:
        """See `Evaluator`."""
        return {name: x for name, x in vars(self).items() if not name.startswith("_")}

    def add(self, record: dict[str, Any]) -> None:
        """See `Evaluator`."""
        self.errors = [a + b for a, b in zip(self.errors, record["errors"], strict=True)]
        self.frames += record["frames"]
        self.ops += record["ops"]
        self.dense_ops += record["dense_ops"]

    def compute(self) -> dict[str, float]:
        """Of skipping at the variant's operations: that one of `every` frames is run, and its `relative_l2_error`.

        Where this is no whole number, some frames are held as long as the next smaller one says, others as the next
        larger, see `between`. Nothing where there were no later frames, or more would have to be held than
        `LAGS`.
        """
        costs = [1 / every for every in range(1, LAGS + 1)]
        if not self.frames or (place := between(self.ops / self.dense_ops, costs)) is None:
            return {}
        low, high, share = place
        error = share * self._error(low + 1) + (1 - share) * self._error(high + 1)
        return {"every": self.dense_ops / self.ops, "relative_l2_error": error}

    def _error(self, every: int) -> float:
        """Mean error of later frames where one of `every` is run, over the places of a frame among these."""
        return sum(self.errors[:every]) / every / self.frames


def held(dense: Iterable[Step], policy: Every) -> Iterator[Step]:
    """The steps of frame skipping, from those of the dense model on the same inputs, sequence after sequence."""
    number = 0
    for step in dense:
        number = 0 if step.first else number + 1
        if number == 0 or policy.due(number):
            last = replace(step, nbytes=step.output.nbytes)  # what is held
            yield last
        else:
            yield replace(last, ops=Counter(), seconds=0.0, first=False)


def between(cost: float, costs: Sequence[float]) -> tuple[int, int, float] | None:
    """How frame skipping spends what no whole k costs: some frames are held as one k says, others as another.

    Args:
        cost: operations that are to be spent.
        costs: what can be had, in any order.

    Returns:
        The places of the nearest cost that is no less, and of the nearest that is no more, and the share of the
        former such that their mean is `cost`; None where all cost less, or all more.
    """
    more = min((i for i, x in enumerate(costs) if x >= cost), key=costs.__getitem__, default=None)
    less = max((i for i, x in enumerate(costs) if x <= cost), key=costs.__getitem__, default=None)
    if more is None or less is None:
        return None
    width = costs[more] - costs[less]
    return more, less, (cost - costs[less]) / width if width else 1.0
