"""Multi-head self-attention with windows, pooling and decomposed relative positions, dense or updated sparsely."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.eventful.counting import add, add_, einsum, matmul, record
from evt.eventful.derived import Derived
from evt.eventful.fast import FastState, Layout, Window, pooled
from evt.eventful.gate import Buffer
from evt.eventful.parts import part
from evt.eventful.policy import Selection
from evt.eventful.products import AttentionValueProduct, QueryKeyProduct
from evt.eventful.variant import Variant

Grid = tuple[int, int]


class AttentionState:
    """What attention keeps between the frames of one batch of streams; nothing where it is dense."""

    def __init__(self, variant: Variant) -> None:
        self.fast = FastState(variant) if variant.fast else None
        self.buffer = Buffer() if variant.gate is not None and not variant.fast else None
        self.query_key = QueryKeyProduct() if variant.sparse_qk and not variant.fast else None
        self.attention_value = AttentionValueProduct() if variant.sparse_av and not variant.fast else None


class Attention(nn.Module):
    """The weights of self-attention, and what is computed between `qkv` and `proj`.

    Args:
        dim: width D of a token.
        num_heads: H; D must be a multiple of it.
        grid: tokens as (rows, columns); None where they form no grid (then no windows, pooling or rel_pos).
        window_size: side of the square windows in tokens, None for global attention.
        rel_pos_grid: side of the grid for which the relative-position tables were made, None for no relative
            positions. Windows always have tables of their own size.
    """

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
        self.grid = grid
        self.window_size = window_size
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        head_dim = dim // num_heads
        self.scale = 1 / math.sqrt(head_dim)
        self.rel_pos_h: nn.Parameter | None = None
        self.rel_pos_w: nn.Parameter | None = None
        if rel_pos_grid is not None:
            side = rel_pos_grid if window_size is None else window_size
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, head_dim))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, head_dim))
        self._row_table, self._column_table = Derived(rel_pos_table), Derived(rel_pos_table)

    def forward(
        self, qkv: Tensor, selection: Selection | None, variant: Variant, state: AttentionState
    ) -> Tensor:
        """Attend, to (B, N, D).

        Args:
            qkv: the queries, keys and values of the tokens that changed since the last frame, (K, 3D); of all on the
                flush and without gates, (B, N, 3D).
            selection: which tokens these are; None for all.
            variant: what is pooled.
            state: what is kept from the last frame, updated here.
        """
        if state.fast is not None:
            return self._fast(qkv, selection, variant, state.fast)
        if state.buffer is not None:
            with part("gate"):
                qkv = state.buffer(qkv, selection)
        if self.window_size is None:
            with part("attention"):
                return self._attend(qkv, self.grid, selection, variant, state)
        batch, n_tokens, _ = qkv.shape
        with part("windows"):
            qkv = self._partition_windows(qkv)  # (B * windows, window_size^2, 3D)
        with part("attention"):
            out = self._attend(qkv, (self.window_size, self.window_size), selection, variant, state)
        with part("windows"):
            return self._join_windows(out, batch, n_tokens)

    def _attend(
        self,
        qkv: Tensor,
        grid: Grid | None,
        selection: Selection | None,
        variant: Variant,
        state: AttentionState,
    ) -> Tensor:
        """The paper's products, over all tokens or those of each window: (B, N, 3D) to (B, N, D)."""
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, N, d) each
        selection_k = selection
        if variant.pool > 1:
            pool_grid = self._pooled(variant.pool)
            k, v = (
                pooled(x.flatten(0, 1), pool_grid, variant.pool).unflatten(0, x.shape[:2]) for x in (k, v)
            )  # (B, H, Nk, d)
            if selection is not None:
                selection_k = pool_selection(selection, pool_grid, variant.pool)

        scaled_q = q * self.scale
        if state.query_key is not None:
            b = state.query_key(scaled_q, k, selection, selection_k)  # (B, H, N, Nk)
        else:
            b = matmul(scaled_q, k.transpose(-2, -1))
        if self.rel_pos_h is not None and grid is not None:
            b = self._add_rel_pos(b, q, grid, variant.pool, in_place=state.query_key is None)
        a = b.softmax(dim=-1)
        if state.attention_value is not None:
            av = state.attention_value(a, v, selection_k)  # (B, H, N, d)
        else:
            av = matmul(a, v)
        return av.transpose(1, 2).flatten(2)

    def _fast(self, qkv: Tensor, selection: Selection | None, variant: Variant, state: FastState) -> Tensor:
        """The fast path, (K, 3D) or (B, N, 3D) to (B, N, D)."""
        n_tokens = qkv.shape[1] if selection is None else selection.n_tokens
        layout = self._layout(n_tokens, variant.pool, qkv.device)
        with part("attention"):
            out = self._attend_fast(qkv, selection, variant.pool, state, layout)
            out = out.unflatten(1, (-1, layout.n)).permute(1, 2, 0, 3)  # (B, tokens as laid out, H, d)
        with part("windows"):
            return (out if layout.places is None else out.index_select(1, layout.places)).flatten(2)

    def _attend_fast(
        self, qkv: Tensor, selection: Selection | None, pool: int, state: FastState, layout: Layout
    ) -> Tensor:
        tables = None
        if self.rel_pos_h is not None and self.grid is not None:
            side = self.window_size
            tables = self._rel_pos_tables(self.grid if side is None else (side, side), pool)
        pad = self.qkv.bias.to(qkv.dtype).view(3, self.num_heads, -1)[1:]
        places = None if selection is None else selection.per_stream()
        if places is not None and layout.places is not None:
            places = [layout.places[tokens] for tokens in places]
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))
        return state(qkv, places, layout, self.scale, tables, pad)

    def _layout(self, n_tokens: int, pool: int, device: torch.device) -> Layout:
        """The order of tokens on the fast path."""
        if self.window_size is None:
            grid = self._pooled(pool) if pool > 1 else self.grid or (1, n_tokens)
            return Layout([Window(0, *grid)], (grid[0] // pool, grid[1] // pool), None)
        assert self.grid is not None
        (height, width), side = self.grid, self.window_size
        windows, places, start = [], torch.empty(height, width, dtype=torch.long), 0
        for top in range(0, height, side):
            for left in range(0, width, side):
                window = Window(start, min(side, height - top), min(side, width - left))
                tokens = torch.arange(start, start + window.rows * window.columns)
                places[top : top + side, left : left + side] = tokens.view(window.rows, window.columns)
                windows.append(window)
                start += len(tokens)
        return Layout(windows, (side, side), places.flatten().to(device))

    def _pooled(self, pool: int) -> Grid:
        if self.grid is None:
            raise ValueError(f"pool is {pool}, but the tokens of this model form no grid: pool must be 1")
        return self.grid

    def _add_rel_pos(self, b: Tensor, q: Tensor, grid: Grid, pool: int, in_place: bool) -> Tensor:
        # b + q . table, where the table of (query, key) pairs is the sum of one for rows and one for columns.
        rows, columns = self._rel_pos_tables(grid, pool)
        q = q.unflatten(2, grid)  # (B, H, h, w, d)
        rel_h = einsum("bnhwd,hkd->bnhwk", q, rows).unsqueeze(-1)  # (B, H, h, w, kh, 1)
        rel_w = einsum("bnhwd,wkd->bnhwk", q, columns).unsqueeze(-2)  # (B, H, h, w, 1, kw)
        b_grid = b.unflatten(2, grid).unflatten(4, (rows.shape[1], columns.shape[1]))
        b_grid = add_(b_grid, rel_h) if in_place else add(b_grid, rel_h)
        b_grid = add_(b_grid, rel_w)
        return b_grid.flatten(4, 5).flatten(2, 3)  # (B, H, N, Nk)

    def _rel_pos_tables(self, grid: Grid, pool: int) -> tuple[Tensor, Tensor]:
        """For rows and for columns of a grid, (h, kh, d) and (w, kw, d)."""
        assert self.rel_pos_h is not None
        assert self.rel_pos_w is not None
        rows, columns = grid
        return self._row_table(self.rel_pos_h, rows, pool), self._column_table(self.rel_pos_w, columns, pool)

    def _padded(self) -> Grid:
        assert self.grid is not None
        assert self.window_size is not None
        height, width = self.grid
        return height + -height % self.window_size, width + -width % self.window_size

    def _partition_windows(self, qkv: Tensor) -> Tensor:
        """Cut (B, N, 3D) into (B * windows, window_size^2, 3D), padded at the bottom and the right."""
        assert self.grid is not None
        assert self.window_size is not None
        (height, width), (padded_h, padded_w) = self.grid, self._padded()
        x = qkv.unflatten(1, self.grid)  # (B, h, w, 3D)
        if (padded_h, padded_w) != self.grid:
            # A padded token is zero before the qkv layer, so after it the bias, which is counted once.
            record("bias", self.qkv.out_features)
            padded = self.qkv.bias.to(qkv.dtype).expand(len(x), padded_h, padded_w, -1).clone()
            padded[:, :height, :width] = x
            x = padded
        side = self.window_size
        x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # (B, h / s, s, w / s, s, 3D)
        return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)

    def _join_windows(self, x: Tensor, batch: int, n_tokens: int) -> Tensor:
        """Undo `_partition_windows`, (B * windows, window_size^2, D) to (B, N, D)."""
        assert self.grid is not None
        assert self.window_size is not None
        side, (padded_h, padded_w) = self.window_size, self._padded()
        x = x.view(batch, padded_h // side, padded_w // side, side, side, -1).transpose(2, 3)
        x = x.reshape(batch, padded_h, padded_w, -1)[:, : self.grid[0], : self.grid[1]]
        return x.reshape(batch, n_tokens, -1)


def rel_pos_table(rel_pos: Tensor, side: int, pool: int = 1) -> Tensor:
    """The relative-position vector of every (query, key) pair along one axis, (side, side // pool, d).

    A table made for another side is interpolated over pairs, bicubic; pooled keys take the mean of theirs.

    rel_pos: (2 * made_for - 1, d), one vector for each distance.
    """
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
    """The pooled tokens that hold a selected one: a max-pool of the mask (section 5.3)."""
    n_streams, n_pooled = len(selection.counts), (grid[0] // pool) * (grid[1] // pool)
    mask = torch.zeros(n_streams * selection.n_tokens, device=selection.index.device)
    mask[selection.index] = 1
    pooled = F.max_pool2d(mask.view(n_streams, 1, *grid), pool).flatten(1) > 0  # (B, Nk)
    return Selection(pooled.flatten().nonzero().flatten(), tuple(pooled.sum(-1).tolist()), n_pooled)
