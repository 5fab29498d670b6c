"""What a budget that follows something was in each frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evt.evaluate.trace import Seen
from evt.eventful.following import Following


@dataclass
class BudgetLog:
    """An evaluator: r and what it cost, in each later frame of a video, or step of a clip.

    policy: of the stream.
    rows: the frame's number in its video, r in tokens, and the cost.
    """

    policy: Following
    rows: list[list[float]] = field(default_factory=list)
    _n: int = 0

    def update(self, seen: Seen) -> None:
        """See `Evaluator`; the policy has decided in each of its steps but the flush."""
        later = [self._n + i for i, step in enumerate(seen.steps) if not step.first]
        done = list(self.policy.log)[len(self.policy.log) - len(later) :]
        self.rows += [[frame, x.r, float(f"{x.cost:.6g}")] for frame, x in zip(later, done, strict=True)]
        self._n += len(seen.steps)

    def record(self) -> dict[str, Any]:
        """See `Evaluator`."""
        return {"unit": self.policy.unit, "rows": self.rows}

    def add(self, record: dict[str, Any]) -> None:
        """See `Evaluator`; each video is written by itself."""


def lines(logs: Mapping[str, Mapping[str, Any]]) -> str:
    """The records of several videos or clips, by name, as CSV: its name, frame, r, and the cost under its unit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "frame", "r", next(iter(logs.values()))["unit"]])
    writer.writerows([name, *row] for name, log in logs.items() for row in log["rows"])
    return text.getvalue()
