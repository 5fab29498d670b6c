"""Finding a threshold for each gate, such that as many tokens pass it as asked, in the mean over frames.

Errors differ from gate to gate, so that one threshold for all of them lets all pass at some and next to nothing at
others. What a gate lets through changes what comes to the gates behind it, and its own errors in later frames: the
thresholds are judged by what passes when all of them are in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from math import exp, inf, log
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from evt.evaluate.trace import trace
from evt.eventful import Past, Selection, Thresholds, TopR, Variant

SLOWER, FASTER = 0.5, 1.2
"""What the exponent of a gate's steps is multiplied by, where it went too far and where it did not."""

MOST = 4.0
"""What passed counts as at most so many times more or less than r: where nothing did, nobody knows how far to go."""


@torch.no_grad()
def calibrate(
    model: Any,
    variant: Variant,
    r: int,
    videos: Iterable[Iterable[Any]],
    passes: int,
    within: float,
    bar: tqdm[Any],
) -> tuple[list[float], list[float]]:
    """Find thresholds by running over videos again and again; the same ones give the same thresholds.

    First with top-r: a gate's threshold is what the r-th largest norm of an error was, in the mean. After each later
    pass it is multiplied by (passed / r) ** a, where a is halved when that changes from above 1 to below or back: all
    gates together answer more strongly than each would alone, and would go to and fro.

    Args:
        model, variant: what runs.
        r: tokens that are to pass each gate, in the mean over the later frames of all streams.
        videos: frames in order, or clips, of each; read anew in each pass.
        passes: at most so many after the first.
        within: how far what passes may be from r, as a share of it and at all gates, to be done earlier.
        bar: goes on by 1 for each sample.

    Returns:
        The thresholds that came nearest, by gate, and how many tokens passed with these. Nothing where no frame came
        after another one.
    """
    stream = model.stream(variant, first := _Largest(r))

    def run(policy: Any) -> None:
        stream.policy = policy
        for sample in chain.from_iterable(videos):
            for _ in trace(stream, model.inputs(sample), getattr(sample, "first", True)):
                pass
            bar.update()

    run(first)
    h = [fmean(first.norms[gate]) for gate in sorted(first.norms)]
    found: tuple[list[float], list[float]] = ([], [])
    nearest, powers, before = inf, [0.5] * len(h), [0.0] * len(h)
    for _ in range(passes if h else 0):
        run(policy := _Watched(h))
        passed = [fmean(policy.counts[gate]) for gate in range(len(h))]
        if (off := farthest(passed, r)) < nearest:
            nearest, found = off, (h, passed)
        bar.set_postfix_str(f"{100 * nearest:.0f}% off")
        if off <= within:
            break
        now = [log(min(max(n / r, 1 / MOST), MOST)) for n in passed]
        powers = [
            min(1.0, a * (SLOWER if x * y < 0 else FASTER))
            for a, x, y in zip(powers, before, now, strict=True)
        ]
        h = [x * exp(a * y) for x, a, y in zip(h, powers, now, strict=True)]
        before = now
    return found


def farthest(passed: Sequence[float], r: int) -> float:
    """How far what passes the gate that is farthest from r is from it, as a share of r."""
    return max(abs(n / r - 1) for n in passed)


class _Largest(TopR):
    """Top-r that keeps, by gate, the r-th largest norm among the errors of each frame that are finite."""

    def __init__(self, r: int) -> None:
        super().__init__(r)
        self.norms: dict[int, list[float]] = {}

    def __call__(self, error: Tensor, past: Past | None = None) -> Selection:
        assert past is not None
        norm = torch.linalg.vector_norm(error, dim=-1)  # (B, N)
        largest = norm.masked_fill(norm.isinf(), 0).topk(self.tokens(norm.shape[1])).values[:, -1]
        self.norms.setdefault(past.gate, []).extend(largest.tolist())
        return super().__call__(error, past)


class _Watched(Thresholds):
    """Thresholds that keep, by gate, how many tokens of each frame passed."""

    def __init__(self, h: Sequence[float]) -> None:
        super().__init__(h)
        self.counts: dict[int, list[int]] = {}

    def __call__(self, error: Tensor, past: Past) -> Selection:
        selection = super().__call__(error, past)
        self.counts.setdefault(past.gate, []).extend(selection.counts)
        return selection
