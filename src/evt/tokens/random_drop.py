"""Dropping tokens at random: what run-length tokenization must beat at the same rate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evt.tokens.reduction import Reduction, check_not_negative
from evt.tokens.run_length import check_threshold, keep_mask


@dataclass(frozen=True)
class RandomDrop(Reduction):
    """As many tokens as `RunLength(threshold)` keeps, drawn at random.

    seed: of the draw.

    Raises:
        ValueError: the threshold is not a finite number of at least 0, or the seed no whole number of at least 0.
    """

    threshold: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_threshold(self.threshold, "policy.threshold")
        check_not_negative("policy.seed", self.seed)
        if self.seed >= 2**63:
            raise ValueError(f"policy.seed is {self.seed}; it must be below 2**63")

    def keep(self, views: Tensor, tubelet: tuple[int, int, int]) -> Tensor:
        """The tokens drawn of each view, (V, N) bool. See `keep_mask` for what is raised."""
        return random_mask(keep_mask(views, tubelet, self.threshold), self.seed)


def random_mask(like: Tensor, seed: int = 0) -> Tensor:
    """Keep as many tokens of each clip as `like` does, drawn evenly from all of them, (B, N) bool.

    Args:
        like: (B, N) bool.
        seed: of the draw; a clip's draw depends on the number of its tokens alone, and not on its batch.
    """
    n = like.shape[1]
    keep = torch.zeros(like.shape, dtype=torch.bool)
    for row, count in zip(keep, like.sum(1).tolist(), strict=True):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        row[order[:count]] = True
    return keep.to(like.device)
