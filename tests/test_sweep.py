"""Sweeps: which points a command line makes, and the table that they end in."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from evt.cli import run_command
from evt.errors import ConfigError, DataError
from evt.reproduce import reproduce
from evt.run import run
from evt.sweep import _launched
from evt.sweep_plot import plot
from tests.commands import SMALL_RUN, Refused, command

Sweep = Callable[..., list[tuple[Any, ...]]]
NONE, TOP_R, THRESHOLD = ("none",), "top_r", "threshold"


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """The points that a sweep of `evt.run` runs, each its variant and policy; nothing is measured."""

    def swept(*arguments: str) -> list[tuple[Any, ...]]:
        points: list[tuple[Any, ...]] = []

        def task(cfg: DictConfig) -> dict[str, Any]:
            points.append((cfg.variant.name, *(x for key, x in cfg.policy.items() if key != "_target_")))
            return {"figure": len(points) / 2}

        monkeypatch.setattr("sys.argv", ["run", "-m", f"hydra.sweep.dir={tmp_path}", *arguments])
        run_command("run", task)
        return points

    return swept


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("arguments", "points"),
    [
        (["variant=temporal,base", "policy.r=32"], [("temporal", TOP_R, 32, "l2"), ("base", *NONE)]),
        (
            ["variant=base,temporal,spatial", "policy.r=32,64"],
            [("base", *NONE), ("temporal", TOP_R, 32, "l2"), ("temporal", TOP_R, 64, "l2"), ("spatial", *NONE)],
        ),
        (
            ["variant=temporal,base", "policy=threshold", "policy.h=2"],
            [("temporal", THRESHOLD, 2, "l2"), ("base", *NONE)],
        ),
        (
            ["variant=stgt,base", "policy=threshold,top_r", "policy.h=2", "policy.r=8"],
            [("stgt", THRESHOLD, 2, "l2"), ("stgt", TOP_R, 8, "l2"), ("base", *NONE)],
        ),
        (["variant=temporal,base", "policy=none"], [("temporal", *NONE), ("base", *NONE)]),
        (
            ["model=videomae_mini", "variant=rlt,base", "policy.threshold=0.1,0.2"],
            [("rlt", "run_length", 0.1, False), ("rlt", "run_length", 0.2, False), ("base", *NONE)],
        ),
        (
            ["model=videomae_mini", "variant=base,rlt", "policy=run_length"],
            [("base", *NONE), ("rlt", "run_length", 0.1, False)],
        ),
        (
            ["model=videomae_mini", "variant=rlt,token_merging", "policy.threshold=0.2", "policy.r=51"],
            [("rlt", "run_length", 0.2, False), ("token_merging", "merge", 51, 0, True)],
        ),
        (["policy.r=8,8"], [("temporal", TOP_R, 8, "l2")] * 2),  # as asked: times differ
    ],
)  # fmt: skip
def test_a_point_leaves_out_what_its_variant_has_no_use_for(
    sweep: Sweep, arguments: list[str], points: list[tuple[Any, ...]]
) -> None:
    assert sweep(*arguments) == points


def test_what_a_model_has_no_use_for_is_left_out_and_named(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sweep("model=vitdet_mini,vivit_mini", "variant=base,stgt", "data.n_videos=3", "threads=1", "policy.r=8")
    lines = capsys.readouterr().out.splitlines()
    assert (
        "data.n_videos is left out where it has no use: model=vivit_mini variant=base, model=vivit_mini variant=stgt"
        in lines
    )
    assert (
        "policy.r is left out where it has no use: model=vitdet_mini variant=base, model=vivit_mini variant=base"
        in lines
    )
    settings = ("point", "model", "variant", "data.n_videos", "threads", "policy.r", "figure", "error")
    assert [tuple(row.items()) for row in rows_of(tmp_path)] == [
        tuple(zip(settings, cells, strict=True))
        for cells in (
            ("0", "vitdet_mini", "base", "3", "1", "", "0.5", ""),
            ("1", "vitdet_mini", "stgt", "3", "1", "8", "1.0", ""),
            ("2", "vivit_mini", "base", "", "1", "", "1.5", ""),
            ("3", "vivit_mini", "stgt", "", "1", "8", "2.0", ""),
        )
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["variant=base", "policy.r=32"],
            "policy.r cannot be set: variant base has no gates, so its policy is none",
        ),
        (["variant=base,spatial", "policy.r=32"], "policy.r cannot be set: variant base has no gates"),
        (
            ["variant=base,temporal", "policy.rr=3"],
            "policy.rr is not a setting; those of policy=top_r are r",
        ),
        (["variant=base,temporal", "modell.x=3"], "modell.x is not a setting, since modell is not a group"),
        (["variant=base,spacial"], "variant is spacial; allowed are ats, base, "),
    ],
)
def test_what_no_point_has_a_use_for_is_refused(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refused("-m", *arguments)
    assert not list(tmp_path.iterdir())


def test_points_that_would_take_each_others_place_are_refused(refused: Refused, tmp_path: Path) -> None:
    """Every table of a sweep over settings of one would be written over that of the point before."""
    places = [f"out={tmp_path}/out", f"hydra.sweep.dir={tmp_path}/runs"]
    said = refused("-m", "table=table_c", "flush_rate=0.1,0.2", *places, task=reproduce)
    assert "several points of this sweep would leave their results under one name, table_c" in said
    assert not list(tmp_path.iterdir())


def test_a_sweep_ends_in_one_table_of_all_points(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each row holds what the point's own file does, and the point that could not be run says why in it."""
    points = ["-m", "variant=temporal,base", "policy.r=16,99", f"hydra.sweep.dir={tmp_path}"]
    arguments = [argument for argument in SMALL_RUN if not argument.startswith("policy")]
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, run, *points, *arguments)
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("error: 1 of the sweep's 3 points could not be run")
    reason = "policy.r is 99, but a frame has 64 tokens; it must be at most 64"
    rows = rows_of(tmp_path)
    assert [(row["variant"], row["policy.r"], row["error"]) for row in rows] == [
        ("temporal", "16", ""),
        ("temporal", "99", reason),
        ("base", "", ""),
    ]
    for row in (rows[0], rows[2]):
        metrics = json.loads((tmp_path / row["point"] / "metrics.json").read_text())
        for name in ("frames", "gflops", "ms", "dense_ms"):
            assert float(row[name]) == metrics["all"][name]
    *_, head, first, failed, dense, written = said.out.splitlines()
    assert head.split() == [
        *("point", "variant", "policy.r", "frames", "gflops", "ms", "dense_ms"),
        *("state_mb", "error"),
    ]
    assert first.split()[:5] == ["0", "temporal", "16", "3", f"{float(rows[0]['gflops']):.4g}"]
    assert failed.split(maxsplit=8) == ["1", "temporal", "99", *["-"] * 5, reason]
    assert dense.split()[:4] == ["2", "base", "-", "3"]
    assert written == f"written to {tmp_path}/sweep.csv"


def test_a_fault_of_the_program_does_not_lose_the_other_points(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def task(cfg: DictConfig) -> dict[str, Any]:
        if cfg.policy.r == 2:
            raise RuntimeError("out of memory")
        if cfg.policy.r == 3:
            raise DataError("no such frame")
        return {"r": 10 * cfg.policy.r}

    monkeypatch.setattr("sys.argv", ["run", "-m", "policy.r=1,2,3,4", f"hydra.sweep.dir={tmp_path}"])
    with pytest.raises(RuntimeError, match="out of memory"):
        run_command("run", task)
    assert [(row["r"], row["error"]) for row in rows_of(tmp_path)] == [
        ("10", ""),
        ("", "RuntimeError: out of memory"),
        ("", "no such frame"),
        ("40", ""),
    ]


def test_a_killed_sweep_keeps_the_points_that_were_done(tmp_path: Path) -> None:
    """By SIGKILL, in the middle of its third point."""
    code = """if True:
        import sys, time
        from evt.cli import run_command

        def task(cfg):
            if cfg.policy.r == 3:
                print("third", flush=True)
                time.sleep(600)
            return {"r": 10 * cfg.policy.r}

        run_command("run", task)
    """
    arguments = ["-m", "policy.r=1,2,3,4", f"hydra.sweep.dir={tmp_path}"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "third\n" in process.stdout
        os.kill(process.pid, signal.SIGKILL)
    assert [(row["policy.r"], row["r"]) for row in rows_of(tmp_path)] == [("1", "10"), ("2", "20")]


def test_a_sweep_that_was_stopped_goes_on_after_its_points(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A night of points is not run again; but what was changed meanwhile is, and all of them once it is whole."""
    weights = tmp_path / "weights.pth"
    weights.write_text("first")
    begun: list[int] = []
    stop: dict[int, BaseException] = {2: KeyboardInterrupt()}

    def task(cfg: DictConfig) -> dict[str, Any]:
        begun.append(cfg.policy.r)
        if cfg.policy.r in stop:
            raise stop.pop(cfg.policy.r)
        return {"r": cfg.policy.r / 3}

    def swept() -> list[int]:
        begun.clear()
        arguments = ["policy.r=1,2,3", f"model.checkpoint={weights}", f"hydra.sweep.dir={tmp_path}/sweep"]
        monkeypatch.setattr("sys.argv", ["run", "-m", *arguments])
        with contextlib.suppress(SystemExit):
            run_command("run", task)
        return list(begun)

    assert swept() == [1, 2]
    stop[3] = DataError("no such frame")
    assert swept() == [2, 3]
    assert [row["r"] for row in rows_of(tmp_path / "sweep")] == [str(1 / 3), str(2 / 3), ""]
    weights.write_text("others")
    assert swept() == [1, 2, 3], "figures of other weights are taken for these"
    stop[1] = KeyboardInterrupt()
    assert swept() == [1], "a sweep that was whole is run anew"


def test_points_that_write_elsewhere_are_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Their files may be gone or be another sweep's."""
    begun: list[str] = []

    def task(cfg: DictConfig) -> dict[str, Any]:
        begun.append(cfg.out)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return {"r": 1}

    arguments = [f"out={tmp_path}/a.json,{tmp_path}/b.json", "policy.r=8", f"hydra.sweep.dir={tmp_path}"]
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["calibrate", "-m", *arguments])
        with contextlib.suppress(SystemExit):
            run_command("calibrate", task)
    assert [Path(out).name for out in begun] == ["a.json", "b.json", "a.json", "b.json"]


def test_joblib_runs_points_side_by_side_to_the_same_table(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The other points' figures are not lost for one that cannot be run, in another process either."""
    pytest.importorskip(
        "hydra_plugins.hydra_joblib_launcher",
        reason="hydra-joblib-launcher is not installed: pip install -e '.[joblib]'",
    )

    def task(cfg: DictConfig) -> dict[str, Any]:
        if cfg.policy.r == 2:
            raise DataError("no such frame")
        return {"r": cfg.policy.r / 3}

    def swept(name: str, *arguments: str) -> str:
        given = ["-m", "policy.r=1,2,3", f"hydra.sweep.dir={tmp_path}/{name}", *arguments]
        monkeypatch.setattr("sys.argv", ["run", *given])
        with pytest.raises(SystemExit, match="2"):
            run_command("run", task)
        return (tmp_path / name / "sweep.csv").read_text()

    alone = swept("alone")
    assert swept("together", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2") == alone
    assert "1 of the sweep's 3 points could not be run" in capfd.readouterr().err
    assert (tmp_path / "together/0/.hydra/config.yaml").exists()


def test_slurm_is_composed_as_hydra_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed"
    )
    arguments = ["hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=1", "policy.r=1"]
    monkeypatch.setattr("sys.argv", ["run", "--cfg", "hydra", *arguments])
    run_command("run", run)
    launcher = OmegaConf.create(capsys.readouterr().out).hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert launcher.gpus_per_node == 1


def test_a_launcher_that_is_not_installed_or_fails_is_told(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = refused("-m", "hydra/launcher=kubernetes", f"hydra.sweep.dir={tmp_path}")
    assert "hydra/launcher is kubernetes; allowed are " in said
    if importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None:
        said = refused("-m", "hydra/launcher=ray", f"hydra.sweep.dir={tmp_path}")
        assert said.endswith("and ray where hydra-ray-launcher is installed")

    def launch(batch: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        raise RuntimeError('Could not detect "srun", are you indeed on a slurm cluster?')

    settings = {"runtime": {"choices": {"hydra/launcher": "submitit_slurm"}}, "sweep": {"dir": "runs/a"}}
    with pytest.raises(
        ConfigError, match=r"hydra/launcher=submitit_slurm could not .*\?; .*hydra\.sweep\.dir=runs/a$"
    ):
        _launched(launch, OmegaConf.create({"hydra": settings}), [["policy.r=1"]], 0)


def test_a_sweep_is_drawn_where_there_is_something_to_draw(tmp_path: Path) -> None:
    """A curve for each variant, and none of a point without figures."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install -e '.[plot]'")
    table = pd.DataFrame(
        {
            "variant": ["temporal", "temporal", "rows", "stgt"],
            "policy.r": [8, 16, 8, 8],
            "gflops": [1.0, 2.0, 1.5, None],
            "map50": [70.0, 80.0, 85.0, None],
        },
        dtype=object,
    )
    out = tmp_path / "sweep.svg"
    assert plot(table, ["variant", "policy.r"], out)
    drawn = out.read_text()
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert all(f">{text}<" in drawn for text in ("temporal", "rows", "mAP50, %", "GFlops a frame"))
    assert ">stgt<" not in drawn
    assert not plot(table.drop(columns="gflops"), ["variant"], out)
    assert not out.exists(), "that of an earlier sweep stands beside a table that is not its"
