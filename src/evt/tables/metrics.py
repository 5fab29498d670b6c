"""What a small table measures of its points: each metric is a class that a table's config names.

A metric keeps a record of each video or clip, which can be written as JSON, and makes columns of the records of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from pydantic import Field, PositiveInt

from evt.evaluate.detection import add_frame
from evt.evaluate.trace import Seen
from evt.metrics.agreement import relative_l2
from evt.metrics.bootstrap import Estimate, mean_of
from evt.metrics.detection import DetectionMetrics


class Metric(Protocol):
    """What a table's config may name below `metrics`: a class derived from this one, which overrides what it makes.

    beside: whether the dense model must run beside what is measured.
    """

    beside: ClassVar[bool] = False

    @property
    def names(self) -> Sequence[str]:
        """Of all columns that it may make, which no other metric of the table makes."""

    def record(self, seen: Sequence[Seen], data: Any, /) -> Any:
        """What is kept of a video, whose frames were seen, or of a clip, the only sample."""

    def columns(self, records: Sequence[Any], data: Any, /) -> dict[str, Any]:
        """Cells of a row, by column, from the records of all videos or clips; "" is an empty one."""
        return {}

    def estimates(self, records: Sequence[Any], data: Any, /) -> dict[str, Estimate]:
        """Those that depend on which videos or clips were looked at, with how much they do."""
        return {}


def settled(seen: Sequence[Seen], first: int) -> Sequence[Seen]:
    """What was seen of a video from a frame on; of a shorter one the second half."""
    return seen[min(first, len(seen) // 2) :]


@dataclass(frozen=True)
class FrameOperations(Metric):
    """`gflops`: of a mean frame of long videos, of which a share are flushes; `videos` and `frames` that were run.

    flush_rate: that share.
    settled: the first of the other frames that counts, from the flush on, which is 0, since some policies save up at
        first; of shorter videos the second half does.
    """

    names: ClassVar[Sequence[str]] = ("gflops", "videos", "frames")
    flush_rate: Annotated[float, Field(gt=0, le=1)]
    settled: PositiveInt = 1

    def record(self, seen: Sequence[Seen], data: Any) -> dict[str, float]:
        """See `Metric`."""
        first = [x.ops - x.decode_ops for x in seen if x.sample.first]
        later = [x.ops - x.decode_ops for x in settled(seen, self.settled) if not x.sample.first]
        counts = {"n_first": len(first), "n_later": len(later), "frames": len(seen)}
        return {"first": sum(first), "later": sum(later), **counts}

    def columns(self, records: Sequence[dict[str, float]], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        first, later, n_first, n_later = (
            sum(x[name] for x in records) for name in ("first", "later", "n_first", "n_later")
        )
        first, later = first / n_first, later / n_later
        ops = self.flush_rate * first + (1 - self.flush_rate) * later
        return {"gflops": ops / 1e9, "videos": len(records), "frames": sum(x["frames"] for x in records)}


@dataclass(frozen=True)
class MeanAveragePrecision(Metric):
    """`map50` in percent, `map50_part1` to `map50_partK`, and `falls`, by how much the last is below the first.

    parts: K, of the length of each video, all of which have the same; 1 leaves these columns out.
    """

    parts: PositiveInt = 1

    @property
    def names(self) -> Sequence[str]:
        """See `Metric`."""
        return ["map50", "falls", *(f"map50_part{k}" for k in range(1, self.parts + 1))]

    def record(self, seen: Sequence[Seen], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        found = DetectionMetrics(data.classes)
        for one in seen:
            if one.prediction is not None:
                add_frame(found, one.sample, one.prediction)
        return found.records()

    def estimates(self, records: Sequence[dict[str, Any]], data: Any) -> dict[str, Estimate]:
        """See `Metric`."""
        found, n_frames = DetectionMetrics(data.classes), len(data[0])
        for record in records:
            found.add_records(record)
        whole = {"map50": found.map50()}
        if self.parts == 1:
            return whole
        parts = [found.only(partial(_is_in_part, k, self.parts, n_frames)).map50() for k in range(self.parts)]
        named = {f"map50_part{k}": part for k, part in enumerate(parts, 1)}
        return {**whole, **named, "falls": parts[0] - parts[-1]}


def _is_in_part(part: int, parts: int, n_frames: int, frame: str) -> bool:
    """Whether a frame is in a part of its video, by its number."""
    return int(frame.rpartition(":")[2]) * parts // n_frames == part


@dataclass(frozen=True)
class ClipOperations(Metric):
    """`gflops` of a mean clip, and the share of its tokens that the model saw, `kept`, where some are dropped."""

    names: ClassVar[Sequence[str]] = ("gflops", "kept")

    def record(self, seen: Sequence[Seen], data: Any) -> list[float | None]:
        """See `Metric`."""
        (clip,) = seen
        return [clip.ops, clip.kept]

    def columns(self, records: Sequence[Sequence[Any]], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        ops, kept = zip(*records, strict=True)
        cells = {"gflops": sum(ops) / len(ops) / 1e9}
        return cells if None in kept else {**cells, "kept": float(np.mean(kept))}


@dataclass(frozen=True)
class Top1(Metric):
    """`top1` in percent, and of how many `clips`."""

    names: ClassVar[Sequence[str]] = ("top1", "clips")

    def record(self, seen: Sequence[Seen], data: Any) -> int:
        """See `Metric`."""
        (clip,) = seen
        return int(clip.prediction.argmax() == clip.sample.label)

    def columns(self, records: Sequence[int], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        return {"clips": len(records)}

    def estimates(self, records: Sequence[int], data: Any) -> dict[str, Estimate]:
        """See `Metric`."""
        return {"top1": mean_of([100 * right for right in records])}


@dataclass(frozen=True)
class Throughput(Metric):
    """`clips_per_second`, of models that take a clip at once; streams of steps are timed elsewhere."""

    names: ClassVar[Sequence[str]] = ("clips_per_second",)

    def record(self, seen: Sequence[Seen], data: Any) -> float | None:
        """See `Metric`."""
        (clip,) = seen
        return clip.seconds if len(clip.steps) == 1 else None

    def columns(self, records: Sequence[float | None], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        seconds = [x for x in records if x is not None]
        return {"clips_per_second": len(seconds) / sum(seconds) if seconds else ""}


@dataclass(frozen=True)
class ErrorOverTime(Metric):
    """`error_K`: relative L2 error of the Transformer's output against the dense model's on the same frame.

    until: K for each column, ascending: the last of the frames that it is the mean over, counted from the flush,
        which is frame 0; the first is the one after the K before. Columns that the videos are too short for are left
        out.

    Raises:
        ValueError: they do not ascend.
    """

    beside: ClassVar[bool] = True
    until: tuple[PositiveInt, ...]

    def __post_init__(self) -> None:
        if any(low >= high for low, high in pairwise(self.until)):
            raise ValueError(f"until is {list(self.until)}; each must be larger than the one before")

    @property
    def names(self) -> Sequence[str]:
        """See `Metric`."""
        return [f"error_{k}" for k in self.until]

    def record(self, seen: Sequence[Seen], data: Any) -> list[float]:
        """See `Metric`."""
        errors = [
            relative_l2(step.output, dense.output)
            for x in seen
            for step, dense in zip(x.steps, x.dense, strict=True)
        ]
        bins = pairwise((0, *self.until))
        return [fmean(errors[low + 1 : high + 1]) for low, high in bins if high < len(errors)]

    def estimates(self, records: Sequence[list[float]], data: Any) -> dict[str, Estimate]:
        """See `Metric`."""
        columns = zip(*records, strict=True)
        return {f"error_{k}": mean_of(values) for k, values in zip(self.until, columns, strict=False)}
