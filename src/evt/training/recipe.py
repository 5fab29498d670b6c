"""How something is trained: the settings of a run, its learning rate at each step, and its optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from evt.training.muon import Muon

Precision = Literal["float32", "bfloat16", "float16"]
Optimizer = Literal["adamw", "muon"]


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

    Raises:
        ValueError: a setting out of its range, or not of its kind; the message names it.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    optimizer: Optimizer = "adamw"
    warmup_steps: int = 0
    decay_epochs: Sequence[int] = ()
    cosine: bool = False
    clip_norm: float | None = None
    precision: Precision = "float32"
    workers: int = 0
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("save_every", 1),
            ("workers", 0),
            ("warmup_steps", 0),
        ):
            value = getattr(self, name)
            if not _is_whole(value) or value < least:
                raise ValueError(f"train.{name} is {value!r}; it must be a whole number of at least {least}")
        if not _is_whole(self.seed):
            raise ValueError(f"train.seed is {self.seed!r}; it must be a whole number")
        if not all(_is_whole(epoch) and epoch >= 1 for epoch in self.decay_epochs):
            raise ValueError(
                f"train.decay_epochs is {list(self.decay_epochs)}; each must be a whole number of at least 1"
            )
        for name in ("lr", "weight_decay"):
            value = getattr(self, name)
            if not _is_finite(value) or value < 0:
                raise ValueError(f"train.{name} is {value!r}; it must be a finite number of at least 0")
        if self.clip_norm is not None and (not _is_finite(self.clip_norm) or self.clip_norm <= 0):
            raise ValueError(
                f"train.clip_norm is {self.clip_norm!r}; it must be a finite number above 0, or null"
            )
        for name, choices in (("precision", get_args(Precision)), ("optimizer", get_args(Optimizer))):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"train.{name} is {value!r}; it must be one of {', '.join(choices)}")
        if self.cosine and self.decay_epochs:
            raise ValueError("train.cosine and train.decay_epochs are both set; only one of them can be")

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

    Matrices decay, and biases, norms and positions do not.
    """
    matrices, in_blocks, others = [], [], []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if p.ndim < 2 or "pos" in name.rpartition(".")[2]:
            others.append(p)
        elif recipe.optimizer == "muon" and p.ndim == 2 and ".blocks." in f".{name}":
            in_blocks.append(p)
        else:
            matrices.append(p)
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizers: dict[str, torch.optim.Optimizer] = {"optimizer": torch.optim.AdamW(groups, lr=recipe.lr)}
    if in_blocks:
        optimizers["muon"] = Muon(in_blocks, recipe.lr, recipe.weight_decay)
    return optimizers


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
