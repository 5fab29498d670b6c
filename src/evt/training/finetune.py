"""Fine-tunes ViViT's temporal sub-model on the frozen, Eventful spatial one's outputs (supplement, section C)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.errors import DataError
from evt.models.checkpoints import save_checkpoint
from evt.models.vivit import ViViT
from evt.models.vivit_weights import fine_tuned_weights
from evt.training.loop import Losses, Recipe, train
from evt.training.spatial_cache import SpatialCache

EPIC_KITCHENS = Recipe(epochs=5, batch_size=8, lr=1e-5, weight_decay=0.05)
KINETICS = Recipe(epochs=10, batch_size=16, lr=2e-6, weight_decay=0.05)
DROPOUT = 0.5
"""The paper's settings; dropout stands before the classifier."""


def fine_tune(
    model: ViViT,
    outputs: SpatialCache,
    recipe: Recipe,
    folder: Path,
    dropout: float = DROPOUT,
    classes: Sequence[str] | None = None,
) -> Path:
    """Train the temporal sub-model and the classifier of `model`, in place, or go on where a run stopped.

    Args:
        model: with the weights to start from, also when a run goes on. Its spatial part must be the one that filled
            the cache.
        outputs: what to train on.
        recipe: how; see `evt.training.loop`.
        folder: of the run.
        dropout: the share of the classifier's inputs that is dropped.
        classes: the names of the labels, if they have some, to be kept with the weights.

    Returns:
        The fine-tuned weights, `temporal.safetensors` in the folder, for `load_fine_tuned`.

    Raises:
        DataError: a label is not a class of the model.
        TrainingError: the folder holds a run on other outputs or with another dropout, or see `train`.
        ValueError: dropout is not at least 0 and below 1.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")
    worst = max(label for _, label, _ in outputs.clips)
    if worst >= model.head.out_features:
        raise DataError(
            f"a clip is of class {worst}, but the model has {model.head.out_features} classes, counted from 0; "
            "every label must be one of them"
        )
    origin = {"spatial outputs": outputs.origin, "dropout": dropout}
    train(TemporalPart(model, dropout), outputs, _losses, recipe, folder, model.head.weight.device, origin)
    weights = folder / "temporal.safetensors"
    save_checkpoint(fine_tuned_weights(model), weights, classes)
    return weights


class TemporalPart(nn.Module):
    """What is trained of a ViViT, whose weights it shares, with dropout before the classifier."""

    def __init__(self, model: ViViT, dropout: float) -> None:
        super().__init__()
        self.temporal = model.temporal
        self.dropout = nn.Dropout(dropout)
        self.head = model.head

    def forward(self, spatial: Tensor) -> Tensor:
        """The logits' mean over the views, (B, V, steps, D) to (B, classes)."""
        x = self.head(self.dropout(self.temporal(spatial.flatten(0, 1))))  # (B * V, classes)
        return x.unflatten(0, spatial.shape[:2]).mean(dim=1)


def _losses(part: nn.Module, batch: list[tuple[Tensor, int]]) -> Losses:
    spatial, labels = zip(*batch, strict=True)
    device = next(part.parameters()).device
    logits = part(torch.stack(spatial).to(device))
    return {"cross_entropy": F.cross_entropy(logits, torch.tensor(labels, device=device))}
