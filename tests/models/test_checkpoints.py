"""Checkpoints as published, our own, and broken ones."""

from __future__ import annotations

import pickle
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from evt.errors import CheckpointError
from evt.models.checkpoints import (
    classes_in,
    load_backbone,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from tests.common import ROOT

HEAD = "roi_heads.box_predictor.cls_score.weight"


class Detector(nn.Module):
    """Something with the names that matter here."""

    def __init__(self, n_classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 3)
        self.roi_heads = nn.Module()
        self.roi_heads.box_predictor = nn.Module()
        self.roi_heads.box_predictor.cls_score = nn.Linear(4, n_classes + 1, bias=False)


def arrays(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: x.numpy() for name, x in model.state_dict().items()}


def write_pth(tensors: dict[str, Tensor], path: Path) -> None:
    torch.save({"model": tensors, "iteration": 7, "optimizer": {"lr": [0.1]}}, path)


def write_flat_pth(tensors: dict[str, Tensor], path: Path) -> None:
    torch.save(tensors, path)


def write_old_pth(tensors: dict[str, Tensor], path: Path) -> None:
    torch.save({"model": tensors}, path, _use_new_zipfile_serialization=False)


def write_lightning(tensors: dict[str, Tensor], path: Path) -> None:
    """As PyTorch Lightning writes a module that has the network as its `model`."""
    named = {f"model.{name}": x for name, x in tensors.items()}
    torch.save({"state_dict": named, "epoch": 3, "optimizer_states": [{"lr": 0.1}]}, path)


def pickler(protocol: int) -> Callable[[dict[str, Tensor], Path], None]:
    def write(tensors: dict[str, Tensor], path: Path) -> None:
        content = {"model": {name: x.numpy() for name, x in tensors.items()}, "__author__": "somebody"}
        path.write_bytes(pickle.dumps(content, protocol))

    return write


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_pth, "model.pth"),
        (write_flat_pth, "model.pt"),
        (write_old_pth, "model.pth"),
        (write_lightning, "epoch=3-step=99.ckpt"),
        (write_pth, "model.pkl"),
        (pickler(2), "model.pkl"),
        (pickler(4), "model.pkl"),
        (pickler(5), "model.pkl"),
        (save_checkpoint, "model.safetensors"),
    ],
)
def test_every_kind_of_file_loads(write: Callable[[Any, Path], None], name: str, tmp_path: Path) -> None:
    """Else somebody's published weights could not be used, though nothing is wrong with them."""
    torch.manual_seed(0)
    saved, model = Detector(), Detector()
    write(saved.state_dict(), tmp_path / name)
    assert load_checkpoint(model, tmp_path / name) == []
    for parameter, value in saved.state_dict().items():
        assert torch.equal(model.state_dict()[parameter], value)


def test_what_the_model_does_not_have_is_listed(tmp_path: Path) -> None:
    model = Detector()
    save_checkpoint({**model.state_dict(), "pixel_mean": torch.zeros(3, 1, 1)}, tmp_path / "m.safetensors")
    assert load_checkpoint(model, tmp_path / "m.safetensors") == ["pixel_mean (3x1x1)"]


def test_a_detector_for_other_classes_gives_its_backbone(tmp_path: Path) -> None:
    """Fine-tuning for VID begins so; what is not loaded must not be dropped silently."""
    coco, model = Detector(80), Detector(3)
    head = model.state_dict()[HEAD].clone()
    save_checkpoint(coco.state_dict(), tmp_path / "coco.safetensors")
    assert load_backbone(model, tmp_path / "coco.safetensors") == [f"{HEAD} (81x4)"]
    assert torch.equal(model.backbone.weight, coco.backbone.weight)
    assert torch.equal(model.state_dict()[HEAD], head)


def damaged(change: Callable[[dict[str, Tensor]], Any], tmp_path: Path) -> Path:
    tensors = Detector().state_dict()
    change(tensors)
    save_checkpoint(tensors, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_a_missing_parameter_is_named_with_its_shape(tmp_path: Path) -> None:
    path = damaged(lambda x: x.pop("backbone.weight"), tmp_path)
    for load in (load_checkpoint, load_backbone):
        with pytest.raises(CheckpointError, match=r"backbone.weight is missing, which must be of shape 3x2$"):
            load(Detector(), path)


def test_a_misshapen_parameter_is_named_with_both_shapes_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = damaged(lambda x: x.update({"backbone.bias": torch.zeros(4)}), tmp_path)
    model = Detector()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"backbone.bias is of shape 4, and must be of shape 3$"):
        load_checkpoint(model, path)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_another_class_count_is_told_as_such(tmp_path: Path) -> None:
    save_checkpoint(Detector(80).state_dict(), tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="for 80 classes, and the model has 3"):
        load_checkpoint(Detector(3), tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            torch.tensor([1, torch.nan, 0]),
            r"backbone.bias has NaN or infinite values; all must be finite numbers$",
        ),
        (torch.tensor([1, -torch.inf, 0]), "backbone.bias has NaN or infinite values"),
        (torch.tensor([1, 1e300, 0], dtype=torch.float64), "backbone.bias has NaN"),  # infinite as float32
        (torch.tensor([1, 2, 3]), r"backbone.bias is of int64; it must be of floating-point numbers$"),
        (torch.tensor([1j, 2, 3]), "backbone.bias is of complex64"),
    ],
)
def test_weights_that_are_no_finite_numbers_are_refused_and_nothing_is_loaded(
    value: Tensor, message: str, tmp_path: Path
) -> None:
    """Else a model runs and finds nothing, or something wrong, and nobody knows why."""
    torch.save({**Detector().state_dict(), "backbone.bias": value}, tmp_path / "m.pth")
    model = Detector()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    for load in (load_checkpoint, load_backbone):
        with pytest.raises(CheckpointError, match=message):
            load(model, tmp_path / "m.pth")
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_a_refusal_is_one_sentence_of_our_own(tmp_path: Path) -> None:
    """torch's own text is about its options, with escape codes, and that of a junk file is a number."""
    torch.save({"a": torch.ones(2), "extra": Touch(tmp_path / "touched")}, tmp_path / "m.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk, and not a checkpoint")
    (tmp_path / "junk.pkl").write_bytes(b"junk, and not a checkpoint")
    told = {}
    for name in ("m.pth", "junk.pth", "junk.pkl"):
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(tmp_path / name)
        told[name] = str(caught.value).removeprefix(f"{tmp_path}/{name}: ")
    trust = "or is broken; if you trust where it comes from, give allow_pickle (model.allow_pickle=true)"
    assert "options" not in told["m.pth"]
    assert "\x1b" not in told["m.pth"]
    assert told["m.pth"].endswith(trust)
    for name in ("junk.pth", "junk.pkl"):
        assert told[name] in {
            f"holds more than tensors and arrays, {trust}",
            "is broken, or is no checkpoint",
        }


class Touch:
    """Pickled, it creates a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pkl", "model.pth"])
def test_a_pickle_that_runs_code_is_refused_unless_allowed(name: str, tmp_path: Path) -> None:
    path, touched = tmp_path / name, tmp_path / "touched"
    content = {"model": {"a": torch.ones(2)}, "extra": Touch(touched)}
    if name.endswith("pth"):
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({**content, "model": {"a": np.ones(2)}}))
    with pytest.raises(CheckpointError, match="give allow_pickle"):
        read_checkpoint(path)
    assert not touched.exists()
    assert read_checkpoint(path, allow_pickle=True)["a"].tolist() == [1, 1]
    assert touched.exists()


@pytest.mark.parametrize("name", ["m.pth", "m.pkl", "m.safetensors"])
def test_an_empty_and_a_missing_file_are_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / name)
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=f"{name}: the file is empty"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("write", "name"), [(write_pth, "m.pth"), (pickler(2), "m.pkl"), (save_checkpoint, "m.safetensors")]
)
@pytest.mark.parametrize("part", [0.02, 0.5, 0.97])
def test_half_a_file_is_told(
    write: Callable[[Any, Path], None], name: str, part: float, tmp_path: Path
) -> None:
    write(Detector().state_dict(), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: max(1, int(part * len(data)))])
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "no parameters"),
        ({}, "no parameters"),
        ({"model": {}}, "no parameters"),
        ({"model": {"a": "text"}}, "a is str"),
        ({"epoch": 3}, "epoch is int"),
        ({"a": np.array(["x"])}, "a is ndarray"),
    ],
)
def test_a_file_without_parameters_is_told(content: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "m.pkl")


def test_a_file_of_another_kind_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"ends in \.pth, \.pyth, \.pt, \.ckpt, \.pkl, \.safetensors"):
        read_checkpoint(tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match=r"written as \.safetensors"):
        save_checkpoint({}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint({"a": torch.ones(2)}, tmp_path / "nowhere/m.safetensors")


def test_views_are_saved_as_they_are_seen(tmp_path: Path) -> None:
    x = torch.arange(6.0).view(2, 3)
    save_checkpoint({"x": x, "t": x.T, "row": x[1]}, tmp_path / "m.safetensors")
    back = read_checkpoint(tmp_path / "m.safetensors")
    assert torch.equal(back["t"], x.T)
    assert torch.equal(back["row"], x[1])


def test_the_script_converts_and_tells_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = Detector()
    pickler(2)(model.state_dict(), tmp_path / "m.pkl")

    def convert(source: str) -> None:
        monkeypatch.setattr("sys.argv", ["script", str(tmp_path / source), str(tmp_path / "m.safetensors")])
        runpy.run_path(str(ROOT / "scripts/convert_checkpoint.py"), run_name="__main__")

    convert("m.pkl")
    assert "3 parameters" in capsys.readouterr().out
    assert load_checkpoint(model, tmp_path / "m.safetensors") == []
    with pytest.raises(SystemExit, match="2"):
        convert("none.pkl")
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.pkl'}: there is no such file\n"


def test_names_of_classes_that_are_not_those_written_are_refused(tmp_path: Path) -> None:
    """A letter that flipped would be another class, which labelled clips are held against."""
    path = tmp_path / "m.safetensors"
    save_checkpoint({"x": torch.ones(3)}, path, ["cat", "dog"])
    assert classes_in(path) == ["cat", "dog"]
    assert torch.equal(read_checkpoint(path)["x"], torch.ones(3))
    content = path.read_bytes()
    for other in (content.replace(b"cat", b"bat"), content.replace(b"classes", b"glasses")):
        assert other != content
        path.write_bytes(other)
        with pytest.raises(CheckpointError, match=r"m\.safetensors: is damaged: .* the names of its classes"):
            read_checkpoint(path)


def test_what_files_of_others_say_of_themselves_is_not_taken_for_ours(tmp_path: Path) -> None:
    """A sha256 of the model that they were made of, say, or the number of classes."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(save({"x": torch.ones(3)}, {"sha256": "0" * 64, "classes": "80"}))
    assert torch.equal(read_checkpoint(path)["x"], torch.ones(3))
    assert classes_in(path) is None
