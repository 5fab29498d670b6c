"""A single clip without a label: what it costs beside the dense model, and its likeliest classes."""

from __future__ import annotations

import statistics
from typing import Any

from torch import Tensor
from tqdm import tqdm

from evt.data.actions import UnlabelledClip
from evt.evaluate.cost import Cost
from evt.evaluate.trace import Seen, Subject, observe

REPEATS = 3
"""Times that a model which takes a clip in one step runs it, after one that is not timed: it has no later steps."""


def look_at(subject: Subject, clip: UnlabelledClip, describe: str) -> tuple[dict[str, Any], Tensor]:
    """Run a clip's views as one batch, with a progress bar.

    Returns:
        The figures, for metrics.json, and the probabilities of the classes, (classes,).

    Raises:
        DataError: a frame cannot be read or used; the message names it.
    """
    inputs = list(subject.model.inputs(clip))
    if len(inputs) > 1:
        seen = observe(subject, clip, tqdm(inputs, desc=describe, unit="step"))
        return _figures_of_steps(seen), seen.prediction
    runs = [observe(subject, clip, inputs) for _ in tqdm(range(1 + REPEATS), desc=describe, unit="run")]
    return {"tokens": _figures_of_runs(runs[1:])}, runs[-1].prediction


def _figures_of_steps(seen: Seen) -> dict[str, Any]:
    cost = Cost()
    cost.update(seen)
    figures = {**cost.compute(), "tflops": seen.ops / 1e12}
    if seen.dense:
        own, dense = (sum(step.seconds for step in steps) for steps in (seen.steps, seen.dense))
        figures |= _beside_dense(seen, dense / own)
    return figures


def _figures_of_runs(runs: list[Seen]) -> dict[str, Any]:
    seen = runs[0]
    ms = 1e3 * statistics.median(run.seconds for run in runs)
    figures: dict[str, Any] = {"views": len(seen.steps[0].output), "tflops": seen.ops / 1e12, "ms": ms}
    if seen.kept is not None:
        figures["kept"] = seen.kept
    if seen.dense:
        dense_ms = 1e3 * statistics.median(run.dense[0].seconds for run in runs)
        figures |= {"dense_ms": dense_ms, **_beside_dense(seen, dense_ms / ms)}
    return figures


def _beside_dense(seen: Seen, time_ratio: float) -> dict[str, float]:
    return {
        "dense_tflops": seen.dense_ops / 1e12,
        "op_ratio": seen.dense_ops / seen.ops,
        "time_ratio": time_ratio,
    }
