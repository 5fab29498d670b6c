"""The fast path: self-attention without an N x N state, beside the paper's products.

For every query the result and the log-sum-exp of its scores are kept, instead of B = q k^T and A. Then a query that
changed is attended afresh, and from every other one the part of the keys that changed is taken away and put back with
their new values:

    e_j = exp(score_j - lse)            the attention of key j before the frame; all of them sum to 1
    z   = 1 - sum e_old + sum e_new     over the keys that changed
    o   = (o - e_old v_old + e_new v_new) / z,    lse = lse + log z

This is exact in q, k and v, so it equals dense attention on the buffered tokens, whereas equation 10 keeps the
attention of unchanged keys as it was when they last changed. It holds N D numbers instead of H N^2.

What computes it is a kernel of this package (`evt.eventful.kernel`), or torch where that does not run
(`evt.eventful.torch_attention`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from evt.eventful import kernel, torch_attention
from evt.eventful.counting import matmul, record
from evt.eventful.groups import Groups, among_all
from evt.eventful.layout import Layout, pooled
from evt.eventful.positions import Positions, bias_of
from evt.eventful.profiling import named
from evt.eventful.torch_attention import SCORES, accurate
from evt.eventful.variant import Variant

FEW_KEYS = 300
"""With fewer keys than this all queries are attended anew in every frame: that costs less than keeping the books."""

LONG = 1024
"""With this many keys it pays to copy q, k and v once, so that those of a head stand together."""

REFRESH = {torch.float64: 512, torch.float32: 512, torch.bfloat16: 64, torch.float16: 64}
"""Every query is computed afresh at least once in so many frames, so that rounding cannot pile up."""


class FastState:
    """What attention keeps between the frames of one batch of streams on the fast path.

    Tokens are kept heads first, in the order of their layout, the streams one after the other: T = B N.

    variant: without a gate nothing is kept. With sparse_qk the result is updated, unless there are few keys, or
        windows, and else computed anew in each frame; with rows that of a query that did not change stays as it is,
        and queries need not be kept, but for those who ask how they attended.
    """

    of_streams = dict.fromkeys(("q", "k", "v", "out", "lse"), 1)
    """Along which axis streams follow one another, where that is not the first."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.q: Tensor | None = None  # (H, T, d), not with rows, but where one selection is made a frame
        self.k: Tensor | None = None  # (H, T, d)
        self.v: Tensor | None = None  # (H, T, d)
        self.out: Tensor | None = None  # (H, T, d), where there are windows or rows, or it is updated
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
        if changed is None or self.k is None:
            q = self._flush(qkv, layout)
            out = self._attend_anew(q, layout, scale, positions, pad, None)
            if self.variant.gate is None:
                self.q = self.k = self.v = self.out = None
            return out
        index = among_all(layout, changed)
        assert self.v is not None
        old = None
        if self.lse is not None:
            old = self.k.index_select(1, index), self.v.index_select(1, index)
        q = _tokens_first(self.k) if self.q is None else self.q
        for x, new in zip((q, self.k, self.v), qkv.permute(1, 2, 0, 3), strict=True):
            x.index_copy_(1, index, new)
        if old is not None:
            return self._attend_updated(old, changed, layout, scale, positions)
        return self._attend_anew(q, layout, scale, positions, pad, changed)

    def attention(self, stream: int, layout: Layout, scale: float, positions: Positions | None) -> Tensor:
        """How the queries of a stream that are kept attend to its keys, root mean square over heads, (N, N).

        There are neither windows nor a pool. For the arguments, see above; `stream` is its number in the batch.
        """
        assert self.q is not None
        assert self.k is not None
        tokens, n = layout.windows[0].tokens(stream * layout.n), layout.n
        q, k = self.q[:, tokens], self.k[:, tokens].transpose(1, 2)
        found = q.new_empty(n, n, dtype=accurate(q.dtype))
        for block in torch.arange(n, device=q.device).split(max(1, SCORES // n)):
            some = q.index_select(1, block)
            scores = matmul(some, k).to(found.dtype) * scale
            if positions is not None:
                rel = positions.of_some(some, block)
                positions.count(*some.shape)
                record("add", len(rel) * scores.numel())
                scores += bias_of(rel)
            found[block] = scores.softmax(-1).square().mean(0).sqrt()
        return found

    def _flush(self, qkv: Tensor, layout: Layout) -> Tensor:
        """Keep q, k and v of all tokens; the first, (H, T, d)."""
        qkv = qkv.permute(2, 3, 0, 1, 4).flatten(2, 3)  # (3, H, T, d)
        keeps_q = not self.variant.rows or self.variant.gate == "frame"
        if keeps_q and math.prod(layout.keys(self.variant.pool)) >= LONG:
            qkv = qkv.contiguous()
        q, k, v = qkv
        self.k, self.v = (k, v) if keeps_q else (k.clone(), v.clone())  # else q would stay with them
        self.q = self.out = self.lse = self.frame = None
        if keeps_q:
            self.q = q
        return q

    def _attend_anew(
        self,
        q: Tensor,
        layout: Layout,
        scale: float,
        positions: Positions | None,
        pad: Tensor | None,
        changed: list[Tensor] | None,
    ) -> Tensor:
        """Attend window by window; one in which nothing changed keeps its result, with rows each query that did not.

        q: (H, T, d), of which those that changed are looked at.
        changed: see `__call__`.
        """
        windows, pool, rows = layout.windows, self.variant.pool, self.variant.rows
        few = math.prod(layout.keys(pool)) < FEW_KEYS
        updated = self.variant.sparse_qk and len(windows) == 1 and not (rows or few)
        n_streams = q.shape[1] // layout.n
        lse = q.new_empty(q.shape[:2], dtype=accurate(q.dtype)) if updated else None
        if self.out is None or changed is None:
            out = _tokens_first(q)
            groups = Groups(layout, pool, list(range(n_streams * len(windows))))
        else:
            out = self.out
            groups = Groups.of(layout, pool, changed) if rows else Groups.touched(layout, changed)
        if positions is not None:
            positions.count(len(q), groups.n_queries, q.shape[2])
        self._attend(q, self._keys(layout), out, lse, groups, positions, scale, pad)
        if updated:
            self.lse, self.frame = lse, torch.zeros(n_streams, dtype=torch.int64)
        if updated or rows or len(windows) > 1:
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
        assert self.out is not None
        assert self.frame is not None
        self.frame += 1
        kept = self._keys(layout)
        streams = Groups(layout, self.variant.pool, list(range(len(changed))))
        if positions is not None:
            positions.count(len(self.q), streams.n_queries, self.q.shape[2])
        fresh = self._update(old, changed, kept, streams, positions, scale)
        self._attend(self.q, kept, self.out, self.lse, fresh, positions, scale, None)
        return self.out

    def _update(
        self,
        old: tuple[Tensor, Tensor],
        changed: list[Tensor],
        kept: tuple[Tensor, Tensor],
        streams: Groups,
        positions: Positions | None,
        scale: float,
    ) -> Groups:
        """Replace what the changed keys gave to the results of all queries but those that are computed afresh.

        kept: all keys and their values.

        Returns:
            The queries that are to be computed afresh.
        """
        assert self.q is not None
        assert self.out is not None
        assert self.lse is not None
        assert self.frame is not None
        (heads, _, d), n, n_keys = self.q.shape, streams.layout.n, streams.n_keys
        if self.variant.pool > 1:
            assert self.k is not None
            assert self.v is not None
            keys, old = _pooled_changes(changed, old, (self.k, self.v), kept, streams)
        else:
            keys = changed
        # An update is of all queries, and of each key that changed as it was and as it is.
        cheaper = [
            len(index) * n_keys + 2 * len(own) * n < n * n_keys
            for index, own in zip(changed, keys, strict=True)
        ]
        must = ~torch.tensor(cheaper, device=self.q.device)[:, None].expand(-1, n).contiguous()
        for stream, (own, index) in enumerate(zip(must, changed, strict=True)):
            own[index] = True
            every = REFRESH[self.q.dtype]
            own[int(self.frame[stream]) % every :: every] = True
        which = [stream for stream, own in enumerate(keys) if cheaper[stream] and len(own)]
        if which:
            before_k, before_v = (
                torch.cat([parts[stream] for stream in which], 1)
                for parts in (x.split([len(own) for own in keys], 1) for x in old)
            )
            places = torch.cat([keys[stream] + stream * n_keys for stream in which])
            now = kept[0].index_select(1, places), kept[1].index_select(1, places)
            groups, of_each = replace(streams, numbers=which), [keys[stream] for stream in which]
            n_pairs = heads * n * len(places)
            record("matmul", 4 * n_pairs * d)
            record("accumulator", heads * n * len(which) * d)
            if positions is not None:
                record("add", 2 * positions.n_terms * n_pairs)
            update = kernel.update if kernel.serves(self.q) else torch_attention.update_groups
            lost = update(
                self.out, self.lse, self.q, (before_k, before_v), now, of_each, groups, positions, scale
            )
            must[which] |= lost.view(-1, n)
        return replace(
            streams, some=[own.nonzero().flatten() + stream * n for stream, own in enumerate(must)]
        )

    def _attend(
        self,
        q: Tensor,
        kept: tuple[Tensor, Tensor],
        out: Tensor,
        lse: Tensor | None,
        groups: Groups,
        positions: Positions | None,
        scale: float,
        pad: Tensor | None,
    ) -> None:
        """Attend with some queries to the keys that are kept, and count it; see `torch_attention.attend_groups`."""
        n_pairs = len(q) * groups.n_queries * groups.n_keys
        record("matmul", 2 * n_pairs * q.shape[2])
        if positions is not None:
            record("add", positions.n_terms * n_pairs)
        attend = kernel.attend if kernel.serves(q) else torch_attention.attend_groups
        attend(q, *kept, out, lse, groups, positions, scale, pad)

    def _keys(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """Keys and values, (H, T, d) each; pooled ones are (H, B Nk, d)."""
        assert self.k is not None
        assert self.v is not None
        if self.variant.pool == 1:
            return self.k, self.v
        k, v = (
            pooled(x.unflatten(1, (-1, layout.n)).flatten(0, 1), layout.grid, self.variant.pool)
            .unflatten(0, (len(x), -1))
            .flatten(1, 2)
            for x in (self.k, self.v)
        )
        return k, v


def _tokens_first(x: Tensor) -> Tensor:
    """Make an empty (H, T, d) in the memory order of (T, H, d), which is that of the tokens that leave attention."""
    return x.new_empty(x.shape[1], x.shape[0], x.shape[2]).transpose(0, 1)


def _pooled_changes(
    changed: list[Tensor],
    old: tuple[Tensor, Tensor],
    now: tuple[Tensor, Tensor],
    kept: tuple[Tensor, Tensor],
    streams: Groups,
) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
    """Find the pooled keys that changed and what they were.

    Args:
        changed: of each stream the tokens that changed.
        old: k and v of these, before the frame, (H, K, d) each.
        now: k and v of all, (H, T, d) each.
        kept: the same pooled, (H, B Nk, d) each.
        streams: without windows.

    Returns:
        Of each stream the pooled keys that changed, (m,); and pooled k and v of these before the frame, one stream
        after the other, (H, M, d) each.
    """
    layout, pool, n_keys = streams.layout, streams.pool, streams.n_keys
    rows, columns = layout.keys(pool)
    keys, squares, inside, tokens = [], [], [], []
    for stream, index in enumerate(changed):
        y, x = index // layout.grid[1] // pool, index % layout.grid[1] // pool
        inside.append((y < rows) & (x < columns))  # an odd edge is in no square
        own = (y * columns + x)[inside[-1]]
        keys.append(own.unique())
        squares.append(own + stream * n_keys)
        tokens.append(index + stream * layout.n)
    places = torch.cat([own + stream * n_keys for stream, own in enumerate(keys)])
    of_square, held, index = torch.cat(squares), torch.cat(inside), torch.cat(tokens)
    before = []
    for was, all_now, all_pooled in zip(old, now, kept, strict=True):
        change = torch.zeros_like(all_pooled)
        change.index_add_(1, of_square, (all_now.index_select(1, index) - was)[:, held] / pool**2)
        before.append((all_pooled - change).index_select(1, places))
    return keys, (before[0], before[1])
