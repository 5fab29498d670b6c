"""What reduces the tokens of a clip, as values."""

from __future__ import annotations

from dataclasses import dataclass

from evt.tokens.run_length import check_threshold


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
        check_threshold(self.threshold, "policy.threshold")


@dataclass(frozen=True)
class RandomDrop:
    """As many tokens as `RunLength(threshold)` keeps, drawn at random.

    seed: of the draw.

    Raises:
        ValueError: the threshold is not a finite number of at least 0, or the seed no whole number of at least 0.
    """

    threshold: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_threshold(self.threshold, "policy.threshold")
        _check_whole("policy.seed", self.seed)
        if self.seed >= 2**63:
            raise ValueError(f"policy.seed is {self.seed}; it must be below 2**63")


@dataclass(frozen=True)
class Merge:
    """Token Merging: r pairs of tokens become one in each block.

    Raises:
        ValueError: r is not a whole number of at least 0.
    """

    r: int

    def __post_init__(self) -> None:
        _check_whole("policy.r", self.r)


Reduction = RunLength | RandomDrop | Merge
"""None, beside these, is the dense model."""


def _check_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, 0 or more")
