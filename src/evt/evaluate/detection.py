"""Object detection in videos: what is found in each frame, and what that is worth."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

from evt.data.video import Boxes, Frame, Video
from evt.evaluate.kept import files_of
from evt.evaluate.ledger import Ledger
from evt.evaluate.loop import Found
from evt.evaluate.trace import Seen, Subject
from evt.evaluate.videos import run_videos
from evt.metrics.detection import DetectionMetrics
from evt.models.boxes import Detections

NO_OBJECTS = Boxes(torch.empty(0, 4), torch.empty(0, dtype=torch.long))


@dataclass
class Detection:
    """An evaluator: mean average precision, and the detector's time.

    classes: their names.
    first, later: seconds of the detector on flushes and on later frames.
    """

    classes: Sequence[str]
    metrics: DetectionMetrics = field(init=False)
    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.metrics = DetectionMetrics(self.classes)

    def update(self, seen: Seen) -> None:
        """See `Evaluator`; the sample is a frame."""
        add_frame(self.metrics, seen.sample, seen.prediction)
        (self.first if seen.sample.first else self.later).append(seen.decode_seconds)

    def record(self) -> dict[str, Any]:
        """See `Evaluator`."""
        return {"detections": self.metrics.records(), "first": self.first, "later": self.later}

    def add(self, record: dict[str, Any]) -> None:
        """See `Evaluator`."""
        self.metrics.add_records(record["detections"])
        self.first += record["first"]
        self.later += record["later"]

    def milliseconds(self) -> dict[str, float]:
        """The detector's, medians over first, later and all frames."""
        parts = {"first": self.first, "later": self.later, "all": self.first + self.later}
        return {name: 1e3 * statistics.median(seconds) for name, seconds in parts.items() if seconds}

    def lines(self) -> str:
        """A JSON line a frame: its name and its detections, best first, boxes x0 y0 x1 y1 in pixels."""
        lines = (
            {
                "frame": frame,
                "boxes": [[round(x, 2) for x in box] for box in boxes.tolist()],
                "scores": [round(score, 4) for score in scores.tolist()],
                "classes": [self.classes[label] for label in labels.tolist()],
            }
            for frame, boxes, scores, labels in self.metrics.detections()
        )
        return "".join(f"{json.dumps(line)}\n" for line in lines)


def add_frame(metrics: DetectionMetrics, frame: Frame, found: Detections) -> None:
    """Add what was found in a frame, beside its ground truth if there is any."""
    target = frame.target or NO_OBJECTS
    metrics.add(
        frame.name,
        target.boxes,
        target.labels,
        found.boxes,
        found.scores,
        found.labels,
        target_crowd=target.crowd,
        labelled=frame.target is not None,
    )


def detect(
    subject: Subject, videos: Sequence[Video], classes: Sequence[str], ledger: Ledger, key: str, describe: str
) -> Found:
    """Run over videos; objects are detected where the subject decodes. For the arguments, see `run_videos`."""
    kinds = {"detection": partial(Detection, classes)} if subject.decode else {}
    metrics, found, kept = run_videos(subject, videos, kinds, ledger, key, describe)
    files = files_of(kept, classes)
    if not subject.decode:
        return metrics, files
    detection = found["detection"]
    for part, ms in detection.milliseconds().items():
        metrics[part]["detector_ms"] = ms
    metrics["detection"] = asdict(detection.metrics.compute())
    return metrics, {"detections.jsonl": detection.lines(), **files}
