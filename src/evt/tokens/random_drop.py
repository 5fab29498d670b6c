"""Dropping tokens at random: what run-length tokenization must beat at the same rate."""

from __future__ import annotations

import torch
from torch import Tensor


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
