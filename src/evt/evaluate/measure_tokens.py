"""What a model of whole clips saves on one clip by looking at fewer tokens."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from evt.data.actions import Frames
from evt.errors import DataError
from evt.evaluate.measure import timed
from evt.eventful import count_ops
from evt.models.videomae import VideoMAE
from evt.tokens import Reduction

REPEATS = 3
"""Times that all views are run after one that is not timed, dense and reduced by turns."""


@torch.no_grad()
def measure_tokens(
    model: VideoMAE, reduction: Reduction | None, clip: Frames, compare: bool
) -> tuple[dict[str, Any], torch.Tensor]:
    """Run a clip's views as one batch.

    Args:
        model, reduction: what runs; deciding which tokens go is part of its time.
        clip: its frames.
        compare: run the dense model beside, to compare times and outputs.

    Returns:
        The figures, for metrics.json, and the probabilities of the classes, (classes,).

    Raises:
        DataError: a frame cannot be read or used; the message names it.
    """
    try:
        views = model.preprocess(clip)
    except ValueError as error:
        raise error if isinstance(error, DataError) else DataError(str(error)) from error
    runs: dict[str, Reduction | None] = {"this": reduction, **({"dense": None} if compare else {})}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    ops, logits = {}, {}
    for repetition in range(1 + REPEATS):
        for name, what in runs.items():
            with count_ops() as counted:
                logits[name], taken = timed(model, views, what)
            ops[name] = counted.total()
            if repetition:
                seconds[name].append(taken)
    figures: dict[str, Any] = {
        "views": len(views),
        "tflops": ops["this"] / 1e12,
        "ms": 1e3 * statistics.median(seconds["this"]),
    }
    if (kept := model.share_kept(views, reduction)) is not None:
        figures["kept"] = kept
    if compare:
        dense = statistics.median(seconds["dense"])
        figures |= {
            "dense_tflops": ops["dense"] / 1e12,
            "dense_ms": 1e3 * dense,
            "op_ratio": ops["dense"] / ops["this"],
            "time_ratio": 1e3 * dense / figures["ms"],
        }
    return figures, logits["this"].mean(0).softmax(-1)
