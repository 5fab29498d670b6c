"""Frame skipping: the rival of everything else, so it must be exactly what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evt.eventful import VARIANTS, Every, TopR, Variant, count_ops
from tests.common import small_frames, small_vit

SKIP = VARIANTS["skip"]


@settings(deadline=None, max_examples=20)
@given(every=st.integers(1, 5), phase=st.integers(0, 4))
def test_each_frame_has_the_dense_output_of_the_last_that_was_run(every: int, phase: int) -> None:
    phase %= every
    net, frames = small_vit(), small_frames(7, changed=5)
    stream = net.stream(SKIP, Every(every, phase))
    for i, frame in enumerate(frames):
        run = max([0, *(t for t in range(i + 1) if t % every == phase)])
        with count_ops() as ops, torch.no_grad():
            out = stream(frame)
        assert torch.equal(out, net(frames[run]))
        assert (ops.total() > 0) == (run == i)


def test_every_frame_is_the_dense_model() -> None:
    net = small_vit()
    skip, dense = net.stream(SKIP, Every(1)), net.stream(VARIANTS["base"])
    for frame in small_frames(3, changed=5):
        assert torch.equal(skip(frame), dense(frame))


def test_on_the_fast_path_too() -> None:
    """Else the time of frame skipping would be of attention that is slower than the dense model's."""
    net, frames = small_vit(), small_frames(3, changed=5)
    skip, dense = net.stream(replace(SKIP, fast=True), Every(2)), net.stream(Variant(fast=True))
    outputs = [dense(frame) for frame in frames]
    for frame, run in zip(frames, (0, 0, 2), strict=True):
        assert torch.equal(skip(frame), outputs[run])
    assert not torch.equal(outputs[0], net(frames[0]))  # in the last digits, so that the paths are told apart


def test_a_saved_stream_goes_on_with_the_same_frames() -> None:
    """Else the frames that are run would be others after a restart."""
    net, frames = small_vit(), small_frames(6, changed=5)
    whole, first, second = (net.stream(SKIP, Every(3, 1)) for _ in range(3))
    outputs = [whole(frame) for frame in frames]
    for frame in frames[:3]:
        first(frame)
    second.load_state_dict(first.state_dict())
    assert second.nbytes == first.nbytes > 0
    for frame, output in zip(frames[3:], outputs[3:], strict=True):
        assert torch.equal(second(frame), output)


def test_k_may_change_and_a_reset_is_a_flush() -> None:
    net, frames = small_vit(), small_frames(4, changed=5)
    stream = net.stream(SKIP, Every(4))
    stream(frames[0])
    stream.policy.every = 1  # type: ignore[union-attr]
    with torch.no_grad():
        assert torch.equal(stream(frames[1]), net(frames[1]))
        stream.policy.every = 4  # type: ignore[union-attr]
        assert torch.equal(stream(frames[2]), net(frames[1]))
        stream.reset()
        assert torch.equal(stream(frames[3]), net(frames[3]))


@pytest.mark.parametrize(
    ("variant", "policy", "sentence"),
    [
        (SKIP, None, "needs a policy that selects frames; none was given"),
        (SKIP, TopR(3), r"selects frames; TopR\(r=3\), which selects tokens, was given"),
        (VARIANTS["temporal"], Every(2), "needs a policy that selects tokens; Every"),
        (VARIANTS["base"], Every(2), "takes no policy"),
    ],
)
def test_skipping_goes_with_its_own_policy_alone(variant: Variant, policy: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        small_vit().stream(variant, policy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("every", "phase"), [(0, 0), (-1, 0), (True, 0), (2.0, 0), (3, 3), (3, -1), (3, True)]
)
def test_numbers_that_cannot_be_are_refused(every: int, phase: int) -> None:
    with pytest.raises(ValueError, match=r"policy\.(every|phase) is"):
        Every(every, phase)


def test_nothing_else_goes_with_it() -> None:
    with pytest.raises(ValueError, match="hold is of the dense model"):
        Variant(hold=True, pool=2)
    with pytest.raises(ValueError, match="no pool and no av_dtype"):
        Variant(hold=True, av_dtype="bfloat16")
