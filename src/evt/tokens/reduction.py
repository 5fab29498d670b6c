"""What reduces the tokens of a clip, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RunLength:
    """Run-length tokenization: tokens that repeat are dropped before the model runs.

    threshold: of the mean absolute difference, in normalised pixel units.
    lengths: the model adds its learned embedding of each token's run length; it must have been trained with one.

    Raises:
        ValueError: the threshold is not a finite number of at least 0.
    """

    threshold: float = 0.1
    lengths: bool = False

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)


@dataclass(frozen=True)
class RandomDrop:
    """As many tokens as `RunLength(threshold)` keeps, drawn at random.

    seed: of the draw.
    """

    threshold: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)


@dataclass(frozen=True)
class Merge:
    """Token Merging: r pairs of tokens become one in each block.

    Raises:
        ValueError: r is negative.
    """

    r: int

    def __post_init__(self) -> None:
        if self.r < 0:
            raise ValueError(f"policy.r is {self.r}; it must be 0 or more")


Reduction = RunLength | RandomDrop | Merge
"""None, beside these, is the dense model."""


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold < math.inf:
        raise ValueError(f"policy.threshold is {threshold}; it must be a finite number, 0 or more")
