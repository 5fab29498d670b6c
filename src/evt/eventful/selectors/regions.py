"""What was found in the last frame, and where objects tend to be."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from evt.eventful.inside import Inside, Note
from evt.eventful.policy import Past, Selection, where
from evt.eventful.selectors.once import Once, inside_boxes, on_grid
from evt.eventful.setting import number


class Regions(Once):
    """Select the tokens in the boxes of the last detections, and those where objects tend to be.

    MaskVD (Sarkar et al., WACV 2025, arXiv 2407.12067). The stream must be told what was found, see
    `evt.eventful.Stream.saw`. How many tokens pass depends on what there is to see.

    Args:
        confidence: that a detection's score must have at least, from 0 to 1.
        margin: in tokens, by which boxes are larger on each side.
        every: all tokens pass in every k-th frame; None is never.
        often: the share of a data set's frames in which a token shows some of an object, (rows, columns); None where
            that is not known.
        at_least: the share from which on a token passes always, above 0 and at most 1.

    Raises:
        ValueError: every is not a whole number of at least 1, or another setting is not in its range; at a frame,
            nothing was told of what was found.
    """

    needs_grid = True
    looks_at_boxes = True
    map_from = "`often`"

    def __init__(
        self,
        confidence: float = 0.5,
        margin: float = 1,
        every: int | None = 4,
        often: Tensor | None = None,
        at_least: float = 0.1,
    ) -> None:
        super().__init__(every)
        self.confidence = number("confidence", confidence, most=1)
        self.margin = number("margin", margin)
        self.at_least = number("at_least", at_least, above=0, most=1)
        self.often = often

    def __repr__(self) -> str:
        return f"Regions(confidence={self.confidence:g}, margin={self.margin:g}, every={self.every})"

    def fits(self, network: Any, variant: Any) -> None:
        """Refuse a map of another grid than the network's, where that is known; else the first frame shows it.

        Raises:
            ValueError: it is.
        """
        if grid := getattr(network, "grid", None):
            self._check(grid)

    def _check(self, grid: tuple[int, ...]) -> None:
        if self.often is not None and tuple(self.often.shape) != tuple(grid):
            has, needs = ("{} x {}".format(*sides) for sides in (self.often.shape, grid))
            raise ValueError(
                f"the map of where objects tend to be, {self.map_from}, has {has} tokens, and a frame has {needs}; "
                "it must be made for frames of this size, with `python -m evt.occupancy`"
            )

    def some(self, error: Tensor, past: Past, inside: Inside) -> Selection:
        """See `Once`."""
        n_prefix, grid = on_grid(error.shape[1], inside.grid)
        self._check(grid)
        mask = error.isinf().any(-1)  # (B, N)
        for own, note in zip(mask, inside.notes, strict=True):
            own[n_prefix:] |= inside_boxes(boxes_in(note, self), self.confidence, self.margin, grid).flatten()
        if self.often is not None:
            mask[:, n_prefix:] |= (self.often.to(mask.device) >= self.at_least).flatten()
        return where(mask)


def boxes_in(note: Note, policy: object) -> Tensor:
    """What was found in the last frame of a video, (n, 5).

    Raises:
        ValueError: nothing was told of it.
    """
    if note.boxes is None:
        raise ValueError(
            f"{policy} follows what a detector found, and this stream was not told; call "
            "stream.saw([boxes and scores in tokens]) after each frame"
        )
    return note.boxes
