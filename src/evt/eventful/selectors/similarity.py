"""What looks most unlike what is cached of it, by the keys or values of the first block."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from evt.eventful.inside import Inside
from evt.eventful.policy import Past
from evt.eventful.selectors.once import Keep

Of = Literal["keys", "values"]


class Similarity(Keep):
    """Select the tokens whose keys or values differ most, by their cosine, from those that are kept.

    The cacher of STC (CVPR 2026), for the encoders of streaming language models: a quarter of the tokens, and a whole
    frame every 2 or 4. Keys and values are of the first block, whose first layer runs on all tokens for that.

    Args:
        keep: see `Keep`.
        every: all tokens pass in every k-th frame; None is never.
        of: keys or values.

    Raises:
        ValueError: see `Keep`, or `of` is neither.
    """

    def __init__(self, keep: float = 0.25, every: int | None = 4, of: Of = "values") -> None:
        super().__init__(keep, every)
        if of not in get_args(Of):
            raise ValueError(f"policy.of is {of!r}; it must be {' or '.join(get_args(Of))}")
        self.of: Of = of

    def __repr__(self) -> str:
        return f"Similarity(keep={self.keep}, every={self.every}, of={self.of})"

    def importance(self, change: Tensor, past: Past, inside: Inside) -> Tensor:
        """See `Keep`."""
        return inside.differences(self.of)
