"""What a variant costs, and how far its output is from the dense model's."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from evt.evaluate.trace import Seen
from evt.metrics.agreement import relative_l2


@dataclass
class Cost:
    """An evaluator: operations, times, memory and agreement with the dense model, of flushes and later frames apart.

    steps: what was measured on each frame, or step of a clip; `dense_seconds` and `error` where a dense model ran
        beside.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)

    def update(self, seen: Seen) -> None:
        """See `Evaluator`."""
        for step, dense in zip_longest(seen.steps, seen.dense):
            own = {"first": step.first, "ops": step.ops, "seconds": step.seconds, "nbytes": step.nbytes}
            if dense is not None:
                own |= {"dense_seconds": dense.seconds, "error": relative_l2(step.output, dense.output)}
            self.steps.append(own)

    def record(self) -> list[dict[str, Any]]:
        """See `Evaluator`."""
        return self.steps

    def add(self, record: list[dict[str, Any]]) -> None:
        """See `Evaluator`."""
        self.steps += record

    def compute(self) -> dict[str, Any]:
        """All figures, for metrics.json; state_bytes is the most that a stream kept."""
        return {
            "first": summary([step for step in self.steps if step["first"]]),
            "later": summary([step for step in self.steps if not step["first"]]),
            "all": summary(self.steps),
            "state_bytes": max((step["nbytes"] for step in self.steps), default=0),
        }


def summary(steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of the operations and errors, medians of the times; no entry for what was not measured."""
    n = len(steps)
    if not n:
        return {"frames": 0}
    ops: Counter[str] = sum((Counter(step["ops"]) for step in steps), Counter())
    figures = {
        "frames": n,
        "gflops": ops.total() / n / 1e9,
        "ops": {kind: ops[kind] / n for kind in sorted(ops)},
        "ms": 1e3 * statistics.median(step["seconds"] for step in steps),
    }
    if "error" in steps[0]:
        figures["dense_ms"] = 1e3 * statistics.median(step["dense_seconds"] for step in steps)
        figures["relative_l2_error"] = statistics.fmean(step["error"] for step in steps)
    return figures
