"""What the rows of tables are of: the policies that points name, what they may not say, the paper's rows beside."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from evt.errors import ConfigError
from evt.evaluate.variants import check_policy
from evt.eventful import VARIANTS, Every, Threshold, TopR
from evt.reproduce import reproduce
from evt.settings import CONFIG_DIR
from evt.tables.points import Point, check_columns, paper_table, points_of
from evt.tokens import Merge
from tests.commands import Refused, command
from tests.common import small_vit


class Refreshed(TopR):
    """A policy with two settings."""

    def __init__(self, r: int, refresh_every: int) -> None:
        super().__init__(r)
        self.refresh_every = refresh_every


@pytest.fixture
def refreshed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A new policy: one file, whose class has an `r` as top-r has, and one yaml."""
    shutil.copytree(CONFIG_DIR, tmp_path / "configs")
    target = "_target_: evt.eventful.refreshed.Refreshed"
    (tmp_path / "configs/policy/refreshed.yaml").write_text(
        f"{target}\nname: refreshed\nr: ???\nrefresh_every: 8\n"
    )
    for name in ("settings", "build"):
        monkeypatch.setattr(f"evt.{name}.CONFIG_DIR", tmp_path / "configs")
    module = ModuleType("evt.eventful.refreshed")
    module.__file__ = __file__
    module.Refreshed = Refreshed  # type: ignore[attr-defined]
    monkeypatch.setattr(Refreshed, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def point(**cells: Any) -> Point:
    (found,) = points_of([cells])
    return found


def test_short_forms_and_named_policies() -> None:
    assert isinstance(point(variant="temporal", r=3).run()[1], TopR)
    assert isinstance(point(variant="temporal", h=3).run()[1], Threshold)
    assert isinstance(point(variant="skip", every=3).run()[1], Every)
    assert point(variant="token_merging", r=3).run() == (Merge(3), None)
    named = point(variant="stgt", policy="threshold", h=2)
    assert isinstance(named.run()[1], Threshold)
    assert named.setting == "policy=threshold h=2"


def test_a_phase_that_is_given_is_the_only_one() -> None:
    assert [x["phase"] for x in point(variant="skip", every=3).phases()] == [0, 1, 2]
    alone = point(variant="skip", every=3, phase=2)
    assert alone.phases() == [alone]
    policy = alone.run()[1]
    assert isinstance(policy, Every)
    assert policy.phase == 2


def test_a_path_that_is_given_is_run() -> None:
    """Else the times of a table would be those of the slow path, under another name."""
    assert [point(variant="base", **cells).run()[0].fast for cells in ({}, {"path": "fast"})] == [False, True]
    assert point(variant="rows", r=3, path="fast").run()[0] == VARIANTS["rows"]
    assert not point(variant="temporal", r=3, path="reference").run()[0].fast


@pytest.mark.usefixtures("refreshed")
def test_a_new_policy_is_a_row_without_a_change_to_the_tables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its settings are columns, it is not taken for what the paper prints at the same r, and r alone is top-r."""
    rows = "{variant: temporal, policy: refreshed, r: 768, refresh_every: 4}, {variant: temporal, r: [768, 0.1875]}"
    places = [f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    command(monkeypatch, reproduce, "table=table_c", f"table.points=[{rows}]", *places)
    table = pd.read_csv(tmp_path / "table_c.csv", keep_default_na=False, dtype=str)
    assert list(table.policy) == ["refreshed", "", ""]
    assert list(table.refresh_every) == ["4", "", ""]
    assert list(table.gflops_paper) == ["", "122.3", ""]
    assert table.gflops[0] == table.gflops[1] == table.gflops[2]  # 768 of 4096 tokens are a share of 0.1875
    assert type(point(variant="temporal", r=768).run()[1]) is TopR
    with pytest.raises(
        ConfigError, match=r"takes .*\(policy=refreshed, r, refresh_every\) or .*\(h, norm\) or \(r, norm\)$"
    ):
        point(variant="temporal", r=768, refresh_every=4).run()


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ({"r": 3}, "the point r=3 has no variant; allowed are base"),
        ({"variant": "temporal", "policy": "top_s", "r": 3}, "variant temporal takes"),
        ({"variant": "temporal", "policy": "every", "every": 3}, "variant temporal takes"),
        ({"variant": "temporal", "policy": "top_r"}, "variant temporal takes"),
        ({"variant": "rlt", "r": 3}, "the point rlt r=3: variant rlt takes (threshold, lengths)"),
        ({"variant": "rlt"}, "variant rlt takes (threshold, lengths)"),
        ({"variant": "skip", "every": 2, "phase": 2}, "policy.phase is 2; it must be a whole number from 0 to 1"),
        ({"variant": "base", "path": "slow"}, "the point base slow has path slow; it must be fast or reference"),
        ({"variant": "rows", "r": 3, "path": "reference"}, "has path reference; it must be fast"),
        ({"variant": "temporal", "r": "x"}, "policy.r is 'x'; it must be a number"),
        ({"variant": "temporal", "r": {"a": 3}}, "a point's r is {'a': 3}; it must be a value, or a list of some"),
        ({"variant": "temporal", "r": []}, "a point's r is []; it must be a value, or a list of some"),
    ],
)  # fmt: skip
def test_what_no_policy_is_refused(cells: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        point(**cells).run()
    assert sentence in str(error.value)


@pytest.mark.parametrize("column", ["varient", "colour", "map50", "share", "size"])
def test_a_column_that_says_nothing_is_refused(column: str) -> None:
    check_columns([point(variant="base", size=3)], "size")
    with pytest.raises(
        ConfigError, match=f"^a point has {column}, which is none of its columns: model, variant, "
    ):
        check_columns([point(variant="base", **{column: 3})], "model")


def test_a_row_of_the_paper_is_found_by_values_and_by_all_of_them() -> None:
    paper = paper_table("table_b", "map50", "gflops")
    assert paper.beside(point(variant="temporal", size=1024, h=1), "gflops") == "294.1"  # printed as 1.0
    assert paper.beside(point(size=1024, variant="base", r=""), "gflops") == "467.4"
    assert paper.beside(point(size=1024, variant="temporal", h=1, r=3), "gflops") == ""


def test_points_of_ones_own_are_those_of_the_table_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A size goes without saying, settings that the paper's table does not have are columns, nothing is added."""
    places = [f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run"]
    rows = "{variant: base}, {variant: base, size: 1024}, {variant: temporal, h: 1}"
    command(monkeypatch, reproduce, "table=table_c", f"table.points=[{rows}]", *places)
    table = pd.read_csv(tmp_path / "table_c.csv", keep_default_na=False, dtype=str)
    assert list(table.gflops_paper) == ["467.4", ""]
    assert list(table.h) == ["", "1"]
    command(monkeypatch, reproduce, "table=table_d", "table.points=[{variant: base}]", *places)
    assert len(pd.read_csv(tmp_path / "table_d.csv")) == 1


@pytest.mark.parametrize(
    ("table", "row", "sentence"),
    [
        ("table_c", "{variant: base, size: big}", "model.size is 'big'; it must be a whole number"),
        ("table_c", "{variant: base, tuned_r: 3}", "a point has tuned_r, which is none of its columns: size"),
        ("table_c", "{variant: skip, every: 4}", "skip every=4 does nothing in most frames"),
        ("table_d", "{variant: temporal, r: 9, tuned_r: ../x}", "tuned_r ../x; it must be a whole number"),
    ],
)  # fmt: skip
def test_rows_that_a_table_of_the_paper_has_no_place_for_are_refused(
    refused: Refused, tmp_path: Path, table: str, row: str, sentence: str
) -> None:
    places = [f"out={tmp_path}/out", f"hydra.run.dir={tmp_path}/run"]
    assert sentence in refused(f"table={table}", f"table.points=[{row}]", *places, task=reproduce)
    assert not list(tmp_path.glob("out/*"))


def test_what_is_no_policy_is_named() -> None:
    """A class that lacks what a policy needs is told when it is used, and hinders no other run."""

    class Half:
        counts_tokens = True

    with pytest.raises(
        ConfigError, match="Half has no selects; a policy needs counts_tokens, selects, check"
    ):
        check_policy(Half(), VARIANTS["temporal"], small_vit())  # type: ignore[arg-type]
