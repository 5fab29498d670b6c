"""What reaches the backbone: resizing, normalising, padding, positions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from evt.eventful import VARIANTS, Blocks, TopR, init_weights
from evt.models.vit import ViT
from evt.models.vitdet import ViTDet
from tests.common import SHARED, small_frames, small_vit


def small_model(size: int = 64) -> ViTDet:
    return ViTDet(ViT(dim=24, depth=2, num_heads=3, window_size=3, window_blocks=[0], pretrain_grid=4), size)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (720, 1280, 1024, (576, 1024)),  # the long edge decides
        (720, 1280, 672, (378, 672)),
        (600, 800, 1024, (640, 853)),  # the short edge decides
        (600, 800, 672, (420, 560)),
        (1280, 720, 1024, (1024, 576)),
        (640, 1000, 1024, (640, 1000)),  # already there
    ],
)
def test_frames_are_resized_as_for_vid(height: int, width: int, size: int, expected: tuple[int, int]) -> None:
    with torch.device("meta"):
        assert ViTDet(ViT(), size).resized(height, width) == expected


def test_a_frame_is_normalised_and_padded_at_the_bottom_and_the_right() -> None:
    image = torch.zeros(3, 20, 64, dtype=torch.uint8)
    image[0] = 124
    x = small_model().preprocess(image)
    assert x.shape == (1, 3, 64, 64)
    torch.testing.assert_close(
        x[0, :, 0, 0], torch.tensor([(124 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375])
    )
    assert torch.equal(x[..., 20:, :], torch.zeros(1, 3, 44, 64))


def test_a_frame_with_nan_is_refused() -> None:
    image = torch.zeros(3, 64, 64)
    image[1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite pixels"):
        small_model().preprocess(image)


def test_a_frame_of_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(64, 64, 3\)"):
        small_model().preprocess(torch.zeros(64, 64, 3))


@pytest.mark.parametrize("size", [0, -16, 100, 8])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="multiple of the patch size, 16"):
        small_model(size)


def test_parameters_have_the_published_names_and_shapes() -> None:
    """Else no published checkpoint would load."""
    path = SHARED / "checkpoints/vitdet_b_vid.txt"
    if not path.is_file():
        pytest.skip("the shared list of checkpoint names is not here")
    published = dict(line.split("\t") for line in path.read_text().splitlines())
    with torch.device("meta"):
        ours = {name: "x".join(map(str, x.shape)) for name, x in ViTDet(ViT()).state_dict().items()}
    assert ours == published


def test_positions_of_another_grid_are_interpolated() -> None:
    """Bicubic, without the class token's slot, as torch interpolates a picture; a 5 x 5 table on a 4 x 7 grid."""
    net = small_vit((4, 7))
    tokens = torch.zeros(1, 28, 24)
    net.blocks = Blocks()
    table = net.pos_embed[0, 1:].T.reshape(1, 24, 5, 5)
    expected = F.interpolate(table, (4, 7), mode="bicubic", align_corners=False)[0].flatten(1).T
    assert torch.equal(net.forward_tokens(tokens)[0], expected)


def test_gradients_reach_every_parameter() -> None:
    """Else the backbone could not be trained; the class token's slot in pos_embed is unused, as published."""
    net = small_vit((5, 7))
    net(small_frames(1, (5, 7))[0]).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_window_block_that_is_no_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"window_blocks is \[4\]; the blocks are 0 to 3"):
        ViT((4, 4), depth=4, dim=24, num_heads=3, window_blocks=(4,))


def test_a_resized_network_is_as_one_that_was_built_so() -> None:
    net, other = small_vit((6, 6)), small_vit((5, 7))
    net.resize((5, 7))
    frames = small_frames(2, (5, 7))
    for variant in ("temporal", "spatiotemporal"):
        streams = [x.stream(VARIANTS[variant], TopR(9)) for x in (net, other)]
        for frame in frames:
            assert torch.equal(*(stream(frame) for stream in streams))


def test_initial_weights_are_those_of_vit() -> None:
    torch.manual_seed(0)
    net = ViT((4, 4), 16, dim=96, depth=1, num_heads=3, window_blocks=()).apply(init_weights)
    assert 0.015 < float(net.get_parameter("blocks.0.mlp.fc1.weight").detach().std()) < 0.02


@pytest.mark.parametrize(
    "name",
    [
        *(f"backbone.{x}" for x in (
            "patch_size", "dim", "depth", "num_heads", "window_size", "pretrain_grid", "rel_pos_grid",
        )),
        "n_classes", "fpn_channels", "fc_dim", "pre_nms_top", "post_nms_top", "max_detections",
        "samples_per_image",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [0, -4, 2.5, True])
def test_a_setting_that_is_no_count_is_refused_by_its_name(name: str, value: object) -> None:
    """Else it fails deep in torch ("math domain error"), or trains a model that can find nothing."""
    small = {"dim": 24, "depth": 2, "num_heads": 3, "window_blocks": [0], "pretrain_grid": 4}
    of_backbone = name.startswith("backbone.")
    changed = {name.removeprefix("backbone."): value}
    net, own = (changed, {}) if of_backbone else ({}, changed)
    with pytest.raises(
        ValueError, match=rf"^model\.{name} is {value}; it must be a whole number of at least 1$"
    ):
        ViTDet(ViT(**small | net), 64, **own)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score_threshold": 1.0}, "model.score_threshold is 1.0; it must be at least 0 and below 1"),
        ({"score_threshold": -0.1}, "model.score_threshold is -0.1"),
        ({"score_threshold": float("nan")}, "model.score_threshold is nan"),
    ],
)
def test_a_number_out_of_its_range_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViTDet(ViT(dim=24, depth=1, num_heads=3, window_blocks=[]), 64, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        (0, "model.backbone.mlp_ratio is 0; it must be a finite number above 0"),
        (float("inf"), "model.backbone.mlp_ratio is inf"),
    ],
)
def test_a_hidden_layer_of_no_width_is_refused(ratio: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViT(dim=24, depth=1, num_heads=3, window_blocks=[], mlp_ratio=ratio)
