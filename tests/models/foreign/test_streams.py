"""Converted models in programs: bytes before the first frame, and streams that run together."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

import evt
from evt.errors import ConfigError
from evt.models.foreign.examples import EXAMPLES, SMALL_GRIDS, Example, relative_error
from tests.models.foreign.test_convert import PLAIN, TOLERANCE, VITDET, built, library

OF_EACH_KIND = [
    next(x for x in EXAMPLES if x.name == name)
    for name in ("vit_base_patch16_224", "Dinov2Model", "VitDetModel", "Sam3ViTModel", "VideoMAEModel")
]


@pytest.mark.parametrize("example", OF_EACH_KIND, ids=str)
def test_bytes_are_known_before_the_first_frame(example: Example) -> None:
    """By the model's own code on shapes alone, whose weights stay where they are."""
    model = built(example)
    net, pictures = evt.convert(model), example.pictures(2, SMALL_GRIDS[0])
    for variant, r in (("temporal", 0.25), ("rows", 0.25), ("base", None)):
        stream = net.stream(variant, r=r)
        stream(pictures)
        assert net.state_bytes(variant, pictures.shape) == stream.nbytes
    assert relative_error(net(pictures), example.features(model, pictures)) < TOLERANCE


@pytest.mark.parametrize("example", OF_EACH_KIND, ids=str)
def test_a_network_says_what_it_is_made_for(example: Example) -> None:
    """As an export without a shape takes it: a frame, or a whole clip."""
    net = evt.convert(built(example))
    assert net.frame_shape == example.pictures(1, (4, 4)).shape
    assert net.state_bytes("rows", net.frame_shape) > 0


def test_bytes_of_what_cannot_be_are_refused() -> None:
    net = evt.convert(built(PLAIN))
    with pytest.raises(ConfigError, match=r"does not take frames of shape \(1, 3, 63, 64\): "):
        net.state_bytes("rows", (1, 3, 63, 64))
    with pytest.raises(ConfigError, match="tokens of this network form no grid"):
        net.state_bytes("frame_moved", (1, 3, 64, 64))


def test_a_share_is_a_budget_for_every_size() -> None:
    net = evt.convert(built(VITDET))
    for rows, columns in SMALL_GRIDS:
        pictures = [VITDET.pictures(1, (rows, columns)) for _ in range(2)]
        share, number = net.stream("temporal", r=0.25), net.stream("temporal", r=round(rows * columns / 4))
        for picture in pictures:
            assert torch.equal(share(picture), number(picture))
    with pytest.raises(
        ConfigError, match=r"policy.r is 1.5; it must be a whole number of at least 0, or a share"
    ):
        net.stream("rows", r=1.5)


@pytest.mark.parametrize("example", [PLAIN, VITDET], ids=str)
@pytest.mark.parametrize("variant", ["temporal", "rows"])
def test_a_batch_gives_what_each_stream_would(example: Example, variant: str) -> None:
    """And a stream that was saved as safetensors joins where it stopped."""
    net = evt.convert(built(example))
    videos = [[example.pictures(1, SMALL_GRIDS[0]) for _ in range(5)] for _ in range(3)]
    alone = [[net_stream(x) for x in video] for video in videos for net_stream in [net.stream(variant, r=5)]]
    streams = [net.stream(variant, r=5) for _ in videos]
    batch = evt.Batch(streams)
    for i in range(2):
        for out, expected in zip(batch([video[i] for video in videos]), alone, strict=True):
            assert relative_error(out, expected[i]) < TOLERANCE
    saved = save(streams[1].state_dict())
    batch.remove(streams[1])
    elsewhere = evt.convert(built(example)).stream(variant, r=5)
    elsewhere.load_state_dict(load(saved))
    for i in range(2, 5):
        outs = [*batch([videos[0][i], videos[2][i]]), elsewhere(videos[1][i])]
        for out, expected in zip(outs, (alone[0], alone[2], alone[1]), strict=True):
            assert relative_error(out, expected[i]) < TOLERANCE


def test_a_stream_that_is_entered_may_come_in_and_out_of_inference_mode() -> None:
    """Its copy goes on as it does, and is none that was entered."""
    model = built(PLAIN)
    net, pictures = evt.convert(model), [PLAIN.pictures(1, SMALL_GRIDS[0]) for _ in range(3)]
    alone, stream = net.stream("rows", r=5), net.stream("rows", r=5)
    expected = [alone(picture) for picture in pictures]
    with stream:
        with torch.inference_mode():
            model.forward_features(pictures[0])
        copy = stream.copy()
        found = [model.forward_features(picture) for picture in pictures[1:]]
    assert relative_error(found[1], expected[2]) < TOLERANCE
    with copy:
        assert relative_error(model.forward_features(pictures[1]), expected[1]) < TOLERANCE


def test_whole_models_are_no_batch() -> None:
    """What they give need not be a tensor, of which each stream could have its share."""
    transformers = library("transformers")
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=16,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    net, picture = (
        evt.convert(transformers.ViTForImageClassification(config).eval()),
        torch.randn(1, 3, 32, 32),
    )
    batch = evt.Batch(net.stream("rows", r=2) for _ in range(2))
    batch([picture, picture])
    with pytest.raises(
        ValueError, match="gives a ImageClassifierOutput, and a batch is of tensors: convert the back"
    ):
        batch([picture, picture])
