"""The fast path on a CUDA device, held to the CPU's reference path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evt.eventful import VARIANTS, TopR
from evt.eventful import fast as fast_module
from tests.common import small_frames, small_vit
from tests.eventful.test_fast import REFERENCE

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("few_keys", [0, 10**6])
@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_both_paths_are_on_a_gpu_what_the_reference_is_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, name: str, few_keys: int
) -> None:
    monkeypatch.setattr(fast_module, "FEW_KEYS", few_keys)
    frames, gated = small_frames(4, changed=4), VARIANTS[name].gate is not None
    policy = TopR(10) if gated else None
    cpu = small_vit().stream(REFERENCE[name], policy)
    fast = small_vit().cuda().stream(replace(VARIANTS[name], fast=True), policy)
    reference = small_vit().cuda().stream(REFERENCE[name], policy)
    for frame in frames:
        expected = cpu(frame)
        for stream in (fast, reference):
            torch.testing.assert_close(stream(frame.cuda()).cpu(), expected, atol=2e-4, rtol=1e-3)
