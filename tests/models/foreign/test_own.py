"""A user's own model of timm or transformers in the commands: what runs, what is measured, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from evt import reproduce, run
from evt.data.video import Frame
from evt.errors import CheckpointError, ConfigError, ConversionError
from evt.eventful import VARIANTS, TopR
from evt.models.foreign.libraries import library
from evt.models.foreign.own import OwnModel, Pixels, TimmModel, TransformersModel
from evt.tables import fill
from tests.commands import Refused, command
from tests.data.test_frames import write_frames
from tests.models.foreign.test_convert import library as installed
from tests.models.foreign.test_whole import CLASSIFIER
from tests.videos import write_video

FRAMES = [
    "data.size=[64,96]",
    "data.n_frames=4",
    "threads=1",
]


def timm_arguments(folder: Path, **weights: Any) -> list[str]:
    """A tiny model of timm with large random weights in a file, 17 tokens."""
    timm = installed("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=64, num_classes=5)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    save_file(model.state_dict(), folder / "w.safetensors")
    return [
        "model=timm",
        "model.architecture=test_vit",
        "model.size=64",
        f"model.checkpoint={folder}/w.safetensors",
    ]


def saved(folder: Path, name: str = "ViTForImageClassification", **settings: Any) -> Any:
    """A tiny model of transformers with large random weights in a folder; 17 tokens."""
    transformers = installed("transformers")
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    model = cls(
        cls.config_class(
            image_size=64,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            **settings,
        )
    )
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model.eval()


def metrics_of(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> dict[str, Any]:
    command(monkeypatch, run.run, *FRAMES, f"hydra.run.dir={folder / 'run'}", *arguments)
    found: dict[str, Any] = json.loads((folder / "run/metrics.json").read_text())
    return found


@pytest.mark.parametrize(
    "variant",
    [
        "base policy=none",
        "temporal policy.r=8",
        "rows policy.r=17",
        "frame_moved policy=budget policy.spend=0.5",
        "skip_moved policy=every policy.every=2",
    ],
)
def test_every_variant_that_does_not_pool_runs(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all tokens the model agrees with itself; with fewer it does not, and skipping stands beside it."""
    found = metrics_of(monkeypatch, tmp_path, *timm_arguments(tmp_path), *f"variant={variant}".split())
    error, cosine = found["later"]["feature_relative_l2"], found["later"]["feature_cosine"]
    if variant.endswith(("none", "17")):
        assert error < 1e-5
        assert cosine > 0.9999
    else:
        assert error > 1e-3
        assert found["later"]["gflops"] < found["first"]["gflops"]
        assert found["state_bytes"] > 0
        assert "skipping" in found


def test_a_folder_runs_and_nothing_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path / "m")
    found = metrics_of(monkeypatch, tmp_path, "model=transformers", f"model.path={tmp_path}/m", "policy.r=8")
    assert found["later"]["feature_relative_l2"] > 1e-3
    assert found["weights"] == "m"
    said = capsys.readouterr().err
    assert "not loaded: classifier.weight" in said
    assert "pixels are normalised by mean 0.485, 0.456, 0.406" in said
    assert "there is no preprocessor_config.json" in said


def test_without_weights_no_agreement_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed("timm")
    arguments = ["model=timm", "model.architecture=test_vit", "model.size=64", "policy.r=8"]
    found = metrics_of(monkeypatch, tmp_path, *arguments)
    assert not {"feature_relative_l2", "relative_l2_error"} & found["later"].keys()
    assert "seeded initialisation (seed 0), so neither accuracy nor agreement" in capsys.readouterr().out
    saved(tmp_path / "m")
    arguments = ["model=transformers", f"model.path={tmp_path}/m", "model.checkpoint=null", "policy.r=8"]
    assert "feature_cosine" not in metrics_of(monkeypatch, tmp_path, *arguments)["later"]


@pytest.mark.parametrize("size", [64, 96])
def test_features_are_those_of_transformers(size: int, tmp_path: Path) -> None:
    """Of the backbone below a head, at its own size and another, on pixels as its preprocessor normalises them."""
    original = saved(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "rescale_factor": 1 / 255})
    )
    model = TransformersModel(str(tmp_path), size=size)
    assert model.load([str(tmp_path)])[-1].endswith("as preprocessor_config.json says")
    frame = Frame(torch.randint(256, (3, size // 2, size), dtype=torch.uint8), "f", first=True)
    (x,) = model.inputs(frame)
    square = torch.zeros(3, size, size)
    square[:, size // 4 : 3 * size // 4] = frame.image
    with torch.no_grad():
        expected = original.vit(
            (square[None] / 255 - 0.5) / 0.25, interpolate_pos_encoding=True
        ).last_hidden_state
    tokens = model.stream(VARIANTS["base"])(x)
    assert torch.allclose(tokens, expected, rtol=1e-4, atol=1e-4)
    side, top, bottom = size // 16, size // 64, -(-3 * size // 64)  # rows that show some of the picture
    found = model.decode([tokens], frame)
    assert found.grid == (bottom - top, side)
    assert torch.equal(found.features, tokens[0, 1 + side * top : 1 + side * bottom])


def test_a_map_of_features_is_laid_out_as_tokens(tmp_path: Path) -> None:
    original = saved(tmp_path, "VitDetModel", window_size=2, window_block_indices=[0])
    model = TransformersModel(str(tmp_path))
    model.load([str(tmp_path)])
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = original(x).last_hidden_state  # (1, D, 4, 4)
    tokens = model.stream(VARIANTS["temporal"], TopR(4))(x)
    assert model.n_tokens == 16
    assert torch.allclose(tokens[0, 6], expected[0, :, 1, 2], rtol=1e-4, atol=1e-4)


def test_of_a_model_that_is_more_only_what_sees_pictures_runs(tmp_path: Path) -> None:
    transformers = installed("transformers")
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.CLIPConfig(
        text_config=small | {"vocab_size": 10}, vision_config=small | {"image_size": 64, "patch_size": 16}
    )
    torch.manual_seed(0)
    original = transformers.CLIPModel(config).eval()
    original.save_pretrained(tmp_path)
    model = TransformersModel(str(tmp_path))
    model.load([str(tmp_path)])
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = original.vision_model(pixel_values=x).last_hidden_state
    assert torch.allclose(model.stream(VARIANTS["rows"], TopR(8))(x), expected, rtol=1e-4, atol=1e-4)


def test_timms_own_positions_are_resized(tmp_path: Path) -> None:
    path = timm_arguments(tmp_path)[-1].partition("=")[2]
    for size, expected in ((64, 17), (96, 37)):
        model = TimmModel("test_vit", size=size)
        said = model.load([path])
        assert [line.split(" (")[0] for line in said[:2]] == [
            "not loaded: head.bias",
            "not loaded: head.weight",
        ]
        assert model.n_tokens == model.stream(VARIANTS["base"])(model.blank()).shape[1] == expected


def test_a_tag_says_how_pixels_are_normalised() -> None:
    installed("timm")
    with torch.device("meta"):
        means = {
            TimmModel(name).pixels.mean[0]
            for name in ("vit_tiny_patch16_224.augreg_in21k", "deit_tiny_patch16_224.fb_in1k")
        }
    assert means == {0.5, 0.485}


def test_what_is_no_folder_is_refused_before_anything_is_imported(refused: Refused, tmp_path: Path) -> None:
    said = refused("model=transformers", "model.path=facebook/dinov2-base")
    assert "model.path is facebook/dinov2-base, which is no folder of this machine" in said
    assert "names of models are not looked up" in said
    assert "a folder without a config.json" in refused("model=transformers", f"model.path={tmp_path}")
    assert "model.path is not set" in refused("model=transformers")
    assert "model.architecture is not set" in refused("model=timm")


def test_what_cannot_be_is_refused_in_a_sentence(refused: Refused, tmp_path: Path) -> None:
    installed("timm")
    arguments = ["model=timm", "model.architecture=vit_tiny_patch16_223"]
    assert "which timm 1." in (said := refused(*arguments))
    assert "near are vit_tiny_patch16_224" in said
    assert "does not know" in refused("model=timm", "model.architecture=hf-hub:a/b")
    arguments = ["model=timm", "model.architecture=test_vit"]
    assert "model.size is 70; it must be a positive multiple of the patch size, 16" in refused(
        *arguments, "model.size=70"
    )
    said = refused(*arguments, "variant=spatial", "policy=none")
    assert "variant.pool is 2, but the grid that tokens form is not known" in said
    with pytest.raises(ConversionError, match="ResNet cannot be converted"):
        TimmModel("resnet18")
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    said = refused(*arguments, f"model.checkpoint={tmp_path}/w.safetensors")
    assert "w.safetensors: cls_token is missing" in said


def test_what_a_folder_lacks_is_refused_in_a_sentence(tmp_path: Path) -> None:
    saved(tmp_path)
    with (
        torch.device("meta"),
        pytest.raises(ConfigError, match=r"^model.size is 40; it must be a positive multiple"),
    ):
        TransformersModel(str(tmp_path), size=40)
    model = TransformersModel(str(tmp_path))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(
        weights[: len(weights) // 2]
    )  # as a download that was interrupted
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        model.load([str(tmp_path)])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"there are no weights in it.*model\.checkpoint=null"):
        model.load([str(tmp_path)])
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"cls_token is missing \(of \d+ parameters"):
        model.load([str(tmp_path)])
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": 3}')
    with pytest.raises(ConfigError, match=r"preprocessor_config.json: cannot be read as a preprocessor's"):
        TransformersModel(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(ConfigError, match="transformers cannot build this model"):
        TransformersModel(str(tmp_path))


def test_a_size_that_a_model_cannot_run_is_refused_before_it_is_built(tmp_path: Path) -> None:
    saved(tmp_path, "SamVisionModel", global_attn_indexes=[1], window_size=2, output_channels=8)
    with (
        torch.device("meta"),
        pytest.raises(
            ConfigError, match=r"^model.size is 96, and the model cannot run pictures of that size"
        ),
    ):
        TransformersModel(str(tmp_path), size=96)


def test_a_library_that_is_not_there_is_told_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ConfigError, match=r"^this model needs timm: pip install 'evt\[timm\]'$"):
        library("timm")


def test_a_table_of_agreement_is_of_any_model_and_of_trained_weights_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refused: Refused,
    one_process: list[str],
) -> None:
    saved(tmp_path / "m")
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips/a.mp4", n_frames=6, fps=10)
    arguments = [
        *("table=table_real_own", "model=transformers", f"model.path={tmp_path}/m"),
        *(
            f"data.files={tmp_path}/clips",
            "data.davis=null",
            "data.n_frames=6",
            "data.segments=1",
            "workers=1",
        ),
        "table.tables.table_real_own.points=[{variant: base}, {variant: skip, every: 2}, {variant: rows, r: 0.25}]",
        *(f"out={tmp_path}/out", f"hydra.run.dir={tmp_path}/run"),
    ]
    said = refused(*arguments, "model.checkpoint=null", task=reproduce.reproduce)
    assert "the weights are a seeded initialisation (seed 0), and agreement is of trained ones" in said
    said = refused("table=table_real_own", "model=vitdet_mini", task=reproduce.reproduce)
    assert "model is vitdet_mini, but table_real_own is of timm or transformers" in said
    command(monkeypatch, reproduce.reproduce, *arguments)
    base, skip, rows = pd.read_csv(tmp_path / "out/table_real_own.csv").to_dict("records")
    kind = "error_still" if base["still"] else "error_moving"
    errors = [float(row[kind]) for row in (base, skip, rows)]
    assert errors[0] == 0
    assert min(errors[1:]) > 0
    assert rows["gflops"] < base["gflops"]
    assert base["state_mb"] == 0
    assert skip["state_mb"] == pytest.approx(17 * 32 * 4 / 1e6)  # the features that it holds
    # A run that goes on must not take what it measured of a video for what another of its name would give.
    fill._opened.cache_clear()
    command(monkeypatch, reproduce.reproduce, *arguments)
    write_video(tmp_path / "clips/a.mp4", n_frames=7, fps=10)
    fill._opened.cache_clear()
    command(monkeypatch, reproduce.reproduce, *arguments)
    assert one_process[0] == one_process[1] != one_process[2]
    sizes = [(64, 96), (48, 64)] * 2
    folder = write_frames(tmp_path / "sizes", [f"{i}.png" for i in range(4)], sizes)
    own = [x for x in arguments if not x.startswith("data.files")]
    with pytest.raises(SystemExit):
        command(monkeypatch, reproduce.reproduce, *own, f"data.folders=[{folder}]", "data.files=null")
    assert "sizes: each of its 4 frames begins a sequence of its own" in capsys.readouterr().err


def test_whole_models_are_refused_where_features_are_compared() -> None:
    installed("transformers")
    model = CLASSIFIER.build(small=True)
    with pytest.raises(
        ConfigError, match=r"Dinov2ForImageClassification is more than a backbone, .* its dinov2 "
    ):
        OwnModel(model, 14, 56, Pixels((0, 0, 0), (1, 1, 1), 1, "nobody says"))
