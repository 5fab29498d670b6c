"""J, F and the measures of saliency, on masks whose pixels can be counted."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evt.metrics.segmentation import (
    boundary,
    boundary_measure,
    f_of_thresholds,
    mean_absolute_error,
    near,
    object_measures,
    region_similarity,
    stretched,
)

EMPTY = torch.zeros(60, 80, dtype=torch.bool)  # a diagonal of 100: boundaries match within 1 pixel


def rectangle(top: int, left: int, height: int, width: int) -> Tensor:
    mask = EMPTY.clone()
    mask[top : top + height, left : left + width] = True
    return mask


def ring(top: int, left: int, height: int, width: int) -> Tensor:
    """The outline of a rectangle, 1 pixel wide."""
    return rectangle(top, left, height, width) & ~rectangle(top + 1, left + 1, height - 2, width - 2)


SQUARE = rectangle(10, 10, 10, 10)


def noise(seed: int) -> Tensor:
    """Blots, (23, 31) bool."""
    coarse = torch.rand(6, 8, generator=torch.Generator().manual_seed(seed)) > 0.6
    return coarse.repeat_interleave(4, 0).repeat_interleave(4, 1)[:23, :31]


def test_region_similarity_by_hand() -> None:
    assert region_similarity(SQUARE, rectangle(10, 11, 10, 10)) == 90 / 110
    assert region_similarity(SQUARE, rectangle(15, 15, 10, 10)) == 25 / 175
    assert region_similarity(SQUARE, rectangle(10, 10, 10, 20)) == 100 / 200
    assert region_similarity(SQUARE, rectangle(30, 30, 10, 10)) == 0
    assert region_similarity(SQUARE, rectangle(10, 10, 10, 20), void=rectangle(0, 25, 60, 80)) == 100 / 150


def test_the_boundary_of_a_rectangle_is_a_ring() -> None:
    """Half a pixel up and to the left of the rectangle's edge; none where it meets the picture's."""
    assert torch.equal(boundary(SQUARE), ring(9, 9, 11, 11))
    assert torch.equal(boundary(rectangle(0, 0, 60, 40)), rectangle(0, 39, 60, 1))
    assert torch.equal(
        boundary(rectangle(50, 60, 10, 20)), rectangle(49, 59, 11, 1) | rectangle(49, 59, 1, 21)
    )
    assert not boundary(~EMPTY).any()


def test_boundary_measure_by_hand() -> None:
    """A ring of 11x11 has 40 pixels, one of 11x21 has 60."""
    assert boundary_measure(SQUARE, rectangle(10, 11, 10, 10)) == 1  # each pixel is 1 beside one of the other
    # Of each ring: 9 pixels of two sides, and 2 of the side that lies within the other, next to its corners.
    assert boundary_measure(SQUARE, rectangle(10, 13, 10, 10)) == 20 / 40
    # Of the small ring three sides of 11 + 11 + 9 and 2; of the large one two sides of 12 and one of 9.
    assert boundary_measure(SQUARE, rectangle(10, 10, 10, 20)) == pytest.approx(2 * 33 / (40 + 60))
    assert boundary_measure(SQUARE, rectangle(30, 30, 10, 10)) == 0


def test_pixels_that_do_not_count_have_no_boundary() -> None:
    """They are taken out of both masks."""
    void = rectangle(0, 15, 60, 80)
    assert boundary_measure(SQUARE, rectangle(10, 10, 10, 20), void) == 1
    assert boundary_measure(SQUARE, EMPTY, SQUARE) == 1


def test_boundaries_match_within_a_share_of_the_diagonal() -> None:
    """0.008 of 979.7 pixels, rounded up: 8."""
    wide = torch.zeros(480, 854, dtype=torch.bool)
    lines = []
    for column in (400, 408, 409):
        lines.append(wide.clone())
        lines[-1][:, :column] = True
    assert boundary_measure(lines[0], lines[1]) == 1
    assert boundary_measure(lines[0], lines[2]) == 0


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_near_is_within_a_disk(radius: int) -> None:
    pixels = torch.rand(23, 31, generator=torch.Generator().manual_seed(0)) > 0.99
    places = pixels.nonzero().tolist()
    expected = [[any(math.dist((y, x), at) <= radius for at in places) for x in range(31)] for y in range(23)]
    assert near(pixels, radius).tolist() == expected


def test_empty_masks_are_equal() -> None:
    for measure in (region_similarity, boundary_measure):
        assert measure(EMPTY, EMPTY) == 1
        assert measure(SQUARE, EMPTY) == measure(EMPTY, SQUARE) == 0


@given(st.integers(0, 10_000), st.integers(0, 10_000))
@settings(deadline=None, max_examples=40)
def test_measures_are_symmetric_and_1_for_equal_masks(one: int, other: int) -> None:
    a, b = noise(one), noise(other)
    for measure in (region_similarity, boundary_measure):
        assert measure(a, a) == 1
        assert measure(a, b) == measure(b, a)
        assert 0 <= measure(a, b) <= 1
        assert measure(a.T, b.T) == pytest.approx(measure(a, b))


def test_objects_are_measured_one_by_one() -> None:
    mask = 3 * SQUARE.byte() + 7 * rectangle(30, 30, 10, 10).byte()
    found = 3 * rectangle(10, 11, 10, 10).byte()
    assert object_measures(found, mask, [3, 7]) == ([90 / 110, 0], [1, 0])
    mask[mask == 7] = 255
    assert object_measures(found, mask, [3, 7]) == ([90 / 110, 1], [1, 1])
    with pytest.raises(ValueError, match=r"masks are \(60, 79\) and \(60, 80\); they must be of one size"):
        object_measures(found[:, 1:], mask, [3])


def test_saliency_by_hand() -> None:
    """The F-measure of precision p and recall r is 1.3 p r / (0.3 p + r)."""
    saliency, mask = torch.tensor([[1, 0.6], [0.2, 0]]), torch.tensor([[True, True], [False, False]])
    assert mean_absolute_error(saliency, mask) == pytest.approx(0.6 / 4)
    expected = [0.65 / 1.15, *51 * [1.3 * 2 / 3 / 1.2]] + 102 * [1.0] + 102 * [0.65 / 0.8]
    assert f_of_thresholds(saliency, mask).tolist() == pytest.approx(expected)
    void = torch.tensor([[False, True], [True, False]])
    assert mean_absolute_error(saliency, mask, void) == 0
    assert f_of_thresholds(saliency, mask, void).tolist() == pytest.approx([0.65 / 1.15] + 255 * [1.0])


def test_a_map_of_bytes_reaches_its_own_threshold() -> None:
    levels = torch.arange(256)
    for dtype in (torch.float32, torch.float64):
        curve = f_of_thresholds((levels.to(dtype) / 255)[None], (levels >= 200)[None])
        assert (curve == 1).nonzero().tolist() == [[200]]


def test_nothing_found_or_nothing_there_is_worth_0() -> None:
    assert f_of_thresholds(torch.zeros(60, 80), SQUARE)[1:].max() == 0
    assert f_of_thresholds(torch.ones(60, 80), EMPTY).max() == 0


def test_maps_are_stretched() -> None:
    assert stretched(torch.tensor([[-1.0, 1.0], [3.0, 0.0]])).tolist() == [[0, 0.5], [1, 0.25]]
    assert stretched(torch.full((2, 2), 7.0)).tolist() == [[0, 0], [0, 0]]
