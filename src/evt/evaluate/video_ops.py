"""The operations of ViViT on a video, from shapes alone (tables A and D)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from evt.eventful import Stream, TopR, Variant, count_ops
from evt.models.vivit import ViViT


@dataclass(frozen=True)
class VideoOperations:
    """Operations of the parts of a video by kind; of one view each.

    first: a view's first step of the spatial sub-model, the flush.
    later: every other step of it.
    temporal: the temporal sub-model and the classifier.
    steps, views: of a view and of the video.
    """

    first: Counter[str]
    later: Counter[str]
    temporal: Counter[str]
    steps: int
    views: int

    @property
    def total(self) -> int:
        """Operations of the video."""
        view = self.first.total() + (self.steps - 1) * self.later.total() + self.temporal.total()
        return self.views * view


@torch.no_grad()
def video_operations(model: ViViT, variant: Variant, policy: TopR | None) -> VideoOperations:
    """Count a video of as many views as the model takes, on whatever device it is; the meta device is enough.

    A threshold has no such count: what it selects depends on the frames.
    """
    device, dim = model.head.weight.device, model.head.in_features
    tokens = torch.zeros(1, model.n_tokens - 1, dim, device=device)
    stream = Stream(model.spatial, variant, policy)
    counts = []
    for run, x in (
        (stream, tokens),
        (stream, tokens),
        (model.classify, torch.zeros(1, model.steps, dim, device=device)),
    ):
        with count_ops() as ops:
            run(x)
        counts.append(ops)
    first, later, temporal = counts
    return VideoOperations(first, later, temporal, model.steps, len(model.views))
