"""What changed most in the picture, and what lies around it."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import max_pool2d

from evt.eventful.inside import Inside
from evt.eventful.policy import Past
from evt.eventful.selectors.once import Keep, on_grid
from evt.eventful.setting import whole


class Change(Keep):
    """Select the tokens whose embedded patch changed most since it last passed, together with their neighbours.

    The idea of `TopR`, once a frame. An object that moves changes patches before it and behind it as well: a token
    counts as having changed as much as the one that did most among those around it.

    Args:
        keep: see `Keep`.
        every: all tokens pass in every k-th frame; None is never.
        neighbours: how far around a token that is, in rows and columns; 0 is itself alone.

    Raises:
        ValueError: see `Keep`, or neighbours is not a whole number of at least 0.
    """

    def __init__(self, keep: float, every: int | None = 8, neighbours: int = 1) -> None:
        super().__init__(keep, every)
        self.neighbours = whole("neighbours", neighbours, 0)

    def __repr__(self) -> str:
        return f"Change(keep={self.keep}, every={self.every}, neighbours={self.neighbours})"

    @property
    def needs_grid(self) -> bool:  # type: ignore[override]
        """See `Once`."""
        return self.neighbours > 0

    def importance(self, change: Tensor, past: Past, inside: Inside) -> Tensor:
        """See `Keep`."""
        if not self.neighbours:
            return change
        n_prefix, grid = on_grid(change.shape[1], inside.grid)
        reach = self.neighbours
        around = max_pool2d(change[:, n_prefix:].unflatten(1, grid), 2 * reach + 1, 1, reach)
        importance = change.clone()
        importance[:, n_prefix:] = around.flatten(1)
        return importance
