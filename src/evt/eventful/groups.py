"""Which queries attend to which keys: those of a window of a stream to the keys of that window."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from evt.eventful.layout import Layout, Window


class Group(NamedTuple):
    """Queries of one window of one stream.

    stream: its number.
    tokens: of the window, among those of all streams.
    some: the queries that attend, as places in the window, (n,) int64; None for all.
    """

    stream: int
    window: Window
    tokens: slice
    some: Tensor | None


@dataclass(frozen=True)
class Groups:
    """The queries that attend in a frame, by window and stream; streams' tokens follow one another.

    layout: of a stream.
    pool: squares of so many keys are one; see `evt.eventful.layout.pooled`. Then there is one window.
    numbers: of each group, stream * windows + window; they rise.
    some: of each group the queries that attend, as places among the tokens of all streams; None for all of them.
    """

    layout: Layout
    pool: int
    numbers: list[int]
    some: list[Tensor] | None = None

    @classmethod
    def touched(cls, layout: Layout, tokens: list[Tensor]) -> Groups:
        """All queries of the windows that hold some tokens, of each stream their places in the layout."""
        return cls(layout, 1, _numbers(layout, among_all(layout, tokens)).unique().tolist())

    @classmethod
    def of(cls, layout: Layout, pool: int, tokens: list[Tensor]) -> Groups:
        """Some queries, of each stream their places in the layout."""
        index = among_all(layout, tokens)
        if len(layout.windows) == 1:
            return cls(
                layout, pool, list(range(len(tokens))), list(index.split([len(own) for own in tokens]))
            )
        index = index.sort().values
        numbers, counts = _numbers(layout, index).unique_consecutive(return_counts=True)
        return cls(layout, pool, numbers.tolist(), list(index.split(counts.tolist())))

    @property
    def n_keys(self) -> int:
        """Keys of a group, with those that pad a window."""
        return math.prod(self.layout.keys(self.pool))

    @property
    def n_queries(self) -> int:
        """Queries of all groups."""
        return sum(group.window.n if group.some is None else len(group.some) for group in self)

    def __iter__(self) -> Iterator[Group]:
        windows = self.layout.windows
        for i, number in enumerate(self.numbers):
            stream, window = number // len(windows), windows[number % len(windows)]
            tokens = window.tokens(stream * self.layout.n)
            yield Group(stream, window, tokens, None if self.some is None else self.some[i] - tokens.start)

    def queries(self) -> list[Tensor]:
        """Of each group, places among the tokens of all streams, (n,) int64."""
        if self.some is not None:
            return self.some
        return [torch.arange(group.tokens.start, group.tokens.stop) for group in self]

    def places(self, queries: Tensor) -> Tensor:
        """Where queries stand in the grid of a window that is whole, row by row."""
        return _tables(self.layout)[0].index_select(0, queries % self.layout.n)

    def keys(self) -> Tensor:
        """Of each group the places of its keys among those of all streams, -1 for padding, (groups, Nk) int64."""
        numbers = torch.tensor(self.numbers, dtype=torch.int64)
        if self.pool > 1:
            return numbers[:, None] * self.n_keys + torch.arange(self.n_keys)
        n_windows = len(self.layout.windows)
        keys = _tables(self.layout)[1].index_select(0, numbers % n_windows)
        return torch.where(keys < 0, keys, keys + (numbers // n_windows * self.layout.n)[:, None])


def among_all(layout: Layout, tokens: list[Tensor]) -> Tensor:
    """Of places in the layout of each stream those among the tokens of all streams."""
    return torch.cat([own + stream * layout.n for stream, own in enumerate(tokens)])


def _numbers(layout: Layout, index: Tensor) -> Tensor:
    """Of tokens, the number of the group that each is in, see `Groups`."""
    starts = _starts(layout).to(index.device)
    window = torch.searchsorted(starts, index % layout.n, right=True) - 1
    return index // layout.n * len(layout.windows) + window


@lru_cache(maxsize=16)
def _starts(layout: Layout) -> Tensor:
    """Of each window its first token."""
    return torch.tensor([window.start for window in layout.windows])


@lru_cache(maxsize=16)
def _tables(layout: Layout) -> tuple[Tensor, Tensor]:
    """Of each token of a stream its place in the grid of a whole window; and of each window its keys."""
    n_keys = layout.grid[0] * layout.grid[1]
    places, keys = torch.empty(layout.n, dtype=torch.int64), torch.full((len(layout.windows), n_keys), -1)
    whole = torch.arange(n_keys).view(layout.grid)
    for window, own in zip(layout.windows, keys, strict=True):
        place = whole[: window.rows, : window.columns].flatten()
        places[window.tokens(0)] = place
        own[place] = torch.arange(window.start, window.start + window.n)
    return places, keys
