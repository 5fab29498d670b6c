"""A single clip without a label: what it costs beside the dense model, and its likeliest classes."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from evt.data.actions import UnlabelledClip
from evt.evaluate.budget import lines
from evt.evaluate.cost import Cost
from evt.evaluate.kept import BUDGET
from evt.evaluate.loop import Found
from evt.evaluate.skipping import Skipping
from evt.evaluate.trace import Seen, Subject, observe

log = logging.getLogger(__name__)

REPEATS = 3
"""Times that a model which takes a clip in one step runs it, after one that is not timed: it has no later steps."""


def look_at(
    subject: Subject, clip: UnlabelledClip, reach: int, classes: Sequence[str] | None, describe: str
) -> Found:
    """Run a clip's views, each of `reach` frames, as one batch, with a progress bar.

    Without the names of classes their numbers stand for them.

    Raises:
        DataError: a frame cannot be read or used; the message names it.
    """
    if len(clip.frames) < reach:
        log.warning(
            "the clip has %d frames and a view spans %d: its last frame is repeated, which makes tokens that repeat",
            len(clip.frames),
            reach,
        )
    inputs = list(subject.model.inputs(clip))
    if len(inputs) > 1:
        seen = observe(subject, clip, tqdm(inputs, desc=describe, unit="step"))
        figures = _figures_of_steps(seen)
    else:
        runs = [observe(subject, clip, inputs) for _ in tqdm(range(1 + REPEATS), desc=describe, unit="run")]
        seen, figures = runs[-1], {"tokens": _figures_of_runs(runs[1:])}
    best = seen.prediction.topk(min(5, len(seen.prediction)))
    names = [classes[i] if classes else str(i) for i in best.indices.tolist()]
    files = {}
    if "budget" in subject.also:
        budget = subject.also["budget"]()
        budget.update(seen)
        files[BUDGET] = lines({clip.name: budget.record()})
    return {**figures, "top5": dict(zip(names, best.values.tolist(), strict=True))}, files


def _figures_of_steps(seen: Seen) -> dict[str, Any]:
    cost = Cost()
    cost.update(seen)
    figures = {**cost.compute(), "tflops": seen.ops / 1e12}
    if seen.dense:
        own, dense = (sum(step.seconds for step in steps) for steps in (seen.steps, seen.dense))
        figures |= _beside_dense(seen, dense / own)
        skipping = Skipping()
        skipping.update(seen)
        if found := skipping.compute():
            figures["skipping"] = found
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
