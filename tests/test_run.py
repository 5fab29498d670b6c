"""python -m evt.run and evt.reproduce, from the command line to the files they leave."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from evt.data.frames import FrameFolder
from evt.data.video import Frame, Video
from evt.errors import DataError
from evt.evaluate.detection import detect
from evt.evaluate.ledger import Ledger
from evt.evaluate.trace import Subject
from evt.evaluate.variants import build_variant
from evt.eventful import VARIANTS, Policy, TopR
from evt.lock import locked
from evt.run import run
from evt.settings import CONFIG_DIR
from evt.tokens import REDUCTIONS
from tests.commands import SMALL, SMALL_RUN, Refused, command, run_small
from tests.common import CLIP, VID_FRAMES, needs_clip, needs_vid_frames
from tests.data.test_frames import write_frames
from tests.models.test_vitdet import small_model

TRAINED = ["model=vitdet_mini", "data.n_videos=1", "data.n_frames=3"]
"""A model of which agreement is told: its weights are trained."""


def test_a_run_ends_in_what_frame_skipping_would_have_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Else a user would take for a gain what costs nothing to build."""
    command(monkeypatch, run, *TRAINED, "policy.r=64", f"hydra.run.dir={tmp_path}")
    found = json.loads((tmp_path / "metrics.json").read_text())
    dense = found["first"]["gflops"]
    assert found["skipping"]["every"] == pytest.approx(dense / found["later"]["gflops"])
    assert "the same of frame skipping, 1 of 3.1 run" in capsys.readouterr().out
    command(monkeypatch, run, *TRAINED, "variant=skip", "policy.every=1", f"hydra.run.dir={tmp_path}")
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert "skipping" not in found  # it would be compared with itself
    command(monkeypatch, run, *TRAINED, "variant=skip_moved", "policy.every=2", f"hydra.run.dir={tmp_path}")
    assert "skipping" in json.loads((tmp_path / "metrics.json").read_text())


def test_a_run_ends_in_a_table_and_in_its_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    metrics = run_small(monkeypatch, tmp_path)
    assert metrics["first"]["frames"] == 1
    assert metrics["later"]["frames"] == 2
    assert metrics["later"]["gflops"] < metrics["first"]["gflops"]
    assert "relative_l2_error" not in metrics["later"]
    assert "skipping" not in metrics
    assert metrics["state_bytes"] > 0
    composed = OmegaConf.load(tmp_path / ".hydra" / "config.yaml")
    assert OmegaConf.select(composed, "policy.r") == 16
    out = capsys.readouterr().out
    assert f"{metrics['later']['gflops']:.3f}" in out
    assert "seeded initialisation (seed 0), so neither accuracy nor agreement with the dense model" in out


def test_the_mean_weighs_all_frames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The paper's GFlops are over all frames, flushes included."""
    metrics = run_small(monkeypatch, tmp_path)
    first, later = metrics["first"]["gflops"], metrics["later"]["gflops"]
    assert metrics["all"]["gflops"] == pytest.approx((first + 2 * later) / 3)


def test_the_dense_model_agrees_with_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command(
        monkeypatch,
        run,
        "variant=base",
        *TRAINED,
        f"hydra.run.dir={tmp_path}",
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["all"]["relative_l2_error"] == 0
    assert metrics["state_bytes"] == 0


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_is_a_config(name: str) -> None:
    """Else `variant=NAME` would not be what the tables call so."""
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = hydra.compose("run", [f"variant={name}"]).variant
    assert build_variant(cfg, "vitdet") == VARIANTS[name]
    if VARIANTS[name].gate is not None and not VARIANTS[name].rows:
        cfg.update({"gate_before_norm": True, "pool": 3})
        assert build_variant(cfg, "vitdet") == replace(VARIANTS[name], gate_before_norm=True, pool=3)


def test_a_sweep_leaves_a_folder_a_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = [argument for argument in SMALL_RUN if not argument.startswith("policy")]
    command(monkeypatch, run, "-m", "policy.r=8,32", f"hydra.sweep.dir={tmp_path}", *arguments)
    gflops = [json.loads((tmp_path / job / "metrics.json").read_text())["later"]["gflops"] for job in "01"]
    assert gflops[0] < gflops[1]


def test_the_fast_path_is_compared_with_a_dense_model_on_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All tokens of every frame on the fast path: the dense model to rounding, and in its operations no more."""
    command(monkeypatch, run, "fast=true", "policy.r=256", *TRAINED, f"hydra.run.dir={tmp_path}")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["all"]["relative_l2_error"] < 1e-5
    assert metrics["later"]["ops"]["matmul"] == metrics["first"]["ops"]["matmul"]


def test_an_impossible_point_of_a_sweep_does_not_stop_the_others(refused: Refused, tmp_path: Path) -> None:
    arguments = [argument for argument in SMALL_RUN if not argument.startswith("policy")]
    last = refused("-m", "policy.r=8,99,32", f"hydra.sweep.dir={tmp_path}", *arguments)
    assert "1 of the sweep's 3 points could not be run" in last
    assert sorted(path.parent.name for path in tmp_path.glob("*/metrics.json")) == ["0", "2"]


def test_two_runs_do_not_share_a_folder(refused: Refused, tmp_path: Path) -> None:
    with locked(tmp_path):
        assert "another run is writing to" in refused(*SMALL_RUN, f"hydra.run.dir={tmp_path}")


def test_what_an_earlier_run_left_does_not_stay_beside_the_new(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "detections.jsonl").write_text("of another model")
    run_small(monkeypatch, tmp_path)
    assert not (tmp_path / "detections.jsonl").exists()


def test_a_threshold_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Noise over the whole input: tokens that rest keep old columns of A (equation 10), and then outputs differ.
    moving = [*TRAINED, "data.setting=noise"]
    command(monkeypatch, run, "policy=threshold", "policy.h=0", *moving, f"hydra.run.dir={tmp_path}")
    assert json.loads((tmp_path / "metrics.json").read_text())["all"]["relative_l2_error"] < 1e-5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["policy.r=5000"], "policy.r is 5000, but a frame has 4096 tokens; it must be at most 4096"),
        (["policy.r=-1"], "policy.r is -1; it must be a whole number of at least 0"),
        (["policy.r=1.5"], "policy.r is 1.5; it must be a whole number"),
        (["policy=threshold", "policy.h=-0.5"], "policy.h is -0.5; it must be a finite number, 0 or more"),
        (["policy.rr=3"], "policy.rr is not a setting; those of policy=top_r are r"),
        (["+policy.rr=3"], "policy.rr is not a setting; those of policy=top_r are r"),
        (
            ["policy=random"],
            "policy is random; allowed are ats, budget, calibrated, change, codec, every, latency, merge, none, "
            "operations, random_drop",
        ),
        (
            ["policy=none"],
            "policy is none, but the variant has gates; it must be calibrated or latency or operations or refresh or "
            "scheduled or threshold or top_r",
        ),
        (
            ["variant=base", "policy.r=3"],
            "policy.r cannot be set: variant base has no gates, so its policy is none",
        ),
        (
            ["variant=spatial", "policy=top_r"],
            "policy is top_r, but the variant has no gates; it must be none",
        ),
        (
            ["variant=spacial"],
            f"variant is spacial; allowed are {', '.join(sorted([*VARIANTS, *REDUCTIONS]))}",
        ),
        (["model.size=1000"], "model.size is 1000; it must be a positive multiple of the patch size, 16"),
        (["model.size=big"], "model.size is 'big'; it must be a whole number"),
        (["model.seed=x"], "model.seed is 'x'; it must be a whole number"),
        (
            ["model.backbone.window_blocks=[a]"],
            "model.backbone.window_blocks is ['a']; it must be a list, each a whole number",
        ),
        (["modell=vitdet"], "modell is not a setting; those of the command are"),
        (["policy.r.x=1"], "policy.r.x is not a setting, since policy.r is not a group of them"),
        (["policy.r=1,2"], "policy.r=1,2 has several values; add -m to run each of them in turn"),
        (["policy.r=[1"], "the argument policy.r=[1 cannot be read; it must be of the form setting=value"),
        (["data=frames", "data.path=a=b"], "needs quotes, as in 'data.path=\"a=b\"'"),
        (["data=frames", 'data.path="a b\\"'], "needs quotes, as in 'data.path=\"a b\\\\\"'"),
        (["model=3"], "the name of a choice must be a text"),
        (["data=video"], "data.path is not set; give it on the command line as data.path=..."),
        (
            ["data=video", "data.path=0"],
            "data.path is 0; it must be a path (no number, and no camera by its number; ./0 is a file of that name)",
        ),
        (["data=frames", "data.path=2.5"], "data.path is 2.5; it must be a path (no number"),
        (["data=frames", "data.path=true"], "data.path is True; it must be a path"),
        (
            ["data=vid", "data.root=x", "data.annotations=[1]"],
            "data.annotations is [1]; it must be a path or null",
        ),
        (
            ["model=vivit_kinetics", "model.size=-16"],
            "model.size is -16; it must be a whole number of at least 1",
        ),
        (
            ["model=videomae", "variant=base", "model.size=-16"],
            "model.size is -16; it must be a whole number of",
        ),
        (
            ["model=vivit_mini", "model.temporal_views=0"],
            "model.temporal_views is 0; it must be a whole number of",
        ),
        (["device=tpu"], "device is tpu; allowed are"),
        (["threads=0"], "threads is 0; it must be a whole number from 1 to"),
    ],
)
def test_an_impossible_command_is_refused_in_one_sentence(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(*arguments)


def cost_of(variant: str, policy: Policy | None, videos: Sequence[Video], folder: Path) -> dict[str, Any]:
    model = small_model()
    dense = model.stream(VARIANTS["base"])
    subject = Subject(model, model.stream(VARIANTS[variant], policy), dense, decode=False)
    return detect(subject, videos, ["a"], Ledger(folder / "videos.jsonl"), "", "")[0]


def test_nan_in_a_frame_names_the_frame(tmp_path: Path) -> None:
    class Broken:
        name = "v"
        fingerprint = ""

        def __len__(self) -> int:
            return 1

        def __iter__(self):  # type: ignore[no-untyped-def]
            yield Frame(torch.full((3, 64, 64), torch.nan), "v:0", first=True)

    with pytest.raises(DataError, match="v:0: a frame with NaN"):
        cost_of("base", None, [Broken()], tmp_path)


def test_the_module_is_a_command(tmp_path: Path) -> None:
    """Ends with status 2 and a sentence, without a traceback, when run as users run it."""
    result = subprocess.run(
        [sys.executable, "-m", "evt.run", "policy.r=5000", f"hydra.run.dir={tmp_path}"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: policy.r is 5000")
    assert "Traceback" not in result.stderr


@needs_vid_frames
def test_real_frames_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """16 frames of ImageNet VID at a small size; temporal must be closer to the dense model than STGT is."""
    errors = {}
    for variant in ("temporal", "tokenwise", "stgt"):
        folder = tmp_path / variant
        command(
            monkeypatch, run, f"variant={variant}", "data=frames", f"data.path={VID_FRAMES}",
            "data.n_frames=16", "model=vitdet_mini", "policy.r=32", f"hydra.run.dir={folder}",
        )  # fmt: skip
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["later"]["frames"] == 15
        errors[variant] = metrics["later"]["relative_l2_error"]
    assert 0 < errors["tokenwise"] < errors["stgt"]
    assert 0 < errors["temporal"] < 1


@needs_clip
def test_a_real_clip_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command(
        monkeypatch, run, "data=video", f"data.path={CLIP}", "data.n_frames=4", "data.stride=2",
        "model.size=256", "policy.r=32", *SMALL, f"hydra.run.dir={tmp_path}",
    )  # fmt: skip
    assert json.loads((tmp_path / "metrics.json").read_text())["all"]["frames"] == 4


def test_a_new_sequence_flushes(tmp_path: Path) -> None:
    folder = write_frames(
        tmp_path / "f", [f"{i}.png" for i in range(4)], [(32, 48), (32, 48), (48, 32), (48, 32)]
    )
    result = cost_of("temporal", TopR(2), [FrameFolder(folder)], tmp_path)
    assert (result["first"]["frames"], result["later"]["frames"]) == (2, 2)
    assert result["first"]["relative_l2_error"] == 0
