"""Fine-tunes ViViT's temporal sub-model on the frozen, Eventful spatial one's outputs (supplement, section C)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from evt.data.video import DataError
from evt.harness.spatial_cache import SpatialCache, claim, hash_of, save_whole
from evt.models.vivit import ViViT
from evt.models.vivit_weights import fine_tuned_weights, load_fine_tuned

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW keeps for each parameter."""


@dataclass(frozen=True)
class FineTuning:
    """How the temporal sub-model is fine-tuned; the defaults are the paper's for EPIC-Kitchens.

    For Kinetics-400 the paper takes lr 2e-6, batches of 16 and 10 epochs.

    lr, weight_decay: of AdamW.
    batch_size: clips.
    epochs: passes over all clips.
    dropout: the share of the classifier's inputs that is dropped.
    seed: of the order of clips and of dropout.

    Raises:
        ValueError: a setting cannot be.
    """

    lr: float = 1e-5
    weight_decay: float = 0.05
    batch_size: int = 8
    epochs: int = 5
    dropout: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr is {self.lr}; it must be a finite number above 0")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be a finite number, 0 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: the mean loss and top-1 in training, and top-1 in validation where there was one."""

    loss: float
    top1: float
    validation_top1: float | None


def fine_tune(
    model: ViViT,
    training: SpatialCache,
    settings: FineTuning,
    folder: Path,
    validation: SpatialCache | None = None,
) -> list[Epoch]:
    """Train the temporal sub-model and the classifier of `model`, in place.

    After every epoch all is on disk in `folder`, so that a run killed at any point goes on from its last epoch and
    ends with the same weights. At the end these are in `folder/temporal.safetensors`, for `load_fine_tuned`.

    Args:
        model: with the weights to start from. Its spatial part must be the one that filled the caches.
        training, validation: spatial outputs and labels.

    Raises:
        DataError: the folder holds a training of another kind or a broken one, a label is not a class of the
            model, or the loss is no longer a finite number.
    """
    for cache in (training, validation):
        worst = max((label for _, label, _ in cache.clips), default=0) if cache else 0
        if worst >= model.head.out_features:
            raise DataError(
                f"a clip is of class {worst}, but the model has {model.head.out_features} classes; "
                "labels must be smaller"
            )
    folder.mkdir(parents=True, exist_ok=True)
    claim(
        folder / "training.json",
        {
            "settings": asdict(settings),
            "spatial outputs": training.origin,
            "validation": validation.origin if validation else None,
            "starting weights": hash_of(fine_tuned_weights(model)),
        },
    )
    parameters = {name: x for name, x in model.named_parameters() if name in fine_tuned_weights(model)}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.lr, weight_decay=settings.weight_decay, foreach=False
    )
    checkpoint = folder / "last_epoch.safetensors"
    epochs = _resume(checkpoint, model, parameters, optimizer) if checkpoint.exists() else []
    for epoch in range(len(epochs), settings.epochs):
        loss, top1 = _train(model, training, settings, optimizer, epoch)
        epochs.append(Epoch(loss, top1, _top1(model, validation, settings) if validation else None))
        moments = {
            f"{moment}/{name}": optimizer.state[x][moment]
            for name, x in parameters.items()
            for moment in MOMENTS
        }
        save_whole(
            checkpoint,
            {**fine_tuned_weights(model), **moments},
            {"epochs": json.dumps([asdict(done) for done in epochs])},
        )
    save_whole(
        folder / "temporal.safetensors",
        fine_tuned_weights(model),
        {"made by": json.dumps(asdict(settings)), "spatial outputs": training.origin},
    )
    return epochs


def _train(
    model: ViViT, cache: SpatialCache, settings: FineTuning, optimizer: torch.optim.Optimizer, epoch: int
) -> tuple[float, float]:
    """One epoch; the mean loss and the top-1 of its clips as they were trained on."""
    loss_sum, right = 0.0, 0
    with torch.random.fork_rng():
        # Chosen by the epoch's number alone, so that a resumed run draws what an unbroken one would.
        torch.manual_seed((settings.seed << 16) + epoch)
        order = torch.randperm(len(cache))
        batches = order.split(settings.batch_size)
        for batch in tqdm(batches, desc=f"epoch {epoch + 1} of {settings.epochs}", unit="batch"):
            spatial, labels = _batch(model, cache, batch)
            logits = _logits(model, spatial, settings.dropout)
            loss = F.cross_entropy(logits, labels)
            if not torch.isfinite(loss):
                raise DataError(
                    f"epoch {epoch + 1}: the loss is {loss.item()}; spatial outputs and lr must keep it finite"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(batch)
            right += int((logits.argmax(dim=-1) == labels).sum())
    return loss_sum / len(cache), right / len(cache)


@torch.no_grad()
def _top1(model: ViViT, cache: SpatialCache, settings: FineTuning) -> float:
    right = 0
    for batch in torch.arange(len(cache)).split(settings.batch_size):
        spatial, labels = _batch(model, cache, batch)
        right += int((_logits(model, spatial, dropout=0).argmax(dim=-1) == labels).sum())
    return right / len(cache)


def _batch(model: ViViT, cache: SpatialCache, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Spatial outputs (B, V, steps, D) and labels (B,) on the model's device."""
    spatial, labels = zip(*(cache[i] for i in positions.tolist()), strict=True)
    device = model.head.weight.device
    return torch.stack(spatial).to(device), torch.tensor(labels, device=device)


def _logits(model: ViViT, spatial: Tensor, dropout: float) -> Tensor:
    """The logits' mean over the views, (B, V, steps, D) to (B, classes), with dropout before the classifier."""
    x = model.temporal(spatial.flatten(0, 1))  # (B * V, D)
    x = model.head(F.dropout(x, dropout))
    return x.unflatten(0, spatial.shape[:2]).mean(dim=1)


def _resume(
    checkpoint: Path,
    model: ViViT,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> list[Epoch]:
    """Put model and optimizer where the last epoch left them; the epochs that are done."""
    try:
        with safe_open(checkpoint, framework="pt") as file:
            epochs = [Epoch(**done) for done in json.loads(file.metadata()["epochs"])]
        tensors: dict[str, Any] = load_file(checkpoint)
        moments = {
            name: {moment: tensors.pop(f"{moment}/{name}") for moment in MOMENTS} for name in parameters
        }
        load_fine_tuned(model, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{checkpoint}: broken ({error}); delete {checkpoint.parent} to start anew"
        ) from error
    state = optimizer.state_dict()
    state["state"] = dict(enumerate(moments.values()))
    optimizer.load_state_dict(state)
    return epochs
