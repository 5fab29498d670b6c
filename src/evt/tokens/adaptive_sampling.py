"""Adaptive Token Sampling (ATS; Fayyaz et al. 2022): tokens are drawn by how much attention looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor

from evt.eventful.counting import record
from evt.tokens.packed import Packed
from evt.tokens.reduction import ClipModel, Reduction, check_not_negative


@dataclass(frozen=True)
class AdaptiveSampling(Reduction):
    """Adaptive token sampling, without training: after attention only the tokens that are drawn go on.

    fraction: draws of each clip in a block, over the clip's tokens before the first block. A token may be drawn
        several times and goes on once, so that fewer go on, the fewer the more uneven the attention is.
    blocks: in which it is done, from 0 on; None for all.

    Raises:
        ValueError: the fraction is not above 0 and at most 1, or a block is not a whole number of at least 0.
    """

    fraction: Annotated[float, Field(gt=0, le=1)]
    blocks: Sequence[NonNegativeInt] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.fraction, bool) or not 0 < self.fraction <= 1:
            raise ValueError(f"policy.fraction is {self.fraction}; it must be above 0 and at most 1")
        for block in self.blocks or ():
            check_not_negative("policy.blocks", block)

    def check(self, model: ClipModel) -> None:
        """Refuse blocks that the model does not have."""
        if beyond := [block for block in self.blocks or () if block >= model.depth]:
            raise ValueError(
                f"policy.blocks has {beyond[0]}, but the model has {model.depth} blocks; "
                f"they are 0 to {model.depth - 1}"
            )

    def between(self, tokens: Packed, qkv: Tensor, block: int, depth: int) -> Packed:
        """Draw (section 3), of each clip by itself: as many as attention makes them."""
        if self.blocks is not None and block not in self.blocks:
            return tokens
        source = tokens.sources()
        draws = max(1, round(self.fraction * len(source) / len(tokens.lengths)))
        drawn, start = [], 0
        for q, k, v in (part.unbind(1) for part in qkv.split(list(tokens.lengths))):
            drawn.append(start + sample(significance(q, k, v), draws))
            start += len(q)
        index = torch.cat(drawn)
        place = torch.full((start,), -1, device=index.device)
        place[index] = torch.arange(len(index), device=index.device)
        source = torch.where(source < 0, -1, place[source])
        return Packed(tokens.x[index], [len(part) for part in drawn], source=source)


@torch.no_grad()
def significance(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """How much of what attention gives comes from each token (equation 5), (n,), which add up to 1.

    The published scores are of the class token's query. Models without one have the mean over all queries in its
    place, for which the attention, which the block has not kept, is computed again; that is counted.

    Args:
        q, k, v: of a clip, (n, H, d) each.
    """
    record("matmul", q.shape[0] * k.shape[0] * q.shape[1] * q.shape[2])
    scores = torch.einsum("nhd,mhd->hnm", q * q.shape[-1] ** -0.5, k)
    scores = scores.softmax(-1).mean(1) * v.norm(dim=-1).T  # (H, n)
    return (scores / scores.sum(-1, keepdim=True)).mean(0)


def sample(scores: Tensor, draws: int) -> Tensor:
    """Draw tokens by inverse transform sampling (equations 6 to 8): at equal distances, so that nothing is random.

    Args:
        scores: (n,), which add up to 1.
        draws: how many; draw i is at (2 i + 1) / (2 draws) of the sum.

    Returns:
        The tokens that were drawn at all, in their own order.
    """
    total = scores.double().cumsum(0)
    at = (torch.arange(draws, device=scores.device) + 0.5) / draws * total[-1]
    return torch.searchsorted(total, at.to(total.dtype)).unique()
