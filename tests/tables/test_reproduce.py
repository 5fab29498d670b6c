"""The tables beside the paper's."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import hydra
import pandas as pd
import pytest

from evt import reproduce
from evt.build import build
from evt.evaluate.ledger import Ledger
from evt.settings import CONFIG_DIR
from evt.tables.points import agreement
from evt.tables.speed import SpeedWork
from tests.commands import SMALL, Refused, command


def test_table_c_equals_the_paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All 38 GFlops to the printed digit, in the paper's order."""
    command(
        monkeypatch,
        reproduce.reproduce,
        "table=table_c",
        f"out={tmp_path}",
        f"hydra.run.dir={tmp_path}/run",
    )
    table = pd.read_csv(tmp_path / "table_c.csv", dtype=str, keep_default_na=False)
    assert list(table.columns[:7]) == [
        "size",
        "variant",
        "r",
        "gflops",
        "gflops_paper",
        "map50",
        "map50_paper",
    ]
    assert list(table.columns[7:11]) == ["frames", "data", "checkpoint", "interval"]
    assert len(table) == 38
    for ours, paper in zip(table["gflops"], table["gflops_paper"], strict=True):
        assert f"{float(ours):.1f}" == paper
    assert set(table["map50"]) == {""}
    assert set(table["variant"]) == {"base", "temporal", "tokenwise", "stgt"}
    markdown = (tmp_path / "table_c.md").read_text()
    assert markdown.count("\n| ") == 39
    assert "0.0037 flushes a frame" in markdown


@pytest.mark.parametrize(("table", "size"), [("table_1", 1024), ("table_e", 672)])
def test_base_and_spatial_rows_equal_the_paper(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: str, size: int
) -> None:
    points = f"table.points=[{{size: {size}, variant: [base, spatial]}}]"
    command(
        monkeypatch,
        reproduce.reproduce,
        f"table={table}",
        points,
        f"out={tmp_path}",
        f"hydra.run.dir={tmp_path}/run",
    )
    found = pd.read_csv(tmp_path / f"{table}.csv", keep_default_na=False, dtype=str)
    assert list(found["gflops_equal"]) == ["yes", "yes"]
    assert all(found["gflops_paper"])


def test_rows_of_a_threshold_wait_for_trained_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """How many tokens exceed it depends on their scale; what the paper prints stands there all the same."""
    command(
        monkeypatch, reproduce.reproduce, "table=table_b", f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run"
    )
    found = pd.read_csv(tmp_path / "table_b.csv", keep_default_na=False, dtype=str)
    assert list(found["h"]) == ["", "0.2", "1.0", "5.0"]
    assert list(found["gflops_equal"]) == ["yes", "", "", ""]
    assert all(found["gflops_paper"])
    assert "0.2" in (tmp_path / "table_b.md").read_text()


def test_rows_that_depend_on_frames_are_measured_and_say_on_which(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Here of other sizes than the paper's, beside which nothing stands."""
    points = "[{size: 128, variant: spatial}, {size: 128, variant: spatiotemporal, r: [16, 32]}]"
    command(
        monkeypatch,
        reproduce.reproduce,
        "table=table_1",
        f"table.points={points}",
        f"out={tmp_path}",
        f"hydra.run.dir={tmp_path}/run",
        "data.n_frames=3",
        *SMALL,
    )
    table = pd.read_csv(tmp_path / "table_1.csv", keep_default_na=False, dtype=str)
    assert list(table["frames"]) == ["", "3", "3"]
    assert list(table["data"]) == ["", "sprites_val_000000", "sprites_val_000000"]
    assert float(table["gflops"][1]) < float(table["gflops"][2])
    assert set(table["gflops_paper"]) == {""}


def test_a_killed_table_resumes_at_its_last_finished_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else an hour of rows would be lost; and the resumed table is the same as one in a single run."""
    points = "table.points=[{size: 1024, variant: base}, {size: 1024, variant: temporal, r: [256, 512, 768, 1024]}]"
    arguments = ["table=table_c", points, f"hydra.run.dir={tmp_path}/run"]
    put = Ledger.put
    done: list[str] = []

    def put_three(ledger: Ledger, key: str, value: object) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(key)
        put(ledger, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "put", put_three)
        with pytest.raises(SystemExit) as end:
            command(monkeypatch, reproduce.reproduce, *arguments, f"out={tmp_path}/a")
    assert end.value.code == 130
    with (tmp_path / "run/parts.jsonl").open("a") as file:
        file.write('["cut sho')
    rest: list[str] = []

    def put_and_tell(ledger: Ledger, key: str, value: object) -> None:
        rest.append(key)
        put(ledger, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "put", put_and_tell)
        command(monkeypatch, reproduce.reproduce, *arguments, f"out={tmp_path}/a")
    assert len(rest) == 2
    assert not set(rest) & set(done)
    command(monkeypatch, reproduce.reproduce, *arguments, f"out={tmp_path}/b")
    assert (tmp_path / "a/table_c.csv").read_bytes() == (tmp_path / "b/table_c.csv").read_bytes()


def test_a_table_is_of_its_own_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Else another model's numbers would stand under the paper's title."""
    with pytest.raises(SystemExit):
        command(monkeypatch, reproduce.reproduce, "model=vitdet_mini", f"out={tmp_path}")
    assert "model is vitdet_mini, but table_c is of vitdet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table=table_c", "model.backbone.patch_size=32"], "policy.r is 2048, but a frame has 1024 tokens"),
        (["table=table_2", "model.backbone.patch_size=64"], "policy.r is 512, but a frame has 256 tokens"),
        (
            ["table=mini", "model.backbone.window_size=1", "model.checkpoint=null"],
            "variant.pool is 2, but the smallest grid or window of the model",
        ),
    ],
)
def test_rows_that_cannot_be_are_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    with pytest.raises(SystemExit):
        command(
            monkeypatch, reproduce.reproduce, *arguments, f"out={tmp_path}/a", f"hydra.run.dir={tmp_path}"
        )
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table.points=[]"], "points is []; it must be a list of points"),
        (["table.dtypes=[]"], "table.dtypes is []; it must be a list of at least 1, each float32 or bfloat16"),
        (["table.dtypes=[float16]"], "table.dtypes is ['float16']; it must be"),
        (["table.frames.float32=2"], "it must be settings by name, each a whole number of at least 3"),
        (["table.points=[{variant: base, model: x}]"], "the model of a point is x; allowed are vitdet, vivit"),
        (["table.points=[{variant: base, size: x}]"], "model.size is 'x'; it must be a whole number"),
        (["table.points=[{variant: base, colour: x}]"], "a point has colour, which is none of its columns"),
        (["table.points=[{variant: base}, {variant: temporal, r: 9999}]"], "policy.r is 9999, but a frame has 4096"),
        (["table.points=[{variant: base}, {variant: skip, every: 2}]"], "variant is skip, which does nothing"),
        (["table.points=[{variant: temporal, r: 3}]"], "is the first of its model and size; that must be base"),
        (["table.notes.paper='{paper}'"], "the note paper of table_2 is '{paper}'; in braces it may have cfg"),
    ],
)  # fmt: skip
def test_races_that_cannot_be_are_refused_before_the_first(
    monkeypatch: pytest.MonkeyPatch, refused: Refused, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    monkeypatch.setattr(SpeedWork, "measure", lambda *_: pytest.fail("a race is run"))
    places = ["table=table_2", f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    assert sentence in refused(*places, *arguments, task=reproduce.reproduce)


def test_times_that_the_paper_does_not_print_are_empty_cells(tmp_path: Path) -> None:
    """Size and model go without saying; a row beside those of the paper has no time there, and no nan."""
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        rows = "[{variant: base}, {variant: temporal, r: [512, 3]}]"
        cfg = hydra.compose("reproduce", ["table=table_2", f"table.points={rows}", "table.dtypes=[float32]"])
    work = SpeedWork(build(cfg.table, "table"), cfg)
    (table,) = work.tables([[{}, {}, {}]])
    cells = [[record[name] for name in ("model", "size", "r", "paper_ms")] for record in table.records]
    assert cells == [["vitdet", 1024, "", 5150], ["vitdet", 1024, 512, 3570], ["vitdet", 1024, 3, ""]]
    assert [record["paper_speed_up"] for record in table.records] == [1, pytest.approx(5150 / 3570), ""]


@pytest.mark.usefixtures("one_process")
def test_a_table_of_ones_own(monkeypatch: pytest.MonkeyPatch, refused: Refused, tmp_path: Path) -> None:
    """It needs no quick form, a name of its own, and tables that no other has."""
    shutil.copytree(CONFIG_DIR, tmp_path / "configs")
    for name in ("settings", "build"):
        monkeypatch.setattr(f"evt.{name}.CONFIG_DIR", tmp_path / "configs")
    file = tmp_path / "configs/table/own.yaml"
    head = "# @package _global_\ndefaults:\n  - shared/mini\ntable:\n"
    places = ["table=own", f"out={tmp_path}/out", f"hydra.run.dir={tmp_path}/run", "model.checkpoint=null"]
    said = partial(refused, *places, task=reproduce.reproduce)
    file.write_text(f"{head}  tables: {{}}\n")
    assert "table.name is not set" in said()
    file.write_text(f"{head}  name: own\n  tables: {{}}\n")
    assert "table.tables has no table; it must have one at least" in said()
    assert "quick is true, but own has no quick form" in said("quick=true")
    file.write_text(f"{head}  name: own\n  tables: {{mine: {{points: [{{variant: base}}]}}}}\n")
    assert "it must have a title and points, may have columns, and no more" in said()
    file.write_text(
        f"{head}  name: own\n  tables: {{table_b_mini: {{title: x, points: [{{variant: base}}]}}}}\n"
    )
    assert "table=own and table=mini both write table_b_mini; one of them needs another name" in said()
    file.write_text(f"{head}  name: own\n  tables: {{mine: {{title: x, points: [{{variant: base}}]}}}}\n")
    few = ["data.n_videos=1", "data.n_frames=4", "table.detect_from=3"]
    command(monkeypatch, reproduce.reproduce, *places, *few)
    assert len(pd.read_csv(tmp_path / "out/mine.csv")) == 1


def test_a_ledger_drops_a_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "folder" / "parts.jsonl")
    ledger.put("a", {"x": 0.1})
    ledger.put("b", [1])
    path = tmp_path / "folder" / "parts.jsonl"
    path.write_bytes(path.read_bytes()[:-4])
    again = Ledger(path)
    assert "a" in again
    assert again["a"] == {"x": 0.1}
    assert "b" not in again
    again.put("c", 3)
    assert [json.loads(line)[0] for line in path.read_text().splitlines()] == ["a", "c"]


@pytest.mark.parametrize(
    ("value", "printed", "equal"),
    [(467.4399, "467.4", "yes"), (467.45001, "467.4", "no"), (82.0, "82.00", "yes")],
)
def test_values_are_compared_at_the_papers_digits(value: float, printed: str, equal: str) -> None:
    assert agreement(value, printed) == equal
