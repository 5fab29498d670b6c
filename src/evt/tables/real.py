"""What is measured on real videos: apart where the camera stands still and where it moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Annotated, Any, ClassVar

from pydantic import Field, PositiveInt

from evt.evaluate.segmentation import Segmentation
from evt.evaluate.trace import Seen
from evt.metrics.agreement import relative_l2
from evt.metrics.bootstrap import Estimate, mean_of
from evt.metrics.motion import shift
from evt.tables.metrics import Metric, settled


@dataclass(frozen=True)
class Agreement(Metric):
    """`error_still` and `error_moving`: relative L2 error of the Transformer's output, by the motion of the camera.

    It is against the dense model's output on the same frame, the mean over frames and then over videos. `still` and
    `moving` say how many videos these are.

    settled: the first frame that counts, from the flush on, which is 0; of shorter videos the second half does.
    apart: frames between which the camera's motion is looked at.
    moves: the share of the picture by which it is shifted, in the median over such pairs, of a camera that moves.
    """

    beside: ClassVar[bool] = True
    names: ClassVar[Sequence[str]] = ("still", "moving", "error_still", "error_moving")
    settled: PositiveInt = 16
    apart: PositiveInt = 8
    moves: Annotated[float, Field(gt=0, lt=1)] = 0.005

    def record(self, seen: Sequence[Seen], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        errors = [
            relative_l2(step.output, dense.output)
            for x in settled(seen, self.settled)
            for step, dense in zip(x.steps, x.dense, strict=True)
        ]
        images = [x.sample.image for x in seen]
        apart = min(self.apart, len(images) - 1)
        pairs = list(zip(images, images[apart:], strict=False))[:: max(1, apart // 2)]
        return {"error": fmean(errors), "shift": median(shift(*pair) for pair in pairs)}

    def columns(self, records: Sequence[dict[str, Any]], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        return {group: len(errors) for group, errors in self._groups(records)}

    def estimates(self, records: Sequence[dict[str, Any]], data: Any) -> dict[str, Estimate]:
        """See `Metric`."""
        return {f"error_{group}": mean_of(errors) for group, errors in self._groups(records) if errors}

    def _groups(self, records: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[float]]]:
        for group, moving in (("still", False), ("moving", True)):
            yield group, [x["error"] for x in records if (x["shift"] >= self.moves) is moving]


@dataclass(frozen=True)
class Following(Metric):
    """`jf`: J&F in percent of the objects that are followed by features, the mean over the videos with masks."""

    names: ClassVar[Sequence[str]] = ("with_masks", "jf")

    def record(self, seen: Sequence[Seen], data: Any) -> float | None:
        """See `Metric`."""
        if any(x.sample.mask is None for x in seen):
            return None
        evaluator = Segmentation()
        for x in seen:
            evaluator.update(x)
        return evaluator.compute().mean.jf

    def columns(self, records: Sequence[float | None], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        return {"with_masks": len([x for x in records if x is not None])}

    def estimates(self, records: Sequence[float | None], data: Any) -> dict[str, Estimate]:
        """See `Metric`."""
        found = [x for x in records if x is not None]
        return {"jf": mean_of(found)} if found else {}


@dataclass(frozen=True)
class FrameTime(Metric):
    """`ms` of a later frame, the mean of what each took in this run, and `state_mb`, the most that a stream kept."""

    names: ClassVar[Sequence[str]] = ("ms", "state_mb")

    def record(self, seen: Sequence[Seen], data: Any) -> dict[str, float]:
        """See `Metric`."""
        steps = [step for x in seen for step in x.steps]
        later = [step.seconds for step in steps if not step.first]
        return {"ms": 1e3 * fmean(later), "state_mb": max(step.nbytes for step in steps) / 1e6}

    def columns(self, records: Sequence[dict[str, float]], data: Any) -> dict[str, Any]:
        """See `Metric`."""
        return {
            "ms": fmean(x["ms"] for x in records),
            "state_mb": max(x["state_mb"] for x in records),
        }
