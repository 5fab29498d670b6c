"""Top-1 and top-5: the share of clips whose label is among the classes of highest probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

KEPT = 5


class Prediction(NamedTuple):
    """What was predicted for one clip.

    name: of the clip.
    label: its true class.
    top: the classes of highest probability, the highest first, at most `KEPT`.
    """

    name: str
    label: int
    top: Sequence[int]

    @classmethod
    def of(cls, name: str, label: int, probabilities: Tensor) -> Prediction:
        """From the probabilities of all classes, (classes,); of equal ones the smaller class comes first.

        Raises:
            ValueError: a probability is not finite.
        """
        if not torch.isfinite(probabilities).all():
            raise ValueError(f"{name}: NaN or infinite probabilities; are the weights those of this model?")
        order = probabilities.sort(descending=True, stable=True).indices
        return cls(name, label, order[:KEPT].tolist())


def accuracy(predictions: Sequence[Prediction], k: int = 1) -> float:
    """The share of clips, from 0 to 1, whose label is among the k likeliest classes; k is at most `KEPT`.

    Raises:
        ValueError: there are no predictions, or k is not 1 to `KEPT`.
    """
    if not predictions:
        raise ValueError("no predictions; an accuracy needs at least 1")
    if not 1 <= k <= KEPT:
        raise ValueError(f"k is {k}; it must be 1 to {KEPT}")
    return sum(prediction.label in prediction.top[:k] for prediction in predictions) / len(predictions)
