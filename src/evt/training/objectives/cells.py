"""What every cell of a picture shows: a denser signal than boxes, to train a ViTDet's Transformer with from scratch.

A few boxes a picture, seen through proposals that are no good yet, teach a Transformer too little to learn its
features from; ViTDet-B comes from a larger data set for the same reason. What generated pictures show is known
everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.data.sprites import CLASSES, SpriteVideo
from evt.models.vitdet import ViTDet
from evt.training.task import Losses

CELLS = 4
"""Cells along each side of a patch; each is of the class that its middle shows."""
BACKGROUND_WEIGHT = 0.1
"""Of a cell of the background in the loss, of which there are about ten times as many as of objects."""


class CellClassifier(nn.Module):
    """ViTDet's Transformer with a linear classifier of cells.

    Args:
        model: whose Transformer is trained.
    """

    def __init__(self, model: ViTDet) -> None:
        super().__init__()
        self.preprocess = model.preprocess
        self.net = model.net
        self.norm = nn.LayerNorm(model.net.dim)
        self.head = nn.Linear(model.net.dim, CELLS**2 * (1 + len(CLASSES)))

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) to the logits of their cells, (B, h * CELLS, w * CELLS, classes + 1)."""
        logits = self.head(self.norm(self.net(images)))
        logits = logits.unflatten(-1, (CELLS, CELLS, -1)).unflatten(1, self.net.grid)  # (B, h, w, c, c, K)
        return logits.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class CellSamples:
    """The middle frame of each generated video, and the classes of its cells.

    Args:
        videos: where the frames are from.
        grid: tokens of a frame as (rows, columns).
    """

    def __init__(self, videos: Sequence[SpriteVideo], grid: tuple[int, int]) -> None:
        self._videos = videos
        self._cells = [n * CELLS for n in grid]

    def __len__(self) -> int:
        return len(self._videos)

    def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A frame (3, H, W) uint8 and its cells (rows, columns), mirrored half of the time."""
        video = self._videos[i]
        image, classes = video.class_map(len(video) // 2)
        if torch.rand((), generator=generator) < 0.5:
            image, classes = image.flip(-1), classes.flip(-1)
        return image, middles(classes, self._cells)


def cell_losses(model: CellClassifier, batch: list[tuple[Tensor, Tensor]]) -> Losses:
    """The cross-entropy of the cells' classes, of which the last is the background."""
    logits = model(torch.cat([model.preprocess(image) for image, _ in batch]))
    weight = torch.tensor([1.0] * len(CLASSES) + [BACKGROUND_WEIGHT], device=logits.device)
    truth = torch.stack([cells for _, cells in batch]).to(logits.device)
    return {"cross_entropy": F.cross_entropy(logits.flatten(0, 2), truth.flatten(), weight)}


def middles(maps: Tensor, cells: Sequence[int]) -> Tensor:
    """What the middle of each cell shows, (..., H, W) to (..., rows, columns)."""
    rows, columns = (
        ((torch.arange(n) + 0.5) * side / n).long() for n, side in zip(cells, maps.shape[-2:], strict=True)
    )
    return maps[..., rows[:, None], columns]
