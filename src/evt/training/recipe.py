"""How something is trained: the settings of a run, its learning rate at each step, and its optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from evt.checked import wrong
from evt.errors import ConfigError
from evt.training.muon import Muon
from evt.training.regularization import layer_scales


@dataclass(frozen=True)
class Recipe:
    """How to train.

    epochs, batch_size: passes over the data, and samples a step over all processes.
    lr, weight_decay: of the optimizer; biases, norms and position parameters do not decay.
    optimizer: adamw; or muon, with Muon on the matrices of Transformer blocks and AdamW on the rest.
    warmup_steps: the learning rate rises linearly over so many steps.
    decay_epochs: the learning rate falls tenfold at the start of each of these epochs, counted from 1.
    cosine: after the warm-up the learning rate follows half a cosine down to 0 instead.
    clip_norm: gradients are scaled down to this norm; null leaves them as they are.
    precision: of the forward pass; weights and the optimizer are float32.
    workers: processes that read samples; 0 reads in the training process.
    save_every: steps between checkpoints.
    seed: of the order of the samples and all else that is random.
    drop_path: the last block's branches are left out for this share of the samples, those of others for less.
    label_smoothing: of the classes of clips: this share of each label is spread over all of them.
    mixup: samples are mixed in pairs, by shares from Beta(mixup, mixup).
    layer_decay: the learning rate of each layer is that of the one behind it times this.

    The last four are off where they are not given; all but label_smoothing need timm.

    Raises:
        ConfigError: settings out of their range, or not of their kind; the message names them.
    """

    epochs: PositiveInt
    batch_size: PositiveInt
    lr: NonNegativeFloat
    weight_decay: NonNegativeFloat
    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup_steps: NonNegativeInt = 0
    decay_epochs: Sequence[PositiveInt] = ()
    cosine: bool = False
    clip_norm: PositiveFloat | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    workers: NonNegativeInt = 0
    save_every: PositiveInt = 500
    seed: int = 0
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0
    mixup: NonNegativeFloat = 0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1

    def __post_init__(self) -> None:
        if found := wrong("train", vars(self), Recipe).values:
            raise ConfigError(". ".join(found))
        if self.cosine and self.decay_epochs:
            raise ConfigError("train.cosine and train.decay_epochs are both set; only one of them can be")
        if self.mixup and self.batch_size % 2:
            raise ConfigError(
                f"train.batch_size is {self.batch_size}; with train.mixup, which mixes pairs, it must be even"
            )
        on = {"drop_path": self.drop_path > 0, "mixup": self.mixup > 0, "layer_decay": self.layer_decay < 1}
        if (setting := next((name for name, given in on.items() if given), None)) and not find_spec("timm"):
            raise ConfigError(f"train.{setting} needs timm: pip install 'evt[timm]'")

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, both counted from 0."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / (self.warmup_steps + 1)
        if self.cosine:
            rest = self.epochs * steps_per_epoch - self.warmup_steps
            return self.lr * 0.5 * (1 + math.cos(math.pi * (step - self.warmup_steps) / rest))
        return self.lr * 0.1 ** sum(step >= (epoch - 1) * steps_per_epoch for epoch in self.decay_epochs)


def build_optimizers(model: nn.Module, recipe: Recipe) -> dict[str, torch.optim.Optimizer]:
    """AdamW, and Muon where the recipe has it and there are matrices for it, under their names in `last.pt`.

    Matrices decay, and biases, norms and positions do not. Each group has an `lr_scale`, 1 without layer decay.
    """
    parts: dict[tuple[str, float], list[nn.Parameter]] = {("matrices", 1): [], ("others", 1): []}
    scales = layer_scales(model, recipe.layer_decay) if recipe.layer_decay < 1 else {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if p.ndim < 2 or "pos" in name.rpartition(".")[2]:
            part = "others"
        elif recipe.optimizer == "muon" and p.ndim == 2 and ".blocks." in f".{name}":
            part = "muon"
        else:
            part = "matrices"
        parts.setdefault((part, scales.get(name, 1)), []).append(p)

    def groups(*names: str) -> list[dict[str, Any]]:
        return [
            {
                "params": found,
                "weight_decay": 0.0 if part == "others" else recipe.weight_decay,
                "lr_scale": scale,
            }
            for (part, scale), found in parts.items()
            if part in names
        ]

    optimizers: dict[str, torch.optim.Optimizer] = {
        "optimizer": torch.optim.AdamW(groups("matrices", "others"), lr=recipe.lr)
    }
    if in_blocks := groups("muon"):
        optimizers["muon"] = Muon(in_blocks, recipe.lr, recipe.weight_decay)
    return optimizers
