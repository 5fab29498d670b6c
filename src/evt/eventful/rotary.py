"""Rotary positions (Su et al. 2021): queries and keys are turned by where their tokens stand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evt.eventful.policy import Selection
from evt.eventful.profiling import named


@dataclass(frozen=True)
class Rotary:
    """Turns each pair of the numbers of a query, and of a key, by an angle that follows from the token's place.

    A token's place is the same in every frame, so what is kept of it between frames is kept turned. As positions are
    that are added to keys once, this is not counted.

    cos, sin: of the angles, (N, d), for both numbers of a pair; of a token without a place, ones and zeros.
    neighbours: a pair are two numbers side by side, instead of one and its like in the second half.
    """

    cos: Tensor
    sin: Tensor
    neighbours: bool = False

    @named("attention")
    def __call__(self, qkv: Tensor, changed: Selection | None) -> Tensor:
        """Turn queries and keys of the tokens that changed, (K, 3, H, d); of all for None, (B, N, 3, H, d)."""
        cos, sin = self.cos, self.sin
        if changed is not None:
            place = changed.index % changed.n_tokens
            cos, sin = cos.index_select(0, place), sin.index_select(0, place)
        x, v = qkv.split((2, 1), dim=-3)
        turned = x * cos[:, None, None] + self._quarter(x) * sin[:, None, None]
        return torch.cat([turned.to(v.dtype), v], dim=-3)

    def _quarter(self, x: Tensor) -> Tensor:
        """Turn each pair by 90 degrees."""
        if self.neighbours:
            return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([-second, first], dim=-1)
