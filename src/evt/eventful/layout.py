"""Where tokens stand: in the grid of a frame, in its windows, and in squares of which one key is made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]
"""Rows and columns."""


def check_grid(grid: Grid, n_places: int) -> None:
    """Refuse a grid of more or fewer tokens than there are that stand for a place.

    Raises:
        ValueError: it is one.
    """
    if grid[0] * grid[1] != n_places:
        raise ValueError(
            f"grid is ({grid[0]}, {grid[1]}), but {n_places} tokens of a frame stand for a place in it; rows x "
            "columns must be as many"
        )


@dataclass(frozen=True)
class Window:
    """A part of the grid of tokens; at an edge of the grid it is smaller than the others.

    start: where its tokens stand in the state, row by row.
    top, left: of its first token in the grid.
    """

    start: int
    top: int
    left: int
    rows: int
    columns: int

    @property
    def n(self) -> int:
        """Its tokens."""
        return self.rows * self.columns

    def tokens(self, offset: int) -> slice:
        """Where its tokens stand if those of its stream stand from an offset on."""
        return slice(offset + self.start, offset + self.start + self.n)


@dataclass(frozen=True)
class Layout:
    """The order of a stream's tokens in the state: window by window; global attention is one window.

    windows: of a stream.
    grid: tokens of a whole window as (rows, columns), to which those at an edge are padded.
    """

    windows: tuple[Window, ...]
    grid: Grid

    @classmethod
    def of(cls, grid: Grid, window_size: int | None = None) -> Layout:
        """Lay out a grid of tokens in windows of window_size^2, from left to right and from top to bottom."""
        if window_size is None:
            return cls((Window(0, 0, 0, *grid),), grid)
        (height, width), side = grid, window_size
        windows, start = [], 0
        for top in range(0, height, side):
            for left in range(0, width, side):
                windows.append(Window(start, top, left, min(side, height - top), min(side, width - left)))
                start += windows[-1].n
        return cls(tuple(windows), (side, side))

    @property
    def n(self) -> int:
        """Tokens of a stream."""
        return self.windows[-1].start + self.windows[-1].n

    def places(self, grid: Grid) -> Tensor:
        """Where each token of the grid stands, (N,) int64."""
        places = torch.empty(grid, dtype=torch.int64)
        for window in self.windows:
            tokens = torch.arange(window.start, window.start + window.n).view(window.rows, window.columns)
            places[window.top : window.top + window.rows, window.left : window.left + window.columns] = tokens
        return places.flatten()

    def keys(self, pool: int) -> Grid:
        """Keys of a whole window as (rows, columns), where squares of pool x pool of them are one."""
        return self.grid[0] // pool, self.grid[1] // pool


def pooled(x: Tensor, grid: Grid, pool: int) -> Tensor:
    """Average tokens over squares of the grid, (H, N, d) to (H, Nk, d)."""
    return F.avg_pool2d(x.transpose(1, 2).unflatten(-1, grid), pool).flatten(2).transpose(1, 2)
