"""Clips with different numbers of tokens, laid end to end without padding, and attention of each clip to itself.

Three ways to it, which give the same. `scripts/time_packed_attention.py` times them; on a CPU clip after clip wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.eventful.counting import record


class Packed(NamedTuple):
    """The tokens of several clips, laid end to end.

    x: (K, D).
    lengths: tokens of each clip; their sum is K.
    size: (K,), how many tokens each stands for; None where each stands for itself.
    source: of each token that the first block saw, laid end to end, which of x holds it now, int64; -1 where none
        does. None where these are x.
    """

    x: Tensor
    lengths: Sequence[int]
    size: Tensor | None = None
    source: Tensor | None = None

    def sources(self) -> Tensor:
        """What `source` says, also where it is None."""
        return torch.arange(len(self.x), device=self.x.device) if self.source is None else self.source

    def means(self) -> Tensor:
        """The mean of what the tokens of each clip stand for, (B, D)."""
        if self.size is None:
            return torch.stack([x.mean(0) for x in self.x.split(list(self.lengths))])
        parts = (
            (self.x * self.size.unsqueeze(-1)).split(list(self.lengths)),
            self.size.split(list(self.lengths)),
        )
        return torch.stack([x.sum(0) / size.sum() for x, size in zip(*parts, strict=True)])


def attend_packed(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], size: Tensor | None = None
) -> Tensor:
    """Attention of the tokens of each clip among themselves, (K, H, d) each to (K, H, d).

    Args:
        q, k, v: of all clips.
        lengths: tokens of each clip; their sum is K.
        size: (K,), how many tokens each stands for, as so many keys of it (ToMe, equation 1); None where each
            stands for itself.
    """
    record("matmul", sum(2 * n * n for n in lengths) * q.shape[1] * q.shape[2])
    if len(set(lengths)) == 1:
        q, k, v = (x.unflatten(0, (len(lengths), -1)).transpose(1, 2) for x in (q, k, v))  # (B, H, n, d)
        bias = None if size is None else size.log().view(len(lengths), 1, 1, -1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(0, 1)
    # On a GPU a call for each clip would leave most of it idle; there nested tensors take one kernel for all, which
    # has no place for sizes.
    if q.is_cuda and size is None:
        return attend_nested(q, k, v, lengths)
    return attend_by_clip(q, k, v, lengths, size)


def attend_by_clip(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], size: Tensor | None = None
) -> Tensor:
    """One clip after the other."""
    # (1, H, n, d) each: with three axes torch would take its slow path.
    split = [x.transpose(0, 1).unsqueeze(0).split(list(lengths), 2) for x in (q, k, v)]
    bias = [None] * len(lengths) if size is None else size.log().view(1, 1, 1, -1).split(list(lengths), 3)
    out = [F.scaled_dot_product_attention(*clip) for clip in zip(*split, bias, strict=True)]
    return torch.cat([x.squeeze(0).transpose(0, 1) for x in out])


def attend_masked(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """All pairs of tokens, with a block-diagonal mask."""
    clip = torch.arange(len(lengths), device=q.device).repeat_interleave(
        torch.tensor(lengths, device=q.device)
    )
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))  # (1, H, K, d)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=clip[:, None] == clip)
    return out.squeeze(0).transpose(0, 1)


def attend_nested(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """Nested tensors, which torch attends to by kernels for variable lengths where it has them."""
    offsets = torch.tensor([0, *lengths], device=q.device).cumsum(0)
    # Told the lengths, torch need not wait for the GPU to ask for them.
    q, k, v = (
        torch.nested.nested_tensor_from_jagged(
            x, offsets, min_seqlen=min(lengths), max_seqlen=max(lengths)
        ).transpose(1, 2)
        for x in (q, k, v)
    )
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).values()
