"""The table of run-length tokenization: rows that can be compared, and the page's figures beside ours."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from evt.reproduce import reproduce
from evt.tables import rlt_headline
from evt.tables.rlt_headline import headline
from tests.commands import command, error


def test_every_row_is_of_the_same_clips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Seeded weights; one Eventful row, and Token Merging costs no more than what it is compared with."""
    monkeypatch.setattr(rlt_headline, "STEPS", 1)
    few = ["data.n_clips=6", "table.thresholds=[0.1]", "table.vivit.r=[25]", "workers=1"]
    seeded = ["table.trained.dense=null", "table.trained.rlt=null", "model.dim=24", "model.depth=4"]
    command(
        monkeypatch,
        reproduce,
        "table=table_rlt",
        *few,
        *seeded,
        f"out={tmp_path}",
        f"hydra.run.dir={tmp_path}/run",
    )
    with (tmp_path / "table_rlt.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = {(row["model"], row["trained"], row["variant"]): row for row in rows}
    assert {row["clips"] for row in rows} == {"6"}
    rlt, drop, merge = (table["videomae", "dense", x] for x in ("rlt", "random_drop", "token_merging"))
    assert rlt["kept"] == drop["kept"]
    assert float(rlt["kept"]) < 1
    assert float(rlt["gflops"]) == float(drop["gflops"]) >= float(merge["gflops"])
    assert float(table["vivit", "dense", "temporal"]["op_ratio"]) > 1
    with (tmp_path / "table_rlt_page.csv").open() as file:
        page = {row["figure"]: row["ours"] for row in csv.DictReader(file)}
    assert float(page["tokens dropped, %"]) == pytest.approx(100 * (1 - float(rlt["kept"])))
    assert page["tokens dropped at high frame rates, up to %"] == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table=table_rlt", "table.batch=0"], "table.batch is 0; it must be a whole number of at least 1"),
        (["table=table_rlt", "table.thresholds=[-1]"], "one of table.thresholds is -1; it must be a finite number"),
        (["table=table_rlt", "table.rivals_at=0.07"], "table.rivals_at has 0.07; it must be among table.thresholds"),
        (["table=table_rlt_tokens", "table.thresholds=[nan]"], "one of table.thresholds is nan"),
        (["table=table_rlt_tokens", "table.timed_at=[0.3]"], "table.timed_at has 0.3; it must be among"),
        (["table=table_rlt_tokens", "table.views=0"], "table.views is 0; it must be a whole number of at least 1"),
        (["table=table_rlt_tokens", "table.fps=[0]"], "table.fps has 0; it must be a finite number above 0"),
        (["table=table_rlt_tokens", "table.clips=nowhere"], "nowhere: no such folder"),
    ],
)  # fmt: skip
def test_settings_of_tables_are_checked_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    places = [f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    assert sentence in error(monkeypatch, capsys, *arguments, *places, task=reproduce)


def test_the_figures_beside_the_pages_by_hand(tmp_path: Path) -> None:
    at = "threshold=0.1"
    rows = [
        {"trained": "dense", "variant": "base", "setting": "", "top1": 90.0, "time_ratio": 1.0, "kept": ""},
        {"trained": "dense", "variant": "rlt", "setting": at, "top1": 85.0, "time_ratio": 1.5, "kept": 0.6},
        {"trained": "rlt", "variant": "rlt", "setting": at, "top1": 89.0, "time_ratio": 1.4, "kept": 0.6},
    ]
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("clip,fps,threshold,kept\na,15,0.1,0.2\na,30,0.1,0.4\nb,30,0.1,0.5\nb,30,0.2,0.1\n")
    cfg = OmegaConf.create({"table": {"rivals_at": 0.1}})
    found = headline([{"model": "videomae", **row} for row in rows], {"dense": 2.0, "rlt": 1.5}, cfg, tokens)
    assert [row["ours"] for row in found] == pytest.approx([50, 5, 1, 25, 40, 60])
