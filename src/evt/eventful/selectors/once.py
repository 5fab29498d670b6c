"""What selectors have in common: one selection a frame for the whole network, and whole frames now and then."""

from __future__ import annotations

import torch
from torch import Tensor

from evt.eventful.inside import Inside
from evt.eventful.layout import Grid
from evt.eventful.policy import Past, Selection, Selects, check_room, taken, tokens_of, top
from evt.eventful.setting import Checked, at_least_1, number_or_share


class Once:
    """Select all tokens in every k-th frame after the flush, and in the others as a subclass says.

    every: k; None is never.
    needs_grid: its tokens must form a grid that is known.
    looks_at_boxes: it must be told what was found, see `evt.eventful.Stream.saw`.
    looks_at_motion: it must be told what the codec moved, see `evt.eventful.Stream.moves`.

    Raises:
        ValueError: every is not a whole number of at least 1.
    """

    counts_tokens = False
    selects: Selects = "tokens once a frame"
    needs_grid = False
    looks_at_boxes = False
    looks_at_motion = False

    every = Checked(lambda name, every: None if every is None else at_least_1(name, every))

    def __init__(self, every: int | None) -> None:
        self.every = every

    def check(self, n_tokens: int) -> None:
        """Frames of any number of tokens will do."""

    def __call__(self, error: Tensor, past: Past) -> Selection:
        """Select by the errors of all tokens, (B, N, D), and by what else a subclass looks at."""
        if self.every is not None and past.number % self.every == 0:
            return top(error.new_zeros(error.shape[:2]), error.shape[1])
        assert past.inside is not None
        return self.some(error, past, past.inside)

    def some(self, error: Tensor, past: Past, inside: Inside) -> Selection:
        """Select in a frame that is not run whole; tokens whose errors are infinite must pass."""
        raise NotImplementedError


class Keep(Once):
    """The `keep` most important tokens; see `Once`.

    keep: a whole number of tokens, or their share of all, as that of `TopR`; it may change before any frame.

    Raises:
        ValueError: keep is neither or, at selection, larger than the token count.
    """

    keep = Checked(number_or_share)

    def __init__(self, keep: float, every: int | None) -> None:
        super().__init__(every)
        self.keep = keep

    def check(self, n_tokens: int) -> None:
        """Refuse frames of this many tokens where they are fewer than keep.

        Raises:
            ValueError: they are.
        """
        check_room("keep", self.keep, n_tokens)

    def some(self, error: Tensor, past: Past, inside: Inside) -> Selection:
        """See `Once`."""
        n_tokens = error.shape[1]
        self.check(n_tokens)
        change = torch.linalg.vector_norm(error, dim=-1)  # (B, N)
        importance = self.importance(change, past, inside).masked_fill(change == torch.inf, torch.inf)
        # What is as important as others is taken by its change, which tells nearly all apart.
        by_change = change.argsort(-1, descending=True)
        order = importance.gather(-1, by_change).argsort(dim=-1, descending=True, stable=True)
        return taken(by_change.gather(-1, order)[:, : tokens_of(self.keep, n_tokens)], n_tokens)

    def importance(self, change: Tensor, past: Past, inside: Inside) -> Tensor:
        """Of all tokens, (B, N), from how much each has changed, (B, N), or from what there is to look at."""
        raise NotImplementedError


def on_grid(n_tokens: int, grid: Grid | None) -> tuple[int, Grid]:
    """How many tokens stand for no place in the picture, and the grid of the others, which come after them.

    Raises:
        ValueError: the grid has more places than there are tokens.
    """
    assert grid is not None
    n_prefix = n_tokens - grid[0] * grid[1]
    if n_prefix < 0:
        raise ValueError(f"grid is {grid}, but a frame has {n_tokens} tokens")
    return n_prefix, grid


def inside_boxes(boxes: Tensor, confidence: float, margin: float, grid: Grid) -> Tensor:
    """The tokens of which some lies in a box, (n, 5) to (rows, columns) bool.

    Args:
        boxes: see `evt.eventful.inside.Note`.
        confidence: that a box's score must have at least.
        margin: in tokens, by which boxes are larger on each side.
        grid: rows and columns.
    """
    x0, y0, x1, y1, score = boxes.unbind(-1)
    row, column = (torch.arange(side, device=boxes.device) for side in grid)
    some = (score >= confidence)[:, None]
    in_row = (row + 1 > (y0 - margin)[:, None]) & (row < (y1 + margin)[:, None])  # (n, rows)
    in_column = (column + 1 > (x0 - margin)[:, None]) & (column < (x1 + margin)[:, None])
    return ((in_row & some)[:, :, None] & in_column[:, None]).any(0)
