"""The tables beside the paper's."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from evt import reproduce
from evt.evaluate.ledger import Ledger
from evt.tables.points import equal_as_printed
from tests.commands import SMALL, command


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
        (
            ["table=table_1", "model.backbone.window_size=1"],
            "variant.pool is 2, but the smallest grid or window of the model",
        ),
        (["table=table_c", "model.backbone.patch_size=32"], "policy.r is 2048, but a frame has 1024 tokens"),
        (["table=table_2", "model.backbone.patch_size=64"], "policy.r is 512, but a frame has 256 tokens"),
        (["table=mini", "model.backbone.window_size=1", "model.checkpoint=null"], "variant.pool is 2"),
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
    [(467.4399, "467.4", True), (467.45001, "467.4", False), (82.0, "82.00", True)],
)
def test_values_are_compared_at_the_papers_digits(value: float, printed: str, equal: bool) -> None:
    assert equal_as_printed(value, printed) == equal
