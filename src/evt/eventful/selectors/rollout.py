"""What the last result came from, by attention rollout."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from evt.eventful.counting import matmul
from evt.eventful.inside import Inside, Note
from evt.eventful.policy import Past
from evt.eventful.selectors.once import Keep, inside_boxes, on_grid
from evt.eventful.selectors.regions import boxes_in
from evt.eventful.setting import number

From = Literal["boxes", "class"]


class Rollout(Keep):
    """Select the tokens from which most of what matters came, by attention rollout.

    RGTP ("Rollout-Guided Token Pruning for Efficient Video Understanding", ICIP 2025), with the rollout of Abnar and
    Zuidema (2020). From the tokens in the boxes of the last detections, or from the class token, importance goes back
    to the input through the attention of the last frame that was run whole: half of it stays with each token in each
    block, for the skip connection. As objects move, so do the boxes from which it starts. As published for ViTDet,
    heads are united by their root mean square, and blocks whose attention is windowed move nothing.

    Args:
        keep: see `Keep`.
        every: all tokens pass in every k-th frame; None is never.
        start: boxes, of which the stream must be told (see `evt.eventful.Stream.saw`); or the class token.
        confidence: that a detection's score must have at least, from 0 to 1.

    Raises:
        ValueError: see `Keep`, or another setting cannot be; at a frame, nothing was told of what was found.
    """

    def __init__(
        self, keep: float, every: int | None = 8, start: From = "boxes", confidence: float = 0.1
    ) -> None:
        super().__init__(keep, every)
        if start not in get_args(From):
            raise ValueError(f"policy.start is {start!r}; it must be {' or '.join(get_args(From))}")
        self.start: From = start
        self.confidence = number("confidence", confidence, most=1)

    def __repr__(self) -> str:
        return f"Rollout(keep={self.keep}, every={self.every}, start={self.start})"

    @property
    def needs_grid(self) -> bool:  # type: ignore[override]
        """See `Once`."""
        return self.start == "boxes"

    @property
    def looks_at_boxes(self) -> bool:  # type: ignore[override]
        """See `Once`."""
        return self.start == "boxes"

    def fits(self, network: Any, variant: Any) -> None:
        """Refuse pooled keys, and a network without the class token from which importance is to start.

        Raises:
            ValueError: it has them, or has it not.
        """
        if variant.pool > 1:
            raise ValueError(
                f"variant.pool is {variant.pool}, but attention rollout is of single tokens; it must be 1"
            )
        if self.start == "class" and not network.states(variant).gate.always:
            raise ValueError(
                "policy.start is class, but this network has no class token; it must be boxes, which a detector finds"
            )

    def importance(self, change: Tensor, past: Past, inside: Inside) -> Tensor:
        """See `Keep`."""
        whole_before = past.number == 1 or (self.every is not None and past.number % self.every == 1)
        if whole_before or any(note.attention is None for note in inside.notes):
            for note, attention in zip(inside.notes, inside.attention(), strict=True):
                note.attention = with_skips(attention)
        rows = zip(change, inside.notes, strict=True)
        return torch.stack([self._of(note, len(own), inside) for own, note in rows])

    def _of(self, note: Note, n_tokens: int, inside: Inside) -> Tensor:
        """Of one video, (N,)."""
        assert note.attention is not None
        start = note.attention.new_zeros(n_tokens)
        if self.start == "class":
            start[0] = 1
        else:
            n_prefix, grid = on_grid(n_tokens, inside.grid)
            start[n_prefix:] = (
                inside_boxes(boxes_in(note, self), self.confidence, 0, grid).flatten().to(start)
            )
        return rollout(start, note.attention)


def with_skips(attention: Tensor) -> Tensor:
    """Leave half of each token's importance where it is, in place: (L, N, N), whose rows then add up to 1."""
    attention *= 0.5
    attention.diagonal(dim1=-2, dim2=-1).add_(0.5)
    attention /= attention.sum(-1, keepdim=True)
    return attention


def rollout(start: Tensor, steps: Tensor) -> Tensor:
    """Bring importance of outputs, (N,), back through blocks to the input, (N,); see `with_skips`."""
    for step in reversed(steps):
        start = matmul(start.unsqueeze(0), step).squeeze(0)
    return start
