"""A clip's class from what ViViT's frozen, Eventful spatial sub-model made of it (supplement, section C)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.errors import DataError
from evt.models.vivit import ViViT
from evt.models.vivit_weights import fine_tuned_weights
from evt.training.regularization import Mix, mixing
from evt.training.spatial_cache import SpatialCache
from evt.training.task import Losses, Task


class TemporalClassifier(nn.Module):
    """What is trained of a ViViT, whose weights it shares, with dropout before the classifier.

    Args:
        model: whose temporal sub-model and classifier these are.
        dropout: the share of the classifier's inputs that is dropped.

    Raises:
        ValueError: dropout is not at least 0 and below 1.
    """

    def __init__(self, model: ViViT, dropout: float) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")
        self.temporal = model.temporal
        self.dropout = nn.Dropout(dropout)
        self.head = model.head

    def forward(self, spatial: Tensor) -> Tensor:
        """The logits' mean over the views, (B, V, steps, D) to (B, classes)."""
        x = self.head(self.dropout(self.temporal(spatial.flatten(0, 1))))  # (B * V, classes)
        return x.unflatten(0, spatial.shape[:2]).mean(dim=1)


def temporal_losses(
    model: TemporalClassifier,
    batch: list[tuple[Tensor, int]],
    label_smoothing: float = 0,
    mix: Mix | None = None,
) -> Losses:
    """The cross-entropy of the labels on spatial outputs, (V, steps, D) each, which are mixed if they are to be."""
    spatial, labels = zip(*batch, strict=True)
    device = model.head.weight.device
    x, truth = torch.stack(spatial).to(device), torch.tensor(labels, device=device)
    if mix is not None:
        x, truth = mix(x, truth)
    return {"cross_entropy": F.cross_entropy(model(x), truth, label_smoothing=label_smoothing)}


def temporal_task(
    model: ViViT,
    outputs: SpatialCache,
    dropout: float,
    classes: Sequence[str] | None = None,
    label_smoothing: float = 0,
    mixup: float = 0,
) -> Task[TemporalClassifier, tuple[Tensor, int]]:
    """Fine-tune the temporal sub-model and the classifier of a ViViT; its weights are for `load_fine_tuned`.

    Args:
        model: with the weights to start from, also when a run goes on; it is trained in place. Its spatial part must
            be the one that filled the cache.
        outputs: what to train on.
        dropout: see `TemporalClassifier`.
        classes: the names of the labels, if they have some.
        label_smoothing, mixup: see `Recipe`.

    Raises:
        ConfigError: mixup is given, and timm cannot be imported.
        DataError: a label is not a class of the model.
        ValueError: see `TemporalClassifier`.
    """
    worst = max(label for _, label, _ in outputs.clips)
    if worst >= model.head.out_features:
        raise DataError(
            f"a clip is of class {worst}, but the model has {model.head.out_features} classes, counted from 0; "
            "every label must be one of them"
        )
    return Task(
        TemporalClassifier(model, dropout),
        outputs,
        partial(
            temporal_losses,
            label_smoothing=label_smoothing,
            mix=mixing(mixup, model.head.out_features) if mixup else None,
        ),
        origin={"spatial outputs": outputs.origin, "dropout": dropout},
        weights=lambda: fine_tuned_weights(model),
        classes=classes,
        file="temporal.safetensors",
    )
