"""What the last result came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evt.eventful import VARIANTS, Batch, Rollout, Variant
from evt.eventful.attention import AttentionState
from evt.eventful.selectors.rollout import rollout, with_skips
from tests.common import WithClassToken, small_frames, small_vit

FRAME = VARIANTS["frame"]


def test_two_blocks_by_hand() -> None:
    """Three tokens: in the last block the first attends to the second alone, in the first the second to the third.

    Of its importance 1/2 stays at the first token in the last block, and of that 1/2 again in the first block. The
    second has 1/2 after the last block, and gives 1/2 of it to the third.
    """
    last = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]])
    first = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 1]])
    steps = with_skips(torch.stack([first, last]))
    found = rollout(torch.tensor([1.0, 0, 0]), steps)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.25, 0.25]))
    # Here heads are not all of the mean: rows are brought to a sum of 1 with the skip connection's half in them.
    steps = with_skips(torch.tensor([[[0.5, 0.5], [0, 2.0]]]))
    torch.testing.assert_close(rollout(torch.tensor([1.0, 0]), steps), torch.tensor([0.75, 0.25]))


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 8), depth=st.integers(0, 4), seed=st.integers(0, 99))
def test_it_is_the_product_of_the_matrices_and_loses_nothing(n: int, depth: int, seed: int) -> None:
    """As Abnar and Zuidema have it: the rollout of all tokens at once, by numpy."""
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randn(depth, n, n, generator=generator, dtype=torch.float64).softmax(-1)
    start = torch.rand(n, generator=generator, dtype=torch.float64)
    whole = np.eye(n)
    for block in attention.numpy():
        whole = (block + np.eye(n)) / 2 @ whole
    found = rollout(start, with_skips(attention.clone()))
    np.testing.assert_allclose(found.numpy(), start.numpy() @ whole, rtol=1e-9)
    assert float(found.sum()) == pytest.approx(float(start.sum()))


def matrices(attn: Any, qkv: Tensor) -> Tensor:
    """What the reference path multiplies values with, (H, N, N): its results for values that single out a key."""
    n, heads = qkv.shape[1], attn.num_heads
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(2)
    found, d = torch.empty(heads, n, n), v.shape[-1]
    for first in range(0, n, d):
        keys = min(d, n - first)
        v = torch.zeros_like(v)
        v[0, range(first, first + keys), :, range(keys)] = 1
        out = attn(torch.stack([q, k, v], 2).flatten(2), None, AttentionState(Variant()))
        found[:, :, first : first + keys] = out[0].unflatten(-1, (heads, d))[..., :keys].transpose(0, 1)
    return found


@torch.no_grad()
def test_the_attention_is_that_of_the_blocks() -> None:
    """With relative positions, of the two global blocks, in the last frame that was run whole."""
    net, boxes = small_vit(), torch.tensor([[0.0, 0, 2, 2, 0.9]])
    seen: list[Tensor] = []
    for number in (1, 3):
        block: Any = net.blocks[number]
        block.register_forward_pre_hook(lambda block, args: seen.append(block.attn.qkv(block.norm1(args[0]))))
    first, *later = small_frames(3, changed=36)
    net(first)
    expected = [
        matrices(net.blocks[number].attn, qkv).square().mean(0).sqrt()
        for number, qkv in zip((1, 3), seen, strict=True)
    ]
    stream = small_vit().stream(FRAME, Rollout(5, 8))
    for frame in (first, *later):
        stream(frame)
        stream.saw([boxes])
    states: Any = stream.states
    (note,) = states.notes
    torch.testing.assert_close(note.attention, with_skips(torch.stack(expected)), atol=1e-5, rtol=1e-4)


def test_importance_follows_the_boxes() -> None:
    """From frame to frame another part of the picture is where objects are."""
    net = small_vit()
    stream, frames = net.stream(FRAME, Rollout(4, None)), small_frames(3, changed=36)
    corners = [torch.tensor([[0.0, 0, 2, 2, 0.9]]), torch.tensor([[4.0, 4, 6, 6, 0.9]])]
    last, passed = stream(frames[0]), []
    for corner, frame in zip(corners, frames[1:], strict=True):
        stream.saw([corner])
        now = stream(frame)
        passed.append((now != last).any(-1)[0].nonzero().flatten().tolist())
        last = now
    assert passed == [[0, 1, 6, 7], [28, 29, 34, 35]]


@pytest.mark.parametrize("keep", [36, 1.0])
def test_all_tokens_are_the_dense_model(keep: float) -> None:
    net = small_vit()
    stream, dense = net.stream(FRAME, Rollout(keep, None)), net.stream(VARIANTS["base"])
    for frame in small_frames(3, changed=36):
        torch.testing.assert_close(stream(frame), dense(frame), atol=2e-5, rtol=1e-4)
        stream.saw([torch.ones(1, 5)])


def test_from_the_class_token_nothing_needs_to_be_told() -> None:
    """What the class token attended to passes; none is the last output; streams of a batch are as if alone."""
    torch.manual_seed(0)
    net = WithClassToken((3, 3), 2)
    first, second = torch.randn(2, 1, 3, 6, 6)
    block: Any = net.blocks[0]
    with torch.no_grad():
        x = torch.cat([net.cls_token, net.patch_embed(first)], 1)
        q, k, _ = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        attended = (q @ k.transpose(-2, -1) * 0.5).softmax(-1)[0, :, 0].square().mean(0)  # by the class token
    most = (attended[1:].argsort(descending=True)[:3] + 1).tolist()
    stream, nothing = (net.stream(FRAME, Rollout(keep, 8, "class")) for keep in (4, 0))
    before, after = stream(first), stream(second)
    changed = (before != after).any(-1)[0].nonzero().flatten().tolist()
    assert changed == sorted([0, *most])
    torch.testing.assert_close(nothing(first), nothing(second))
    batch = Batch(net.stream(FRAME, Rollout(4, every, "class")) for every in (2, 8))
    batch([first, first])
    for out in batch([second, second]):
        torch.testing.assert_close(out, after)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rollout(3, 0), r"policy\.every is 0; it must be a whole number of at least 1"),
        (lambda: Rollout(3, start="all"), r"policy\.start is 'all'; it must be boxes or class"),  # type: ignore[arg-type]
        (lambda: Rollout(3, confidence=-1), r"policy\.confidence is -1; it must be a finite number"),
        (
            lambda: Rollout(37).check(36),
            r"policy\.keep is 37, but a frame has 36 tokens; it must be at most 36",
        ),
        (
            lambda: small_vit().stream(FRAME, Rollout(3, start="class")),
            r"policy\.start is class, but this network has no class token; it must be boxes",
        ),
        (
            lambda: small_vit().stream(
                Variant("frame", sparse_qk=True, sparse_av=True, rows=True, fast=True, pool=2), Rollout(3)
            ),
            r"variant\.pool is 2, but attention rollout is of single tokens; it must be 1",
        ),
    ],
)
def test_bad_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
