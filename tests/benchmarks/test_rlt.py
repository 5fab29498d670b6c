"""Dropped tokens must save time: run-length tokenization against the dense model, clips of both by turns.

Not part of the normal tests: `make benchmark`, on a quiet machine; this file takes five minutes.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor

from evt.evaluate.trace import timed
from evt.eventful import count_ops, init_weights
from evt.models.videomae import VideoMAE
from evt.tokens import RunLength
from evt.tokens.run_length import keep_mask

CLIPS, ROUNDS = 8, 5
DROPPED = 0.4


def clips_that_repeat(model: VideoMAE) -> Tensor:
    """Clips (8, T, 3, size, size) of which 40% of the tokens repeat, some of more and some of fewer."""
    generator = torch.Generator().manual_seed(0)
    frames, side, _ = model.tubelet
    n = model.size // side
    later_kept = (1 - DROPPED - 1 / model.steps) / (1 - 1 / model.steps)
    rates = later_kept + torch.linspace(-0.2, 0.2, CLIPS).view(-1, 1, 1)
    textures = torch.randn(CLIPS, n, n, 3, side, side, generator=generator)
    steps = [textures]
    for _ in range(model.steps - 1):
        fresh = torch.randn(textures.shape, generator=generator)
        new = torch.rand(CLIPS, n, n, generator=generator) < rates
        steps.append(torch.where(new[..., None, None, None], fresh, steps[-1]))
    x = torch.stack(steps, 1).repeat_interleave(frames, 1)  # (B, T, n, n, 3, side, side)
    return x.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)


def test_dropped_tokens_save_time(benchmark: Any) -> None:
    """At least 0.9 times what they save in operations, at batch 8; and finding them costs under 2% of a dense run."""
    torch.manual_seed(0)
    model = VideoMAE().apply(init_weights).eval()
    clips, rlt = clips_that_repeat(model), RunLength()
    keep = keep_mask(clips, model.tubelet, rlt.threshold)
    assert abs(1 - keep.float().mean() - DROPPED) < 0.01
    operations = []
    seconds: list[float] = []
    with torch.inference_mode():
        for reduction in (None, rlt):
            with count_ops() as ops:
                model(clips, reduction)
            operations.append(ops.total())

        def a_dense_batch_first() -> tuple[tuple[Tensor, RunLength], dict[str, Any]]:
            seconds.append(timed(model, clips)[1])
            return (clips, rlt), {}

        benchmark.pedantic(model, setup=a_dense_batch_first, rounds=ROUNDS)
        masking = [timed(keep_mask, clips, model.tubelet, rlt.threshold)[1] for _ in range(ROUNDS)]
    dense = statistics.median(seconds)
    figures = {
        "op_ratio": operations[0] / operations[1],
        "time_ratio": dense / benchmark.stats.stats.median,
        "masking_share": statistics.median(masking) / dense,
    }
    print(f"{DROPPED:.0%} dropped, batch {CLIPS}: {figures}")
    benchmark.extra_info |= figures
    assert figures["time_ratio"] >= 0.9 * figures["op_ratio"]
    assert figures["masking_share"] < 0.02
