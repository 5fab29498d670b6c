"""Top-1 and top-5."""

from __future__ import annotations

import pytest
import torch

from evt.metrics.accuracy import Prediction, accuracy


def test_accuracy_counts_labels_among_the_likeliest() -> None:
    """By hand: of four clips one is first, one is third, one is fifth, and one is sixth."""
    probabilities = torch.tensor([0.05, 0.3, 0.25, 0.2, 0.15, 0.03, 0.02])
    predictions = [Prediction.of(f"{label}", label, probabilities) for label in (1, 3, 0, 5)]
    assert predictions[0].top == [1, 2, 3, 4, 0]
    assert [accuracy(predictions, k) for k in (1, 2, 3, 4, 5)] == [0.25, 0.25, 0.5, 0.5, 0.75]


def test_equal_probabilities_are_ordered_by_class() -> None:
    """Else two runs of one model could differ."""
    assert Prediction.of("a", 0, torch.ones(300) / 300).top == [0, 1, 2, 3, 4]
    assert Prediction.of("a", 0, torch.tensor([0.2, 0.8])).top == [1, 0]


def test_what_has_no_accuracy_is_refused() -> None:
    with pytest.raises(ValueError, match="a: NaN or infinite probabilities"):
        Prediction.of("a", 0, torch.tensor([0.2, torch.nan]))
    with pytest.raises(ValueError, match="no predictions"):
        accuracy([])
    with pytest.raises(ValueError, match="k is 6; it must be 1 to 5"):
        accuracy([Prediction("a", 0, [0])], 6)
