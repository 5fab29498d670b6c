"""The fast path: self-attention without an N x N state, beside the paper's products.

For every query the result and the log-sum-exp of its scores are kept, instead of B = q k^T and A. Then a query that
changed is attended afresh, and from every other one the part of the keys that changed is taken away and put back with
their new values:

    e_j = exp(score_j - lse)            the attention of key j before the frame; all of them sum to 1
    z   = 1 - sum e_old + sum e_new     over the keys that changed
    o   = (o - e_old v_old + e_new v_new) / z,    lse = lse + log z

This is exact in q, k and v, so it equals dense attention on the buffered tokens, whereas equation 10 keeps the
attention of unchanged keys as it was when they last changed. It holds N D numbers instead of H N^2.

Scores exist for a block of queries at a time, so that they stay in cache from the first product to the second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from evt.eventful.counting import einsum, matmul, record
from evt.eventful.layout import Grid, Layout, pooled
from evt.eventful.precision import wide
from evt.eventful.profiling import named
from evt.eventful.variant import Variant

SCORES = 2**20
"""Scores that exist at a time where queries attend to all keys, 4 MB: with fewer, two threads share them unevenly."""

HEADS_TOGETHER = 4
"""Heads that are computed at a time where there are few queries: threads share whole heads best."""

UPDATED_QUERIES = 512
"""Queries of some heads that exist at a time where the keys that changed are replaced."""

FEW_KEYS = 300
"""With fewer keys than this all queries are attended anew in every frame: that costs less than keeping the books."""

LONG = 1024
"""With this many keys it pays to copy q, k and v once, so that those of a head stand together."""

KEPT = {torch.float64: 1 / 32, torch.float32: 1 / 32, torch.bfloat16: 1 / 2, torch.float16: 1 / 4}
"""Of a query whose unchanged keys hold less than this share of its attention, all is computed afresh: what is left
after taking away the rest would have lost as many bits, 5 of float32's 24 and 1 of bfloat16's 8."""

REFRESH = {torch.float64: 512, torch.float32: 512, torch.bfloat16: 64, torch.float16: 64}
"""Every query is computed afresh at least once in so many frames, so that rounding cannot pile up."""

LOG2_E = math.log2(math.e)

Rel = tuple[Tensor, ...]
"""What is added to the scores of queries: for a key's row and for its column, (H, n, key rows) and (H, n, key
columns); or one tensor, for each key, (H, n, Nk)."""


class Positions(Protocol):
    """Relative positions, of which queries, that fill a grid or stand at some places of it, get what is theirs."""

    def of(self, q: Tensor, rows: int, columns: int) -> Rel:
        """Of queries (H, T, d) that fill a grid."""

    def of_some(self, q: Tensor, place: Tensor) -> Rel:
        """Of queries (H, K, d) at some places."""


@dataclass(frozen=True)
class Vectors:
    """Queries are multiplied by vectors of (query, key) pairs, for rows and for columns, (side, key side, d) each."""

    rows: Tensor
    columns: Tensor

    def of(self, q: Tensor, rows: int, columns: int) -> Rel:
        """See `Positions`."""
        grid = q.unflatten(1, (rows, columns))
        by_row = einsum("hyxd,ykd->hyxk", grid, self.rows[:rows])
        by_column = einsum("hyxd,xkd->hyxk", grid, self.columns[:columns])
        return by_row.flatten(1, 2), by_column.flatten(1, 2)

    def of_some(self, q: Tensor, place: Tensor) -> Rel:
        """See `Positions`."""
        y, x = place // len(self.columns), place % len(self.columns)
        tables = ((self.rows, y), (self.columns, x))
        return tuple(einsum("hnd,nkd->hnk", q, table.index_select(0, at)) for table, at in tables)


@dataclass(frozen=True)
class Biases:
    """What each head adds to the score of each pair of tokens, (H, N, N), which form no grid."""

    pairs: Tensor

    def of(self, q: Tensor, rows: int, columns: int) -> Rel:
        """See `Positions`."""
        return (self.pairs,)

    def of_some(self, q: Tensor, place: Tensor) -> Rel:
        """See `Positions`."""
        return (self.pairs.index_select(1, place),)


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
    heads, n, d = q.shape
    record("matmul", 2 * heads * n * k.shape[1] * d)
    if rel is not None:
        record("add", len(rel) * heads * n * k.shape[1])
    out, lse = torch.empty_like(q), q.new_empty(heads, n, dtype=_accurate(q.dtype))
    q, k, v = wide(q), wide(k), wide(v)
    most = max(1, SCORES // k.shape[1])
    together = max(HEADS_TOGETHER, most // max(1, n)) if n <= most else 1
    for h, block in _blocks(heads, n, together, most):
        bias = None if rel is None else _bias(rel, h, block).to(q.dtype)
        out[h, block], lse[h, block] = _softmax_attention(q[h, block], k[h], v[h], bias, scale)
    return out, lse


def _blocks(heads: int, n: int, together: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Cut all queries into blocks of some heads together, and of at most so many queries of each."""
    some = math.ceil(n / math.ceil(n / most)) if n else most  # blocks of a size
    for h in range(0, heads, together):
        for i in range(0, n, some):
            yield slice(h, h + together), slice(i, i + some)


def _bias(rel: Rel, heads: slice, queries: slice) -> Tensor:
    """What is added to scores, (h, n, Nk)."""
    by_row, *by_column = (x[heads, queries] for x in rel)
    if not by_column:
        return by_row
    return torch.add(by_row.unsqueeze(3), by_column[0].unsqueeze(2)).flatten(2)


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
    scores = torch.bmm(q, k.transpose(1, 2)).to(_accurate(q.dtype)) * scale
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
    m, accurate = len(keys), lse.dtype
    record("matmul", 4 * heads * n * m * d)
    record("accumulator", out.numel())
    if rel is not None:
        record("add", 2 * len(rel) * heads * n * m)
        n_columns = rel[1].shape[2] if len(rel) > 1 else 1
        places = (keys // n_columns, keys % n_columns)
    # Everything in powers of 2, which processors raise twice as fast as those of e.
    old_k, new_k = (x[0].to(accurate) * (LOG2_E * scale) for x in (old, new))
    # Two rows of v are ones: the second product sums the weights, too, of old keys and of new.
    old_v, new_v = torch.zeros(2, heads, d + 2, m, dtype=accurate, device=q.device)
    old_v[:, :d], new_v[:, :d] = -old[1].transpose(1, 2), new[1].transpose(1, 2)
    old_v[:, d] = new_v[:, d + 1] = 1
    lost = torch.empty(heads, n, dtype=torch.bool, device=q.device)
    # The two large tensors are made once: the pages of a new one cost as much as what is written to it.
    most = min(HEADS_TOGETHER, heads) * min(UPDATED_QUERIES, n) * m
    scratch = torch.empty(2, most, dtype=accurate, device=q.device)
    for h, block in _blocks(heads, n, HEADS_TOGETHER, UPDATED_QUERIES):
        queries = q[h, block].transpose(1, 2).to(accurate)
        less = lse[h, block].unsqueeze(1) * LOG2_E  # (h, 1, n)
        shape = (len(less), m, less.shape[2])
        bias, weights = (x[: math.prod(shape)].view(shape) for x in scratch)
        if rel is None:
            torch.neg(less.expand(shape), out=bias)
        else:
            by_row, *by_column = (
                (x[h, block].to(accurate) * LOG2_E).transpose(1, 2).contiguous() for x in rel
            )
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


def _accurate(dtype: torch.dtype) -> torch.dtype:
    """The type in which scores are exponentiated and summed: single precision at least."""
    return torch.promote_types(dtype, torch.float32)


class FastState:
    """What attention keeps between the frames of one batch of streams on the fast path.

    Tokens are kept heads first, in the order of their layout, the streams one after the other: T = B N.

    variant: without a gate nothing is kept. With sparse_qk the result is updated, unless there are few keys, or
        windows, and else computed anew in each frame; with rows that of a query that did not change stays as it is.
    """

    of_streams = dict.fromkeys(("q", "k", "v", "out", "lse"), 1)
    """Along which axis streams follow one another, where that is not the first."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.q: Tensor | None = None  # (H, T, d)
        self.k: Tensor | None = None  # (H, T, d)
        self.v: Tensor | None = None  # (H, T, d)
        self.out: Tensor | None = None  # (H, T, d), where there are windows or it is updated
        self.lse: Tensor | None = None  # (H, T), where out is updated
        self.frame: Tensor | None = None  # (B,), int64, later frames so far, where out is updated

    @named("attention")
    def __call__(
        self,
        qkv: Tensor,
        changed: list[Tensor] | None,
        layout: Layout,
        scale: float,
        positions: Positions | None,
        pad: Tensor | None = None,
    ) -> Tensor:
        """Attend to all tokens.

        Args:
            qkv: queries, keys and values of the tokens that changed, (K, 3, H, d); on the flush and without gates of
                all, (B, N, 3, H, d), in the order of the layout.
            changed: where the tokens that changed stand in the layout, stream by stream; None for all.
            layout: of a stream.
            scale: of the product of a query and a key.
            positions: relative ones.
            pad: (2, H, d), k and v of the tokens that pad a window; needed where there are windows.

        Returns:
            (H, T, d). It may be the state itself: read it, do not write to it.
        """
        if changed is None or self.q is None:
            self._flush(qkv, layout)
            out = self._attend_anew(layout, scale, positions, pad, None)
            if self.variant.gate is None:
                self.q = self.k = self.v = self.out = None
            return out
        index = torch.cat([tokens + i * layout.n for i, tokens in enumerate(changed)])
        assert self.k is not None
        assert self.v is not None
        old = None
        if self.lse is not None:
            old = self.k.index_select(1, index), self.v.index_select(1, index)
        for x, new in zip((self.q, self.k, self.v), qkv.permute(1, 2, 0, 3), strict=True):
            x.index_copy_(1, index, new)
        if old is not None:
            return self._attend_updated(old, changed, layout, scale, positions)
        return self._attend_anew(layout, scale, positions, pad, index)

    def attention(self, stream: int, layout: Layout, scale: float, positions: Positions | None) -> Tensor:
        """How the queries of a stream that are kept attend to its keys, root mean square over heads, (N, N).

        There are neither windows nor a pool. For the arguments, see above; `stream` is its number in the batch.
        """
        assert self.q is not None
        assert self.k is not None
        tokens, n = layout.windows[0].tokens(stream * layout.n), layout.n
        q, k = self.q[:, tokens], self.k[:, tokens].transpose(1, 2)
        found = q.new_empty(n, n, dtype=_accurate(q.dtype))
        for block in torch.arange(n, device=q.device).split(max(1, SCORES // n)):
            some = q.index_select(1, block)
            scores = matmul(some, k).to(found.dtype) * scale
            if positions is not None:
                rel = positions.of_some(some, block)
                record("add", len(rel) * scores.numel())
                scores += _bias(rel, slice(None), slice(None))
            found[block] = scores.softmax(-1).square().mean(0).sqrt()
        return found

    def _flush(self, qkv: Tensor, layout: Layout) -> None:
        qkv = qkv.permute(2, 3, 0, 1, 4).flatten(2, 3)  # (3, H, T, d)
        if math.prod(layout.keys(self.variant.pool)) >= LONG:
            qkv = qkv.contiguous()
        self.q, self.k, self.v = qkv
        self.out = self.lse = self.frame = None

    def _attend_anew(
        self,
        layout: Layout,
        scale: float,
        positions: Positions | None,
        pad: Tensor | None,
        index: Tensor | None,
    ) -> Tensor:
        """Attend window by window; one in which nothing changed keeps its result, with rows each query that did not.

        index: where the tokens that changed stand among those of all streams, (K,); None for all.
        """
        assert self.q is not None
        assert self.k is not None
        assert self.v is not None
        windows, pool = layout.windows, self.variant.pool
        few = math.prod(layout.keys(pool)) < FEW_KEYS
        updated = self.variant.sparse_qk and len(windows) == 1 and (self.variant.rows or not few)
        lse = self.q.new_empty(self.q.shape[:2], dtype=_accurate(self.q.dtype)) if updated else None
        if self.out is None or index is None:
            out, touched = _tokens_first(self.q), list(range(len(windows) * self.q.shape[1] // layout.n))
        else:
            out, touched = self.out, layout.windows_of(index)
        for number in touched:
            window = windows[number % len(windows)]
            grid, tokens = (window.rows, window.columns), window.tokens(number // len(windows) * layout.n)
            q, k, v = self.q[:, tokens], self.k[:, tokens], self.v[:, tokens]
            if pool > 1:
                k, v = pooled(k, grid, pool), pooled(v, grid, pool)
            elif grid != layout.grid:
                assert pad is not None
                k, v = (_padded(x, grid, layout.grid, by) for x, by in ((k, pad[0]), (v, pad[1])))
            if self.variant.rows and index is not None:
                some = index[(index >= tokens.start) & (index < tokens.stop)] - tokens.start
                place = some // window.columns * layout.grid[1] + some % window.columns
                fresh_q = q.index_select(1, some)
                rel = None if positions is None else positions.of_some(fresh_q, place)
                out[:, tokens].index_copy_(1, some, attend(fresh_q, k, v, rel, scale)[0])
                continue
            rel = None if positions is None else positions.of(q, *grid)
            out[:, tokens], own_lse = attend(q, k, v, rel, scale)
            if lse is not None:
                lse[:, tokens] = own_lse
        if updated:
            self.lse, self.frame = lse, torch.zeros(self.q.shape[1] // layout.n, dtype=torch.int64)
        if updated or len(windows) > 1:
            self.out = out
        return out

    def _attend_updated(
        self,
        old: tuple[Tensor, Tensor],
        changed: list[Tensor],
        layout: Layout,
        scale: float,
        positions: Positions | None,
    ) -> Tensor:
        """Replace what the changed keys gave to all queries. There are no windows.

        old: k and v of the tokens that changed as they were, (H, K, d) each.
        """
        assert self.q is not None
        assert self.k is not None
        assert self.v is not None
        assert self.out is not None
        assert self.lse is not None
        assert self.frame is not None
        (window,), pool, counts = layout.windows, self.variant.pool, [len(index) for index in changed]
        n_keys = math.prod(layout.keys(pool))
        self.frame += 1
        parts = zip(changed, old[0].split(counts, 1), old[1].split(counts, 1), strict=True)
        for stream, (index, old_k, old_v) in enumerate(parts):
            tokens = window.tokens(stream * layout.n)
            q, k, v, out, lse = (x[:, tokens] for x in (self.q, self.k, self.v, self.out, self.lse))
            if pool > 1:
                keys, old_pooled, k, v = _pooled_change(index, old_k, old_v, k, v, layout, pool)
            else:
                keys, old_pooled = index, (old_k, old_v)
            rel: Rel | None = None
            if self.variant.rows:
                fresh, fresh_q = index, q.index_select(1, index)
                if positions is not None:
                    rel = positions.of_some(fresh_q, index)
            else:
                if positions is not None:
                    rel = positions.of(q, window.rows, window.columns)
                # An update is of all queries, and of each key that changed as it was and as it is.
                cost = len(index) * n_keys + 2 * len(keys) * layout.n
                if cost >= layout.n * n_keys:
                    out[:], lse[:] = attend(q, k, v, rel, scale)
                    continue
                must = torch.zeros(layout.n, dtype=torch.bool, device=q.device)
                must[index] = True
                every = REFRESH[q.dtype]
                must[int(self.frame[stream]) % every :: every] = True
                if len(keys):
                    new = k.index_select(1, keys), v.index_select(1, keys)
                    must |= update(out, lse, q, rel, old_pooled, new, keys, scale).any(0)
                fresh = must.nonzero().flatten()
                fresh_q = q.index_select(1, fresh)
                if rel is not None:
                    rel = tuple(x.index_select(1, fresh) for x in rel)
            fresh_out, fresh_lse = attend(fresh_q, k, v, rel, scale)
            out.index_copy_(1, fresh, fresh_out)
            lse.index_copy_(1, fresh, fresh_lse)
        return self.out


def _tokens_first(x: Tensor) -> Tensor:
    """Make an empty (H, T, d) in the memory order of (T, H, d), which is that of the tokens that leave attention."""
    return x.new_empty(x.shape[1], x.shape[0], x.shape[2]).transpose(0, 1)


def _padded(x: Tensor, grid: Grid, whole_grid: Grid, by: Tensor) -> Tensor:
    """Pad a window (H, rows x columns, d) at the bottom and the right with tokens `by` (H, d)."""
    whole = by[:, None, None].expand(-1, *whole_grid, -1).clone()
    whole[:, : grid[0], : grid[1]] = x.unflatten(1, grid)
    return whole.flatten(1, 2)


def _pooled_change(
    index: Tensor, old_k: Tensor, old_v: Tensor, k: Tensor, v: Tensor, layout: Layout, pool: int
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor, Tensor]:
    """Pool k and v, and find the pooled keys that changed and what they were.

    Args:
        index: the tokens that changed.
        old_k, old_v: of these, before the frame, (H, K, d).
        k, v: of all, (H, N, d).
        layout: without windows.
        pool: see `pooled`.

    Returns:
        The pooled keys that changed, (m,); pooled k and v of these before the frame, (H, m, d) each; and pooled k and
        v of all, (H, Nk, d) each.
    """
    grid, (rows, columns) = layout.grid, layout.keys(pool)
    y, x = index // grid[1] // pool, index % grid[1] // pool
    inside = (y < rows) & (x < columns)  # an odd edge is in no square
    keys = (y * columns + x)[inside].unique()
    before = []
    for old, now in ((old_k, k), (old_v, v)):
        change = torch.zeros_like(now[:, : rows * columns])
        share = (now.index_select(1, index) - old)[:, inside] / pool**2
        change.index_add_(1, (y * columns + x)[inside], share)
        before.append((pooled(now, grid, pool) - change).index_select(1, keys))
    return keys, (before[0], before[1]), pooled(k, grid, pool), pooled(v, grid, pool)
