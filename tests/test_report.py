"""Tables as text: what they look like, to the character."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from evt.report import columns, main_figures, summary_table
from evt.tables.filled import FilledTable, markdown, write_table
from tests.common import ROOT


def test_a_table_is_written_in_full_precision_and_for_reading(tmp_path: Path) -> None:
    records = [
        {"variant": "base", "r": "", "gflops": 162.123456789, "clips": 3},
        {"variant": "temporal", "r": 768, "gflops": 9.5, "clips": 12},
    ]
    table = FilledTable("t", "A table", records, ["One note.", "Another."])
    path = tmp_path / "t.csv"
    write_table(path, table, {"gflops": 2})
    assert path.read_text() == "variant,r,gflops,clips\nbase,,162.123456789,3\ntemporal,768,9.5,12\n"
    assert path.with_suffix(".md").read_text() == (
        "# A table\n"
        "\n"
        "| variant  |   r | gflops | clips |\n"
        "|----------|-----|--------|-------|\n"
        "| base     |     | 162.12 |     3 |\n"
        "| temporal | 768 |   9.50 |    12 |\n"
        "\n"
        "- One note.\n"
        "- Another.\n"
    )


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/table_*.md")), ids=lambda path: path.stem)
def test_the_tables_that_are_kept_look_as_they_would_be_written(path: Path) -> None:
    """Else writing one again changes every line of it."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert markdown([dict(zip(head, row, strict=True)) for row in rows]).splitlines() == lines
    assert len(rows) == len(pd.read_csv(path.with_suffix(".csv")))


def test_a_sweep_has_the_figures_of_frame_skipping() -> None:
    """Beside the error of later frames, as its own is: that of all frames has the flush in it, which has none."""
    skipping = {"every": 3.5, "relative_l2_error": 0.1}
    later, whole = {"relative_l2_error": 0.2}, {"gflops": 2.0, "relative_l2_error": 0.15}
    found = main_figures({"all": whole, "later": later, "skipping": skipping})
    assert found == {
        **whole,
        "skipping_every": 3.5,
        "skipping_relative_l2_error": 0.1,
        "later_relative_l2_error": 0.2,
    }


def test_columns_for_a_terminal() -> None:
    rows = [["", "first", "error"], ["frames", "1", ""], ["0.10", "0.721", "it is no number"]]
    assert columns(rows) == (
        "         first            error\n frames      1\n 0.10    0.721  it is no number"
    )
    assert columns(rows, last="left") == (
        "         first  error\n frames      1\n 0.10    0.721  it is no number"
    )


def test_a_run_without_j_and_f_says_why() -> None:
    """A clip of two frames has none; else the row would be missing without a word."""
    part = {"frames": 2, "gflops": 1.0, "ms": 1.0}
    found = {
        "mean": {"jf": None, "mae": 0.25},
        "reason": "no video has a frame between its first and its last",
    }
    metrics = {"first": part, "later": part, "all": part, "segmentation": found}
    metrics |= {"state_bytes": 1e6, "peak_memory_bytes": 1e6}
    text = summary_table(metrics)
    assert "followed" in text
    assert "none: no video has a frame between" in text
    assert "0.250" in text
