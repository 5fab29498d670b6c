"""The table of run-length tokenization: rows that can be compared, and the page's figures beside ours."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from evt.reproduce import reproduce
from evt.tables.rlt_page import headline
from tests.commands import Refused, command
from tests.common import ROOT


@pytest.mark.usefixtures("one_process")
def test_every_row_is_of_the_same_clips(
    monkeypatch: pytest.MonkeyPatch, refused: Refused, tmp_path: Path
) -> None:
    """Seeded weights; Token Merging merges all that it can, and so costs less than what it is compared with."""
    seeded = [
        "model.checkpoint=null",
        "model.dim=24",
        "model.depth=4",
        "table.weights.trained.rlt.checkpoint=null",
    ]
    rows = [
        "{model: videomae, trained: [dense, rlt], variant: base}",
        "{model: videomae, trained: dense, variant: [rlt, random_drop], threshold: 0.1}",
        "{model: videomae, trained: rlt, variant: rlt, threshold: 0.1}",
        "{model: videomae, trained: dense, variant: token_merging, r: 100}",
        "{model: vivit, trained: dense, variant: base}",
        "{model: vivit, trained: [dense, 'r=25'], variant: temporal, r: 25}",
    ]
    places = [f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    few = ["data.n_clips=6", f"table.tables.table_rlt.points=[{', '.join(rows)}]"]
    command(monkeypatch, reproduce, "table=table_rlt", *few, *seeded, *places)
    with (tmp_path / "table_rlt.csv").open() as file:
        found = list(csv.DictReader(file))
    table = {(row["model"], row["trained"], row["variant"]): row for row in found}
    assert {row["clips"] for row in found} == {"6"}
    rlt, drop, merge = (table["videomae", "dense", x] for x in ("rlt", "random_drop", "token_merging"))
    assert rlt["kept"] == drop["kept"]
    assert float(rlt["kept"]) < 1
    assert float(rlt["gflops"]) == float(drop["gflops"]) >= float(merge["gflops"])
    assert float(table["vivit", "dense", "temporal"]["op_ratio"]) > 1
    assert table["vivit", "dense", "base"]["clips_per_second"] == ""

    page = ["table=table_rlt_page", "data.n_clips=6", "table.steps=1", "model.dim=24", "model.depth=4"]
    command(monkeypatch, reproduce, *page, *places)
    with (tmp_path / "table_rlt_page.csv").open() as file:
        figures = {row["figure"]: row["ours"] for row in csv.DictReader(file)}
    assert float(figures["tokens dropped, %"]) == pytest.approx(100 * (1 - float(rlt["kept"])))
    assert figures["tokens dropped at high frame rates, up to %"] == ""
    assert "Threshold 0.1, 6 clips; " in (tmp_path / "table_rlt_page.md").read_text()
    said = refused("table=table_rlt_page", "table.threshold=0.2", *places, task=reproduce)
    assert "table_rlt.csv or table_rlt_tokens.csv lacks columns, or rows of threshold 0.2" in said
    (tmp_path / "table_rlt_tokens.csv").write_text("clip,fps,threshold,kept\na,15,0.3,0.2\n")
    assert "lacks columns, or rows of threshold 0.1" in refused(*page, *places, task=reproduce)


def test_token_merging_costs_no_more_than_what_it_is_compared_with() -> None:
    """Else the committed table would flatter it."""
    table = pd.read_csv(ROOT / "results/table_rlt.csv").query("model == 'videomae'")
    for _, rows in table.groupby("trained"):
        cost = rows.set_index("variant").gflops
        assert cost["token_merging"] <= cost["random_drop"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table=table_rlt", "table.batch=0"], "table.batch is 0; it must be a whole number of at least 1"),
        (
            ["table=table_rlt", "table.tables.table_rlt.points=[{model: videomae, variant: rlt, threshold: -1}]"],
            "policy.threshold is -1; it must be a finite number",
        ),
        (
            ["table=table_rlt", "table.tables.table_rlt.points=[{model: videomae, trained: r7, variant: base}]"],
            "a point of table_rlt has trained r7; table.weights.trained has dense, rlt",
        ),
        (["table=table_rlt_tokens", "table.thresholds=[nan]"], "table.thresholds is [nan]; it must be a list"),
        (["table=table_rlt_tokens", "table.timed_at=[0.3]"], "table.timed_at has 0.3; it must be among"),
        (["table=table_rlt_tokens", "table.views=0"], "table.views is 0; it must be a whole number of at least 1"),
        (["table=table_rlt_tokens", "table.fps=[0]"], "it must be a list, each a finite number above 0"),
        (["table=table_rlt_tokens", "table.clips=nowhere"], "nowhere: no such folder"),
    ],
)  # fmt: skip
def test_settings_of_tables_are_checked_before_anything_runs(
    refused: Refused, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    places = [f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    assert sentence in refused(*arguments, *places, task=reproduce)


def test_the_figures_beside_the_pages_by_hand(tmp_path: Path) -> None:
    at = "threshold=0.1"
    rows = [
        {"trained": "dense", "variant": "base", "setting": "", "top1": 90.0, "time_ratio": 1.0, "kept": None},
        {"trained": "dense", "variant": "rlt", "setting": at, "top1": 85.0, "time_ratio": 1.5, "kept": 0.6},
        {"trained": "rlt", "variant": "rlt", "setting": at, "top1": 89.0, "time_ratio": 1.4, "kept": 0.6},
    ]
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("clip,fps,threshold,kept\na,15,0.1,0.2\na,30,0.1,0.4\nb,30,0.1,0.5\nb,30,0.2,0.1\n")
    clips = pd.DataFrame([{"model": "videomae", **row} for row in rows])
    found = headline(clips, {"dense": 2.0, "rlt": 1.5}, 0.1, tokens)
    assert [row["ours"] for row in found] == pytest.approx([50, 5, 1, 25, 40, 60])
