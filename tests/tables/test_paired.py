"""Differences between rows of a table: what they are against, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evt.metrics.bootstrap import RESAMPLES, Estimate, mean_of
from evt.tables.paired import Row, compared, covariance
from evt.tables.points import Point

RIGHT = {"base": [100, 100, 100, 0], "temporal": [100, 100, 0, 0], "skip": [100, 0, 100, 0]}
"""Top-1 of four clips."""


def row(values: Sequence[float], gflops: float, **cells: Any) -> Row:
    point = Point(tuple(cells.items()))
    return Row.of(point, [({"gflops": gflops, "clips": len(values)}, {"top1": mean_of(values)})])


def test_a_row_differs_from_itself_by_nothing_and_surely() -> None:
    base = row(RIGHT["base"], 8, variant="base")
    skip = row(RIGHT["skip"], 4, variant="skip", every=2)
    for own in (base, skip):
        cells = compared(own, [base, skip], ())
        assert (cells["minus_skip"], cells["minus_skip_interval"]) == (0, 0)
    assert (compared(base, [base], ())["minus_base"], compared(base, [base], ())["minus_base_interval"]) == (
        0,
        0,
    )


def test_a_difference_is_that_of_each_clip() -> None:
    """Two rows are both wrong on the same hard clips: their difference is surer than either of them."""
    base, temporal = row(RIGHT["base"], 8, variant="base"), row(RIGHT["temporal"], 2, variant="temporal", r=5)
    cells = compared(temporal, [base, temporal], ())
    clips = mean_of([b - a for a, b in zip(RIGHT["base"], RIGHT["temporal"], strict=True)])
    assert cells["minus_base"] == -25
    assert cells["minus_base_interval"] == pytest.approx(clips.interval)
    assert cells["op_ratio"] == 4
    assert "minus_skip" not in cells


def test_one_clip_leaves_no_interval() -> None:
    """All resamples of it are the same."""
    base, temporal = row([100], 8, variant="base"), row([0], 2, variant="temporal", r=5)
    cells = compared(temporal, [base, temporal], ())
    assert (cells["minus_base"], cells["minus_base_interval"], cells["interval"]) == (-100, 0, 0)


def test_frame_skipping_at_equal_operations_by_hand() -> None:
    """At 5 between skip rows of 8 (base) and 4: a quarter of the one, three of the other, in each resample, too."""
    base = row(RIGHT["base"], 8, variant="base")
    two, four = (
        row(RIGHT["skip"], 4, variant="skip", every=2),
        row([100, 0, 0, 0], 2, variant="skip", every=4),
    )
    rows = [base, four, two]
    temporal = row(RIGHT["temporal"], 5, variant="temporal", r=5)
    cells = compared(temporal, [*rows, temporal], ())
    assert cells["minus_skip"] == 50 - (0.25 * 75 + 0.75 * 50)
    mixed = [
        t - 0.25 * b - 0.75 * s
        for t, b, s in zip(RIGHT["temporal"], RIGHT["base"], RIGHT["skip"], strict=True)
    ]
    assert cells["minus_skip_interval"] == pytest.approx(mean_of(mixed).interval)
    between = compared(row(RIGHT["temporal"], 3, variant="temporal", r=3), rows, ())
    assert between["minus_skip"] == 50 - (50 + 25) / 2
    # Cheaper than any skipping, and dearer than base: there is nothing to compare with.
    for gflops in (1.9, 8.1):
        outside = compared(row(RIGHT["temporal"], gflops, variant="temporal", r=1), rows, ())
        assert "minus_skip" not in outside
        assert "minus_base" in outside


def test_a_budget_that_adapts_is_held_against_a_fixed_one_of_its_variant() -> None:
    """At 3 between fixed rows of 4 and 2; neither another variant's row nor another policy's is the rival."""
    fixed = [
        row(RIGHT["base"], 4, variant="temporal", r=8),
        row([100, 0, 0, 0], 2, variant="temporal", r=4),
        row([0, 0, 0, 0], 3, variant="rows", r=4),
        row([0, 0, 0, 0], 3, variant="temporal", policy="refresh", r=4, every=8),
    ]
    adaptive = row(RIGHT["temporal"], 3, variant="temporal", policy="threshold", h=1)
    cells = compared(adaptive, [*fixed, adaptive], ())
    assert cells["minus_fixed"] == 50 - (75 + 25) / 2
    mixed = [
        t - b / 2 - s / 2 for t, b, s in zip(RIGHT["temporal"], RIGHT["base"], [100, 0, 0, 0], strict=True)
    ]
    assert cells["minus_fixed_interval"] == pytest.approx(mean_of(mixed).interval)
    assert "minus_fixed" not in compared(fixed[0], fixed, ())
    dear = row([100] * 4, 5, variant="temporal", policy="threshold", h=0.1)
    assert "minus_fixed" not in compared(dear, [*fixed, dear], ())


def test_a_row_is_compared_with_rows_of_the_usual_policy_on_its_path() -> None:
    """Else a selector would be held against what has whole frames in between, or runs elsewhere."""
    rows = [
        row([100, 0], 8, variant="base", path="fast"),
        row([50, 0], 4, variant="rows", path="fast", r=4),
        row([90, 90], 4, variant="rows", path="fast", policy="refresh", r=4),
        row([70, 70], 4, variant="temporal", path="reference", r=4),
        row([40, 0], 2, variant="temporal", path="fast", r=2),
    ]
    cells = compared(row([60, 20], 5, variant="frame", path="fast", policy="change", keep=4), rows, ())
    assert cells["minus_rows"] == 40 - (0.25 * 50 + 0.75 * 25)
    assert cells["minus_temporal"] == 40 - (0.5 * 50 + 0.5 * 20)
    assert "minus_skip" not in cells


def test_a_mean_over_phases_has_the_interval_of_the_mean() -> None:
    """The mean of the intervals would be wider: what one phase misses, another sees."""
    phases: list[tuple[dict[str, Any], dict[str, Estimate]]] = [
        ({"gflops": 1.0}, {"top1": mean_of(x)}) for x in ([100, 0, 100, 0], [0, 100, 0, 100])
    ]
    own = Row.of(Point((("variant", "skip"), ("every", 2))), phases)
    assert (own.estimates["top1"].value, own.estimates["top1"].interval) == (50, 0)
    assert own.cells == {"gflops": 1.0}
    assert phases[0][1]["top1"].interval > 0


def test_base_is_that_of_the_same_model_and_weights() -> None:
    """A ratio to the base of another model says nothing, wherever that row stands."""
    rows = [
        row([100, 0], gflops, model=model, trained=trained, variant=variant)
        for model, trained, variant, gflops in (
            ("vivit", "r=50", "temporal", 6.0),
            ("videomae", "dense", "base", 8.0),
            ("videomae", "rlt", "base", 4.0),
            ("videomae", "rlt", "rlt", 2.0),
            ("vivit", "dense", "base", 12.0),
            ("other", "dense", "rlt", 1.0),
        )
    ]
    ratios = [compared(own, rows, ["trained"]).get("op_ratio") for own in rows]
    # ViViT has one base row, which all of its weights are compared with.
    assert ratios == [2, 1, 1, 2, 1, None]
    sizes = [row([100], 4, variant="base", size=672), row([100], 2, variant="temporal", size=1024)]
    assert "op_ratio" not in compared(sizes[1], sizes, ())


def test_covariance_gives_the_interval_of_a_difference() -> None:
    rng = np.random.default_rng(0)
    base, temporal = (
        row(list(map(float, rng.integers(0, 2, 400) * 100)), 1, variant=x) for x in ("base", "temporal")
    )
    found = covariance([base, temporal])
    assert found is not None
    assert list(found.index) == list(found.columns) == ["base", "temporal"]
    weights = np.array([-1, 1])
    normal = 1.96 * float(weights @ found.to_numpy() @ weights) ** 0.5
    assert normal == pytest.approx(compared(temporal, [base, temporal], ())["minus_base_interval"], rel=0.1)
    assert covariance([base]) is None


def test_other_estimates_have_their_name_before_their_columns() -> None:
    steady = Estimate(3.0, np.full(RESAMPLES, 3.0))
    rows = [
        Row.of(Point((("variant", name),)), [({}, {"top1": mean_of([1.0]), "falls": steady})])
        for name in ("base", "temporal")
    ]
    cells = compared(rows[1], rows, ())
    assert cells["falls_interval"] == cells["falls_minus_base"] == 0
    assert "top1_interval" not in cells
