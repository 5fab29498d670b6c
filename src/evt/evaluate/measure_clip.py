"""What ViViT costs on one clip, and how far its output is from the dense model's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from evt.data.actions import Frames
from evt.errors import DataError
from evt.evaluate.measure import Measurement, dense_rival, timed
from evt.eventful import Policy, Stream, Variant, count_ops
from evt.metrics.agreement import relative_l2
from evt.models.vivit import ViViT


@dataclass(frozen=True)
class ClipMeasurement:
    """ViViT on one clip, all views at once.

    spatial: the spatial sub-model, a frame of it being one step of all views; the first step is the flush.
    temporal_ops: of the temporal sub-model and the classifier, which are always dense.
    dense_ops: of the dense model in all, None where it did not run.
    probabilities: of the classes, (classes,).
    """

    spatial: Measurement
    temporal_ops: int
    dense_ops: int | None
    probabilities: Tensor

    @property
    def ops(self) -> int:
        """Operations in all."""
        return self.spatial.first.ops.total() + self.spatial.later.ops.total() + self.temporal_ops


@torch.no_grad()
def measure_clip(
    model: ViViT, variant: Variant, policy: Policy | None, clip: Frames, compare: bool, describe: str
) -> ClipMeasurement:
    """Run a clip's views as one batch of streams, with a progress bar over the steps.

    Args:
        model, variant, policy: what runs.
        clip: its frames.
        compare: run the dense model step by step beside, to compare times and outputs.
        describe: beside the progress bar.

    Raises:
        DataError: a frame cannot be read or used; the message names it.
    """
    try:
        views = model.preprocess(clip)
    except ValueError as error:
        raise error if isinstance(error, DataError) else DataError(str(error)) from error
    stream = Stream(model.spatial, variant, policy)
    dense = Stream(model.spatial, dense_rival(variant)) if compare else None
    measurement, outputs, dense_ops = Measurement(), [], 0
    for step, x in enumerate(tqdm(model.steps_of(views), desc=describe, unit="step")):
        tokens = model.patch_embed(x).squeeze(1)
        part = measurement.later if step else measurement.first
        with count_ops() as ops:
            out, seconds = timed(stream, tokens)
        part.ops += ops
        part.seconds.append(seconds)
        if dense is not None:
            with count_ops() as ops:
                reference, seconds = timed(dense, tokens)
            dense_ops += ops.total()
            part.dense_seconds.append(seconds)
            part.error.append(relative_l2(out, reference))
        outputs.append(out)
        measurement.state_bytes = max(measurement.state_bytes, stream.nbytes)
    with count_ops() as ops:
        logits = model.classify(torch.stack(outputs, dim=1))
    return ClipMeasurement(
        measurement,
        ops.total(),
        dense_ops + ops.total() if compare else None,
        logits.mean(dim=0).softmax(dim=-1),
    )
