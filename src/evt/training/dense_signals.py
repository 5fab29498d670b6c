"""Denser signals than boxes and labels, to train the small models from scratch on generated videos.

A few boxes a picture, seen through proposals that are no good yet, or one label a clip, teach a Transformer too
little to learn its features from. ViTDet-B and ViViT-B come from larger data sets for the same reason. Here what
every cell of a picture shows, and how it moves, is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.data.sprites import CLASSES, SpriteClips, SpriteVideo
from evt.models.videomae import VideoMAE
from evt.models.vitdet import ViTDet
from evt.models.vivit import ViViT
from evt.tokens import RunLength
from evt.training.loop import Losses

CELLS = 4
"""Cells along each side of a patch of ViTDet; each is of the class that its middle shows."""
MOTION_CELLS = 2
"""Cells along each side of a patch of a model of clips; each moves as its middle does."""
BACKGROUND_WEIGHT = 0.1
"""Of a cell of the background in the loss, of which there are about ten times as many as of objects."""
MOTION_SCALE = 2.0
"""Pixels a frame that count as 1 in the loss."""


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
        return image, _middles(classes, self._cells)


def cell_losses(model: nn.Module, batch: list[tuple[Tensor, Tensor]]) -> Losses:
    """The cross-entropy of the cells' classes."""
    assert isinstance(model, CellClassifier)
    logits = model(torch.cat([model.preprocess(image) for image, _ in batch]))
    weight = torch.tensor([1.0] * len(CLASSES) + [BACKGROUND_WEIGHT], device=logits.device)
    truth = torch.stack([cells for _, cells in batch]).to(logits.device)
    return {"cross_entropy": F.cross_entropy(logits.flatten(0, 2), truth.flatten(), weight)}


class MotionLearner(nn.Module):
    """A model of clips that also says, of each cell, how what it shows moves, by a linear layer on its token.

    Args:
        model: what is trained.
        reduction: which tokens a VideoMAE sees.
    """

    def __init__(self, model: ViViT | VideoMAE, reduction: RunLength | None = None) -> None:
        super().__init__()
        self.model = model
        self.reduction = reduction
        self.motion = nn.Linear(model.head.in_features, MOTION_CELLS**2 * 2)

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run views, (B, t, 3, size, size).

        Returns:
            Logits (B, classes), motions (B, steps, 2, rows, columns), and whether the model saw the token of a cell,
            (B, steps, 1, rows, columns) bool.
        """
        model = self.model
        if isinstance(model, ViViT):
            tokens = model.patch_embed(views)  # (B, steps, N, D)
            spatial = model.spatial
            out = spatial.norm(spatial.run_blocks(tokens.flatten(0, 1))).unflatten(0, tokens.shape[:2])
            logits, motion = model.classify(out[:, :, 0]), self.motion(out[:, :, 1:])
            seen = motion.new_ones(motion.shape[:3], dtype=torch.bool)
        else:
            tokens, keep = model.encode(views, self.reduction)
            logits = model.classify(tokens.means())
            if keep is None:
                keep = torch.ones(len(views), model.n_tokens, dtype=torch.bool, device=views.device)
            motion = tokens.x.new_zeros(*keep.shape, self.motion.out_features)
            motion[keep] = self.motion(model.fc_norm(tokens.x))
            motion, seen = (x.unflatten(1, (model.steps, -1)) for x in (motion, keep))
        side = math.isqrt(motion.shape[2])
        motion = motion.unflatten(-1, (2, MOTION_CELLS, MOTION_CELLS))
        motion = motion.unflatten(2, (side, side)).permute(0, 1, 4, 2, 5, 3, 6)  # (B, steps, 2, h, c, w, c)
        seen = seen.unflatten(2, (side, side)).unsqueeze(2)  # (B, steps, 1, h, w)
        seen = seen.repeat_interleave(MOTION_CELLS, 3).repeat_interleave(MOTION_CELLS, 4)
        return logits, motion.flatten(5, 6).flatten(3, 4), seen


@dataclass(frozen=True)
class MotionSample:
    """A generated clip to train on.

    view: (t, 3, size, size) in [0, 1].
    label: its class.
    motion: of its cells in each step, in pixels from the step's first frame to the next, (steps, 2, rows, columns);
        NaN where a cut is between.
    actors: whether a cell shows an actor, (steps, rows, columns).
    """

    view: Tensor
    label: int
    motion: Tensor
    actors: Tensor


class MotionSamples:
    """Generated clips, one view each, as they are: a mirrored clip could be of another class.

    Args:
        data: the clips, of as many frames as a view has, and of its size.
        model: that they are for.
    """

    def __init__(self, data: SpriteClips, model: ViViT | VideoMAE) -> None:
        self._data = data
        self._views = model.views
        self._steps = model.steps
        per_step = model.n_tokens - 1 if isinstance(model, ViViT) else model.n_tokens // model.steps
        self._cells = [MOTION_CELLS * math.isqrt(per_step)] * 2

    def __len__(self) -> int:
        return len(self._data)

    def sample(self, i: int, generator: torch.Generator) -> MotionSample:
        """A clip and how it moves."""
        clip = self._data[i]
        motions, actors = zip(
            *(clip.motion(t) for t in range(0, len(clip), len(clip) // self._steps)), strict=True
        )
        return MotionSample(
            self._views.cut(clip)[0],
            clip.label,
            _middles(torch.stack(motions), self._cells),
            _middles(torch.stack(actors), self._cells),
        )


def motion_losses(model: nn.Module, batch: list[MotionSample]) -> Losses:
    """The cross-entropy of the labels, and the distance of the cells' motions."""
    assert isinstance(model, MotionLearner)
    logits, motion, seen = model(torch.stack([model.model.normalise(sample.view) for sample in batch]))
    labels = torch.tensor([sample.label for sample in batch], device=logits.device)
    truth, actors = (
        torch.stack([getattr(sample, name) for sample in batch]).to(logits.device)
        for name in ("motion", "actors")
    )
    weight = torch.where(actors, 1.0, BACKGROUND_WEIGHT).unsqueeze(2) * truth.isfinite() * seen
    distance = (motion - truth.nan_to_num() / MOTION_SCALE).abs()
    return {
        "cross_entropy": F.cross_entropy(logits, labels),
        "motion": (weight * distance).sum() / weight.sum(),
    }


def _middles(maps: Tensor, cells: Sequence[int]) -> Tensor:
    """What the middle of each cell shows, (..., H, W) to (..., rows, columns)."""
    rows, columns = (
        ((torch.arange(n) + 0.5) * side / n).long() for n, side in zip(cells, maps.shape[-2:], strict=True)
    )
    return maps[..., rows[:, None], columns]
