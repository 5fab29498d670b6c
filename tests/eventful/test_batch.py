"""Streams that run as one batch against the same streams alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from evt.eventful import (
    VARIANTS,
    Batch,
    Budget,
    Latency,
    Operations,
    Policy,
    Refresh,
    Scheduled,
    Stream,
    Threshold,
    TopR,
    Variant,
)
from tests.common import policy_for, small_frames, small_vit
from tests.soak import soak

TOGETHER = {name: variant for name, variant in VARIANTS.items() if not variant.hold} | {
    "temporal, fast": Variant(gate="reference", sparse_qk=True, sparse_av=True, fast=True),
}


def same_state(a: Stream, b: Stream) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    ours.pop("header"), theirs.pop("header")
    assert ours.keys() == theirs.keys()
    return all(torch.allclose(x, theirs[name], atol=1e-5, equal_nan=True) for name, x in ours.items())


@pytest.mark.parametrize("name", sorted(TOGETHER))
def test_streams_come_and_go_and_each_is_as_if_alone(name: str) -> None:
    """One is of two videos, one joins before its first frame, one after it, and one leaves and comes back."""
    net, variant = small_vit(), TOGETHER[name]
    videos = [small_frames(7, changed=8, batch=1 + (k == 1), seed=k) for k in range(4)]
    alone = [net.stream(variant, policy_for(variant, 5)) for _ in videos]
    streams = [net.stream(variant, policy_for(variant, 5)) for _ in videos]
    batch = Batch(streams[:2])
    for i in range(7):
        if i == 2:
            batch.add(streams[2])
        if i == 3:
            batch.remove(streams[0])
        if i == 5:
            streams[3](videos[3][4]), alone[3](videos[3][4])
            batch.add(streams[3])
            batch.add(streams[0])
        members = batch.streams
        places = [next(k for k, x in enumerate(streams) if x is member) for member in members]
        outs = batch([videos[k][i] for k in places])
        for k, out in zip(places, outs, strict=True):
            assert torch.allclose(out, alone[k](videos[k][i]), atol=1e-5)
    assert len(batch.streams) == 4
    assert all(map(same_state, streams, alone)) or variant.gate is None


@pytest.mark.parametrize(
    "policies",
    [
        lambda: [TopR(2), TopR(0.5), Threshold(2.0)],
        lambda: [Refresh(3, 3), Refresh(3, 3, staggered=True), Refresh(0.1, 2)],
        lambda: [Budget(0.2), Budget(0.4), TopR(3)],
        lambda: [TopR(2), Scheduled({0: 30, 5: 3}), Scheduled({1: 0.1, 7: 0.9}, ramp=True)],
    ],
)
def test_each_stream_keeps_its_policy_and_its_count_of_frames(policies: Any) -> None:
    """Else every k-th frame, or what is left of a budget, would be that of whoever is first."""
    net, ours, theirs = small_vit(), policies(), policies()
    variant = VARIANTS["frame" if isinstance(ours[0], Budget) else "rows"]
    streams, alone = ([net.stream(variant, policy) for policy in own] for own in (ours, theirs))
    videos = [small_frames(8, changed=4, seed=k) for k in range(3)]
    for k in range(3):  # each has seen another number of frames
        for frame in videos[k][:k]:
            streams[k](frame), alone[k](frame)
    batch = Batch(streams)
    for i in range(3, 8):
        for k, out in enumerate(batch([video[i] for video in videos])):
            assert torch.allclose(out, alone[k](videos[k][i]), atol=1e-5)
        for own in (ours, theirs):
            if isinstance(own[0], TopR):
                own[0].r = i  # may change before any frame
    assert all(map(same_state, streams, alone))


@pytest.mark.parametrize("name", ["temporal", "rows"])
def test_one_that_is_used_alone_has_its_share_back(name: str) -> None:
    """Its bytes, its copy, and what it does alone are those of a stream that never was in a batch."""
    net, variant = small_vit(), VARIANTS[name]
    videos = [small_frames(6, changed=8, seed=k) for k in range(2)]
    alone, streams = ([net.stream(variant, TopR(5)) for _ in videos] for _ in range(2))
    batch = Batch(streams)
    for i in range(2):
        batch([video[i] for video in videos])
        for stream, video in zip(alone, videos, strict=True):
            stream(video[i])
    assert streams[0].nbytes == alone[0].nbytes
    copy, copy_of_alone = streams[1].copy(), alone[1].copy()
    assert torch.allclose(streams[0](videos[0][2]), alone[0](videos[0][2]), atol=1e-5)
    for frame in videos[1][4:]:
        assert torch.allclose(copy(frame), copy_of_alone(frame), atol=1e-5)
    for stream in (streams[0], alone[0]):
        stream.reset()
    with torch.inference_mode():
        outs = batch([videos[0][3], videos[1][2]])
    for out, expected in zip(outs, (alone[0](videos[0][3]), alone[1](videos[1][2])), strict=True):
        assert torch.allclose(out, expected, atol=1e-5)
    for out, stream, video in zip(batch([video[4] for video in videos]), alone, videos, strict=True):
        assert torch.allclose(out, stream(video[4]), atol=1e-5)


def test_nothing_is_copied_while_no_stream_comes_or_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a batch would cost more than it saves."""
    net = small_vit()
    batch = Batch(net.stream(VARIANTS["rows"], TopR(5)) for _ in range(3))
    frames = small_frames(4, changed=8)
    batch([frames[0]] * 3), batch([frames[1]] * 3)
    cat, joined = torch.cat, list[torch.Size]()

    def noted(parts: Any, *args: Any, **kwargs: Any) -> Tensor:
        joined.append(parts[0].shape)
        return cat(parts, *args, **kwargs)

    monkeypatch.setattr(torch, "cat", noted)
    batch([frames[2]] * 3)
    assert joined
    assert not [shape for shape in joined if len(shape) == 3 and shape[-2] >= 36]  # of all tokens


def test_a_frame_that_is_refused_leaves_all_as_they_were() -> None:
    net, frames = small_vit(), small_frames(4, changed=8)
    streams, alone = ([net.stream(VARIANTS["rows"], TopR(5)) for _ in range(2)] for _ in range(2))
    batch = Batch(streams)
    for i in range(2):
        batch([frames[i]] * 2), alone[0](frames[i])
    broken = frames[2].clone()
    broken[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="frame 1 of the batch: 1 of the frame's 1728 values are NaN"):
        batch([frames[2], broken])
    with pytest.raises(
        ValueError, match=r"frame 0 of the batch: this stream holds a frame of shape \(1, 3, 24, 24\)"
    ):
        batch([frames[2][..., :20], frames[2]])
    with pytest.raises(ValueError, match="1 frames were given to 2 streams"):
        batch([frames[2]])
    assert torch.allclose(batch([frames[3]] * 2)[1], alone[0](frames[3]), atol=1e-5)


def test_a_policy_that_fails_leaves_streams_that_flush() -> None:
    """Half of the gates would hold a frame that the others never saw."""
    net, frames = small_vit(), small_frames(4, changed=8)
    policy = TopR(5)
    batch = Batch(net.stream(VARIANTS["rows"], own) for own in (policy, TopR(5)))
    batch([frames[0]] * 2), batch([frames[1]] * 2)
    policy.r = 100
    with pytest.raises(ValueError, match=r"policy.r is 100, but a frame has 36 tokens"):
        batch([frames[2]] * 2)
    policy.r = 5
    for out in batch([frames[3]] * 2):
        assert torch.allclose(out, net(frames[3]), atol=1e-5)


def test_what_cannot_be_one_batch_is_refused() -> None:
    net = small_vit()
    policy: Policy = TopR(5)
    first = net.stream(VARIANTS["rows"], policy)
    batch = Batch([first])
    for stream, sentence in (
        (first, "already in the batch"),
        (small_vit().stream(VARIANTS["rows"], policy), "on another network than those in the batch"),
        (net.stream(VARIANTS["temporal"], policy), "of the variant .*; those in the batch are of"),
        (
            net.stream(VARIANTS["skip"], policy_for(VARIANTS["skip"], 2)),
            "frame skipping .* run the network itself",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            batch.add(stream)
    with pytest.raises(ValueError, match="this stream is not in the batch"):
        batch.remove(net.stream(VARIANTS["rows"], policy))
    batch.add(net.stream(VARIANTS["rows"], policy))
    with pytest.raises(ValueError, match=r"frame 1 of the batch: its shape is .*, and that of the first"):
        batch([small_frames(1)[0], small_frames(1, (5, 7))[0]])


def test_the_time_of_a_frame_is_that_of_the_batch_and_is_told_in_every_frame() -> None:
    """The network turns the clock by a second for each token that passes, of whichever stream."""
    net, now = small_vit(), [0.0]
    policies = [Latency(12_000), Latency(12_000), Latency(12_000)]
    for policy in policies:
        policy.clock = lambda: now[0]
    block: Any = net.blocks[0]
    block.register_forward_hook(lambda *_: now.__setitem__(0, now[0] + sum(p.tokens(36) for p in policies)))
    streams = [net.stream(VARIANTS["rows"], policy) for policy in policies]
    batch = Batch(streams)
    videos = [small_frames(12, changed=36, seed=k) for k in range(3)]
    for i in range(12):
        if i in (5, 7):  # the batch is put together anew
            batch.remove(streams[0])
            batch.add(streams[0])
        places = [streams.index(stream) for stream in batch.streams]
        batch([videos[k][i] for k in places])
    for policy in policies:
        assert len(policy.log) == 11
        assert policy.log[0].cost == 3 * 36_000
        assert (policy.log[-1].r, policy.log[-1].cost) == (4, 12_000)
    streams[1].policy = TopR(4)
    streams[2].policy = last = Latency(12_000)
    last.clock = policies[0].clock
    batch([video[11] for video in videos])
    assert [len(policy.log) for policy in (*policies, last)] == [12, 11, 11, 1]


def test_operations_are_followed_by_a_stream_alone() -> None:
    """Of a batch nobody knows whose they were, and r would not be what it is alone."""
    net = small_vit()
    first, second = (net.stream(VARIANTS["rows"], policy) for policy in (TopR(5), Operations(1, fps=25)))
    with pytest.raises(ValueError, match="follows the operations of a stream, and those of a batch"):
        Batch([first, second])
    batch = Batch([first, net.stream(VARIANTS["rows"], TopR(3))])
    frames = small_frames(3)
    batch([frames[0]] * 2)
    first.policy = second.policy
    with pytest.raises(ValueError, match="run this one alone"):
        batch([frames[1]] * 2)
    assert all(stream.flushed for stream in batch.streams)  # they are as they were


def test_a_short_soak() -> None:
    """`python -m tests.soak` is the long one. Streams come and go for hours, and memory must not grow."""
    worst, sizes = soak(n_streams=4, n_frames=40, times=4)
    assert worst < 1e-4
    assert max(sizes[2:]) <= max(sizes[:2])
