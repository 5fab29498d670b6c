"""Objects followed through a video by the features of its patches, without training: DINO's label propagation.

Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers", section 4.2.2, after Jabri et al.
2020, with the settings of the published evaluation: the first frame and the last 7, a neighbourhood of 12 patches,
the 5 nearest, a temperature of 0.1.
"""

from __future__ import annotations

from collections import deque

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.metrics.segmentation import VOID

ROUNDING = 1e-6
"""Of soft labels in float32, which add up to 1."""


class Propagation:
    """The objects of one video, whose first mask is given. It works where the features are, in float32.

    Each patch takes its soft labels from the patches that are nearest to it in the first frame and in the last few.
    Of those that are as near as the k-th all count, as where a patch stays the same from frame to frame. Labels are
    stretched to 0 .. 1 before the largest is taken, so a small object outlasts the upsampling, and one that is gone
    lives on where its labels are least faint.

    The published evaluation finds the objects in the pixels of the network's input and stretches these to the
    picture's by nearest neighbours; here they are found in the picture's own.

    Args:
        mask: of the first frame, (H, W) uint8: 0 is background, every other number an object, `VOID` background too.
        features: of its patches, row by row, (n_patches, D) or (1, n_patches, D).
        grid: rows and columns of patches; they cover the picture.
        n_last: frames before the present one that are looked at beside the first.
        radius: how many rows and columns away a patch may be that labels come from.
        k: how many patches labels come from.
        temperature: of the softmax over these, by cosine similarity.

    Raises:
        ValueError: the shapes do not fit.
    """

    def __init__(
        self,
        mask: Tensor,
        features: Tensor,
        grid: tuple[int, int],
        n_last: int = 7,
        radius: int = 12,
        k: int = 5,
        temperature: float = 0.1,
    ) -> None:
        self.size, self.grid, self.k, self.temperature = tuple(mask.shape), grid, k, temperature
        first = self._normalised(features)  # (n, D)
        mask = mask.to(first.device)
        mask = torch.where(mask == VOID, 0, mask)
        self.numbers = torch.cat([mask.new_zeros(1), mask[mask > 0].unique()])  # (C,), background first
        small = F.interpolate(mask[None, None].float(), size=grid, mode="nearest-exact").flatten()  # (n,)
        labels = (small[:, None] == self.numbers).float()  # (n, C)
        self._first = (first, labels)
        self._last: deque[tuple[Tensor, Tensor]] = deque(maxlen=n_last)
        self._far = _farther_than(radius, grid).to(first.device)  # (n, n)

    def step(self, features: Tensor) -> Tensor:
        """The objects of the next frame, (H, W) uint8, from its patches, (n_patches, D) or (1, n_patches, D)."""
        present = self._normalised(features)
        labels = self._passed_on(present)
        self._last.append((present, labels))
        return self._mask(labels)

    def _normalised(self, features: Tensor) -> Tensor:
        """Features of length 1, (n, D)."""
        rows, columns = self.grid
        if features.ndim not in (2, 3) or features.numel() != rows * columns * features.shape[-1]:
            raise ValueError(
                f"features are {tuple(features.shape)}; a {rows}x{columns} grid needs as many patches"
            )
        return F.normalize(features.reshape(rows * columns, -1).float(), dim=-1)

    def _passed_on(self, present: Tensor) -> Tensor:
        """Soft labels of the present frame, (n, C)."""
        nearest, theirs = [], []
        for before, labels in (self._first, *self._last):
            near = (present @ before.T).masked_fill_(self._far, -torch.inf)  # (n, n)
            values, places = near.topk(min(self.k, len(before)))  # (n, k)
            nearest.append(values)
            theirs.append(labels[places])  # (n, k, C)
        values, candidates = torch.cat(nearest, 1), torch.cat(theirs, 1)  # (n, m * k), (n, m * k, C)
        least = values.topk(min(self.k, values.shape[1])).values[:, -1:]
        values = values.masked_fill(values < least, -torch.inf)
        weights = (values / self.temperature).softmax(-1)
        return torch.einsum("nk,nkc->nc", weights, candidates)

    def _mask(self, labels: Tensor) -> Tensor:
        """Soft labels in the picture's pixels, each stretched to 0 .. 1, and the largest: (H, W) uint8."""
        maps = labels.T.reshape(1, -1, *self.grid)  # (1, C, h, w)
        maps = F.interpolate(maps, size=self.size, mode="bilinear", align_corners=False)[0]  # (C, H, W)
        least, most = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        same = most - least < ROUNDING  # everywhere: what is left to stretch is none of the labels'
        maps = torch.where(same, maps, (maps - least) / (most - least).clamp(min=ROUNDING))
        return self.numbers[maps.max(0).indices].to(torch.uint8)


def _farther_than(radius: int, grid: tuple[int, int]) -> Tensor:
    """Which patches are more than so many rows or columns apart, (n, n) bool."""
    places = torch.cartesian_prod(*(torch.arange(float(length)) for length in grid))  # (n, 2)
    return torch.cdist(places, places, p=torch.inf) > radius
