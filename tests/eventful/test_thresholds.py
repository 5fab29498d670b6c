"""A threshold of its own for each gate, and which gate is which."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evt.eventful import VARIANTS, Past, Selection, Threshold, Thresholds
from tests.common import small_frames, small_vit

GATED = {name: variant for name, variant in VARIANTS.items() if variant.gate is not None}
N_GATES = {name: 1 if variant.gate == "frame" else 12 for name, variant in GATED.items()}
"""Of the small network's four blocks."""


class Recording(Thresholds):
    """Keeps which gates it was asked for, and how many tokens passed."""

    def __init__(self, h: list[float]) -> None:
        super().__init__(h)
        self.seen: list[tuple[int, int]] = []

    def __call__(self, error: Tensor, past: Past) -> Selection:
        selection = super().__call__(error, past)
        self.seen.append((past.gate, len(selection.index)))
        return selection


@settings(deadline=None, max_examples=20)
@given(name=st.sampled_from(sorted(GATED)), h=st.floats(0, 8), seed=st.integers(0, 99))
def test_the_same_threshold_for_each_gate_is_one_threshold(name: str, h: float, seed: int) -> None:
    net, frames = small_vit(seed=seed), small_frames(3, batch=2, seed=seed)
    one = net.stream(GATED[name], Threshold(h))
    many = net.stream(GATED[name], Thresholds([h] * N_GATES[name]))
    assert all(torch.equal(one(frame), many(frame)) for frame in frames)


@pytest.mark.parametrize("name", sorted(GATED))
def test_gates_are_numbered_as_a_frame_comes_to_them(name: str) -> None:
    policy = Recording([0.0] * N_GATES[name])
    stream = small_vit().stream(GATED[name], policy)
    for frame in small_frames(3):
        policy.seen.clear()
        stream(frame)
    assert [gate for gate, _ in policy.seen] == list(range(N_GATES[name]))


@pytest.mark.parametrize("gate", [0, 1, 5, 11])
def test_each_gate_has_its_own_threshold(gate: int) -> None:
    """All others are closed; of windows that are closed before it, a gate behind sees no change."""
    policy = Recording([1e9] * 12)
    policy.h[gate] = 0
    stream = small_vit().stream(VARIANTS["tokenwise"], policy)
    for frame in small_frames(2, changed=36):
        stream(frame)
    passed = dict(policy.seen)
    # Nothing comes to a proj gate behind a closed qkv gate; to all others comes what is added beside closed ones.
    assert passed.pop(gate) == (0 if gate == 1 else 36)
    assert set(passed.values()) == {0}


def test_a_stream_that_goes_on_knows_its_gates() -> None:
    h = [0.5 * gate for gate in range(12)]
    net, frames = small_vit(), small_frames(4)
    whole, first, second = (net.stream(VARIANTS["temporal"], Thresholds(h)) for _ in range(3))
    outputs = [whole(frame).clone() for frame in frames]
    for frame in frames[:2]:
        first(frame)
    second.load_state_dict(first.state_dict())
    for frame, output in zip(frames[2:], outputs[2:], strict=True):
        torch.testing.assert_close(second(frame), output)


def test_as_many_thresholds_as_gates_are_needed() -> None:
    net = small_vit()
    for name, n in (("temporal", 11), ("temporal", 13), ("frame", 12), ("stgt", 0)):
        with pytest.raises(
            ValueError,
            match=rf"policy\.h has {n} thresholds, but this variant has {N_GATES[name]} gates here",
        ):
            net.stream(GATED[name], Thresholds([1.0] * n))
    with pytest.raises(ValueError, match=r"policy\.h is -1; it must be a finite number, 0 or more"):
        Thresholds([1, -1])
