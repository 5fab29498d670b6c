"""A claim that is said to hold where the numbers say otherwise is the worst thing this project can print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evt import claims as claims_command
from evt.tables import claims
from evt.tables.contrasts import Found, Written, read
from tests.commands import failed

R = (128, 64, 32, 16)
COSTS = [0.6, 0.4, 0.25, 0.15]
DEVIATION = 0.1
"""Of each row's accuracy, from resample to resample, by itself: a difference of two has an interval of 0.28."""


def curve(variant: str, map50: list[float], gflops: list[float], **more: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "variant": variant,
            "r": R[: len(map50)] if variant not in ("base", "spatial", "skip") else None,
            "op_ratio": [1 / x for x in gflops],
            "gflops": gflops,
            "map50": map50,
            "interval": 1.2,
            **more,
        }
    )


def against(differences: list[float | None], interval: float = 0.3) -> dict[str, Any]:
    return {"minus_skip": differences, "minus_skip_interval": interval}


def tables(**changes: list[Any]) -> dict[str, pd.DataFrame]:
    """Tables on which every claim holds, but for what is changed."""
    scores: dict[str, list[Any]] = {
        "base": [80.0], "temporal": [80.0, 79.5, 76, 65],
        "tokenwise": [79.0, 78, 74, 60], "stgt": [78.0, 77, 70, 50],
        "spatial": [79.0], "spatiotemporal": [79.0, 78.4, 75, 64],
        "light_tokenwise": [0.5], "light_stgt": [10.0],
        "naive": [70.0, 60, 50], "tuned": [78.0, 76, 72],
        "temporal_minus_skip": [-1.0, 2.0, 3.0, None], "rows_minus_skip": [-1.0, 2.0, 3.0, None],
        "rivals": [81.0, 80.5, 77, 66],
    }  # fmt: skip
    scores |= changes
    tokenwise = [0.8, 0.59, 0.5, 0.4]
    drift = pd.DataFrame(
        {
            "variant": ["base", "tokenwise", "stgt"],
            "r": [None, 64, 64],
            "map50_part1": 76.0,
            "map50_part2": 74.0,
            "falls": 2.0,
            "falls_minus_base": [0.0, *scores["light_tokenwise"], *scores["light_stgt"]],
            "falls_minus_base_interval": 0.3,
        }
    )
    clips: list[tuple[Any, ...]] = [("base", None, None, 80.0)]
    clips += [("temporal", None, r, x) for r, x in zip((60, 50, 40), scores["naive"], strict=True)]
    clips += [("temporal", 50, r, x) for r, x in zip((60, 50, 40), scores["tuned"], strict=True)]
    recognition = pd.DataFrame(clips, columns=["variant", "tuned_r", "r", "top1"])
    temporal, rows = scores["temporal_minus_skip"], scores["rows_minus_skip"]
    return {
        "table_c_mini": pd.concat(
            [
                curve("base", scores["base"], [1.0]),
                curve("skip", [75.0], [0.5]),
                curve("temporal", scores["temporal"], COSTS, **against(temporal)),
                curve("tokenwise", scores["tokenwise"], tokenwise),
                curve("stgt", scores["stgt"], tokenwise),
                curve("rows", scores["temporal"], COSTS, **against(rows)),
                # Of another policy: on no line with the others.
                curve("rows", [99.0], [0.39], policy="refresh"),
                curve("frame", scores["rivals"], COSTS, policy="change", r=None, keep=[9, 8, 7, 6], every=8),
            ]
        ),
        "table_1_mini": pd.concat(
            [
                curve("base", scores["base"], [1.0]),
                curve("spatial", scores["spatial"], [0.9]),
                curve("temporal", scores["temporal"], COSTS),
                curve("spatiotemporal", scores["spatiotemporal"], [0.9 * x for x in COSTS]),
            ]
        ),
        "table_drift_mini": drift,
        "table_d_mini": recognition.assign(interval=1.2, op_ratio=2.0),
    }


def written(folder: Path, **changes: list[Any]) -> Path:
    """A folder with the tables, and beside each how its rows vary."""
    for name, table in tables(**changes).items():
        table.to_csv(folder / f"{name}.csv", index=False)
        covariance = DEVIATION**2 * np.eye(len(table))
        pd.DataFrame(covariance).rename_axis("row").to_csv(folder / f"{name}_covariance.csv")
    return folder


def verdicts(folder: Path, **changes: list[Any]) -> list[str]:
    written(folder, **changes)
    found = {name: read(folder, name, **said) for name, said in claims.SAID["tables"].items()}
    return [claim.verdict for claim in claims.judge(found)]


def test_all_hold_where_the_numbers_say_so(tmp_path: Path) -> None:
    assert verdicts(tmp_path) == ["held"] * 11


@pytest.mark.parametrize(
    ("which", "changes", "verdict"),
    [
        # At half the operations, between the first two rows, the mean of both.
        (0, {"temporal": [79.0, 78.4, 76, 65]}, "did not hold"),
        (0, {"temporal": [79.2, 78.6, 76, 65]}, "undecided"),
        (1, {"stgt": [78.0, 79.6, 70, 50]}, "did not hold"),
        (1, {"stgt": [78.0, 77.8, 70, 50]}, "undecided"),
        # At 0.4 of the operations temporal has 79.5.
        (2, {"tokenwise": [79.0, 78, 74, 80.5]}, "did not hold"),
        (2, {"tokenwise": [79.0, 78, 74, 79.7]}, "undecided"),
        (3, {"spatiotemporal": [79.0, 78.4, 75, 60]}, "did not hold"),
        (3, {"spatiotemporal": [79.0, 78.4, 75, 63.1]}, "undecided"),
        (4, {"light_stgt": [0.5]}, "did not hold"),
        (4, {"light_tokenwise": [5.0]}, "did not hold"),
        (4, {"light_tokenwise": [0.8]}, "undecided"),
        (5, {"tuned": [78.0, 69, 72]}, "did not hold"),
        (5, {"tuned": [78.0, 70.1, 72]}, "undecided"),
        (6, {"tuned": [78.0, 76, 49]}, "did not hold"),
        (6, {"tuned": [78.0, 76, 50.1]}, "undecided"),
        (7, {"temporal_minus_skip": [-1.0, 2.0, -3.0, None]}, "did not hold"),
        (7, {"temporal_minus_skip": [-1.0, 2.0, 0.2, None]}, "undecided"),
        (8, {"rows_minus_skip": [-1.0, -2.0, 0.2, None]}, "did not hold"),
        (9, {"rivals": [81.0, 80.5, 77, 64]}, "did not hold"),
        (9, {"rivals": [81.0, 80.5, 77, 65.2]}, "undecided"),
        (10, {"rivals": [81.0, 79, 77, 66]}, "did not hold"),
    ],
)
def test_a_claim_is_judged_by_its_numbers(
    tmp_path: Path, which: int, changes: dict[str, list[Any]], verdict: str
) -> None:
    found = verdicts(tmp_path, **changes)
    assert found[which] == verdict
    others = [x for i, x in enumerate(found) if i != which]
    assert others.count("held") >= 8


def test_the_page_counts_what_held_and_shows_the_numbers(tmp_path: Path) -> None:
    written(tmp_path, stgt=[78.0, 79.6, 70, 50])
    page = claims.write_claims(tmp_path).read_text()
    assert "Of 11 claims 10 held, 1 did not hold, 0 undecided here" in page
    assert page.count("**did not hold.**") == 1
    assert "- r = 64, token-wise above STGT: -1.60 ±0.28, did not hold" in page


def test_a_sum_of_rows_by_hand() -> None:
    """Two rows that rise and fall together differ more surely than each is known."""
    covariance = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 4.0]])
    rows = [{"variant": "base", "map50": x, "gflops": g} for x, g in ((80.0, 1.0), (79.0, 0.5), (70.0, 0.25))]
    table = Written(rows, covariance)
    found = table.sum("", {0: 1}, {1: -1})
    assert (found.value, found.interval) == pytest.approx((1, 1.96 * 0.2**0.5))
    assert table.sum("", {2: 1}, {2: -1}).interval == 0
    assert table.sum("", {2: 1}, above=60).value == 10
    assert table.at_cost("base", 0.875) == {1: pytest.approx(0.25), 0: pytest.approx(0.75)}
    assert table.sum("", table.at_cost("base", 0.5)).value == 79


@pytest.mark.parametrize(
    ("value", "interval", "verdict"),
    [(1, 0.9, "held"), (-1, 0.9, "did not hold"), (1, 1, "undecided"), (0, 0, "undecided"), (0.1, 0, "held")],
)
def test_an_interval_with_zero_in_it_decides_nothing(value: float, interval: float, verdict: str) -> None:
    assert Found("", value, interval).verdict == verdict


def told(capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    return failed(capsys, lambda: claims_command.main([str(folder)]))


def test_a_covariance_of_another_table_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Left from another run it would make intervals of other rows."""
    path = written(tmp_path) / "table_1_mini_covariance.csv"
    pd.read_csv(path).iloc[:-1].to_csv(path, index=False)
    assert "table_1_mini_covariance.csv: is not of the 10 rows of the table" in told(capsys, tmp_path)
    path.unlink()
    assert "table_1_mini_covariance.csv: there is no such table; make reproduce-mini" in told(
        capsys, tmp_path
    )


def test_a_table_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "table_c_mini.csv: there is no such table; make reproduce-mini writes it" in told(capsys, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "table_c_mini.csv: cannot be read as a csv"),
        (lambda text: text.replace("op_ratio", "oq_ratio"), "table_c_mini.csv: has no column op_ratio"),
        (lambda text: text.replace("79.5", "79.x"), "table_c_mini.csv: column map50 has cells that are no numbers"),
        (lambda text: text.replace("79.5", ""), "table_c_mini.csv: column map50 has cells that are no numbers"),
        (lambda text: text.replace("stgt", "stgz"), "table_c_mini.csv: has no rows of the variant stgt"),
        (lambda text: text[: len(text) // 2], "table_c_mini.csv: "),
        (lambda text: text.replace("temporal,128", "temporal,9").replace("2.5", "1.5").replace("4.0", "1.4")
            .replace("6.6", "1.3"), "the tables lack rows that the claims are of"),
        (lambda text: text.replace("v", "\udcff", 1), "table_c_mini.csv: cannot be read as a csv"),
    ],
)  # fmt: skip
def test_a_damaged_table_ends_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[str], str], message: str
) -> None:
    """A cell that is lost would else be a claim that does not hold, as nothing compares with it."""
    written(tmp_path)
    path = tmp_path / "table_c_mini.csv"
    path.write_text(change(path.read_text()), errors="surrogateescape")
    assert message in told(capsys, tmp_path)
    assert not (tmp_path / "claims.md").exists()
