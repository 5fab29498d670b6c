"""The report is what people read instead of the tables: it must say what they say, and change when they do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("plotly", reason="plotly is not installed: pip install -e '.[report]'")
pytest.importorskip("jinja2", reason="jinja2 is not installed: pip install -e '.[report]'")

from evt.errors import DataError
from evt.page.__main__ import main
from evt.page.answer import Answer, answers
from evt.page.build import SAID, code, page_of
from evt.page.made import commits, made, said
from evt.page.tables import Table, read_table, shown
from tests.commands import failed
from tests.common import ROOT

RESULTS = ROOT / "results"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of the tables that come with the project."""
    for path in (*RESULTS.glob("*.csv"), *RESULTS.glob("*.md")):
        shutil.copy(path, tmp_path)
    return tmp_path


def table(text: str, name: str = "t") -> Table:
    rows = [line.split(",") for line in text.splitlines()]
    return Table(name, name, [], pd.DataFrame(rows[1:], columns=rows[0]))


def answer(*rows: str, less: bool = True) -> Answer:
    """Of a table of errors, or of accuracies: variant, setting, op_ratio, value, difference, interval."""
    part = {"title": "here", "table": "t", "value": "x", "name": "x", "less": less}
    use = {"title": "use", "of": "it", "writes": "make it", "measured": [part]}
    text = "\n".join(("variant,setting,op_ratio,x,x_minus_skip,x_minus_skip_interval", *rows))
    (found,) = answers({**SAID, "uses": [use]}, {"t": table(text)})
    return found


def test_the_whole_page_is_one_file_with_all_tables(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(results), "--out", str(results / "new/page.html")])
    text = (results / "new/page.html").read_text()
    assert capsys.readouterr().out.startswith(f"written to {results}/new/page.html, ")
    head = text[: text.index("<script>")]
    assert not re.search(r"(src|href)=\"?(https?:|//)", head), "it would ask a network"
    for path in results.glob("*.csv"):
        assert path.stem.endswith("_covariance") or f'id="{path.stem}"' in head, f"{path.name} is not shown"
    assert "−0.037 ±0.026" in head  # frame_moved before a still camera, at an eighth
    assert re.search(r">215\.9</td>\s*<td[^>]*>217\.0</td>", head), "the paper's figure is not beside ours"
    assert page_of(results) == text, "the same tables gave another page"


def test_the_page_changes_when_a_table_does(results: Path) -> None:
    before = page_of(results)
    path = results / "table_real.csv"
    path.write_text(path.read_text().replace("-0.03717411433047915", "0.0371741"))
    after = page_of(results)
    assert before != after
    assert "+0.037 ±0.026<br><small>behind" in after
    assert "+0.037 ±0.026<br><small>behind" not in before


def test_an_interval_with_0_in_it_is_undecided_and_less_error_is_ahead() -> None:
    found = answer("a,r=8,2.1,0.2,-0.1,0.05", "a,r=4,3.9,0.3,-0.1,0.1", "a,r=2,8.0,0.9,0.3,0.1")
    (family,) = found.families
    assert [family.cells["here", share].verdict for share in (2, 4, 8)] == ["ahead", "undecided", "behind"]
    assert found.best is None, "as often behind as ahead is no recommendation"
    assert found.helps == "no"
    assert answer("a,r=8,2.1,90,-5,1", less=False).families[0].cells["here", 2].verdict == "behind"


@pytest.mark.parametrize("policy", ["change", "regions", "rollout", "similarity"])
def test_selectors_of_others_are_rivals_and_are_not_recommended(policy: str) -> None:
    found = answer(f"frame,policy={policy} keep=64 every=8,4,0.1,-0.1,0.01")
    assert found.best is None
    assert found.rival is not None
    assert found.rival.name == f"frame {policy}"


def test_what_is_recommended_is_ahead_most_often_and_is_no_rival() -> None:
    found = answer(
        "base,,1,0,0,0",
        "skip,every=2,2,0.3,0,0",
        "skip_moved,every=2,2,0.1,-0.2,0.01",
        "temporal,r=8,2,0.29,-0.01,0.1",
        "own,policy=budget spend=0.5,2,0.2,-0.1,0.01",
    )
    assert found.best is not None
    assert found.rival is not None
    assert found.paper is not None
    assert (found.best.name, found.rival.name, found.helps) == ("own budget", "skip_moved", "yes")
    assert found.against_rival == "0 of 1"
    assert found.where("ahead") == "here: 1/2"
    assert {family.name for family in found.families} == {"skip_moved", "temporal", "own budget"}


def test_the_settings_are_those_that_the_command_takes(results: Path) -> None:
    tables = {path.stem: read_table(path) for path in results.glob("*.csv")}
    real, *_ = answers(SAID, tables)
    moved = next(family for family in real.families if family.name == "frame_moved budget")
    assert moved.settings == "variant=frame_moved policy=budget policy.spend=0.5,0.25,0.125"


def test_of_several_rows_the_one_nearest_to_a_share_stands_for_it() -> None:
    (family,) = answer(
        "a,r=9,3.2,0.2,-0.1,0.05", "a,r=8,4.1,0.3,-0.1,0.1", "a,r=7,5.0,0.2,-0.1,0.01"
    ).families
    assert family.cells["here", 4].row.setting == "r=8"


def test_differences_from_the_paper_are_coloured_by_size() -> None:
    text = (
        "size,gflops,gflops_paper,map50,map50_paper\n1,99,100,80,82.50\n1,50,50.0,,80.00\n1,110,100,83,82\n"
    )
    columns = {column.name: column for column in shown(table(text), {})}
    gflops, map50 = columns["gflops − gflops_paper"].cells, columns["map50 − map50_paper"].cells
    assert [cell.text for cell in gflops] == ["−1.00 %", "+0.00 %", "+10.00 %"]
    assert [(cell.kind, round(cell.size, 3)) for cell in gflops] == [
        ("better", 0.2),
        ("worse", 0),
        ("worse", 1),
    ]
    assert [(cell.text, cell.kind) for cell in map50] == [("−2.50", "worse"), ("–", ""), ("+1.00", "better")]
    assert columns["map50_paper"].cells[0].text == "82.50", "the paper's digits are lost"


def test_intervals_stand_beside_their_values_and_empty_columns_are_left_out() -> None:
    text = """variant,r,map50,interval,minus_skip,minus_skip_interval,x
a,8,91,2,-1.5,2,
b,,90.5,1.25,3,1,
c,1,90,1,,,"""
    columns = {found.name: found for found in shown(table(text), {})}
    assert list(columns) == ["variant", "r", "map50 ±", "minus_skip ±"]
    assert [cell.text for cell in columns["map50 ±"].cells] == ["91.00 ±2.00", "90.50 ±1.25", "90.00 ±1.00"]
    cells = columns["minus_skip ±"].cells
    assert [(cell.text, cell.kind) for cell in cells] == [
        ("−1.50 ±2.00", "undecided"),
        ("+3.00 ±1.00", "better"),
        ("–", ""),
    ]
    assert columns["r"].cells[1].text == "–"


def test_how_a_table_was_made_is_said_as_far_as_it_is_known(tmp_path: Path) -> None:
    notes = ["Clips. Machine: AMD EPYC (AVX2), torch 2.13.0+cpu.", "Data: 44 videos, seed 0."]
    assert said("Machine", notes) == "AMD EPYC (AVX2), torch 2.13.0+cpu"
    found = made(Table("table_c", "", notes, pd.DataFrame()), "abc", SAID["groups"][2])
    assert (found.command, found.data) == ("make reproduce-table-c", "44 videos, seed 0")
    unknown = made(table("a\n1\n"), "abc", {"tables": {}, "data": None})
    assert {unknown.command, unknown.machine, unknown.data} == {"not recorded"}

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    assert commits(tmp_path) == {}
    git("init")
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "b.csv").write_text("1")
    git("add", ".")
    git("commit", "-m", "both")
    (tmp_path / "b.csv").write_text("2")
    found_commits = commits(tmp_path)
    assert found_commits["b.csv"] == f"{found_commits['a.csv']}, changed since"


def test_text_of_tables_cannot_become_markup() -> None:
    assert code("`a<b` & <i>") == "<code>a&lt;b</code> &amp; &lt;i&gt;"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("table_real.csv", None, "table_real.csv: there is no such table; make reproduce-real writes it"),
        ("table_1_mini.csv", None, "table_1_mini.csv: there is no such table; make reproduce-mini writes it"),
        (
            "table_real.csv",
            "variant,op_ratio\na,2\n",
            "has no column error_still; make reproduce-real writes it",
        ),
        ("table_b.csv", "variant\n", "table_b.csv: has no rows; at least 1 is needed"),
        ("table_b.csv", "", "table_b.csv: cannot be read as a csv"),
        (
            "table_b.csv",
            "variant,r\na,1\nb\n",
            "table_b.csv: cannot be read as a csv (row 2 has 1 cells, and there are 2 columns)",
        ),
    ],
)
def test_tables_that_cannot_be_used_are_named(
    results: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, said: str
) -> None:
    (results / name).unlink()
    if content is not None:
        (results / name).write_text(content)
    assert said in failed(capsys, lambda: main([str(results)]))
    assert not (results / "report.html").exists()


def test_a_column_of_words_where_numbers_are_needed_is_named(results: Path) -> None:
    path = results / "table_real.csv"
    path.write_text(path.read_text().replace(",0.05690182503933039,", ",much,"))
    with pytest.raises(DataError, match="column error_still has cells that are no numbers"):
        page_of(results)


def test_folders_and_files_that_cannot_be_are_told(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: str) -> str:
        return failed(capsys, lambda: main([*arguments]))

    assert "nowhere: there is no such folder" in told(str(results / "nowhere"))
    (results / "empty").mkdir()
    assert "empty: has no tables (*.csv)" in told(str(results / "empty"))
    below_a_file = str(results / "table_c.csv/page.html")
    assert "table_c.csv: not a directory" in told(str(results), "--out", below_a_file)
    monkeypatch.setitem(__import__("sys").modules, "evt.page.build", None)
    assert "pip install -e '.[report]'" in told(str(results))
