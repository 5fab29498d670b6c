"""What a variant costs, and how far its output is from the dense model's."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from evt.evaluate.trace import Seen
from evt.metrics.agreement import relative_l2


@dataclass
class Frames:
    """What was measured on some frames, or steps of a clip: operations in all, the rest one entry each.

    dense_seconds and error stay empty where no dense model ran beside.
    """

    ops: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    dense_seconds: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)

    def extend(self, other: Frames) -> None:
        """Add other frames to these."""
        self.ops += other.ops
        self.seconds += other.seconds
        self.dense_seconds += other.dense_seconds
        self.error += other.error

    @property
    def mean_ops(self) -> float:
        """Operations of a mean frame."""
        return self.ops.total() / len(self.seconds)

    def summary(self) -> dict[str, Any]:
        """Means of the operations and errors, medians of the times; no entry for what was not measured."""
        frames = len(self.seconds)
        if not frames:
            return {"frames": 0}
        summary = {
            "frames": frames,
            "gflops": self.mean_ops / 1e9,
            "ops": {kind: self.ops[kind] / frames for kind in sorted(self.ops)},
            "ms": 1e3 * statistics.median(self.seconds),
        }
        if self.error:
            summary["dense_ms"] = 1e3 * statistics.median(self.dense_seconds)
            summary["relative_l2_error"] = statistics.fmean(self.error)
        return summary


@dataclass
class Cost:
    """An evaluator: operations, times, memory and agreement with the dense model, of flushes and later frames apart.

    state_bytes: the most that a stream kept.
    """

    first: Frames = field(default_factory=Frames)
    later: Frames = field(default_factory=Frames)
    state_bytes: int = 0

    def fresh(self) -> Cost:
        """See `Evaluator`."""
        return Cost()

    def update(self, seen: Seen) -> None:
        """See `Evaluator`."""
        for i, step in enumerate(seen.steps):
            part = self.first if step.first else self.later
            part.ops += step.ops
            part.seconds.append(step.seconds)
            if seen.dense:
                part.dense_seconds.append(seen.dense[i].seconds)
                part.error.append(relative_l2(step.output, seen.dense[i].output))
            self.state_bytes = max(self.state_bytes, step.nbytes)

    def record(self) -> dict[str, Any]:
        """See `Evaluator`."""
        return {"first": vars(self.first), "later": vars(self.later), "state_bytes": self.state_bytes}

    def add(self, record: dict[str, Any]) -> None:
        """See `Evaluator`."""
        for name, part in (("first", self.first), ("later", self.later)):
            part.extend(Frames(**{**record[name], "ops": Counter(record[name]["ops"])}))
        self.state_bytes = max(self.state_bytes, record["state_bytes"])

    def compute(self) -> dict[str, Any]:
        """All figures, for metrics.json."""
        both = Frames()
        both.extend(self.first)
        both.extend(self.later)
        return {
            "first": self.first.summary(),
            "later": self.later.summary(),
            "all": both.summary(),
            "state_bytes": self.state_bytes,
        }
