"""Multi-head self-attention with windows, pooling and decomposed relative positions, dense or updated sparsely."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.eventful.counting import Linear, add, add_, einsum, matmul, record
from evt.eventful.derived import Derived
from evt.eventful.fast import FastState
from evt.eventful.gate import Buffer, no_buffer
from evt.eventful.layout import Grid, Layout, pooled
from evt.eventful.policy import Selection
from evt.eventful.positions import Biases, Positions, Vectors
from evt.eventful.products import AttentionValueProduct, QueryKeyProduct
from evt.eventful.profiling import named
from evt.eventful.rotary import Rotary
from evt.eventful.variant import Variant


class AttentionState:
    """What attention keeps between the frames of one batch of streams; of the dense model, nothing."""

    def __init__(self, variant: Variant) -> None:
        reference = not variant.fast
        self.pool = variant.pool
        self.av_dtype = None if variant.av_dtype is None else getattr(torch, variant.av_dtype)
        self.fast = FastState(variant) if variant.fast else None
        self.buffer = Buffer() if variant.gate is not None and reference else no_buffer
        self.query_key = QueryKeyProduct() if variant.sparse_qk and reference else None
        self.attention_value = AttentionValueProduct() if variant.sparse_av and reference else None


class Attention(nn.Module):
    """The weights of self-attention, and all that is computed between its layers `qkv` and `proj`.

    Args:
        dim: width D of a token.
        num_heads: H; D must be a multiple of it.
        grid: tokens as (rows, columns); None where they form no grid (then no windows, pooling or rel_pos).
        window_size: side of the square windows in tokens, None for global attention.
        rel_pos_grid: side of the grid for which the relative-position tables were made, None for no relative
            positions. Windows always have tables of their own size.

    Raises:
        ValueError: num_heads does not divide dim.
    """

    places: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        grid: Grid | None = None,
        window_size: int | None = None,
        rel_pos_grid: int | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim is {dim} and num_heads {num_heads}: dim must be a multiple of num_heads")
        self.num_heads = num_heads
        self.grid: Grid | None = None
        self.window_size = window_size
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        head_dim = dim // num_heads
        self.scale = 1 / math.sqrt(head_dim)
        self.rel_pos_h: nn.Parameter | None = None
        self.rel_pos_w: nn.Parameter | None = None
        if rel_pos_grid is not None:
            side = rel_pos_grid if window_size is None else window_size
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, head_dim))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, head_dim))
        self.rel_pos_of_distances = False  # see `rel_pos_table`
        # What each head adds to the score of each pair of tokens, (H, N, N), if anything.
        self.pair_bias: nn.Module | None = None
        self._row_table, self._column_table = Derived(rel_pos_table), Derived(rel_pos_table)
        self.layout: Layout | None = None
        if grid is not None:
            self.resize(grid)

    def resize(self, grid: Grid) -> None:
        """Take tokens of this grid from now on; the weights are the same for any."""
        self.grid, self.layout = grid, Layout.of(grid, self.window_size)
        places = self.layout.places(grid)
        self.register_buffer("places", places.to(next(self.parameters()).device), persistent=False)

    def forward(
        self, qkv: Tensor, changed: Selection | None, state: AttentionState, rotary: Rotary | None = None
    ) -> Tensor:
        """Attend, to (B, N, D).

        Args:
            qkv: the queries, keys and values of the tokens that changed since the last frame, (K, 3D); of all on the
                flush and without gates, (B, N, 3D).
            changed: which tokens these are; None for all.
            state: what is kept from the last frame, updated here.
            rotary: turns queries and keys, if it is given.

        Returns:
            It may be the state itself: read it, do not write to it.
        """
        if state.pool > 1 and self.grid is None:
            raise ValueError(
                f"pool is {state.pool}, but the tokens of this model form no grid: pool must be 1"
            )
        if rotary is not None:
            qkv = rotary(qkv.unflatten(-1, (3, self.num_heads, -1)), changed).flatten(-3)
        if state.fast is not None:
            return self._attend_fast(qkv, changed, state.fast)
        qkv = state.buffer(qkv, changed)
        if self.window_size is None:
            return self._attend(qkv, self.grid, changed, state)
        windows = self._attend(self._partition(qkv), (self.window_size, self.window_size), changed, state)
        return self._join(windows, qkv.shape[0])

    @named("attention")
    def _attend(
        self, qkv: Tensor, grid: Grid | None, changed: Selection | None, state: AttentionState
    ) -> Tensor:
        """Compute the paper's products, over all tokens or those of each window: (B, N, 3D) to (B, N, D)."""
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, N, d) each
        changed_k = changed
        if state.pool > 1 and grid is not None:
            k, v = (
                pooled(x.flatten(0, 1), grid, state.pool).unflatten(0, x.shape[:2]) for x in (k, v)
            )  # (B, H, Nk, d)
            if changed is not None:
                changed_k = pool_selection(changed, grid, state.pool)

        scaled_q = q * self.scale
        if state.query_key is not None:
            b = state.query_key(scaled_q, k, changed, changed_k)  # (B, H, N, Nk)
        else:
            b = matmul(scaled_q, k.transpose(-2, -1))
        if self.rel_pos_h is not None and grid is not None:
            b = self._add_rel_pos(b, q, grid, state.pool, in_place=state.query_key is None)
        if self.pair_bias is not None:
            b = add(b, self.pair_bias())
        a = b.softmax(dim=-1)
        if state.av_dtype is not None:
            a, v = a.to(state.av_dtype), v.to(state.av_dtype)
        if state.attention_value is not None:
            av = state.attention_value(a, v, changed_k)  # (B, H, N, d)
        else:
            av = matmul(a, v)
        return av.to(qkv.dtype).transpose(1, 2).flatten(2)

    def _attend_fast(self, qkv: Tensor, changed: Selection | None, state: FastState) -> Tensor:
        """Attend as `_attend` does, but as `FastState` has it: (K, 3D) or (B, N, 3D) to (B, N, D)."""
        n_tokens = qkv.shape[1] if changed is None else changed.n_tokens
        layout = self._layout(n_tokens)
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))  # (K, 3, H, d) or (B, N, 3, H, d)
        tokens = None if changed is None else changed.per_stream()
        if self.window_size is not None:
            if tokens is None:
                qkv = self._laid_out(qkv)
            else:
                tokens = [self.places[stream] for stream in tokens]
        positions = self._positions(layout, state.variant.pool, qkv.dtype)
        pad = None
        if any((window.rows, window.columns) != layout.grid for window in layout.windows):
            pad = self._padding(qkv).view(3, self.num_heads, -1)[1:]
        out = state(qkv, tokens, layout, self.scale, positions, pad)  # (H, B N, d)
        out = out.unflatten(1, (-1, n_tokens)).permute(1, 2, 0, 3)  # (B, N, H, d)
        return (out if self.window_size is None else self._in_order(out)).flatten(2)

    def attention(self, state: AttentionState, stream: int, n_tokens: int) -> Tensor:
        """How the tokens of a stream attended to one another at last, (N, N); see `FastState.attention`."""
        assert state.fast is not None
        assert state.fast.q is not None
        layout = self._layout(n_tokens)
        positions = self._positions(layout, state.fast.variant.pool, state.fast.q.dtype)
        return state.fast.attention(stream, layout, self.scale, positions)

    def kept(self, state: AttentionState, of: Literal["keys", "values"], streams: slice, n: int) -> Tensor:
        """The keys or values that are kept of some streams of n tokens each, (B, N, D)."""
        assert state.fast is not None
        kept = state.fast.k if of == "keys" else state.fast.v  # (H, T, d)
        assert kept is not None
        kept = kept.unflatten(1, (-1, n))[:, streams].permute(1, 2, 0, 3)  # (B, N, H, d)
        return (kept if self.window_size is None else self._in_order(kept)).flatten(2)

    def _layout(self, n_tokens: int) -> Layout:
        return self.layout or Layout.of((1, n_tokens))

    def _positions(self, layout: Layout, pool: int, dtype: torch.dtype) -> Positions | None:
        """What is added to scores, if anything is."""
        if self.pair_bias is not None:
            return Biases(self.pair_bias().to(dtype))
        if self.rel_pos_h is not None and self.grid is not None:
            return Vectors(*self._rel_pos_tables(layout.grid, pool))
        return None

    @named("windows")
    def _laid_out(self, x: Tensor) -> Tensor:
        """Put tokens (B, N, ...) in the order of the layout."""
        return torch.empty_like(x).index_copy_(1, self.places, x)

    @named("windows")
    def _in_order(self, x: Tensor) -> Tensor:
        """Undo `_laid_out`."""
        return x.index_select(1, self.places)

    def _add_rel_pos(self, b: Tensor, q: Tensor, grid: Grid, pool: int, in_place: bool) -> Tensor:
        """Add to b (B, H, N, Nk) the product of each query with its row's and its column's vector of each key."""
        rows, columns = self._rel_pos_tables(grid, pool)
        q = q.unflatten(2, grid)  # (B, H, h, w, d)
        rel_h = einsum("bnhwd,hkd->bnhwk", q, rows).unsqueeze(-1)  # (B, H, h, w, kh, 1)
        rel_w = einsum("bnhwd,wkd->bnhwk", q, columns).unsqueeze(-2)  # (B, H, h, w, 1, kw)
        b_grid = b.unflatten(2, grid).unflatten(4, (rows.shape[1], columns.shape[1]))
        b_grid = add_(b_grid, rel_h) if in_place else add(b_grid, rel_h)
        b_grid = add_(b_grid, rel_w)
        return b_grid.flatten(4, 5).flatten(2, 3)  # (B, H, N, Nk)

    def _rel_pos_tables(self, grid: Grid, pool: int) -> tuple[Tensor, Tensor]:
        """Make the relative-position vectors of a grid's rows and of its columns, (h, kh, d) and (w, kw, d)."""
        assert self.rel_pos_h is not None
        assert self.rel_pos_w is not None
        rows, columns = grid
        of_distances = self.rel_pos_of_distances
        return (
            self._row_table(self.rel_pos_h, rows, pool, of_distances),
            self._column_table(self.rel_pos_w, columns, pool, of_distances),
        )

    @named("windows")
    def _partition(self, qkv: Tensor) -> Tensor:
        """Cut (B, N, 3D) into (B * windows, window_size^2, 3D), padded at the bottom and the right."""
        (height, width), (padded_h, padded_w), side = self._sides()
        x = qkv.unflatten(1, (height, width))  # (B, h, w, 3D)
        if (padded_h, padded_w) != (height, width):
            # A padded token is zero before the qkv layer, so after it the bias, which is counted once.
            record("bias", self.qkv.out_features)
            padded = self._padding(x).expand(x.shape[0], padded_h, padded_w, -1).clone()
            padded[:, :height, :width] = x
            x = padded
        x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # (B, h / s, s, w / s, s, 3D)
        return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)

    def _padding(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values of a token that is zero, (3D,), of the type of others."""
        bias = self.qkv.bias
        return qkv.new_zeros(self.qkv.out_features) if bias is None else bias.to(qkv.dtype)

    @named("windows")
    def _join(self, x: Tensor, batch: int) -> Tensor:
        """Undo `_partition`, (B * windows, window_size^2, D) to (B, N, D)."""
        (height, width), (padded_h, padded_w), side = self._sides()
        x = x.view(batch, padded_h // side, padded_w // side, side, side, -1).transpose(2, 3)
        return x.reshape(batch, padded_h, padded_w, -1)[:, :height, :width].flatten(1, 2)

    def _sides(self) -> tuple[Grid, Grid, int]:
        """Say what the sides of the grid are, of the grid padded to whole windows, and of a window."""
        assert self.grid is not None
        assert self.window_size is not None
        (height, width), side = self.grid, self.window_size
        return self.grid, (height + -height % side, width + -width % side), side


def rel_pos_table(rel_pos: Tensor, side: int, pool: int = 1, of_distances: bool = False) -> Tensor:
    """Make the relative-position vector of every (query, key) pair along one axis, (side, side // pool, d).

    Vectors that were made for another side are interpolated over pairs, bicubic, as by the paper's code; or over
    distances, linearly, as by detectron2's and SAM's. Pooled keys take the mean of theirs.

    Args:
        rel_pos: one vector for each distance, (2 * made_for - 1, d).
        side: of the grid, in tokens.
        pool: so many keys are one.
        of_distances: the latter.
    """
    if of_distances and len(rel_pos) != 2 * side - 1:
        rel_pos = F.interpolate(rel_pos.T.unsqueeze(0), 2 * side - 1, mode="linear").squeeze(0).T
    made_for = (len(rel_pos) + 1) // 2
    position = torch.arange(made_for, device=rel_pos.device)
    table = rel_pos[position[:, None] - position[None, :] + made_for - 1]  # (query, key, d)
    if made_for != side:
        table = table.permute(2, 0, 1).unsqueeze(0)  # (1, d, query, key)
        table = F.interpolate(table, (side, side), mode="bicubic", align_corners=False)
        table = table.squeeze(0).permute(1, 2, 0)
    if pool > 1:
        table = F.avg_pool1d(table.transpose(1, 2), pool).transpose(1, 2)
    return table


def pool_selection(selection: Selection, grid: Grid, pool: int) -> Selection:
    """Select the pooled tokens that hold a selected one: a max-pool of the mask (section 5.3)."""
    n_streams, n_pooled = len(selection.counts), (grid[0] // pool) * (grid[1] // pool)
    mask = torch.zeros(n_streams * selection.n_tokens, device=selection.index.device)
    mask[selection.index] = 1
    mask = F.max_pool2d(mask.view(n_streams, 1, *grid), pool).flatten(1) > 0  # (B, Nk)
    return Selection(mask.flatten().nonzero().flatten(), tuple(mask.sum(-1).tolist()), n_pooled)
