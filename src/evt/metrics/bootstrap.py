"""How far a figure may lie from the truth because of the videos that it was measured on (Efron's bootstrap).

Frames of a video are alike, so whole videos are drawn, with replacement, as many as there are. All resamples are
drawn from one seed: figures on the same videos meet the same draws, so that their differences can be compared too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evt.metrics.coco import Instances, Ranking, ranking

RESAMPLES = 1000
_RECALL = np.linspace(0, 1, 101)


def resample(n: int) -> np.ndarray:
    """How often each of n videos is drawn in each resample, (RESAMPLES, n) int64; each row sums to n."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A figure, and what it is on videos that are drawn again and again.

    value: the figure.
    resamples: (RESAMPLES,), what it is in each resample; two figures on the same videos can be subtracted.
    """

    value: float
    resamples: np.ndarray

    @property
    def interval(self) -> float:
        """Half the width of what 95% of the resamples lie in; those that are not a number are left out."""
        if np.isnan(self.resamples).all():
            return float("nan")
        low, high = np.nanpercentile(self.resamples, (2.5, 97.5))
        return float(high - low) / 2

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, self.resamples - other.resamples)

    @classmethod
    def mixed(cls, shares: Sequence[float], parts: Sequence[Estimate]) -> Estimate:
        """The mean of figures on the same videos, each with its share; all shares are 1 together."""
        weights = np.asarray(shares)
        values, resamples = np.array([x.value for x in parts]), np.stack([x.resamples for x in parts])
        return cls(float(weights @ values), weights @ resamples)


def map50_of(
    n_classes: int, objects: Instances, detections: Instances, video_of: np.ndarray, draws: np.ndarray
) -> np.ndarray:
    """COCO's AP at IoU 0.5, mean over the classes with objects, of each resample, (resamples,) in 0..1.

    Args:
        n_classes: how many classes.
        objects, detections: of all images.
        video_of: (images,) int64, the video of each image.
        draws: (resamples, videos), see `resample`; a single row of ones gives the plain mAP50.
    """
    per_class = []
    for k in range(n_classes):
        found = ranking(objects.of_class(k), detections.of_class(k))
        per_class.append([_average_precision(found, video_of, times) for times in draws])
    ap = np.array(per_class)  # (classes, resamples); NaN where no object was drawn
    n = (~np.isnan(ap)).sum(0)
    return np.where(n > 0, np.nansum(ap, 0) / np.maximum(n, 1), np.nan)


def _average_precision(found: Ranking, video_of: np.ndarray, times: np.ndarray) -> float:
    """AP where each video counts as often as it was drawn: the mean precision at 101 recalls."""
    n_objects = times[video_of[found.objects]].sum()
    if not n_objects:
        return np.nan
    weight = times[video_of[found.images]]
    seen = weight.cumsum()
    right = (weight * found.hits).cumsum()
    drawn = weight > 0
    seen, right = seen[drawn], right[drawn]
    # At each recall the best precision that is reached there or later.
    precision = np.maximum.accumulate((right / seen)[::-1])[::-1]
    at = np.searchsorted(right / n_objects, _RECALL, side="left")
    return float(np.append(precision, 0)[at].mean())


def mean_of(values: Sequence[float]) -> Estimate:
    """The mean of one value a video."""
    draws = resample(len(values))
    return Estimate(float(np.mean(values)), draws @ np.asarray(values, np.float64) / draws.sum(1))
