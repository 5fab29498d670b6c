"""The fast path of attention, held to the reference path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evt.eventful import VARIANTS, Threshold, TopR, Variant
from evt.eventful import fused as fused_module
from tests.common import small_frames, small_vit
from tests.eventful.test_mechanism import run

# The fast path is exact in q, k and v. So are dense attention on the buffered tokens (token-wise gating) and, of
# pooled keys, the sparse query-key product without equation 10.
REFERENCE = {
    "base": VARIANTS["base"],
    "temporal": VARIANTS["tokenwise"],
    "temporal_qk_only": VARIANTS["tokenwise"],
    "temporal_gate_before_norm": replace(VARIANTS["tokenwise"], gate_before_norm=True),
    "tokenwise": VARIANTS["tokenwise"],
    "stgt": VARIANTS["stgt"],
    "spatial": VARIANTS["spatial"],
    "spatiotemporal": replace(VARIANTS["tokenwise"], pool=2),
}
grids = st.sampled_from([(6, 6), (5, 7), (8, 4)])


def fused(name: str) -> Variant:
    return replace(VARIANTS[name], fused=True)


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(REFERENCE)),
    grid=grids,
    seed=st.integers(0, 100),
    policy=st.sampled_from([TopR(0), TopR(3), TopR(20), Threshold(1.5)]),
    batch=st.integers(1, 2),
)
def test_it_equals_dense_attention_on_the_buffered_tokens(
    name: str, grid: tuple[int, int], seed: int, policy: TopR | Threshold, batch: int
) -> None:
    """Else it would be another method, not a faster way to compute this one."""
    net, frames = small_vit(grid, seed), small_frames(5, grid, batch, changed=4, seed=seed)
    gated = VARIANTS[name].gate is not None
    ours = run(net.stream(fused(name), policy if gated else None), frames)
    theirs = run(net.stream(REFERENCE[name], policy if gated else None), frames)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)
