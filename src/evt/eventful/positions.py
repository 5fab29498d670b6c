"""Relative positions: what is added to the score of a query and a key for where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from evt.eventful.counting import record
from evt.eventful.precision import wide

Rel = tuple[Tensor, ...]
"""What is added to the scores of queries: for a key's row and for its column, (H, n, key rows) and (H, n, key
columns); or one tensor, for each key, (H, n, Nk)."""


class Term(NamedTuple):
    """What is added for one coordinate of a query and a key, which is their place, divided, and its remainder.

    table: vectors of pairs of coordinates, by which a query is multiplied, (n, m, d); or numbers, (H, n, m).
    pairs: it is the latter.
    query, key: by what a place is divided, and what it is the remainder of; of the latter there are n and m.
    """

    table: Tensor
    pairs: bool
    query: tuple[int, int]
    key: tuple[int, int]


class Positions(Protocol):
    """Relative positions, of which queries, that fill a grid or stand at some places of it, get what is theirs.

    n_terms: how many numbers are added to a score.
    """

    n_terms: int

    def of(self, q: Tensor, rows: int, columns: int) -> Rel:
        """Of queries (H, T, d) that fill a grid."""

    def of_some(self, q: Tensor, place: Tensor) -> Rel:
        """Of queries (H, K, d) at some places."""

    def terms(self) -> list[Term]:
        """What both are made from."""

    def count(self, heads: int, n: int, d: int) -> None:
        """Count the operations of either, of so many queries (H, n, d)."""


@dataclass(frozen=True)
class Vectors:
    """Queries are multiplied by vectors of (query, key) pairs, for rows and for columns, (side, key side, d) each."""

    rows: Tensor
    columns: Tensor
    n_terms = 2

    def of(self, q: Tensor, rows: int, columns: int) -> Rel:
        """See `Positions`."""
        grid = q.unflatten(1, (rows, columns))
        by_row = _product("hyxd,ykd->hyxk", grid, self.rows[:rows])
        by_column = _product("hyxd,xkd->hyxk", grid, self.columns[:columns])
        return by_row.flatten(1, 2), by_column.flatten(1, 2)

    def of_some(self, q: Tensor, place: Tensor) -> Rel:
        """See `Positions`."""
        y, x = place // len(self.columns), place % len(self.columns)
        tables = ((self.rows, y), (self.columns, x))
        return tuple(_product("hnd,nkd->hnk", q, table.index_select(0, at)) for table, at in tables)

    def terms(self) -> list[Term]:
        """See `Positions`."""
        (n_rows, key_rows), (n_columns, key_columns) = self.rows.shape[:2], self.columns.shape[:2]
        return [
            Term(self.rows, False, (n_columns, n_rows), (key_columns, key_rows)),
            Term(self.columns, False, (1, n_columns), (1, key_columns)),
        ]

    def count(self, heads: int, n: int, d: int) -> None:
        """See `Positions`."""
        record("einsum", heads * n * (self.rows.shape[1] + self.columns.shape[1]) * d)


@dataclass(frozen=True)
class Biases:
    """What each head adds to the score of each pair of tokens, (H, N, N), which form no grid."""

    pairs: Tensor
    n_terms = 1

    def of(self, q: Tensor, rows: int, columns: int) -> Rel:
        """See `Positions`."""
        return (self.pairs,)

    def of_some(self, q: Tensor, place: Tensor) -> Rel:
        """See `Positions`."""
        return (self.pairs.index_select(1, place),)

    def terms(self) -> list[Term]:
        """See `Positions`."""
        _, n, m = self.pairs.shape
        return [Term(self.pairs, True, (1, n), (1, m))]

    def count(self, heads: int, n: int, d: int) -> None:
        """Nothing is multiplied."""


def bias_of(rel: Rel, heads: slice = slice(None), queries: slice = slice(None)) -> Tensor:
    """What is added to the scores of some heads and queries, (h, n, Nk)."""
    by_row, *by_column = (x[heads, queries] for x in rel)
    if not by_column:
        return by_row
    return torch.add(by_row.unsqueeze(3), by_column[0].unsqueeze(2)).flatten(2)


def _product(equation: str, q: Tensor, vectors: Tensor) -> Tensor:
    return torch.einsum(equation, wide(q), wide(vectors)).to(q.dtype)
