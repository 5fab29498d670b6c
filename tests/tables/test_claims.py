"""A claim that is said to hold where the numbers say otherwise is the worst thing this project can print."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evt import claims as claims_command
from evt.tables import claims

R = (128, 64, 32, 16)


def curve(variant: str, map50: list[float], gflops: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "variant": variant,
            "r": R[: len(map50)] if variant not in ("base", "spatial") else None,
            "op_ratio": [1 / x for x in gflops],
            "gflops": gflops,
            "map50": map50,
            "interval": 1.2,
        }
    )


COSTS = [0.6, 0.4, 0.25, 0.15]


def tables(**changes: list[float]) -> dict[str, pd.DataFrame]:
    """Tables on which every claim holds, but for what is changed."""
    scores = {
        "base": [80.0], "temporal": [80.0, 79.5, 76, 65],
        "tokenwise": [80.0, 79.6, 77, 60], "stgt": [79.0, 77, 70, 50],
        "spatial": [79.0], "spatiotemporal": [79.0, 78.4, 75, 64],
        "light_tokenwise": [75.0, 74.5], "light_stgt": [75.0, 65.0],
        "naive": [70.0, 60, 50], "tuned": [78.0, 76, 72],
    } | changes  # fmt: skip
    tokenwise = [0.8, 0.7, 0.6, 0.5]
    drift = [
        pd.DataFrame({"variant": [name], "r": [r], "map50_part1": first, "map50_part2": last})
        for name, r, (first, last) in (
            ("base", None, (76.0, 76.0)),
            ("tokenwise", 64, scores["light_tokenwise"]),
            ("stgt", 64, scores["light_stgt"]),
        )
    ]
    clips: list[tuple[Any, ...]] = [("base", None, None, 80.0)]
    clips += [("temporal", None, r, x) for r, x in zip((60, 50, 40), scores["naive"], strict=True)]
    clips += [("temporal", 50, r, x) for r, x in zip((60, 50, 40), scores["tuned"], strict=True)]
    recognition = pd.DataFrame(clips, columns=["variant", "tuned_r", "r", "top1"])
    made = {
        "table_c_mini": pd.concat(
            [
                curve("base", scores["base"], [1.0]),
                curve("temporal", scores["temporal"], COSTS),
                curve("tokenwise", scores["tokenwise"], tokenwise),
                curve("stgt", scores["stgt"], tokenwise),
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
        "table_drift_mini": pd.concat(drift),
        "table_d_mini": recognition.assign(interval=1.2, op_ratio=2.0),
    }
    # As they are read: empty cells are numbers that are missing.
    return {name: pd.read_csv(io.StringIO(table.to_csv(index=False))) for name, table in made.items()}


def verdicts(**changes: list[float]) -> list[bool]:
    return [claim.holds for claim in claims.judge(tables(**changes))]


def test_all_hold_where_the_numbers_say_so() -> None:
    assert verdicts() == [True] * 7


@pytest.mark.parametrize(
    ("which", "changes"),
    [
        (0, {"temporal": [80.0, 78.9, 76, 65]}),
        (1, {"stgt": [79.0, 79.6, 70, 50]}),
        (2, {"tokenwise": [80.0, 79.6, 77, 80.5]}),
        (3, {"spatiotemporal": [79.0, 78.4, 75, 60]}),
        (4, {"light_stgt": [75.0, 74.5]}),
        (4, {"light_tokenwise": [75.0, 70.0]}),
        (5, {"tuned": [78.0, 69, 72]}),
        (6, {"tuned": [78.0, 76, 49]}),
    ],
)
def test_a_claim_fails_where_its_numbers_do(which: int, changes: dict[str, list[float]]) -> None:
    assert not verdicts(**changes)[which]


def test_the_page_counts_what_held_and_shows_the_numbers(tmp_path: Path) -> None:
    for name, table in tables(stgt=[79.0, 79.6, 70, 50]).items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    page = claims.write_claims(tmp_path).read_text()
    assert "6 of 7 held here" in page
    assert page.count("**did not hold.**") == 1
    assert "- r = 64: token-wise 79.60, STGT 79.60, interval ±1.20" in page


def test_a_table_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"table_c_mini\.csv: there is no such table; make reproduce-mini writes it"
    ):
        claims_command.main([str(tmp_path)])


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
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    """A cell that is lost would else be a claim that does not hold, as nothing compares with it."""
    for name, table in tables().items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    path = tmp_path / "table_c_mini.csv"
    path.write_text(change(path.read_text()), errors="surrogateescape")
    with pytest.raises(SystemExit) as caught:
        claims_command.main([str(tmp_path)])
    said = str(caught.value)
    assert said.startswith("error: ")
    assert message in said
    assert "\n" not in said
    assert not (tmp_path / "claims.md").exists()
