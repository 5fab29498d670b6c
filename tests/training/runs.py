"""Runs of seconds, of a model that fits pairs of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from evt.training.loop import train
from evt.training.recipe import Recipe
from evt.training.task import Losses, Task

RECIPE = Recipe(epochs=3, batch_size=4, lr=0.05, weight_decay=0.1, warmup_steps=2, save_every=2)


class Noise:
    """Pairs (x, y) with y linear in x, of which x is noisy anew in every epoch."""

    def __len__(self) -> int:
        return 18

    def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.arange(3.0) * i / 18 + 0.1 * torch.randn(3, generator=generator)
        return x, x.sum(-1, keepdim=True)


def squared_error(model: nn.Module, batch: list[tuple[Tensor, Tensor]]) -> Losses:
    x, y = (torch.stack(part) for part in zip(*batch, strict=True))
    x = x * (torch.rand(len(x), 1) < 0.9)  # something random within the model
    return {
        "error": (model(x) - y).square().mean(),
        "size": 1e-3 * sum(p.square().sum() for p in model.parameters()),
    }


class KilledError(Exception):
    pass


def killed_after(steps: int):  # type: ignore[no-untyped-def]
    left = iter(range(steps))

    def losses(model: nn.Module, batch: list[tuple[Tensor, Tensor]]) -> Losses:
        if next(left, None) is None:
            raise KilledError
        return squared_error(model, batch)

    return losses


def small_model(width: int = 8, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.Linear(width, 1))


ORIGIN = {"data.root": "here", "model.window_blocks": (0, 1)}


def trained(  # type: ignore[no-untyped-def]
    folder: Path,
    recipe: Recipe = RECIPE,
    losses=squared_error,
    data: Noise | None = None,
    model: nn.Module | None = None,
    origin: Mapping[str, object] = ORIGIN,
) -> nn.Module:
    model = model or small_model()
    task = Task(model, data or Noise(), losses, origin, weights=model.state_dict)
    train(task, recipe, folder, torch.device("cpu"))
    return model


def in_blocks() -> nn.Module:
    """A model of which Muon trains the matrices."""
    model = nn.Module()
    model.blocks = small_model()
    model.forward = model.blocks.forward
    return model
