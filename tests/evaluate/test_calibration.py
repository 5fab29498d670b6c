"""python -m evt.calibrate, and what becomes of its files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from torch import Tensor
from tqdm import tqdm

from evt import bench
from evt.calibrate import calibrate_task
from evt.data.video import Frame
from evt.errors import ConfigError, DataError
from evt.evaluate.calibrated import Calibrated, Calibration, switched
from evt.evaluate.calibration import calibrate
from evt.eventful import VARIANTS
from evt.models.checkpoints import hash_of
from evt.models.loading import build_model
from evt.models.vitdet import ViTDet
from evt.run import run
from evt.settings import CONFIG_DIR
from evt.tables.points import checked_run, points_of
from tests.commands import Refused, command
from tests.common import small_frames, small_vit
from tests.data.test_frames import write_frames
from tests.eventful.test_thresholds import Recording

MINI = ["model=vitdet_mini", "data.n_videos=1", "data.n_frames=6", "threads=1"]
OTHER = "-m evt.calibrate` finds those for this model and variant"


class Small:
    """A small network as a model of frames that are made already."""

    def __init__(self) -> None:
        self.stream = small_vit().stream

    def inputs(self, frame: Frame) -> Iterator[Tensor]:
        yield frame.image


def video(n: int = 12, **how: Any) -> list[Frame]:
    return [Frame(x, f"{i}", first=i == 0) for i, x in enumerate(small_frames(n, **how))]


def passed_of(h: list[float], variant: str, frames: list[Frame]) -> list[float]:
    """Tokens that pass each gate in a later frame, in the mean."""
    policy = Recording(h)
    stream = small_vit().stream(VARIANTS[variant], policy)
    for frame in frames:
        stream(frame.image)
    counts = [[n for gate, n in policy.seen if gate == i] for i in range(len(h))]
    return [sum(x) / len(x) for x in counts]


@pytest.mark.parametrize(("variant", "n_gates"), [("temporal", 12), ("stgt", 12), ("rows", 12), ("frame", 1)])
def test_as_many_tokens_pass_each_gate_as_asked(variant: str, n_gates: int) -> None:
    """With all thresholds in use; and the same frames give the same ones."""
    frames, r = video(changed=20), 12
    found = [
        calibrate(Small(), VARIANTS[variant], r, [frames], 30, 0.1, tqdm(disable=True)) for _ in range(2)
    ]
    h, passed = found[0]
    assert found[0] == found[1]
    assert len(h) == n_gates
    assert all(abs(n / r - 1) <= 0.1 for n in passed)
    assert passed_of(h, variant, frames) == pytest.approx(passed)


def test_one_threshold_lets_all_pass_at_some_gates_and_next_to_nothing_at_others() -> None:
    """Which is what thresholds of their own are for."""
    frames, r = video(changed=20), 12
    h, _ = calibrate(Small(), VARIANTS["temporal"], r, [frames], 30, 0.1, tqdm(disable=True))
    passed = passed_of([sum(h) / len(h)] * len(h), "temporal", frames)
    assert max(passed) > 2 * min(passed)


def mini(*overrides: str) -> ViTDet:
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = hydra.compose("run", ["model=vitdet_mini", *overrides]).model
    return build_model(cfg, torch.device("cpu"), ViTDet)[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A calibration of the shipped model; its thresholds are none that were found."""
    path = tmp_path / "found.json"
    weights, variant = hash_of(mini().net.state_dict()), switched(VARIANTS["temporal"])
    Calibration("vitdet", 256, variant, weights, ["a"], 64, [64.0] * 36, [1.0] * 36).write(path)
    return path


def test_a_calibration_is_found_written_and_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "new" / "64.json"
    places = ["policy.r=64", f"out={path}", f"hydra.run.dir={tmp_path}/c", "within=0.2"]
    command(monkeypatch, calibrate_task, *MINI, *places)
    assert "vitdet 128, temporal, 36 gates, sprites" in capsys.readouterr().out
    found, _ = Calibration.read(path)
    assert (found.model, found.n_tokens, found.r, len(found.videos)) == ("vitdet", 256, 64, 1)
    assert all(abs(n / 64 - 1) <= 0.2 for n in found.passed)
    gflops = {}
    for policy in ("policy.r=64", f"policy=calibrated policy.file={path}"):
        command(monkeypatch, run, *MINI, *policy.split(), "compare=false", f"hydra.run.dir={tmp_path}/r")
        gflops[policy] = json.loads((tmp_path / "r/metrics.json").read_text())["later"]["gflops"]
    top_r, calibrated = gflops.values()
    assert calibrated == pytest.approx(top_r, rel=0.2)
    assert "temporal Calibrated(to r=64)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["variant=base"],
            "variant is base, which has no gates to find thresholds for; it must be one of temporal",
        ),
        (["variant=skip", "policy.every=2"], "variant is skip, which has no gates to find thresholds for"),
        (
            ["model=videomae_mini", "variant=base", "data=sprite_clips"],
            "variant is base, which has no gates to find thresholds for",
        ),
        (
            ["policy=threshold", "policy.h=1"],
            "policy is threshold; it must be top_r, as many tokens of which",
        ),
        (["policy.r=0"], "policy.r is 0; thresholds let from 1 to 255 of a frame's 256 tokens pass"),
        (["policy.r=1.0"], "policy.r is 1.0; thresholds let from 1 to 255"),
        (["policy.r=256"], "policy.r is 256; thresholds let from 1 to 255"),
        (["policy.r=257"], "policy.r is 257, but a frame has 256 tokens; it must be at most 256"),
        (
            ["policy.r=64", "model.checkpoint=null"],
            "the weights are a seeded initialisation (seed 0), of which thresholds mean nothing",
        ),
        (["policy.r=64", "data.n_frames=1"], "no frame comes after another one, so that no threshold can be"),
        (["policy.r=64", "passes=0"], "passes is 0; it must be a whole number of at least 1"),
        (["policy.r=64", "within=2"], "within is 2; it must be a finite number above 0 and below 1"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    refused: Refused, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    path = tmp_path / "found.json"
    said = ["model=vitdet_mini", f"out={path}", f"hydra.run.dir={tmp_path}/c", *arguments]
    assert sentence in refused(*said, task=calibrate_task)
    assert not path.exists()


def test_a_video_in_which_nothing_changes_is_refused(refused: Refused, tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "f", ["0.png"], [(32, 32)])
    for i in (1, 2):
        (folder / f"{i}.png").write_bytes((folder / "0.png").read_bytes())
    data = ["model=vitdet_mini", "data=frames", f"data.path={folder}", f"hydra.run.dir={tmp_path}/c"]
    assert "f: nothing changes, so that no threshold" in refused(*data, "policy.r=9", task=calibrate_task)


def test_where_nothing_can_be_written_nothing_is_looked_for(refused: Refused, tmp_path: Path) -> None:
    said = ["model=vitdet_mini", "policy.r=9", f"out={tmp_path}", f"hydra.run.dir={tmp_path}/c"]
    assert f"out is {tmp_path}; it must end in .json" in refused(*said, task=calibrate_task)
    (tmp_path / "f.json").mkdir()
    said[2] += "/f.json"
    assert "f.json: is a folder, and a file is to be written" in refused(*said, task=calibrate_task)


@pytest.mark.parametrize("name", ["clip.mp4", "boxes.json"])
def test_files_that_are_no_calibrations_stay(refused: Refused, tmp_path: Path, name: str) -> None:
    """Else a slip of the keyboard would cost the video that is looked at."""
    (tmp_path / name).write_text("{}")
    said = ["model=vitdet_mini", "policy.r=9", f"out={tmp_path}/{name}", f"hydra.run.dir={tmp_path}/c"]
    assert f"out is {tmp_path}/{name}" in refused(*said, task=calibrate_task)
    assert (tmp_path / name).read_text() == "{}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["model.checkpoint=null"], f"found for vitdet with other weights than those that are here; `python {OTHER}"),
        (["model.size=64"], f"of 256 tokens a frame, and here a frame has 64; `python {OTHER}"),
        (["model=vivit_mini"], "for vitdet of 256 tokens a frame, and here a frame has 101"),
        (["variant=stgt"], f"gate was reference, and here it is previous; `python {OTHER}"),
        (["variant=rows"], "under another variant: rows was False, and here it is True"),
        (["variant=skip"], "policy is calibrated, but the variant skips frames; it must be every"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("task", [run, bench.bench])
def test_a_calibration_made_for_another_model_is_refused(
    refused: Refused, file: Path, tmp_path: Path, task: Any, arguments: list[str], sentence: str
) -> None:
    if task is bench.bench and "variant=skip" in arguments:
        pytest.skip("which has another reason to refuse it")
    chosen = ["model=vitdet_mini", "policy=calibrated", f"policy.file={file}", f"hydra.run.dir={tmp_path}/r"]
    assert sentence in refused(*chosen, *arguments, task=task)


def test_a_file_that_is_none_is_refused(refused: Refused, file: Path, tmp_path: Path) -> None:
    text = file.read_text()
    edited = json.loads(text)
    edited["h"][3] = 2.0
    chosen = ["model=vitdet_mini", "policy=calibrated", f"hydra.run.dir={tmp_path}/r"]
    for content, sentence in (
        (None, "there is no such file; `python -m evt.calibrate` writes one"),
        (text[: len(text) // 2], "damaged, or no file that `python -m evt.calibrate` wrote"),
        ("", "damaged, or no file that"),
        ("[1]", "damaged, or no file that"),
        ("{}", "damaged, or no file that"),
        ("[" * 100_000, "damaged, or no file that"),
        (b"\xff\xfe{}", "damaged, or no file that"),
        (json.dumps(edited), "damaged or edited; its sha256 is of other content"),
    ):
        path = tmp_path / "other.json"
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {sentence}')}"):
            Calibrated(path)
    with pytest.raises(DataError, match=r"a folder; `python -m evt.calibrate` writes one"):
        Calibrated(tmp_path)
    assert f"error: {path}: damaged or edited" in refused(*chosen, f"policy.file={path}")
    assert "policy.file is not set" in refused(*chosen)


def test_a_bench_counts_what_passes(monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path) -> None:
    """Of a policy that does not know it beforehand; in bfloat16 the weights are those of the file, rounded."""
    few = ["data.n_frames=3", "repeats=1", "parts=false", "dtype=bfloat16", f"hydra.run.dir={tmp_path}/b"]
    found = []
    for policy in (f"policy=calibrated policy.file={file}", "policy=threshold policy.h=1"):
        command(monkeypatch, bench.bench, "model=vitdet_mini", *policy.split(), *few)
        found.append(json.loads((tmp_path / "b/bench.json").read_text())["records"]["this"]["op_ratio"])
    assert found[0] == found[1] > 1


def test_a_calibration_is_a_point_of_a_table(file: Path) -> None:
    (point,) = points_of([{"variant": "temporal", "policy": "calibrated", "file": str(file)}])
    assert point.setting == f"policy=calibrated file={file}"
    assert isinstance(checked_run(point, mini())[1], Calibrated)
    with pytest.raises(
        ConfigError, match=r"^the point temporal policy=calibrated .* with other weights than"
    ):
        checked_run(point, mini("model.checkpoint=null"))
    (stgt,) = points_of([{"variant": "stgt", "policy": "calibrated", "file": str(file)}])
    with pytest.raises(ConfigError, match="under another variant: gate was reference"):
        checked_run(stgt, mini())
    (none,) = points_of([{"variant": "temporal", "policy": "calibrated", "file": f"{file}x"}])
    with pytest.raises(DataError, match="there is no such file"):
        none.run()


def test_the_fast_path_is_no_other_variant(file: Path) -> None:
    policy, model = Calibrated(file), mini()
    assert model.stream(replace(VARIANTS["temporal"], fast=True), policy).policy is policy
