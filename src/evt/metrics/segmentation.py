"""What masks of objects and maps of saliency are worth.

Masks: region similarity J and boundary measure F of DAVIS (Perazzi et al. 2016, section 5; several objects by
Pont-Tuset et al. 2017), as in the published `davis2017-evaluation`, which is on no package index; what is there needs
OpenCV and scikit-image. Maps: mean absolute error, and the F-measure over thresholds (Achanta et al. 2009).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.metrics import agreement

TOLERANCE = 0.008
"""How far boundaries may lie apart, of the picture's diagonal."""

VOID = 255
"""In a mask: pixels that count neither as an object's nor as the background's."""

BETA2 = 0.3
"""Of the F-measure of maps, in which precision counts for more than recall."""


def region_similarity(found: Tensor, mask: Tensor, void: Tensor | None = None) -> float:
    """J, the Jaccard index: pixels in both over pixels in either, from 0 to 1. Two empty masks are equal: 1.

    Args:
        found, mask: (H, W) bool.
        void: pixels that do not count, (H, W) bool.
    """
    return agreement.overlap(*_without(void, found, mask))


def boundary_measure(found: Tensor, mask: Tensor, void: Tensor | None = None) -> float:
    """F, from 0 to 1: the harmonic mean of precision and recall of boundary pixels, which match a boundary nearby.

    Nearby is within `TOLERANCE` of the diagonal, rounded up to whole pixels. See `region_similarity` for arguments.
    """
    found, mask = (boundary(x) for x in _without(void, found, mask))
    radius = math.ceil(TOLERANCE * math.hypot(*mask.shape))
    precision, recall = _share(found, near(mask, radius)), _share(mask, near(found, radius))
    if not found.any() or not mask.any():
        precision, recall = float(not found.any()), float(not mask.any())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Tensor) -> Tensor:
    """Pixels of a mask, (H, W) bool, that differ from their neighbour to the right, below, or both: (H, W) bool."""
    padded = F.pad(mask[None].float(), (0, 1, 0, 1), mode="replicate")[0] > 0  # nothing differs from the edge
    right, below, both = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ right) | (mask ^ below) | (mask ^ both)


def near(pixels: Tensor, radius: int) -> Tensor:
    """Pixels within a radius of those given, (H, W) bool: dilation by a disk. Both (H, W) bool."""
    height, width = pixels.shape
    reach = torch.arange(-radius, radius + 1, device=pixels.device)
    y, x = (reach[:, None] ** 2 + reach**2 <= radius**2).nonzero(as_tuple=True)
    wide = width + 2 * radius
    around = (y - radius) * wide + x - radius  # (d,), the disk's pixels as steps in a padded picture
    row, column = pixels.nonzero(as_tuple=True)
    places = (row + radius) * wide + column + radius  # (p,)
    out = pixels.new_zeros((height + 2 * radius) * wide)
    out[(places[:, None] + around).flatten()] = True
    return out.view(-1, wide)[radius : radius + height, radius : radius + width]


def object_measures(
    found: Tensor, mask: Tensor, numbers: list[int], void: int = VOID
) -> tuple[list[float], list[float]]:
    """J and F of each object in a frame.

    Args:
        found, mask: (H, W) uint8, of object numbers.
        numbers: of the objects.
        void: the number of pixels in `mask` that do not count.

    Raises:
        ValueError: the shapes differ.
    """
    if found.shape != mask.shape:
        raise ValueError(f"masks are {tuple(found.shape)} and {tuple(mask.shape)}; they must be of one size")
    ignored = mask == void
    pairs = [(found == number, mask == number) for number in numbers]
    return (
        [region_similarity(*pair, ignored) for pair in pairs],
        [boundary_measure(*pair, ignored) for pair in pairs],
    )


def stretched(saliency: Tensor) -> Tensor:
    """A map, (H, W), with its values stretched to 0 .. 1, as is usual before it is measured; one value becomes 0."""
    least, most = saliency.min(), saliency.max()
    return (saliency - least) / (most - least) if most > least else torch.zeros_like(saliency)


def mean_absolute_error(saliency: Tensor, mask: Tensor, void: Tensor | None = None) -> float:
    """Between a map, (H, W) of 0 to 1, and a mask, (H, W) bool, over pixels that are not void."""
    if void is not None:
        saliency, mask = saliency[~void], mask[~void]
    return agreement.mean_absolute_error(saliency, mask)


def f_of_thresholds(saliency: Tensor, mask: Tensor, void: Tensor | None = None) -> Tensor:
    """The F-measure of a map, with beta^2 = `BETA2`, where it is at least t / 255, for each t of 0 .. 255.

    Their mean over frames has a largest value, the maximal F-measure. Without an object to be found it is 0.

    Args:
        saliency: (H, W) of 0 to 1.
        mask: (H, W) bool.
        void: pixels that do not count, (H, W) bool.

    Returns:
        (256,) float64.
    """
    level = (255 * saliency).floor().clamp(0, 255).long()  # the last threshold that it reaches
    kept = torch.ones_like(mask) if void is None else ~void
    hits = _at_least(level[mask & kept])
    found = _at_least(level[kept])
    precision, recall = hits / found.clamp(min=1), hits / hits[0].clamp(min=1)
    return (1 + BETA2) * precision * recall / (BETA2 * precision + recall).clamp(min=1e-12)


def _at_least(level: Tensor) -> Tensor:
    """How many levels are at least t, for each t of 0 .. 255: (256,) float64."""
    return torch.bincount(level, minlength=256).double().flip(0).cumsum(0).flip(0)


def _without(void: Tensor | None, *masks: Tensor) -> tuple[Tensor, ...]:
    return masks if void is None else tuple(mask & ~void for mask in masks)


def _share(pixels: Tensor, among: Tensor) -> float:
    """Of pixels, which are among others, as a share; 0 of none."""
    return int((pixels & among).sum()) / max(1, int(pixels.sum()))
