"""What a program that has many streams relies upon: bytes, copies, threads, types of numbers and places in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

from evt.eventful import VARIANTS, Every, Refresh, Stream, TopR, state_bytes
from tests.common import policy_for, small_frames, small_vit


def run(stream: Stream, frames: list[Tensor]) -> list[Tensor]:
    return [stream(frame).clone() for frame in frames]


def close(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_bytes_are_known_before_the_first_frame(name: str, batch: int) -> None:
    """Else a user who asks how many cameras fit into memory is told something else than what they take."""
    net, variant = small_vit(), VARIANTS[name]
    stream = net.stream(variant, policy_for(variant, 5))
    expected = net.state_bytes(variant, (batch, 3, 24, 24))
    assert (expected == 0) is (name in ("base", "spatial"))
    for frame in small_frames(3, batch=batch):
        stream(frame)
        assert stream.nbytes == expected


def test_bytes_are_those_of_the_weights_type_and_leave_the_network_alone() -> None:
    net = small_vit()
    single = state_bytes(net, VARIANTS["temporal"], (1, 3, 24, 24))
    net(small_frames(1)[0])
    net = net.double()
    counters = 16 * 3 * 4  # of the gates, of 8 bytes whatever the weights are
    assert state_bytes(net, VARIANTS["temporal"], (1, 3, 24, 24)) - counters == 2 * (single - counters)
    assert {x.device.type for x in net.parameters()} == {"cpu"}
    with pytest.raises(ValueError, match=r"this network takes torch.float64 of shape \(B, 3, 24, 24\)"):
        net.state_bytes(VARIANTS["temporal"], (1, 3, 25, 24))


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_copy_goes_on_by_itself_on_the_same_weights(name: str) -> None:
    """Else trying something on a copy would change the stream, or every copy would hold the weights again."""
    net, frames = small_vit(), small_frames(6, changed=8)
    stream = net.stream(VARIANTS[name], policy_for(VARIANTS[name], 5))
    run(stream, frames[:2])
    copy, undisturbed = stream.copy(), stream.copy()
    assert copy.network is net
    if isinstance(copy.policy, TopR):
        copy.policy.r = 36
    run(copy, frames[4:])
    assert all(
        torch.equal(a, b) for a, b in zip(run(stream, frames[2:]), run(undisturbed, frames[2:]), strict=True)
    )


@pytest.mark.parametrize("name", ["temporal", "rows", "frame_moved", "skip"])
def test_streams_of_many_threads_share_weights(name: str) -> None:
    """Else cameras that are served by a thread each would see each other's frames."""
    net, variant = small_vit(), VARIANTS[name]
    videos = [small_frames(6, changed=6, seed=seed) for seed in range(8)]
    alone = [run(net.stream(variant, policy_for(variant, 5)), video) for video in videos]
    streams = [net.stream(variant, policy_for(variant, 5)) for _ in videos]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, streams, videos))
    assert all(map(close, found, alone))


@pytest.mark.parametrize("modes", [(True, False), (False, True)])
@pytest.mark.parametrize("name", ["temporal", "stgt", "rows", "frame_moved", "skip"])
def test_inference_mode_may_come_and_go(name: str, modes: tuple[bool, bool]) -> None:
    """torch forbids to write outside of inference mode to what was made in it, and a stream writes to its state."""
    net, frames = small_vit(), small_frames(4, changed=8)
    policy = policy_for(VARIANTS[name], 5)
    expected, stream = run(net.stream(VARIANTS[name], policy), frames), net.stream(VARIANTS[name], policy)
    found = []
    for mode, some in zip(modes, (frames[:2], frames[2:]), strict=True):
        with torch.inference_mode(mode):
            found += run(stream, [frame.clone() for frame in some])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", ["base", "temporal", "tokenwise", "rows"])
@pytest.mark.parametrize(
    "context", [torch.autocast("cpu", torch.bfloat16), None], ids=["autocast", "bfloat16"]
)
def test_with_fewer_bits_all_tokens_are_the_dense_model(
    name: str, context: AbstractContextManager[None] | None
) -> None:
    """To the rounding of 8 bits in four blocks; single precision, mixed up, would be far below it."""
    net, frames = small_vit(), small_frames(4, changed=8)
    exact = run(net.stream(VARIANTS["base"]), frames)
    stream = net.stream(VARIANTS[name], policy_for(VARIANTS[name], 36))
    if context is None:
        net.bfloat16()
        found = run(stream, [frame.bfloat16() for frame in frames])
        assert found[0].dtype == torch.bfloat16
    else:
        with context:
            found = run(stream, frames)
    for a, b in zip(found, exact, strict=True):
        assert 1e-4 < float((a.float() - b).norm() / b.norm()) < 0.05


@pytest.mark.parametrize("name", ["temporal", "rows", "frame_moved", "skip_moved"])
def test_channels_may_come_last(name: str) -> None:
    net, frames = small_vit(), small_frames(4, changed=8)
    policy = policy_for(VARIANTS[name], 5)
    expected = run(net.stream(VARIANTS[name], policy), frames)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = run(net.stream(VARIANTS[name], policy), [x.to(memory_format=torch.channels_last) for x in frames])
    assert close(found, expected)


def test_weights_that_were_moved_are_told_of_and_a_saved_stream_follows_them() -> None:
    """torch would say that some tensor is somewhere else, after half of the gates have seen the frame."""
    net, frames = small_vit(), [frame.double() for frame in small_frames(3, changed=8)]
    stream = net.double().stream(VARIANTS["rows"], TopR(5))
    run(stream, frames[:1])
    expected, saved = stream.copy()(frames[1]), stream.state_dict()
    with pytest.raises(ValueError, match=r"the frame is on meta, but the weights are on cpu"):
        stream(frames[1].to("meta"))
    net.float()
    with pytest.raises(
        ValueError, match=r"the weights are torch.float32 on cpu, and were torch.float64 on cpu when"
    ):
        stream(frames[1].float())
    stream.load_state_dict({})
    assert stream(frames[1].float()).dtype == torch.float32
    other = small_vit().double().stream(VARIANTS["rows"], TopR(5))
    other.load_state_dict(saved)
    assert torch.equal(other(frames[1]), expected)


def test_a_saved_stream_of_another_format_is_not_loaded() -> None:
    net, frames = small_vit(), small_frames(2)
    stream = net.stream(VARIANTS["rows"], Refresh(5, 3))
    stream(frames[0])
    saved = stream.state_dict()
    header = bytes(saved["header"].tolist()).replace(b'"format": 3, ', b'"format": 2, ')
    saved["header"] = torch.tensor(list(header), dtype=torch.uint8)
    with pytest.raises(ValueError, match="the saved stream was saved by another version of evt"):
        net.stream(VARIANTS["rows"], Refresh(5, 3)).load_state_dict(saved)


def test_a_stream_that_pauses_goes_on_where_it_was() -> None:
    """Other streams on the same weights run in between."""
    net, frames = small_vit(), small_frames(6, changed=8)
    expected = run(net.stream(VARIANTS["skip"], Every(2)), frames)
    stream, other = net.stream(VARIANTS["skip"], Every(2)), net.stream(VARIANTS["rows"], TopR(5))
    found = run(stream, frames[:3])
    run(other, frames)
    assert all(torch.equal(a, b) for a, b in zip(found + run(stream, frames[3:]), expected, strict=True))
