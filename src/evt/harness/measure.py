"""What one variant costs on a video, and how far its output is from the dense model's."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from evt.data.video import DataError, Video
from evt.eventful import VARIANTS, Policy, Stream, Variant, count_ops
from evt.metrics.agreement import relative_l2
from evt.models.vitdet import ViTDet


@dataclass
class Frames:
    """What was measured on some frames, one entry a frame."""

    ops: list[Counter[str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    dense_seconds: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float | int | dict[str, float]]:
        """Means of the operations and errors, medians of the times; no entry where there were no frames."""
        if not self.ops:
            return {"frames": 0}
        n = len(self.ops)
        total = sum(self.ops, Counter())
        return {
            "frames": n,
            "gflops": total.total() / n / 1e9,
            "ops": {kind: total[kind] / n for kind in sorted(total)},
            "ms": 1e3 * statistics.median(self.seconds),
            "dense_ms": 1e3 * statistics.median(self.dense_seconds),
            "relative_l2_error": statistics.fmean(self.error),
        }


@dataclass
class Measurement:
    """A variant on a video: first frames (flushes) and later frames apart."""

    first: Frames = field(default_factory=Frames)
    later: Frames = field(default_factory=Frames)
    state_bytes: int = 0

    def summary(self) -> dict[str, object]:
        """All figures, for metrics.json."""
        both = Frames(*(getattr(self.first, name) + getattr(self.later, name) for name in vars(self.first)))
        return {
            "first": self.first.summary(),
            "later": self.later.summary(),
            "mean": both.summary(),
            "state_bytes": self.state_bytes,
        }


def measure(
    model: ViTDet, variant: Variant, policy: Policy | None, videos: Sequence[Video], describe: str
) -> Measurement:
    """Run a variant and, frame by frame beside it, the dense model over videos.

    Both see the same frames in turn, so that their times can be compared. The streams flush at the first frame
    of each video and wherever a new sequence begins in it.

    Raises:
        DataError: a frame cannot be read or used; the message names it.
    """
    stream, dense = Stream(model.net, variant, policy), Stream(model.net, VARIANTS["base"])
    measurement = Measurement()
    for x, flush in inputs(model, videos, describe):
        if flush:
            stream.reset()
        part = measurement.first if flush else measurement.later
        with count_ops() as ops:
            out, seconds = timed(stream, x)
        reference, dense_seconds = timed(dense, x)
        part.ops.append(ops)
        part.seconds.append(seconds)
        part.dense_seconds.append(dense_seconds)
        part.error.append(relative_l2(out, reference))
        measurement.state_bytes = max(measurement.state_bytes, stream.nbytes)
    return measurement


def inputs(model: ViTDet, videos: Sequence[Video], describe: str) -> Iterator[tuple[Tensor, bool]]:
    """Every frame of the videos as the model takes it, and whether streams flush there; with a progress bar.

    Raises:
        DataError: a frame cannot be read or used; the message names it.
    """
    with tqdm(total=sum(map(len, videos)), desc=describe, unit="frame") as bar:
        for video in videos:
            for frame in video:
                try:
                    x = model.preprocess(frame.image)
                except ValueError as error:
                    raise DataError(f"{frame.name}: {error}") from error
                yield x, frame.first
                bar.update()


def timed(run: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, float]:
    """Run on x, and take the seconds until the result is there."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    out = run(x)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return out, time.perf_counter() - start
