"""What a small table measures of its points: each metric is a class that a table's config names.

A metric keeps a record of each video or clip, which can be written as JSON, and makes columns of the records of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import Field, PositiveInt

from evt.evaluate.detection import add_frame
from evt.evaluate.trace import Seen
from evt.metrics.bootstrap import half_width, mean_of, resample
from evt.metrics.detection import DetectionMetrics


class Metric(Protocol):
    """What a table's config may name below `metrics`."""

    def record(self, seen: Sequence[Seen], data: Any, /) -> Any:
        """What is kept of a video, whose frames were seen, or of a clip, the only sample."""

    def columns(self, records: Sequence[Any], data: Any, /) -> dict[str, Any]:
        """The cells of a row, by column, from the records of all videos or clips; "" is an empty one."""


@dataclass(frozen=True)
class FrameOperations:
    """`gflops`: of a mean frame of long videos, of which a share are flushes; `videos` and `frames` that were run.

    flush_rate: that share.
    """

    flush_rate: Annotated[float, Field(gt=0, le=1)]

    def record(self, seen: Sequence[Seen], data: Any) -> dict[str, float]:
        """See `Metric`."""
        first, later = (
            [x.ops - x.decode_ops for x in seen if x.sample.first is flush] for flush in (True, False)
        )
        return {"first": sum(first), "later": sum(later), "n_first": len(first), "n_later": len(later)}

    def columns(self, records: Sequence[dict[str, float]], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        first, later, n_first, n_later = (
            sum(x[name] for x in records) for name in ("first", "later", "n_first", "n_later")
        )
        first, later = first / n_first, later / n_later
        ops = self.flush_rate * first + (1 - self.flush_rate) * later
        return {"gflops": ops / 1e9, "videos": len(records), "frames": n_first + n_later}


@dataclass(frozen=True)
class MeanAveragePrecision:
    """`map50` in percent, `interval`, see `evt.metrics.bootstrap`, and `map50_part1` to `map50_partK`.

    parts: K, of the length of each video, all of which have the same; 1 leaves these columns out.
    """

    parts: PositiveInt = 1

    def record(self, seen: Sequence[Seen], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        found = DetectionMetrics(data.classes)
        for one in seen:
            if one.prediction is not None:
                add_frame(found, one.sample, one.prediction)
        return found.records()

    def columns(self, records: Sequence[dict[str, Any]], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        found, n_frames = DetectionMetrics(data.classes), len(data[0])
        for record in records:
            found.add_records(record)
        cells = {"map50": found.compute().map50, "interval": half_width(found.map50_of_resamples())}
        for k in range(self.parts if self.parts > 1 else 0):
            shown = found.only(partial(_is_in_part, k, self.parts, n_frames))
            cells[f"map50_part{k + 1}"] = shown.compute().map50
        return cells


def _is_in_part(part: int, parts: int, n_frames: int, frame: str) -> bool:
    """Whether a frame is in a part of its video, by its number."""
    return int(frame.rpartition(":")[2]) * parts // n_frames == part


@dataclass(frozen=True)
class ClipOperations:
    """`gflops` of a mean clip, and the share of its tokens that the model saw, `kept`, where some are dropped."""

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
class Top1:
    """`top1` in percent, `interval`, see `evt.metrics.bootstrap`, and of how many `clips`."""

    def record(self, seen: Sequence[Seen], data: Any) -> int:
        """See `Metric`."""
        (clip,) = seen
        return int(clip.prediction.argmax() == clip.sample.label)

    def columns(self, records: Sequence[int], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        interval = half_width(100 * mean_of(records, resample(len(records))))
        return {"top1": 100 * float(np.mean(records)), "interval": interval, "clips": len(records)}


@dataclass(frozen=True)
class Throughput:
    """`clips_per_second`, of models that take a clip at once; streams of steps are timed elsewhere."""

    def record(self, seen: Sequence[Seen], data: Any) -> float | None:
        """See `Metric`."""
        (clip,) = seen
        return clip.seconds if len(clip.steps) == 1 else None

    def columns(self, records: Sequence[float | None], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        seconds = [x for x in records if x is not None]
        return {"clips_per_second": len(seconds) / sum(seconds) if seconds else ""}
