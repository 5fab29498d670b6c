"""What is shown of a run frame by frame is what its trace says, over the frames that it was of."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("plotly", reason="plotly is not installed: pip install -e '.[report]'")
pytest.importorskip("jinja2", reason="jinja2 is not installed: pip install -e '.[report]'")

from omegaconf import OmegaConf

from evt.data.sprites import SpriteVideos
from evt.errors import DataError
from evt.evaluate.traces import Trace
from evt.page.__main__ import main
from evt.page.clips import clip_of
from tests.commands import failed
from tests.common import ROOT
from tests.page.runs import traced_run


def test_frames_and_masks_are_those_of_the_run(tmp_path: Path) -> None:
    clip = clip_of(traced_run(tmp_path), 3)
    assert (clip.name, clip.shown, clip.length, clip.size) == ("sprites_val_000000", 3, 4, (192, 96))
    assert clip.command == (
        "python -m evt.run model=vitdet_mini policy.r=1 data.n_videos=1 data.n_frames=4 data.size=[96,192]"
    )
    assert (clip.commit, clip.machine) == ("0123456789", "a machine")
    content = json.loads(clip.json)
    video = SpriteVideos(n_videos=1, n_frames=4, size=(96, 192)).videos()[0]
    for uri, frame in zip(content["pictures"], video, strict=False):
        kind, _, data = uri.partition(",")
        assert kind == "data:image/jpeg;base64"
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(float)
        assert np.abs(picture - frame.image.permute(1, 2, 0).numpy()).mean() < 8, "it is of another frame"
    bits = np.unpackbits(np.frombuffer(base64.b64decode(content["passed"]), np.uint8)).reshape(3, 6, 16)
    trace = Trace.read(tmp_path / "trace/sprites_val_000000.safetensors")
    assert np.array_equal(bits, trace.passed[:3])
    assert len(clip.blocks) * len(clip.parts) == 6
    assert content["error"] == [0.0, 0.1, 0.2]


def test_a_video_is_chosen_by_its_trace(tmp_path: Path) -> None:
    folder = traced_run(tmp_path)
    cfg = OmegaConf.load(folder / ".hydra/config.yaml")
    cfg.data.n_videos = 2
    OmegaConf.save(cfg, folder / ".hydra/config.yaml")
    first, second = (folder / f"trace/sprites_val_00000{i}.safetensors" for i in range(2))
    second.write_bytes(first.read_bytes())
    assert clip_of(folder, 1).name == "sprites_val_000000"
    assert clip_of(second, 1).name == "sprites_val_000001"


def test_one_selection_a_frame_has_one_gate_to_choose(tmp_path: Path) -> None:
    path = traced_run(tmp_path) / "trace/sprites_val_000000.safetensors"
    trace = Trace.read(path)
    nothing = torch.full((4,), float("nan"))  # compare=false
    passed, norms = trace.passed[:, :1], trace.norms[:, :1].contiguous()
    replace(trace, passed=passed, norms=norms, error=nothing).write(path)
    clip = clip_of(path, 4)
    assert (clip.blocks, clip.parts) == (["all blocks"], ["before the first block"])
    assert json.loads(clip.json)["error"] == [None] * 4
    assert "relative L2 error" not in clip.chart


@pytest.mark.parametrize("wrong", ["nothing", "no trace", "another", "shorter", "damaged"])
def test_runs_that_cannot_be_shown_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    folder = traced_run(tmp_path)
    path, trace = folder, folder / "trace/sprites_val_000000.safetensors"
    if wrong == "nothing":
        path, said = tmp_path / "nowhere", "neither the folder of a finished run nor a trace in one"
    elif wrong == "no trace":
        trace.unlink()
        said = "has no trace of its data; `python -m evt.run trace=true"
    elif wrong == "another":
        path, said = trace.with_name("b.safetensors"), "has no trace b.safetensors"
    elif wrong == "damaged":
        content = bytearray(trace.read_bytes())
        content[-1] ^= 1
        trace.write_bytes(content)
        said = "is damaged: its numbers are not those that were written"
    else:
        whole = Trace.read(trace)
        names = ("passed", "norms", "first", "ops", "error", "place")
        replace(whole, **{name: getattr(whole, name)[:3] for name in names}).write(trace)
        said = "is of 3 frames, and sprites_val_000000 has 4: the data have changed"
    with pytest.raises(DataError, match=said):
        clip_of(path, 4)
    if wrong == "nothing":
        out = ["--out", str(tmp_path / "a.html")]
        assert said in failed(capsys, lambda: main([str(ROOT / "results"), "--run", str(path), *out]))
        none = failed(capsys, lambda: main([str(ROOT / "results"), "--frames", "0", *out]))
        assert "--frames is 0; it must be at least 1" in none
