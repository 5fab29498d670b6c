"""Attention and its update by torch's own operators: on any device and of any type."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from evt.eventful.groups import Groups
from evt.eventful.layout import Grid
from evt.eventful.positions import Positions, Rel, bias_of
from evt.eventful.precision import wide

SCORES = 2**20
"""Scores that exist at a time where queries attend to all keys, 4 MB: with fewer, two threads share them unevenly."""

HEADS_TOGETHER = 4
"""Heads that are computed at a time where there are few queries: threads share whole heads best."""

UPDATED_QUERIES = 512
"""Queries of some heads that exist at a time where the keys that changed are replaced."""

KEPT = {torch.float64: 1 / 32, torch.float32: 1 / 32, torch.bfloat16: 1 / 2, torch.float16: 1 / 4}
"""Of a query whose unchanged keys hold less than this share of its attention, all is computed afresh: what is left
after taking away the rest would have lost as many bits, 5 of float32's 24 and 1 of bfloat16's 8."""

LOG2_E = math.log2(math.e)


def attend_groups(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor | None,
    groups: Groups,
    positions: Positions | None,
    scale: float,
    pad: Tensor | None,
) -> None:
    """Attend with the queries of some groups, each to the keys of its window.

    Args:
        q: (H, T, d), the tokens of all streams.
        k, v: the same; or their pooled keys, (H, B Nk, d).
        out, lse: (H, T, d) and (H, T), to which results and log-sum-exps of these queries are written.
        groups: which attend.
        positions: relative ones.
        scale: of the product of a query and a key.
        pad: (2, H, d), k and v of the tokens that pad a window; needed where there are such.
    """
    for stream, window, tokens, some in groups:
        own_q, own = q[:, tokens], slice(stream * groups.n_keys, (stream + 1) * groups.n_keys)
        own_k, own_v = (x[:, tokens if groups.pool == 1 else own] for x in (k, v))
        grid, whole = (window.rows, window.columns), groups.layout.grid
        if groups.pool == 1 and grid != whole:
            assert pad is not None
            own_k, own_v = (_padded(x, grid, whole, by) for x, by in ((own_k, pad[0]), (own_v, pad[1])))
        rel: Rel | None = None
        if some is not None:
            own_q = own_q.index_select(1, some)
            if positions is not None:
                place = some // window.columns * whole[1] + some % window.columns
                rel = positions.of_some(own_q, place)
        elif positions is not None:
            rel = positions.of(own_q, *grid)
        results = attend(own_q, own_k, own_v, rel, scale)
        for to, result in zip((out, lse), results, strict=True):
            if to is None:
                continue
            if some is None:
                to[:, tokens] = result
            else:
                to[:, tokens].index_copy_(1, some, result)


def update_groups(
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    old: tuple[Tensor, Tensor],
    new: tuple[Tensor, Tensor],
    keys: list[Tensor],
    groups: Groups,
    positions: Positions | None,
    scale: float,
) -> Tensor:
    """Replace what some keys gave to the results of all queries of some groups, in place.

    Args:
        out, lse, q, groups, positions, scale: see `attend_groups`.
        old, new: k and v of the keys that changed, group by group, (H, m, d) each.
        keys: of each group, their places among its keys.

    Returns:
        (Q,) bool: which queries, group by group, have results that cannot be relied upon in some head.
    """
    counts = [len(x) for x in keys]
    lost = []
    parts = zip(groups, keys, *(x.split(counts, 1) for x in (*old, *new)), strict=True)
    for (_, window, tokens, _), own, old_k, old_v, new_k, new_v in parts:
        rel = None if positions is None else positions.of(q[:, tokens], window.rows, window.columns)
        of_group = out[:, tokens], lse[:, tokens], q[:, tokens], rel
        lost.append(update(*of_group, (old_k, old_v), (new_k, new_v), own, scale).any(0))
    return torch.cat(lost)


def attend(q: Tensor, k: Tensor, v: Tensor, rel: Rel | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attend with queries to all keys.

    Args:
        q: (H, n, d).
        k, v: (H, Nk, d), the keys row by row of their grid where there is rel.
        rel: what is added to the scores.
        scale: of the product of a query and a key.

    Returns:
        The result (H, n, d) and the log-sum-exp of each query's scores (H, n), in single precision at least: its
        error is a relative error of all that is taken away later.
    """
    heads, n, _ = q.shape
    out, lse = torch.empty_like(q), q.new_empty(heads, n, dtype=accurate(q.dtype))
    q, k, v = wide(q), wide(k), wide(v)
    most = max(1, SCORES // k.shape[1])
    together = max(HEADS_TOGETHER, most // max(1, n)) if n <= most else 1
    for h, block in _blocks(heads, n, together, most):
        bias = None if rel is None else bias_of(rel, h, block).to(q.dtype)
        out[h, block], lse[h, block] = _softmax_attention(q[h, block], k[h], v[h], bias, scale)
    return out, lse


def _blocks(heads: int, n: int, together: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Cut all queries into blocks of some heads together, and of at most so many queries of each."""
    some = math.ceil(n / math.ceil(n / most)) if n else most  # blocks of a size
    for h in range(0, heads, together):
        for i in range(0, n, some):
            yield slice(h, h + together), slice(i, i + some)


def _softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    flash = hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")
    if flash and q.device.type == "cpu" and not torch.compiler.is_exporting():
        # What scaled_dot_product_attention calls here; only this way does it hand over the log-sum-exp. It takes the
        # numbers of a token to stand side by side, and does not check.
        mask = None if bias is None else bias.unsqueeze(0)
        x = ((x if x.stride(-1) == 1 else x.contiguous()).unsqueeze(0) for x in (q, k, v))
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*x, attn_mask=mask, scale=scale)
        return out.squeeze(0), lse.squeeze(0)
    scores = torch.bmm(q, k.transpose(1, 2)).to(accurate(q.dtype)) * scale
    if bias is not None:
        scores += bias
    lse = scores.logsumexp(-1)
    return torch.bmm(scores.sub_(lse.unsqueeze(-1)).exp_().to(v.dtype), v), lse


def update(
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    rel: Rel | None,
    old: tuple[Tensor, Tensor],
    new: tuple[Tensor, Tensor],
    keys: Tensor,
    scale: float,
) -> Tensor:
    """Replace what some keys gave to the results of all queries, in place.

    Args:
        out, lse: (H, N, d) and (H, N), as `attend` gives them.
        q, rel: see `attend`; as they were when out and lse were computed.
        old, new: k and v of the keys that changed, (H, m, d) each.
        keys: (m,), their places among all keys.
        scale: see `attend`.

    Returns:
        (H, N) bool: which results cannot be relied upon and must be computed afresh.
    """
    heads, n, d = q.shape
    m, dtype = len(keys), lse.dtype
    if rel is not None:
        n_columns = rel[1].shape[2] if len(rel) > 1 else 1
        places = (keys // n_columns, keys % n_columns)
    # Everything in powers of 2, which processors raise twice as fast as those of e.
    old_k, new_k = (x[0].to(dtype) * (LOG2_E * scale) for x in (old, new))
    # Two rows of v are ones: the second product sums the weights, too, of old keys and of new.
    old_v, new_v = torch.zeros(2, heads, d + 2, m, dtype=dtype, device=q.device)
    old_v[:, :d], new_v[:, :d] = -old[1].transpose(1, 2), new[1].transpose(1, 2)
    old_v[:, d] = new_v[:, d + 1] = 1
    lost = torch.empty(heads, n, dtype=torch.bool, device=q.device)
    # The two large tensors are made once: the pages of a new one cost as much as what is written to it.
    most = min(HEADS_TOGETHER, heads) * min(UPDATED_QUERIES, n) * m
    scratch = torch.empty(2, most, dtype=dtype, device=q.device)
    for h, block in _blocks(heads, n, HEADS_TOGETHER, UPDATED_QUERIES):
        queries = q[h, block].transpose(1, 2).to(dtype)
        less = lse[h, block].unsqueeze(1) * LOG2_E  # (h, 1, n)
        shape = (len(less), m, less.shape[2])
        bias, weights = (x[: math.prod(shape)].view(shape) for x in scratch)
        if rel is None:
            torch.neg(less.expand(shape), out=bias)
        else:
            by_row, *by_column = ((x[h, block].to(dtype) * LOG2_E).transpose(1, 2).contiguous() for x in rel)
            torch.index_select(by_row.sub_(less), 1, places[0], out=bias)
            for x in by_column:
                torch.index_select(x, 1, places[1], out=weights)
                bias += weights
        torch.baddbmm(bias, old_k[h], queries, out=weights).exp2_()
        part = torch.bmm(old_v[h], weights)
        part.baddbmm_(new_v[h], bias.baddbmm_(new_k[h], queries).exp2_())
        kept = 1 - part[:, d]
        z = kept + part[:, d + 1]
        lost[h, block] = ~((kept > KEPT[out.dtype]) & torch.isfinite(z))
        torch.div(part[:, :d].transpose(1, 2) + out[h, block], z.unsqueeze(2), out=out[h, block])
        lse[h, block] += z.log()
    return lost


def accurate(dtype: torch.dtype) -> torch.dtype:
    """The type in which scores are exponentiated and summed: single precision at least."""
    return torch.promote_types(dtype, torch.float32)


def _padded(x: Tensor, grid: Grid, whole_grid: Grid, by: Tensor) -> Tensor:
    """Pad a window (H, rows x columns, d) at the bottom and the right with tokens `by` (H, d)."""
    whole = by[:, None, None].expand(-1, *whole_grid, -1).clone()
    whole[:, : grid[0], : grid[1]] = x.unflatten(1, grid)
    return whole.flatten(1, 2)
