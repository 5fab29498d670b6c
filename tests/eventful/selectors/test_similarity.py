"""What is least like what is cached."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evt.eventful import VARIANTS, Similarity, count_ops
from tests.common import small_frames, small_vit

FRAME = VARIANTS["frame"]


@settings(deadline=None, max_examples=10)
@given(of=st.sampled_from(["keys", "values"]), keep=st.integers(1, 35), seed=st.integers(0, 99))
def test_those_pass_whose_cosine_is_least(of: Literal["keys", "values"], keep: int, seed: int) -> None:
    """Of the first block, which is windowed here: its cache is in the order of the windows."""
    net, (first, second) = small_vit(), small_frames(2, changed=20, seed=seed)
    block: Any = net.blocks[0]
    columns = {"keys": slice(24, 48), "values": slice(48, 72)}[of]
    seen: list[torch.Tensor] = []
    handle = block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        net(first), net(second)
        handle.remove()
        before, after = (block.attn.qkv(block.norm1(x))[0, :, columns] for x in seen)
    least = torch.nn.functional.cosine_similarity(before, after, dim=-1).argsort()[:keep]
    stream = net.stream(FRAME, Similarity(keep, None, of))
    out, again = stream(first), stream(second)
    changed = (out != again).any(-1)[0].nonzero().flatten()
    # Where a patch is as it was, its cosine is 1, up to rounding, as that of others.
    assert len(changed) == keep
    assert set(least[: min(keep, 20)].tolist()) <= set(changed.tolist())


@pytest.mark.parametrize("of", ["keys", "values"])
def test_the_layer_that_runs_on_all_tokens_is_counted(of: Literal["keys", "values"]) -> None:
    net = small_vit()
    stream, first = net.stream(FRAME, Similarity(0, None, of)), small_frames(1)[0]
    stream(first)
    with count_ops() as ops:
        stream(first)
    assert ops["linear"] == 36 * 24 * 72
