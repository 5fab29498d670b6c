"""What networks make of pictures that tell no classes apart: features of patches, and perhaps a map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

# Of pixels in [0, 1]: red, green and blue over ImageNet.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Features:
    """What a network makes of a picture, as it was resized for it, without what it was padded with.

    map: of what is salient, (h, w), from 0 to 1; None where none was made.
    features: (n, D), of the patches that show some of the picture, row by row.
    grid: rows and columns of these.
    beyond: pixels by which they reach beyond the picture: to the left, right, top and bottom.
    size: (h, w) of the resized picture; None where it was not resized.
    """

    map: Tensor | None
    features: Tensor
    grid: tuple[int, int]
    beyond: tuple[int, int, int, int] = (0, 0, 0, 0)
    size: tuple[int, int] | None = None
