"""Token Merging (ToMe; Bolya et al. 2023): the most similar tokens of a clip are averaged, some in each block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.tokens.packed import Packed
from evt.tokens.reduction import ClipModel, Reduction, check_not_negative


@dataclass(frozen=True)
class Merge(Reduction):
    """Token Merging: r pairs of tokens become one in each block.

    Raises:
        ValueError: r is not a whole number of at least 0.
    """

    r: int

    def __post_init__(self) -> None:
        check_not_negative("policy.r", self.r)

    def check(self, model: ClipModel) -> None:
        """Refuse an r of more than half of a model's tokens, of which nothing would be seen."""
        if self.r > model.n_tokens // 2:
            raise ValueError(
                f"policy.r is {self.r}, but a block merges at most half of its tokens, of which a view has "
                f"{model.n_tokens}; it must be at most {model.n_tokens // 2}"
            )

    def between(self, tokens: Packed, k: Tensor) -> Packed:
        """Merge (section 3). The clips have as many tokens each, before and after it."""
        shape = (len(tokens.lengths), -1)
        size = tokens.x.new_ones(len(tokens.x)) if tokens.size is None else tokens.size
        x, size = merge(
            tokens.x.unflatten(0, shape), size.unflatten(0, shape), k.mean(1).unflatten(0, shape), self.r
        )
        return Packed(x.flatten(0, 1), [x.shape[1]] * len(x), size.flatten())


def merge(x: Tensor, size: Tensor, keys: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Merge r pairs of tokens by bipartite soft matching (section 3, figure 1).

    Tokens are dealt in turn to two sets. Each of the first set is matched with the most similar one of the second,
    and the r closest matches become their mean, weighted by how many tokens each side stands for.

    Args:
        x: (B, N, D).
        size: (B, N), how many tokens each stands for.
        keys: (B, N, d), what tokens are compared by, with the cosine: the mean of attention's keys over heads.
        r: at most half of the tokens are merged, however large it is.

    Returns:
        The tokens (B, N - r, D) and their sizes (B, N - r): those of the first set that stay, then the second set.
    """
    n = x.shape[1]
    r = min(r, n // 2)
    if r <= 0:
        return x, size
    keys = F.normalize(keys, dim=-1)
    scores = keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)
    best, partner = scores.max(-1)  # of each of the first set
    order = best.argsort(dim=-1, descending=True)
    gone, stay = order[:, :r], order[:, r:].sort(dim=-1).values
    into = partner.gather(1, gone)  # (B, r), places in the second set
    weighted = x * size.unsqueeze(-1)
    first, second = weighted[:, ::2], weighted[:, 1::2].clone()
    first_size, second_size = size[:, ::2], size[:, 1::2].clone()
    second.scatter_add_(1, _wide(into, x), first.gather(1, _wide(gone, x)))
    second_size.scatter_add_(1, into, first_size.gather(1, gone))
    total = torch.cat([first_size.gather(1, stay), second_size], 1)
    merged = torch.cat([first.gather(1, _wide(stay, x)), second], 1) / total.unsqueeze(-1)
    return merged, total


def _wide(index: Tensor, x: Tensor) -> Tensor:
    return index.unsqueeze(-1).expand(-1, -1, x.shape[-1])
