"""Measures of agreement, against values worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, tensor

from evt.metrics.agreement import correlation, cosine, iou, mean_absolute_error, relative_l2


def test_errors() -> None:
    assert relative_l2(tensor([3.0, 8.0]), tensor([3.0, 4.0])) == pytest.approx(4 / 5)
    assert mean_absolute_error(tensor([0.0, 0.5]), tensor([1.0, 0.25])) == pytest.approx(1.25 / 2)


def test_the_cosine_is_of_each_vector_and_the_mean_over_them() -> None:
    """Not that of all values as one vector, in which long ones would outweigh the others."""
    assert cosine(tensor([[100.0, 0.0], [0.0, 1.0]]), tensor([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0.0, 1.0, 2.0], [5.0, 7.0, 9.0], 1.0),
        ([0.0, 1.0, 2.0], [1.0, 0.0, -1.0], -1.0),
        ([0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], 0.0),
        ([0.5, 0.5], [0.5, 0.5], 1.0),
        ([0.5, 0.5], [0.5, 0.6], 0.0),
    ],
)
def test_correlation(a: list[float], b: list[float], expected: float) -> None:
    assert correlation(tensor(a), tensor(b)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (tensor([0.6, 0.6, 0.4, 0.4]), tensor([0.6, 0.4, 0.6, 0.4]), 1 / 3),
        (tensor([0.5]), tensor([0.9]), 0.0),
        (torch.zeros(3), torch.zeros(3), 1.0),
    ],
)
def test_iou(a: Tensor, b: Tensor, expected: float) -> None:
    assert iou(a, b) == pytest.approx(expected)
