"""Where objects tend to be: a map from labelled videos, the file that keeps it, and the policy that uses it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evt.data.video import Frame
from evt.errors import DataError
from evt.evaluate.sealed import read_sealed, write_sealed
from evt.eventful import Regions
from evt.eventful.selectors.once import inside_boxes


@dataclass(frozen=True)
class Occupancy:
    """In what share of the frames of a data set each token of a grid shows some of an object.

    data: name of the data set, and which part of it was looked at.
    grid: rows and columns of tokens.
    n_frames: labelled ones that were looked at.
    share: row after row, 0 to 1.
    """

    data: str
    grid: list[int]
    n_frames: int
    share: list[list[float]]

    @classmethod
    def of(cls, model: Any, frames: Iterable[Frame], data: str) -> Occupancy:
        """Look at labelled frames, as a model with a detector sees them.

        Raises:
            DataError: none has boxes.
        """
        grid: tuple[int, int] = model.net.grid
        n_frames, counts = 0, torch.zeros(grid)
        for frame in frames:
            if frame.target is None:
                continue
            height, width = frame.image.shape[-2:]
            boxes = model.in_tokens(frame.target.without_crowds().boxes, (height, width))
            counts += inside_boxes(torch.cat([boxes, torch.ones(len(boxes), 1)], -1), 1, 0, grid)
            n_frames += 1
        if not n_frames:
            raise DataError(f"{data}: no frame of it has boxes, of which a map could be made")
        share = [[round(x, 4) for x in row] for row in (counts / n_frames).tolist()]
        return cls(data, list(grid), n_frames, share)

    def write(self, path: Path) -> None:
        """Write it as JSON, with the sha256 of all that is before it.

        Raises:
            OSError: it cannot be written.
        """
        write_sealed(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> tuple[Occupancy, str]:
        """Read what `write` wrote, and its sha256.

        Raises:
            DataError: the file is missing, of another kind, damaged or edited.
            OSError: it cannot be read.
        """
        return read_sealed(path, cls, "evt.occupancy")


class MappedRegions(Regions):
    """See `Regions`; where objects tend to be, a file says.

    map: that `python -m evt.occupancy` wrote; None where nothing is known of that.

    Raises:
        ValueError: see `Regions`.
        DataError: the file cannot be used, see `Occupancy.read`.
    """

    def __init__(
        self,
        confidence: float = 0.5,
        margin: float = 1,
        every: int | None = 4,
        map: str | Path | None = None,
        at_least: float = 0.1,
    ) -> None:
        often: Tensor | None = None
        self.sha256: str | None = None
        if map is not None:
            found, self.sha256 = Occupancy.read(Path(map))
            often = torch.tensor(found.share)
            self.map_from = f"policy.map={map}"
        super().__init__(confidence, margin, every, often, at_least)
