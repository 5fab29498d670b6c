"""A clip's class, and how what each of its cells shows moves: to train a model of clips with from scratch.

One label a clip teaches a Transformer too little to learn its features from; ViViT-B and VideoMAE come from larger
data sets for the same reason. How everything in a generated clip moves is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.data.sprites import SpriteClips
from evt.models.views import Views
from evt.training.objectives.cells import BACKGROUND_WEIGHT, middles
from evt.training.task import Losses

CELLS = 2
"""Cells along each side of a token's square; each moves as its middle does."""
SCALE = 2.0
"""Pixels a frame that count as 1 in the loss."""


class ClipModel(Protocol):
    """What `MotionLearner` asks of a model of clips: ViViT and VideoMAE offer it.

    views: which views it takes.
    steps, grid: how many moments of a view have tokens of their own, and the tokens of each as (rows, columns).
    """

    views: Views
    steps: int
    grid: tuple[int, int]

    @property
    def head(self) -> nn.Linear:
        """Its classifier."""

    def normalise(self, views: Tensor) -> Tensor:
        """Normalise what `Views.cut` gave."""

    def features(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, classes), the tokens (K, D) that it saw, and where, (B, steps, rows, columns) bool."""


class MotionLearner(nn.Module):
    """A model of clips that also says, of each cell, how what it shows moves, by a linear layer on its token.

    Args:
        model: what is trained.
        how: what its `features` takes beside views, as the reduction of a VideoMAE.
    """

    def __init__(self, model: ClipModel, **how: Any) -> None:
        super().__init__()
        self.model = model
        self.how = how
        self.motion = nn.Linear(model.head.in_features, CELLS**2 * 2)

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run views, (B, t, 3, size, size).

        Returns:
            Logits (B, classes), motions (B, steps, 2, rows, columns), and whether the model saw the token of a cell,
            (B, steps, 1, rows, columns) bool.
        """
        logits, tokens, seen = self.model.features(views, **self.how)
        of_tokens = self.motion(tokens)
        motion = of_tokens.new_zeros(*seen.shape, of_tokens.shape[-1])
        motion[seen] = of_tokens
        motion = motion.unflatten(-1, (2, CELLS, CELLS)).permute(
            0, 1, 4, 2, 5, 3, 6
        )  # (B, steps, 2, h, c, w, c)
        seen = seen.unsqueeze(2).repeat_interleave(CELLS, 3).repeat_interleave(CELLS, 4)
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

    def __init__(self, data: SpriteClips, model: ClipModel) -> None:
        self._data = data
        self._views = model.views
        self._steps = model.steps
        self._cells = [CELLS * n for n in model.grid]

    def __len__(self) -> int:
        return len(self._data)

    def sample(self, i: int, generator: torch.Generator) -> MotionSample:
        """A clip and how it moves; nothing about it is random."""
        clip = self._data[i]
        motions, actors = zip(
            *(clip.motion(t) for t in range(0, len(clip), len(clip) // self._steps)), strict=True
        )
        return MotionSample(
            self._views.cut(clip)[0],
            clip.label,
            middles(torch.stack(motions), self._cells),
            middles(torch.stack(actors), self._cells),
        )


def motion_losses(learner: MotionLearner, batch: list[MotionSample], label_smoothing: float = 0) -> Losses:
    """The cross-entropy of the labels, and the distance of the motions of the cells whose token the model saw."""
    logits, motion, seen = learner(learner.model.normalise(torch.stack([sample.view for sample in batch])))
    labels = torch.tensor([sample.label for sample in batch], device=logits.device)
    truth = torch.stack([sample.motion for sample in batch]).to(logits.device)
    actors = torch.stack([sample.actors for sample in batch]).to(logits.device)
    weight = torch.where(actors, 1.0, BACKGROUND_WEIGHT).unsqueeze(2) * truth.isfinite() * seen
    distance = (motion - truth.nan_to_num() / SCALE).abs()
    return {
        "cross_entropy": F.cross_entropy(logits, labels, label_smoothing=label_smoothing),
        "motion": (weight * distance).sum() / weight.sum(),
    }
