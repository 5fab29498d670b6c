"""Saliency in videos: how far the features and the map of each frame are from the dense model's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from evt.data.video import Video
from evt.evaluate.kept import files_of
from evt.evaluate.ledger import Ledger
from evt.evaluate.loop import Found
from evt.evaluate.segmentation import Segmentation
from evt.evaluate.trace import Seen, Subject
from evt.evaluate.videos import run_videos
from evt.metrics.agreement import correlation, cosine, iou, mean_absolute_error, relative_l2
from evt.models.features import Features


@dataclass
class SaliencyAgreement:
    """An evaluator: features and saliency beside the dense model's, on the picture alone, and what the decoder costs.

    decode: what makes `Features` of a stream's outputs, of the dense model's too.
    frames: the figures of each.
    """

    decode: Callable[[Sequence[Tensor], Any], Features]
    frames: list[dict[str, float]] = field(default_factory=list)

    def update(self, seen: Seen) -> None:
        """See `Evaluator`; the sample is a frame."""
        figures = {
            "first": float(seen.sample.first),
            "decoder_gflops": seen.decode_ops / 1e9,
            "decoder_ms": 1e3 * seen.decode_seconds,
        }
        if seen.dense:
            dense = self.decode([step.output for step in seen.dense], seen.sample)
            figures |= compared(seen.prediction, dense)
        self.frames.append(figures)

    def record(self) -> list[dict[str, float]]:
        """See `Evaluator`."""
        return self.frames

    def add(self, record: list[dict[str, float]]) -> None:
        """See `Evaluator`."""
        self.frames += record

    def compute(self) -> dict[str, dict[str, float]]:
        """Of first, later and all frames the means, of times the medians."""
        first = [frame for frame in self.frames if frame["first"]]
        later = [frame for frame in self.frames if not frame["first"]]
        parts = {"first": first, "later": later, "all": self.frames}
        return {name: _means(frames) for name, frames in parts.items() if frames}


def compared(found: Features, dense: Features) -> dict[str, float]:
    """What a frame's features and saliency have in common with the dense model's."""
    figures = {
        "feature_relative_l2": relative_l2(found.features, dense.features),
        "feature_cosine": cosine(found.features, dense.features),
    }
    if found.map is not None and dense.map is not None:
        figures |= {
            "saliency_mae": mean_absolute_error(found.map, dense.map),
            "saliency_correlation": correlation(found.map, dense.map),
            "saliency_iou": iou(found.map, dense.map),
        }
    return figures


def _means(frames: Sequence[dict[str, float]]) -> dict[str, float]:
    return {
        name: (statistics.median if name == "decoder_ms" else statistics.fmean)(x[name] for x in frames)
        for name in frames[0]
        if name != "first"
    }


def compare_saliency(
    subject: Subject, videos: Sequence[Video], ledger: Ledger, key: str, describe: str
) -> Found:
    """Run over videos, beside a dense model compare with it, and where there are masks measure against these.

    For the arguments, see `run_videos`.
    """
    kinds: dict[str, Any] = {"saliency": partial(SaliencyAgreement, subject.model.decode)}
    if getattr(videos, "masked", False):
        kinds["segmentation"] = Segmentation
    metrics, found, kept = run_videos(subject, videos, kinds, ledger, key, describe)
    for part, figures in found["saliency"].compute().items():
        metrics[part] |= figures
    if "segmentation" in found:
        metrics["segmentation"] = asdict(found["segmentation"].compute())
    return metrics, files_of(kept)
