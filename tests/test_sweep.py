"""Sweeps: which points a command line makes, and the table that they end in."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from evt.cli import run_command
from evt.errors import DataError
from evt.reproduce import reproduce
from evt.run import run
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
