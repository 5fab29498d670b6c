"""What the codec of a video moved, so that no picture is looked at."""

from __future__ import annotations

import torch
from torch import Tensor

from evt.eventful.inside import Inside, Note
from evt.eventful.policy import Past, Selection, tokens_of, where
from evt.eventful.selectors.once import Keep, on_grid
from evt.eventful.setting import number


class Codec(Keep):
    """Select the tokens that the video's codec moved furthest since they last passed.

    The stream must be told how far that is, see `evt.eventful.Stream.moves`. What was coded anew counts as moved.
    Where nothing moves no token passes, so that a picture that stands still costs no more than its patches.

    Args:
        keep: tokens that pass at most; see `Keep`.
        every: all tokens pass in every k-th frame; None is never.
        at_least: pixels of the video, above 0, by which a token must have been moved.

    Raises:
        ValueError: see `Keep`, or at_least is not in its range; at a frame, what was told of what moves is of another
            grid.
    """

    needs_grid = True
    looks_at_motion = True

    def __init__(self, keep: float, every: int | None = 8, at_least: float = 0.5) -> None:
        super().__init__(keep, every)
        self.at_least = number("at_least", at_least, above=0)

    def __repr__(self) -> str:
        return f"Codec(keep={self.keep}, every={self.every}, at_least={self.at_least:g})"

    def __call__(self, error: Tensor, past: Past) -> Selection:
        """See `Once`."""
        assert past.inside is not None
        n_prefix, grid = on_grid(error.shape[1], past.inside.grid)
        notes = past.inside.notes
        for note in notes:
            self._add(note, grid)
        selection = super().__call__(error, past)
        for note, tokens in zip(notes, selection.per_stream(), strict=True):
            assert note.moved is not None
            note.moved.view(-1)[tokens[tokens >= n_prefix] - n_prefix] = 0
        return selection

    def _add(self, note: Note, grid: tuple[int, int]) -> None:
        """Add what the present frame moved."""
        assert note.motion is not None  # which the stream has seen to
        if tuple(note.motion.shape) != grid:
            told, needs = ("{} x {}".format(*sides) for sides in (note.motion.shape, grid))
            raise ValueError(f"what was told of motion is of {told} tokens, and a frame has {needs}")
        note.moved = note.motion if note.moved is None else note.moved + note.motion
        note.motion = None

    def some(self, error: Tensor, past: Past, inside: Inside) -> Selection:
        """See `Once`."""
        n_tokens = error.shape[1]
        self.check(n_tokens)
        moved = torch.stack(
            [note.moved.flatten() for note in inside.notes if note.moved is not None]
        )  # (B, N)
        importance = error.new_zeros(error.shape[:2])
        importance[:, n_tokens - moved.shape[1] :] = moved.to(importance)
        importance = importance.masked_fill(error.isinf().any(-1), torch.inf)
        most, index = importance.topk(tokens_of(self.keep, n_tokens))
        return where(torch.zeros_like(importance, dtype=torch.bool).scatter_(1, index, most >= self.at_least))
