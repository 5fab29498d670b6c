"""Timing commands: what they print must be of what was asked for, and wrong questions must be refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evt import bench, reproduce
from evt.evaluate.ledger import Ledger
from evt.evaluate.race import Laps
from evt.evaluate.rivals import RIVALS, UnavailableError
from tests.commands import SMALL, Refused, command
from tests.data.test_frames import write_frames

FEW = ["repeats=1", "threads=1"]
TINY = ["dim=24", "num_heads=3", "spatial_depth=1", "temporal_views=1", "spatial_views=1"]


@pytest.mark.parametrize(
    ("model", "frames", "timed"),
    [
        ("vitdet_mini", ["data.n_frames=3"], 3),
        ("vivit_mini", [], 8),  # all steps of two frames
        ("vivit_mini", ["data=sprites", "data.n_videos=2", "data.n_frames=16"], 8),  # of the first
    ],
)
def test_a_bench_needs_no_data(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model: str,
    frames: list[str],
    timed: int,
) -> None:
    """The default data of each model are enough, and all figures are in the file."""
    arguments = [f"model={model}", "policy.r=16", *frames, *FEW, f"hydra.run.dir={tmp_path}"]
    command(monkeypatch, bench.bench, *arguments)
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / "bench.json").read_text())
    this = figures["records"]["this"]
    assert f"; {timed} frames, 1 times" in printed
    assert f"speed-up {this['speed_up']:.2f}" in printed
    assert this["op_ratio"] > 3
    assert this["later_ms_25"] <= this["later_ms"] <= this["later_ms_75"]
    assert figures["records"]["dense"]["state_mb"] == 0 < this["state_mb"]
    assert figures["parts"]["dense"]["gate"] == 0 < figures["parts"]["this"]["gate"]
    assert figures["parts"]["this"]["mlp"] > 0


def test_where_r_changes_efficiency_is_of_the_frames_that_were_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """By hand: two of four frames cost all operations and time, and two a quarter of these."""

    def laps(streams: dict[str, Any], inputs: Any, repeats: int) -> dict[str, Laps]:
        dense, own = [8.0, 8.0, 8.0, 8.0], [8.0, 8.0, 2.0, 2.0]
        return {
            "dense": Laps([9.0], dense, [800] * 4),
            "this": Laps([9.0], own, [800, 800, 200, 200]),
        }

    monkeypatch.setattr(bench, "race", laps)
    arguments = ["model=vitdet_mini", "variant=rows", "parts=false", "data.n_frames=3", *FEW]
    for policy in (
        ["scheduled", "policy.schedule={0: 256, 3: 16}"],
        ["latency", "policy.target_ms=9"],
    ):
        command(
            monkeypatch,
            bench.bench,
            *arguments,
            f"policy={policy[0]}",
            *policy[1:],
            f"hydra.run.dir={tmp_path}",
        )
        this = json.loads((tmp_path / "bench.json").read_text())["records"]["this"]
        assert (this["speed_up"], this["op_ratio"], this["ops_run_ratio"], this["efficiency"]) == (
            1.6,
            1.6,
            1.6,
            1,
        )
        assert "all of these are of the sum of the later frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["data.n_frames=2"],
            "data.n_frames is 2; to see later frames it must be a whole number of at least 3",
        ),
        (["n_frames=5"], "n_frames is not a setting; those of the command are"),
        (["repeats=0"], "repeats is 0; it must be a whole number of at least 1"),
        (["dtype=float64"], "dtype is float64; allowed are bfloat16, float32"),
        (["parts=2"], "parts is 2; it must be true or false"),
        (["variant=rows", "fast=false"], "the variant rows is of the fast path alone"),
        (["policy.r=257"], "policy.r is 257"),
        (["rivals=[tensorrt]"], "rivals has 'tensorrt'; allowed are torch_compile, onnxruntime"),
        (
            ["variant=spatial", "variant.pool=9", "policy=none"],
            "variant.pool is 9, but the smallest grid or window of the model has 8 tokens on a side",
        ),
        (["model=videomae"], "model is videomae, which has no later frames to race"),
    ],
)
def test_what_cannot_be_timed_is_refused(
    refused: Refused, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    places = ["model=vitdet_mini", f"hydra.run.dir={tmp_path}"]
    assert sentence in refused(*places, *arguments, task=bench.bench)


def test_a_bench_of_a_folder_takes_eight_frames_or_as_many_as_there_are_to_be(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_frames(tmp_path / "f", [f"{i}.png" for i in range(9)], [(32, 32)] * 9)
    data = ["data=frames", f"data.path={folder}", f"hydra.run.dir={tmp_path}/run", "parts=false", *FEW]
    command(monkeypatch, bench.bench, "model=vitdet_mini", *data)
    assert "; 8 frames, 1 times" in capsys.readouterr().out
    command(monkeypatch, bench.bench, "model=vitdet_mini", *data, "data.n_frames=4")
    assert "; 4 frames, 1 times" in capsys.readouterr().out
    said = refused("model=vitdet_mini", *data, "data.n_frames=10", task=bench.bench)
    assert "data.n_frames is 10, but there are 9 frames to run" in said


def test_frame_skipping_is_not_raced(refused: Refused) -> None:
    """Most of its frames take no time at all: a speed-up over their median would be a fiction."""
    said = refused("model=vitdet_mini", "variant=skip", "policy.every=4", task=bench.bench)
    assert "variant is skip, which does nothing in most frames" in said


def absent(*arguments: Any) -> Any:
    """A rival of which nothing is installed."""
    raise UnavailableError("it is not installed")


def test_rivals_run_in_the_race(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A rival here makes 1.25 times the dense output, and another is not there: both must be told."""
    monkeypatch.setitem(RIVALS, "openvino", lambda network, inputs, dtype: lambda x: 1.25 * network(x))
    monkeypatch.setitem(RIVALS, "onnxruntime", absent)
    arguments = ["model=vitdet_mini", "policy.r=16", "data.n_frames=3", "parts=false", *FEW]
    arguments += ["rivals=[openvino,onnxruntime]", f"hydra.run.dir={tmp_path}"]
    command(monkeypatch, bench.bench, *arguments)
    printed = capsys.readouterr().out
    assert re.search(r"dense +this +openvino\n", printed)
    assert re.search(r"error against float32 +2\.5e-01\n", printed)
    assert "onnxruntime does not run here: it is not installed" in printed
    figures = json.loads((tmp_path / "bench.json").read_text())
    rival, dense = figures["records"]["openvino"], figures["records"]["dense"]
    assert rival["speed_up"] == pytest.approx(dense["later_ms"] / rival["later_ms"])
    assert rival["error"] == pytest.approx(0.25, abs=1e-5)
    assert figures["absent"] == {"onnxruntime": "it is not installed"}


def test_table_2_has_rivals_below_a_race(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(RIVALS, "openvino", lambda network, inputs, dtype: lambda x: 1.25 * network(x))
    monkeypatch.setitem(RIVALS, "onnxruntime", absent)
    rows = (
        "[{model: vitdet, size: 672, variant: base}, {model: vitdet, size: 672, variant: temporal, r: 256}]"
    )
    settings = [*SMALL, "data.size=[64,96]", f"table.points={rows}", "table.rivals=[openvino,onnxruntime]"]
    settings += ["table.dtypes=[float32]", "table.frames={float32: 3}", "table.repeats={float32: 1}"]
    places = [f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run", "threads=1"]
    command(monkeypatch, reproduce.reproduce, "table=table_2", *places, *settings)
    table = pd.read_csv(tmp_path / "table_2.csv")
    assert list(table.variant) == ["base", "temporal", "openvino", "onnxruntime"]
    assert set(table["size"]) == {672}
    assert table.error[2] == pytest.approx(0.25, abs=1e-5)
    assert table.absent[3] == "it is not installed"
    assert pd.isna(table.later_ms[3])
    assert table.later_ms[:3].gt(0).all()
    assert "nan" not in (tmp_path / "table_2.md").read_text()


def test_table_2_goes_on_after_its_last_race(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With narrow models in the place of the large ones."""
    rows = [
        "{model: vitdet, size: 672, variant: base}",
        "{model: vitdet, size: 672, variant: temporal, r: 256}",
        "{model: vivit, size: 320, variant: base}",
        "{model: vivit, size: 320, variant: temporal, r: 50}",
    ]
    narrow = [*SMALL, *(f"table.models.vivit.{x}" for x in TINY)]
    put = Ledger.put
    races: list[str] = []

    def counted(ledger: Ledger, key: str, value: object) -> None:
        races.append(key)
        if len(races) == 2:
            raise KeyboardInterrupt
        put(ledger, key, value)

    monkeypatch.setattr(Ledger, "put", counted)
    places = [f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run", "threads=1"]
    few = ["table.frames={float32: 3, bfloat16: 3}", "table.repeats={float32: 1, bfloat16: 1}"]
    few += [*narrow, "data.size=[64,96]", f"table.points=[{', '.join(rows)}]"]
    with pytest.raises(SystemExit):
        command(monkeypatch, reproduce.reproduce, "table=table_2", *places, *few)
    command(monkeypatch, reproduce.reproduce, "table=table_2", *places, *few)
    assert len(races) == 5  # the first of the four is not run again
    table = pd.read_csv(tmp_path / "table_2.csv")
    assert list(table.variant) == ["base", "temporal"] * 4
    assert list(table.dtype) == ["float32"] * 4 + ["bfloat16"] * 4
    assert (table.speed_up[table.variant == "base"] == 1).all()
    assert (table.paper_ms == [1492, 838, 54500 / 16, 21500 / 16] * 2).all()
    assert (table.efficiency - table.speed_up / table.op_ratio).abs().max() < 1e-9
