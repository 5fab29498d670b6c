"""Exported steps against the stream in torch, in other runtimes, and by the program in the docs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import evt
from evt.errors import ConfigError
from evt.eventful import VARIANTS, init_weights
from evt.models.vit import ViT
from tests.common import ROOT, small_frames, small_vit
from tests.models.foreign.test_convert import PLAIN, built, library

Step = Callable[[Any, Any], Any]


def plain_vit() -> ViT:
    """Two global blocks, with relative positions."""
    torch.manual_seed(0)
    net = ViT((6, 6), 4, 24, 2, 3, window_size=4, window_blocks=(), pretrain_grid=5, rel_pos_grid=6)
    net.apply(init_weights)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


def in_onnx_runtime(path: Path) -> Step:
    session = pytest.importorskip("onnxruntime", reason="pip install 'evt[export]'").InferenceSession(path)
    names = [x.name for x in session.get_inputs()]
    return lambda frame, kept: session.run(None, dict(zip(names, [frame, *kept], strict=True)))


def in_openvino(path: Path) -> Step:
    openvino = pytest.importorskip("openvino", reason="pip install 'evt[export]'")
    step = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda frame, kept: [np.array(x) for x in step([frame, *kept]).values()]


def in_torch(path: Path) -> Step:
    step = torch.export.load(path).module()
    return lambda frame, kept: [
        x.detach().numpy() for x in step(*(torch.from_numpy(x) for x in (frame, *kept)))
    ]


@dataclass
class Exported:
    """A network under a variant, the folder of its programs, and the tokens that pass."""

    net: Any
    variant: str
    folder: Path

    def stream(self) -> evt.Stream:
        return evt.Stream(self.net, VARIANTS[self.variant], evt.TopR(0.125))

    def frames(self, n: int) -> list[Tensor]:
        side = self.net.frame_shape[-1] // 4
        return small_frames(n, (side, side), changed=side)


@pytest.fixture(scope="module", params=["rows", "temporal"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """`rows` as the docs export it, of a smaller model of timm; `temporal` of a network of this package."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="pip install 'evt[export]'")
    folder = tmp_path_factory.mktemp("programs")
    if request.param == "temporal":
        evt.export(net := plain_vit(), folder / "step.onnx", r=0.125, variant="temporal")
        return Exported(net, "temporal", folder)
    timm, model = library("timm"), built(PLAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(timm, "create_model", lambda name, pretrained: model)
        exec(blocks()[0], {})
    return Exported(evt.convert(model), "rows", folder)


def blocks() -> list[str]:
    """The programs in the docs."""
    return re.findall(r"```py\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("runtime", [in_onnx_runtime, in_openvino])
def test_steps_give_what_the_stream_gives(exported: Exported, runtime: Callable[[Path], Step]) -> None:
    """Over so many frames that an error which adds up would be seen, and close in what is kept, too."""
    first, later = (runtime(exported.folder / name) for name in ("step_first.onnx", "step.onnx"))
    stream, kept = exported.stream(), None
    for frame in exported.frames(50):
        step = later if kept is not None else first
        output, *kept = step(frame.numpy(), kept or [])
        np.testing.assert_allclose(output, stream(frame).numpy(), atol=1e-4)
    named = {name: x for name, x in stream.state_dict().items() if name != "header" and "past" not in name}
    for (name, x), other in zip(named.items(), kept or [], strict=True):
        np.testing.assert_allclose(other, x.numpy(), atol=1e-4, err_msg=name)


@pytest.mark.parametrize("variant", ["frame", "stgt"])
def test_programs_of_torch_give_what_the_stream_gives(variant: str, tmp_path: Path) -> None:
    """Of two videos in step, each with tokens of its own."""
    paths = evt.export(plain_vit(), tmp_path / "step.pt2", r=5, variant=variant, frame_shape=(2, 3, 24, 24))
    later, first = map(in_torch, paths)
    stream, kept = plain_vit().stream(VARIANTS[variant], evt.TopR(5)), None
    for frame in small_frames(6, changed=5, batch=2):
        output, *kept = (later if kept is not None else first)(frame.numpy(), kept or [])
        np.testing.assert_allclose(output, stream(frame).numpy(), atol=1e-5)


def test_the_program_in_the_docs_runs_without_torch(exported: Exported) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'evt[export]'")
    program = blocks()[1]
    assert len(program.splitlines()) <= 15
    frames, stream = exported.frames(4), exported.stream()
    np.save(exported.folder / "frames.npy", torch.stack(frames).numpy())
    without = f"import sys\nsys.modules['torch'] = None\n{program}"
    subprocess.run([sys.executable, "-c", without], cwd=exported.folder, check=True)
    expected = np.stack([stream(frame).numpy() for frame in frames])
    np.testing.assert_allclose(np.load(exported.folder / "outputs.npy"), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"path": "step.txt"}, "step.txt: a program is a file that ends in .onnx or .pt2"),
        ({"variant": "row"}, "there is no variant 'row'; there are base, temporal"),
        ({"variant": "base"}, "the variant base cannot be exported: it keeps nothing between frames; export the"),
        ({"variant": "skip"}, "it skips frames, and has no other step than the network itself"),
        ({"variant": "spatiotemporal"}, "it pools keys"),
        ({"variant": "frame_moved"}, "it moves its output outside of the network"),
        ({"variant": evt.Variant(gate="reference", sparse_qk=True, sparse_av=True, fast=True)}, "its own results"),
        ({"variant": "rows"}, "it attends in windows here"),
        ({"r": 37}, r"frames of shape \(1, 3, 24, 24\) with r = 37 cannot be run: policy.r is 37, but a frame"),
        ({"r": -1}, "policy.r is -1; it must be a whole number of at least 0, or a share"),
        ({"frame_shape": (0, 3, 24, 24)}, r"frame_shape is \(0, 3, 24, 24\); each of its sides must be at least 1"),
        ({"frame_shape": (1, 3, 25, 24)}, r"frames of shape \(1, 3, 25, 24\) with r = 5 cannot be run: "),
    ],
)  # fmt: skip
def test_what_has_no_fixed_shapes_is_refused(tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    """Before the work, and nothing is left behind."""
    given: dict[str, Any] = {"path": "step.pt2", "r": 5, "variant": "temporal", **settings}
    path = tmp_path / given.pop("path")
    with pytest.raises(ConfigError, match=sentence):
        evt.export(small_vit(), path, **given)
    assert not list(tmp_path.iterdir())


def test_models_that_were_not_converted_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"a Linear has no .*; convert it first: net = evt.convert\(model\)"
    ):
        evt.export(torch.nn.Linear(2, 2), tmp_path / "step.pt2", r=4)


def test_onnx_that_is_not_installed_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    pytest.importorskip("onnx", reason="pip install 'evt[export]'")
    with pytest.raises(ConfigError, match=r"pip install 'evt\[export\]' brings what ONNX needs"):
        evt.export(plain_vit(), tmp_path / "step.onnx", r=5)
