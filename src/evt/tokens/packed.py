"""Attention of clips with different numbers of tokens, laid end to end without padding: each token sees its own clip.

Three ways to it, which give the same. `scripts/time_packed_attention.py` times them; on a CPU clip after clip wins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.eventful.counting import record


def attend_packed(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], size: Tensor | None = None
) -> Tensor:
    """Attention of the tokens of each clip among themselves, (K, H, d) each to (K, H, d).

    Args:
        q, k, v: of all clips.
        lengths: tokens of each clip; their sum is K.
        size: (K,), how many tokens each stands for, as so many keys of it (ToMe, equation 1); None where each
            stands for itself. The clips then have as many tokens each.
    """
    record("matmul", sum(2 * n * n for n in lengths) * q.shape[1] * q.shape[2])
    if len(set(lengths)) == 1:
        q, k, v = (x.unflatten(0, (len(lengths), -1)).transpose(1, 2) for x in (q, k, v))  # (B, H, n, d)
        bias = None if size is None else size.log().view(len(lengths), 1, 1, -1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(0, 1)
    # On a GPU a call for each clip would leave most of it idle; there nested tensors take one kernel for all.
    return (attend_nested if q.is_cuda else attend_by_clip)(q, k, v, lengths)


def attend_by_clip(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """One clip after the other."""
    # (1, H, n, d) each: with three axes torch would take its slow path.
    split = (x.transpose(0, 1).unsqueeze(0).split(list(lengths), 2) for x in (q, k, v))
    out = [F.scaled_dot_product_attention(*clip) for clip in zip(*split, strict=True)]
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
