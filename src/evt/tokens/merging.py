"""Token Merging (ToMe; Bolya et al. 2023): the most similar tokens of a clip are averaged, some in each block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from evt.tokens.packed import Packed
from evt.tokens.reduction import ClipModel, Reduction, check_not_negative


@dataclass(frozen=True)
class Merge(Reduction):
    """Token Merging: some pairs of tokens become one in each block.

    r: pairs in each block; or a list of those in one block after another, none in blocks beyond it.
    inflect: how r changes from the first block to the last, where it is one number: on a line from (1 - inflect) r to
        (1 + inflect) r, each rounded down, so that -1 merges most in the first blocks. 0 is r in all of them.
    proportional: attention takes a token as so many keys as it stands for (equation 1).

    Raises:
        ValueError: r has what is not a whole number of at least 0, or inflect is not from -1 to 1, or stands beside a
            list.
    """

    r: int | Sequence[int]
    inflect: Annotated[float, Field(ge=-1, le=1)] = 0
    proportional: bool = True

    def __post_init__(self) -> None:
        for r in self.r if isinstance(self.r, Sequence) else [self.r]:
            check_not_negative("policy.r", r)
        if not -1 <= self.inflect <= 1:
            raise ValueError(f"policy.inflect is {self.inflect}; it must be from -1 to 1")
        if self.inflect and isinstance(self.r, Sequence):
            raise ValueError(
                f"policy.inflect is {self.inflect}, but policy.r is a list, which says what each block merges; "
                "inflect must be 0"
            )

    def per_block(self, depth: int) -> list[int]:
        """Pairs that become one in each of so many blocks."""
        if isinstance(self.r, Sequence):
            return [*self.r, *[0] * (depth - len(self.r))]
        first = int(self.r * (1 - self.inflect))
        step = 2 * (self.r - first) / max(1, depth - 1)
        return [int(first + step * i) for i in range(depth)]

    def check(self, model: ClipModel) -> None:
        """Refuse more than half of the tokens, of which nothing would be seen, and a list for more blocks.

        One number is of the first block alone: where fewer tokens are left, later ones merge half of them, as in the
        published code.
        """
        n, depth = model.n_tokens, model.depth
        if isinstance(self.r, Sequence) and len(self.r) > depth:
            raise ValueError(f"policy.r has {len(self.r)} numbers, but the model has {depth} blocks")
        per_block = self.per_block(depth)
        constant = isinstance(self.r, int) and not self.inflect
        for number, r in enumerate(per_block[:1] if constant else per_block):
            if r > n // 2:
                where = "a view has" if number == 0 else f"block {number + 1} of {depth} is given"
                half = f"a block merges at most half of its tokens, of which {where} {n}"
                if self.inflect:
                    raise ValueError(
                        f"policy.r is {self.r} and policy.inflect {self.inflect:g}, so that block {number + 1} is to "
                        f"merge {r}, but {half}; r must be smaller, or inflect nearer to 0"
                    )
                raise ValueError(
                    f"policy.r is {r if number else self.r}, but {half}; it must be at most {n // 2}"
                )
            n -= r

    def between(self, tokens: Packed, qkv: Tensor, block: int, depth: int) -> Packed:
        """Merge (section 3). The clips have as many tokens each, before and after it."""
        shape = (len(tokens.lengths), -1)
        size = tokens.x.new_ones(len(tokens.x)) if tokens.size is None else tokens.size
        r = self.per_block(depth)[block]
        x, size, into = merge(
            tokens.x.unflatten(0, shape), size.unflatten(0, shape), qkv[:, 1].mean(1).unflatten(0, shape), r
        )
        n_views, n = x.shape[:2]
        into = (into + n * torch.arange(n_views, device=x.device).unsqueeze(1)).flatten()
        return Packed(x.flatten(0, 1), [n] * n_views, size.flatten(), into[tokens.sources()])


def merge(
    x: Tensor, size: Tensor, keys: Tensor, r: int, class_token: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Merge r pairs of tokens by bipartite soft matching (section 3, figure 1).

    Tokens are dealt in turn to two sets. Each of the first set is matched with the most similar one of the second,
    and the r closest matches become their mean, weighted by how many tokens each side stands for.

    Args:
        x: (B, N, D).
        size: (B, N), how many tokens each stands for.
        keys: (B, N, d), what tokens are compared by, with the cosine: the mean of attention's keys over heads.
        r: at most half of the tokens are merged, however large it is.
        class_token: the first token stands for no place: it stays, and stays the first.

    Returns:
        The tokens (B, N - r, D), their sizes (B, N - r), and which of them each of x became, (B, N) int64. Those of
        the first set that stay come before the second set, in the order of their matches, the closest first, as
        published: the next block deals them out in this order. With a class token they stay in their own.
    """
    n = x.shape[1]
    r = min(r, (n - class_token) // 2)
    if r <= 0:
        return x, size, torch.arange(n, device=x.device).expand(len(x), -1)
    keys = F.normalize(keys, dim=-1)
    scores = keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)
    if class_token:
        scores[:, 0] = -math.inf
    best, partner = scores.max(-1)  # of each of the first set
    order = best.argsort(dim=-1, descending=True)
    gone, stay = order[:, :r], order[:, r:]
    if class_token:
        stay = stay.sort(dim=-1).values
    into = partner.gather(1, gone)  # (B, r), places in the second set
    weighted = x * size.unsqueeze(-1)
    first, second = weighted[:, ::2], weighted[:, 1::2].clone()
    first_size, second_size = size[:, ::2], size[:, 1::2].clone()
    second.scatter_add_(1, _wide(into, x), first.gather(1, _wide(gone, x)))
    second_size.scatter_add_(1, into, first_size.gather(1, gone))
    total = torch.cat([first_size.gather(1, stay), second_size], 1)
    merged = torch.cat([first.gather(1, _wide(stay, x)), second], 1) / total.unsqueeze(-1)
    n_stay = stay.shape[1]
    became = torch.empty(x.shape[:2], dtype=torch.int64, device=x.device)
    stays = torch.arange(n_stay, device=x.device).expand_as(stay)
    became[:, ::2] = torch.cat([n_stay + into, stays], 1).gather(1, torch.cat([gone, stay], 1).argsort(1))
    became[:, 1::2] = n_stay + torch.arange(n // 2, device=x.device)
    return merged, total, became


def _wide(index: Tensor, x: Tensor) -> Tensor:
    return index.unsqueeze(-1).expand(-1, -1, x.shape[-1])
