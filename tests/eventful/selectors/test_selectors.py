"""What every selector promises: all tokens are the dense model, none are the last output, whole frames are whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from evt.errors import ConfigError
from evt.eventful import VARIANTS, Batch, Change, Policy, Refresh, Similarity, TopR
from evt.models.foreign import convert
from tests.common import small_frames, small_vit
from tests.eventful.test_batch import same_state
from tests.models.foreign.test_convert import library

FRAME = VARIANTS["frame"]
N = 36

KEEP: dict[str, Callable[..., Change | Similarity]] = {
    "change": Change,
    "change alone": lambda keep, every: Change(keep, every, neighbours=0),
    "values": Similarity,
    "keys": lambda keep, every: Similarity(keep, every, of="keys"),
}
"""By what is kept, and every how many frames all are."""


@pytest.mark.parametrize("name", KEEP)
@pytest.mark.parametrize("keep", [N, 1.0])
def test_all_tokens_are_the_dense_model(name: str, keep: float) -> None:
    net = small_vit()
    stream, dense = net.stream(FRAME, KEEP[name](keep, None)), net.stream(VARIANTS["base"])
    for frame in small_frames(4, changed=N):
        torch.testing.assert_close(stream(frame), dense(frame), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", KEEP)
def test_none_are_the_last_output_until_a_whole_frame(name: str) -> None:
    """Else what is meant to be as good as a flush would rest on what is old."""
    net = small_vit()
    stream, dense = net.stream(FRAME, KEEP[name](0, 3)), net.stream(VARIANTS["base"])
    expected = None
    for i, frame in enumerate(small_frames(7, changed=N)):
        out, whole = stream(frame), dense(frame)
        expected = whole if i % 3 == 0 else expected
        assert expected is not None
        torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-4)


def test_streams_of_different_selectors_are_a_batch() -> None:
    """Each selects and keeps what it would alone, though they have seen different numbers of frames."""
    net = small_vit()
    policies: list[Policy] = [Change(5, 3), Similarity(0.2, 2), TopR(3)]
    streams, alone = ([net.stream(FRAME, policy) for policy in policies] for _ in range(2))
    videos = [small_frames(7, changed=8, seed=k) for k in range(3)]
    for k in range(3):
        for frame in videos[k][:k]:
            streams[k](frame), alone[k](frame)
    batch = Batch(streams)
    for i in range(3, 7):
        for k, out in enumerate(batch([video[i] for video in videos])):
            torch.testing.assert_close(out, alone[k](videos[k][i]), atol=1e-5, rtol=1e-4)
    assert all(map(same_state, streams, alone))


@pytest.mark.parametrize("name", ["change", "values"])
def test_a_converted_network_selects_the_same(name: str) -> None:
    """Of timm's own blocks, with a class token that always passes; all tokens are timm's own features."""
    timm = library("timm")
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=24, num_heads=2, num_classes=0
    ).eval()
    net = convert(model)
    frames = [torch.randn(1, 3, 64, 64) for _ in range(4)]
    all_of_it = net.stream(FRAME, KEEP[name](1.0, None), grid=(4, 4))
    some = net.stream(FRAME, KEEP[name](5, None), grid=(4, 4))
    last = None
    for frame in frames:
        with torch.no_grad():
            expected = model.forward_features(frame)
        torch.testing.assert_close(all_of_it(frame), expected, atol=1e-5, rtol=1e-4)
        now = some(frame)
        if last is not None:
            differ = (now != last).any(-1)[0]
            assert differ.sum() == 5
            assert differ[0]
        last = now


def test_without_a_grid_neighbours_are_refused() -> None:
    timm = library("timm")
    net = convert(timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=0).eval())
    with pytest.raises(
        ConfigError, match=r"looks at where tokens are, but the tokens of this network form no grid"
    ):
        net.stream(FRAME, Change(0.25))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Change(0.5, 0), "policy.every is 0; it must be a whole number of at least 1"),
        (lambda: Change(1.5), "policy.keep is 1.5; it must be a whole number of at least 0, or a share"),
        (
            lambda: Change(3, neighbours=-1),
            "policy.neighbours is -1; it must be a whole number of at least 0",
        ),
        (lambda: Similarity(3, of="queries"), "policy.of is 'queries'; it must be keys or values"),  # type: ignore[arg-type]
        (
            lambda: small_vit().stream(VARIANTS["rows"], Similarity()),
            "selects tokens once a frame, was given",
        ),
    ],
)
def test_bad_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("policy", [Change(4), Refresh(4, 2)])
def test_settings_are_checked_in_mid_stream_too(policy: Change | Refresh) -> None:
    """Else the next frame would end in a division by zero."""
    with pytest.raises(ValueError, match=r"policy\.every is 0; it must be a whole number of at least 1"):
        policy.every = 0


def test_a_variant_by_its_name_is_told_apart() -> None:
    """Converted networks take one, so that it is tried here, too."""
    with pytest.raises(ValueError, match=r"variant is 'frame'; it must be a Variant, such as evt\.VARIANTS"):
        small_vit().stream("frame", Change(4))  # type: ignore[arg-type]


def test_more_than_there_are_is_refused() -> None:
    stream = small_vit().stream(FRAME, Change(N + 1))
    first, second = small_frames(2)
    stream(first)
    with pytest.raises(ValueError, match=r"policy.keep is 37, but a frame has 36 tokens"):
        stream(second)
