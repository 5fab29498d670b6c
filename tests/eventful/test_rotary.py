"""Rotary positions."""

import torch

from evt.eventful import VARIANTS, Blocks, Rotary, TopR
from evt.eventful.block import Block
from evt.eventful.policy import top


def rotary(n_tokens: int, d: int, neighbours: bool = False) -> Rotary:
    """Random angles, one a pair."""
    angles = torch.rand(n_tokens, d // 2)
    angles = angles.repeat_interleave(2, -1) if neighbours else angles.repeat(1, 2)
    return Rotary(angles.cos(), angles.sin(), neighbours)


def test_pairs_are_turned_by_their_angle() -> None:
    """A number of a pair is the real part, and the other one the imaginary."""
    qkv = torch.randn(2, 5, 3, 4, 8)
    for neighbours in (False, True):
        by = rotary(5, 8, neighbours)
        first = slice(0, None, 2) if neighbours else slice(0, 4)
        second = slice(1, None, 2) if neighbours else slice(4, 8)
        turn = torch.complex(by.cos[:, first], by.sin[:, first])[:, None, None]
        expected = torch.complex(qkv[..., :2, :, first], qkv[..., :2, :, second]) * turn
        turned = by(qkv, None)
        torch.testing.assert_close(turned[..., :2, :, first], expected.real)
        torch.testing.assert_close(turned[..., :2, :, second], expected.imag)
        assert torch.equal(turned[..., 2, :, :], qkv[..., 2, :, :])


def test_changed_tokens_are_turned_by_their_own_places() -> None:
    qkv, by = torch.randn(2, 5, 3, 4, 8), rotary(5, 8)
    changed = top(torch.rand(2, 5), 3)
    some = qkv.flatten(0, 1)[changed.index]
    assert torch.equal(by(some, changed), by(qkv, None).flatten(0, 1)[changed.index])


def test_streams_in_which_all_tokens_pass_are_dense() -> None:
    torch.manual_seed(0)
    blocks, by = Blocks(Block(16, 2) for _ in range(2)), rotary(6, 8)
    with torch.no_grad():
        for name in ("temporal", "rows", "tokenwise"):
            states = blocks.states(VARIANTS[name])
            for frame in torch.randn(3, 2, 6, 16):
                out = blocks(frame, states, TopR(6), [by, None])
                torch.testing.assert_close(out, blocks(frame, rotary=[by, None]), atol=1e-5, rtol=1e-5)
                assert not torch.allclose(out, blocks(frame), atol=1e-3)
