"""What one variant costs on videos, and how far its output is from the dense model's."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, ParamSpec, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from evt.data.video import Boxes, Frame, Video
from evt.errors import DataError
from evt.evaluate.ledger import Ledger
from evt.eventful import VARIANTS, Policy, Stream, Variant, count_ops
from evt.metrics.agreement import relative_l2
from evt.metrics.detection import FORMAT, DetectionMetrics
from evt.models.vitdet import ViTDet

P = ParamSpec("P")
T = TypeVar("T")

NO_OBJECTS = Boxes(torch.empty(0, 4), torch.empty(0, dtype=torch.long))


@dataclass
class Frames:
    """What was measured on some frames: operations in all, the rest one entry a frame.

    dense_seconds and error stay empty where no dense model ran beside, detector_seconds where nothing was detected.
    """

    ops: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    dense_seconds: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    detector_seconds: list[float] = field(default_factory=list)

    def extend(self, other: Frames) -> None:
        """Add other frames to these."""
        self.ops += other.ops
        self.seconds += other.seconds
        self.dense_seconds += other.dense_seconds
        self.error += other.error
        self.detector_seconds += other.detector_seconds

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
        if self.detector_seconds:
            summary["detector_ms"] = 1e3 * statistics.median(self.detector_seconds)
        return summary


@dataclass
class Measurement:
    """A variant on some videos: first frames (flushes) and later frames apart.

    state_bytes: the most that the stream of one video kept.
    """

    first: Frames = field(default_factory=Frames)
    later: Frames = field(default_factory=Frames)
    state_bytes: int = 0

    def record(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {"first": vars(self.first), "later": vars(self.later), "state_bytes": self.state_bytes}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Measurement:
        """The measurement that made this record."""
        first, later = (
            Frames(**{**record[part], "ops": Counter(record[part]["ops"])}) for part in ("first", "later")
        )
        return cls(first, later, record["state_bytes"])

    def extend(self, other: Measurement) -> None:
        """Add the frames of other videos."""
        self.first.extend(other.first)
        self.later.extend(other.later)
        self.state_bytes = max(self.state_bytes, other.state_bytes)

    def all_seconds(self) -> tuple[list[float], list[float]]:
        """Seconds of the variant and of the dense model, first frames and later ones."""
        return (
            self.first.seconds + self.later.seconds,
            self.first.dense_seconds + self.later.dense_seconds,
        )

    def summary(self) -> dict[str, Any]:
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


@dataclass(frozen=True)
class Run:
    """What runs over videos.

    model, variant, policy: the network and how it reuses what came before.
    compare: the dense model runs beside, frame by frame, to compare times and outputs.
    detect: objects are detected in every frame.
    """

    model: ViTDet
    variant: Variant
    policy: Policy | None
    compare: bool = True
    detect: bool = False


def measure(
    run: Run, videos: Sequence[Video], classes: Sequence[str], ledger: Ledger, key: str, describe: str
) -> tuple[Measurement, DetectionMetrics]:
    """Run over videos, with a progress bar.

    The streams flush at the first frame of each video and wherever a new sequence begins in it.

    Args:
        run: what runs.
        videos: what it runs on.
        classes: the names of the classes of objects.
        ledger: keeps finished videos; those that it has already are not run again.
        key: names everything that the results on a video depend on, but for the video itself.
        describe: beside the progress bar.

    Raises:
        DataError: a frame cannot be read or used; the message names it.
    """
    measurement, detections = Measurement(), DetectionMetrics(classes)
    with tqdm(total=sum(map(len, videos)), desc=describe, unit="frame") as bar:
        for video in videos:
            part = f"{key} {FORMAT} {video.name} {video.fingerprint}"
            if part in ledger:
                bar.update(len(video))
            else:
                ledger.put(part, _measure_video(run, video, classes, bar))
            measurement.extend(Measurement.from_record(ledger[part]["measurement"]))
            detections.add_records(ledger[part]["detections"])
    return measurement, detections


def _measure_video(run: Run, video: Video, classes: Sequence[str], bar: tqdm[NoReturn]) -> dict[str, Any]:
    """The record of one video, for the ledger."""
    stream = Stream(run.model.net, run.variant, run.policy)
    dense = Stream(run.model.net, dense_rival(run.variant)) if run.compare else None
    measurement, detections = Measurement(), DetectionMetrics(classes)
    for frame in video:
        if frame.first:
            stream.reset()
        part = measurement.first if frame.first else measurement.later
        x = _input(run.model, frame)
        with count_ops() as ops:
            out, seconds = timed(stream, x)
        part.ops += ops
        part.seconds.append(seconds)
        if dense is not None:
            reference, seconds = timed(dense, x)
            part.dense_seconds.append(seconds)
            part.error.append(relative_l2(out, reference))
        if run.detect:
            height, width = frame.image.shape[-2:]
            found, seconds = timed(run.model.detect, out, (height, width))
            part.detector_seconds.append(seconds)
            target = frame.target or NO_OBJECTS
            detections.add(
                frame.name,
                target.boxes,
                target.labels,
                found.boxes,
                found.scores,
                found.labels,
                target_crowd=target.crowd,
                labelled=frame.target is not None,
            )
        measurement.state_bytes = max(measurement.state_bytes, stream.nbytes)
        bar.update()
    return {"measurement": measurement.record(), "detections": detections.records()}


def _input(model: ViTDet, frame: Frame) -> Tensor:
    """A frame as the model takes it."""
    try:
        return model.preprocess(frame.image)
    except ValueError as error:
        raise DataError(f"{frame.name}: {error}") from error


def dense_rival(variant: Variant) -> Variant:
    """The dense model that a variant is compared with: on the fast path where the variant is."""
    return replace(VARIANTS["base"], fast=variant.fast)


def timed(run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """Run, and take the seconds until the result is there."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    out = run(*args, **kwargs)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return out, time.perf_counter() - start


def peak_memory() -> int:
    """The most bytes of memory that this process has held: of the GPU where there is one, else of the machine's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes
