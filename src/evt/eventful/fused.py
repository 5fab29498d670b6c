"""Self-attention without an N x N state: the fast path beside the paper's products.

For every query the result and the log-sum-exp of its scores are kept, instead of B = q k^T and A. Then a query that
changed is attended afresh, and from every other one the part of the keys that changed is taken away and put back with
their new values:

    e_j = exp(score_j - lse)            the attention of key j before the frame; all of them sum to 1
    z   = 1 - sum e_old + sum e_new     over the keys that changed
    o   = (o - e_old v_old + e_new v_new) / z,    lse = lse + log z

This is exact in q, k and v, so it equals dense attention on the buffered tokens, whereas equation 10 keeps the
attention of unchanged keys as it was when they last changed. It holds N D numbers instead of H N^2.

All is laid out for the cache: scores are (keys, queries), a block of queries at a time, so that a block stays in
cache from the first product to the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.eventful.counting import einsum, record
from evt.eventful.precision import wide

BLOCK = 128
"""Queries attended at a time over all keys; 4096 keys make a block of scores of 2 MB."""

UPDATE_BLOCK = 256
"""Queries updated at a time over the keys that changed."""

FEW_KEYS = 512
"""With fewer keys than this all queries are attended anew in every frame: that costs less than keeping the books."""

KEPT = {torch.float64: 1 / 32, torch.float32: 1 / 32, torch.bfloat16: 1 / 2, torch.float16: 1 / 4}
"""Of a query whose unchanged keys hold less than this share of its attention, all is computed afresh: what is left
after taking away the rest would have lost as many bits, 5 of float32's 24 and 1 of bfloat16's 8."""

REFRESH = {torch.float32: 512, torch.float64: 512, torch.bfloat16: 64, torch.float16: 64}
"""Every query is computed afresh at least once in so many frames, so that rounding cannot pile up."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, rel: Tensor | None, key_grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Attention of queries over all keys.

    Args:
        q: (H, n, d), scaled.
        k, v: (H, Nk, d).
        rel: (H, n, rows + columns), what is added to the score of a key for its row and its column in key_grid.
        key_grid: rows and columns of the keys; not looked at without rel.

    Returns:
        The result (H, n, d) and the log-sum-exp of each query's scores (H, n), in single precision at least: its
        error is a relative error of all that is taken away later.
    """
    heads, n, d = q.shape
    record("matmul", 2 * heads * n * k.shape[1] * d)
    out, lse = torch.empty_like(q), q.new_empty(heads, n, dtype=_accurate(q.dtype))
    q, k, v = wide(q), wide(k), wide(v)
    step = max(1, min(n, BLOCK * 4096 // (k.shape[1] * (heads if k.shape[1] < 1024 else 1))))
    # Short sequences take all heads at once, long ones a head at a time: either way a block stays in cache.
    groups = [slice(None)] if k.shape[1] < 1024 else [slice(h, h + 1) for h in range(heads)]
    for h in groups:
        for a in range(0, n, step):
            block = slice(a, a + step)
            scores = torch.bmm(k[h], q[h, block].transpose(1, 2)).to(lse.dtype)  # (h, Nk, block)
            if rel is not None:
                _add_rel(scores, rel[h, block].to(lse.dtype), key_grid)
            top = scores.amax(1, keepdim=True)
            scores.sub_(top).exp_()
            total = scores.sum(1, keepdim=True)
            out[h, block] = (torch.bmm(v[h].transpose(1, 2), scores.to(v.dtype)) / total).transpose(1, 2)
            lse[h, block] = (top + total.log()).squeeze(1)
    return out, lse


def _add_rel(scores: Tensor, rel: Tensor, key_grid: tuple[int, int]) -> None:
    rows = key_grid[0]
    rel = rel.transpose(1, 2).contiguous()  # (h, rows + columns, block)
    record("add", 2 * scores.numel())
    grid = scores.unflatten(1, key_grid)
    grid += rel[:, :rows].unsqueeze(2)
    grid += rel[:, rows:].unsqueeze(1)


def update(
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    rel: Tensor | None,
    old: tuple[Tensor, Tensor],
    new: tuple[Tensor, Tensor],
    keys: Tensor,
    key_grid: tuple[int, int],
) -> Tensor:
    """Replace the part that some keys have in the attention of all queries, in place.

    Args:
        out, lse: (H, N, d) and (H, N), as `attend` gives them.
        q, rel: see `attend`; as they were when out and lse were computed.
        old, new: k and v of the keys that changed, (H, m, d) each.
        keys: (m,), their places among all keys.
        key_grid: see `attend`.

    Returns:
        (H, N) bool: which results cannot be relied upon and must be computed afresh.
    """
    heads, n, d = q.shape
    m = len(keys)
    record("matmul", 4 * heads * n * m * d)
    record("accumulator", out.numel())
    k = wide(torch.cat([old[0], new[0]], 1))  # (H, 2m, d)
    v = wide(torch.cat([-old[1], new[1]], 1))
    row, column = keys // key_grid[1], keys % key_grid[1]
    lost = torch.empty(heads, n, dtype=torch.bool, device=q.device)
    for h in range(heads):
        for a in range(0, n, UPDATE_BLOCK):
            block = slice(a, a + UPDATE_BLOCK)
            scores = torch.mm(k[h], wide(q[h, block]).T).to(lse.dtype)  # (2m, block)
            if rel is None:
                bias = -lse[h, block].expand(m, -1)
            else:
                record("add", 2 * scores.numel())
                rel_t = rel[h, block].T.to(lse.dtype).contiguous()
                bias = rel_t[: key_grid[0]].index_select(0, row)
                bias += rel_t[key_grid[0] :].index_select(0, column)
                bias -= lse[h, block]
            both = scores.view(2, m, -1)
            both += bias
            taken, put = scores.exp_().view(2, m, -1).sum(1)
            kept = 1 - taken
            z = kept + put
            lost[h, block] = ~((kept > KEPT[out.dtype]) & torch.isfinite(z))
            part = torch.mm(v[h].T, scores.to(v.dtype)).T
            part += out[h, block]
            out[h, block] = part / z.unsqueeze(1)
            lse[h, block] += z.log()
    return lost


def _accurate(dtype: torch.dtype) -> torch.dtype:
    """The type in which scores are exponentiated and summed: single precision at least."""
    return torch.promote_types(dtype, torch.float32)


Tables = tuple[Tensor, Tensor]
"""The relative-position vectors of (query, key) pairs for rows and for columns, (side, key side, d) each."""


@dataclass(frozen=True)
class Window:
    """Where a window's tokens stand in the state: from `start` on, row by row; fewer of them at an edge."""

    start: int
    rows: int
    columns: int

    @property
    def tokens(self) -> slice:
        """Its tokens among those of its stream."""
        return slice(self.start, self.start + self.rows * self.columns)


@dataclass(frozen=True)
class Layout:
    """The order of a stream's tokens in the state: window by window; global attention is one window.

    windows: of a stream.
    key_grid: keys of each window as (rows, columns), those that pad it among them; pooled where keys are.
    places: (N,) int64, the place of each token; None where the order is the tokens' own.
    """

    windows: list[Window]
    key_grid: tuple[int, int]
    places: Tensor | None

    @property
    def n(self) -> int:
        """Tokens of a stream."""
        last = self.windows[-1]
        return last.start + last.rows * last.columns


class FusedState:
    """What attention keeps between the frames of one batch of streams on the fast path.

    Tokens are kept heads first, in the order of their layout, the streams' one after the other: T = B N.

    sparse: of the variant; the result is updated, not computed anew in every frame, unless there are few keys.
    rows: of the variant; the result of a query that did not change is left as it is.
    """

    def __init__(self, sparse: bool, rows: bool = False) -> None:
        self.sparse = sparse
        self.rows = rows
        self.frame: Tensor | None = None  # (), int64, later frames so far, where the result is kept
        self.q: Tensor | None = None  # (H, T, d), scaled
        self.k: Tensor | None = None  # (H, T, d)
        self.v: Tensor | None = None  # (H, T, d)
        self.rel: Tensor | None = None  # (H, T, rows + columns), where it is kept: for updates
        self.out: Tensor | None = None  # (H, T, d)
        self.lse: Tensor | None = None  # (H, T)

    def flush(self, qkv: Tensor, scale: float, tables: Tables | None, layout: Layout) -> None:
        """Take over all tokens of a first frame, (B, N, 3, H, d)."""
        if layout.places is not None:
            ordered = torch.empty_like(qkv)
            qkv = ordered.index_copy_(1, layout.places, qkv)
        self.q, self.k, self.v = qkv.permute(2, 3, 0, 1, 4).flatten(2, 3).contiguous()  # (H, T, d) each
        self.rel = None
        if self.keeps_result(layout) and tables is not None:
            (window,) = layout.windows
            self.rel = _rel_of(self.q, tables, window.rows, window.columns)
        self.q = self.q * scale
        self.out = self.lse = self.frame = None

    def keeps_result(self, layout: Layout) -> bool:
        """Whether the result is kept, to be updated."""
        few = layout.key_grid[0] * layout.key_grid[1] < FEW_KEYS
        return self.sparse and (self.rows or not few)

    def forget(self) -> None:
        """Keep nothing, where all tokens come anew in every frame."""
        self.q = self.k = self.v = None

    def write(self, qkv: Tensor, scale: float, tables: Tables | None, index: Tensor) -> tuple[Tensor, Tensor]:
        """Take over tokens that changed, (K, 3, H, d), at their places (K,); returns what k and v were there."""
        assert self.q is not None
        assert self.k is not None
        assert self.v is not None
        q, k, v = qkv.permute(1, 2, 0, 3)  # (H, K, d) each
        old = self.k.index_select(1, index), self.v.index_select(1, index)
        if self.rel is not None and tables is not None:
            n = len(tables[0]) * len(tables[1])
            self.rel.index_copy_(1, index, _rel_of_some(q, tables, index % n))
        self.q.index_copy_(1, index, q * scale)
        self.k.index_copy_(1, index, k)
        self.v.index_copy_(1, index, v)
        return old

    def attend_anew(
        self, layout: Layout, pool: int, scale: float, tables: Tables | None, pad: Tensor
    ) -> Tensor:
        """The attention of all tokens, (H, T, d), window by window.

        pad: (2, H, d), k and v of the tokens that pad a window.
        """
        assert self.q is not None
        assert self.k is not None
        assert self.v is not None
        out = _tokens_first(self.q)
        lse = self.q.new_empty(self.q.shape[:2], dtype=_accurate(self.q.dtype))
        for start in range(0, self.q.shape[1], layout.n):
            stream = slice(start, start + layout.n)
            q_all, k_all, v_all, out_all, lse_all = (x[:, stream] for x in (self.q, self.k, self.v, out, lse))
            for window in layout.windows:
                grid, tokens = (window.rows, window.columns), window.tokens
                q, k, v = q_all[:, tokens], k_all[:, tokens], v_all[:, tokens]
                if pool > 1:
                    k, v = pooled(k, grid, pool), pooled(v, grid, pool)
                elif grid != layout.key_grid:
                    k, v = (_padded(x, grid, layout.key_grid, by) for x, by in ((k, pad[0]), (v, pad[1])))
                rel = None
                if self.rel is not None:
                    rel = self.rel[:, stream]
                elif tables is not None:
                    rel = _rel_of(q, tables, *grid).div_(scale)
                out_all[:, tokens], lse_all[:, tokens] = attend(q, k, v, rel, layout.key_grid)
        if self.keeps_result(layout):
            self.out, self.lse, self.frame = out, lse, torch.zeros((), dtype=torch.int64)
        return out

    def attend_updated(
        self, old: tuple[Tensor, Tensor], per_stream: list[Tensor], layout: Layout, pool: int
    ) -> Tensor:
        """The attention of all tokens, (H, T, d), where only some changed; without windows.

        Args:
            old: k and v of the tokens that changed as they were, (H, K, d) each.
            per_stream: the tokens that changed in each stream.
            layout, pool: see `attend_anew`.
        """
        assert self.q is not None
        assert self.k is not None
        assert self.v is not None
        assert self.out is not None
        assert self.lse is not None
        assert self.frame is not None
        n, counts = layout.n, [len(index) for index in per_stream]
        n_keys = layout.key_grid[0] * layout.key_grid[1]
        self.frame += 1
        parts = zip(per_stream, old[0].split(counts, 1), old[1].split(counts, 1), strict=True)
        for stream, (index, old_k, old_v) in enumerate(parts):
            tokens = slice(stream * n, (stream + 1) * n)
            q, k, v, out, lse = (x[:, tokens] for x in (self.q, self.k, self.v, self.out, self.lse))
            rel = None if self.rel is None else self.rel[:, tokens]
            if pool > 1:
                keys, old_pooled, k, v = _pooled_change(index, old_k, old_v, k, v, layout, pool)
            else:
                keys, old_pooled = index, (old_k, old_v)
            if 3 * len(keys) >= n_keys and not self.rows:
                out[:], lse[:] = attend(q, k, v, rel, layout.key_grid)
                continue
            if not self.rows:
                fresh = torch.zeros(n, dtype=torch.bool, device=q.device)
                fresh[index] = True
                every = REFRESH[q.dtype]
                fresh[int(self.frame) % every :: every] = True
                if len(keys):
                    new = k.index_select(1, keys), v.index_select(1, keys)
                    fresh |= update(out, lse, q, rel, old_pooled, new, keys, layout.key_grid).any(0)
                index = fresh.nonzero().flatten()
            rel = None if rel is None else rel.index_select(1, index)
            o, part_lse = attend(q.index_select(1, index), k, v, rel, layout.key_grid)
            out.index_copy_(1, index, o)
            lse.index_copy_(1, index, part_lse)
        return self.out


def _tokens_first(x: Tensor) -> Tensor:
    """An empty (H, T, d) in the memory order of (T, H, d), which is that of the tokens that leave attention."""
    return x.new_empty(x.shape[1], x.shape[0], x.shape[2]).transpose(0, 1)


def _padded(x: Tensor, grid: tuple[int, int], key_grid: tuple[int, int], by: Tensor) -> Tensor:
    """Pad a window at the bottom and the right, (H, rows x columns, d) to (H, key rows x key columns, d)."""
    whole = by[:, None, None].expand(-1, *key_grid, -1).clone()
    whole[:, : grid[0], : grid[1]] = x.unflatten(1, grid)
    return whole.flatten(1, 2)


def _rel_of(q: Tensor, tables: Tables, rows: int, columns: int) -> Tensor:
    """What row and column of each key add to its score, (H, T, d) of whole grids to (H, T, key rows + columns)."""
    grid = q.unflatten(1, (-1, rows, columns))
    by_row = einsum("hbyxd,ykd->hbyxk", grid, tables[0][:rows])
    by_column = einsum("hbyxd,xkd->hbyxk", grid, tables[1][:columns])
    return torch.cat([by_row, by_column], -1).flatten(1, 3)


def _rel_of_some(q: Tensor, tables: Tables, place: Tensor) -> Tensor:
    """The same for tokens (H, K, d) at some places of a grid."""
    y, x = place // len(tables[1]), place % len(tables[1])
    tokens = q.transpose(0, 1)  # (K, H, d)
    both = torch.cat([tables[0][y], tables[1][x]], 1)  # (K, rows + columns, d)
    record("einsum", q.shape[0] * both.numel())
    return torch.bmm(wide(tokens), wide(both).transpose(1, 2)).transpose(0, 1).to(q.dtype)


def pooled(x: Tensor, grid: tuple[int, int], pool: int) -> Tensor:
    """Average tokens over squares of the grid, (H, N, d) to (H, Nk, d)."""
    return F.avg_pool2d(x.transpose(1, 2).unflatten(-1, grid), pool).flatten(2).transpose(1, 2)


def _pooled_change(
    index: Tensor, old_k: Tensor, old_v: Tensor, k: Tensor, v: Tensor, layout: Layout, pool: int
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor, Tensor]:
    """The pooled keys that changed, what they were, and all pooled k and v."""
    (window,) = layout.windows
    grid, (rows, columns) = (window.rows, window.columns), layout.key_grid
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
