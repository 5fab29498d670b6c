"""The one training loop: warm-up, decay, mixed precision, several processes, and exact resume.

Everything random is drawn from the recipe's seed and the place in the run, so that a run that was killed and started
again goes on as if nothing had happened.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from evt.device import processes
from evt.errors import TrainingError
from evt.training.batches import batches, seed_of, told_of_workers
from evt.training.progress import Progress, identity_of
from evt.training.recipe import Recipe, build_optimizers
from evt.training.regularization import add_drop_path
from evt.training.task import Losses, Task
from evt.workers import on_failure

M = TypeVar("M", bound=nn.Module)
S = TypeVar("S")


def train(task: Task[M, S], recipe: Recipe, folder: Path, device: torch.device) -> None:
    """Train a task's model in place, or go on where a run in this folder stopped; one that is finished is told to be.

    A run goes on only where all that it depends on is as it was: recipe, starting weights, number of samples, and the
    task's origin. Under torchrun every process trains on its share of each batch. See `Progress` for what is left in
    the folder; a line of the log has step, lr and each loss.

    Raises:
        ConfigError: the recipe has drop path, and the model no blocks, or timm cannot be imported.
        TrainingError: the data are fewer than a batch, the batch is not a multiple of the processes, the folder holds
            another run or a broken one, or the loss is no longer finite.
        DataError: a sample cannot be read.
        ChildProcessError: a worker was killed or stopped.
        OSError: the folder cannot be written to; a run that is started again goes on from the last checkpoint.
    """
    model, data = task.model, task.data
    rank, world = processes()
    if len(data) < recipe.batch_size:
        raise TrainingError(
            f"there are {len(data)} samples to train on, fewer than train.batch_size, {recipe.batch_size}"
        )
    if recipe.batch_size % world:
        raise TrainingError(
            f"train.batch_size is {recipe.batch_size}; it must be a multiple of the {world} processes"
        )
    if recipe.drop_path:
        add_drop_path(model, recipe.drop_path)
    optimizers = build_optimizers(model, recipe)
    scaler = torch.amp.GradScaler(
        device.type, enabled=recipe.precision == "float16" and device.type == "cuda"
    )
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(folder, model, optimizers, scaler, identity_of(recipe, model, len(data), task.origin))
    start = progress.resume(device)
    steps_per_epoch = len(data) // recipe.batch_size
    total = recipe.epochs * steps_per_epoch
    if start == total:
        if rank == 0:
            print(f"this run is finished: {folder} holds all of its {total} steps, and none is done again")
        model.eval()
        return

    objective: nn.Module = _Objective(model, task.losses)
    if world > 1:
        objective = DistributedDataParallel(objective, device_ids=[device] if device.type == "cuda" else None)
    model.train()
    bar = tqdm(
        batches(data, recipe, start, rank, world),
        total=total,
        initial=start,
        desc="training",
        unit="step",
        disable=rank > 0,
    )
    with told_of_workers(), on_failure(signal.SIGCONT):
        for step, batch in enumerate(bar, start):
            lr = recipe.lr_at(step, steps_per_epoch)
            for optimizer in optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = lr * group["lr_scale"]
            torch.manual_seed(seed_of(recipe.seed, step, rank))  # what the model itself samples
            dtype = getattr(torch, recipe.precision)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                found: Losses = objective(batch)
            loss = torch.stack(list(found.values())).sum()
            if not torch.isfinite(loss):
                values = ", ".join(f"{name} {x.item():g}" for name, x in found.items())
                raise TrainingError(
                    f"the loss of step {step} is not finite ({values}); a lower train.lr may help"
                )
            model.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            if recipe.clip_norm is not None:
                for optimizer in optimizers.values():
                    scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            for optimizer in optimizers.values():
                scaler.step(optimizer)
            scaler.update()
            if rank == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
                progress.add({"step": step, "lr": lr, **{name: x.item() for name, x in found.items()}})
                if (step + 1) % recipe.save_every == 0 or step + 1 == total:
                    progress.save()
    model.eval()


class _Objective(nn.Module):
    """The losses as the forward pass of a module, which is what several processes can share."""

    def __init__(self, model: nn.Module, losses: Callable[[Any, list[Any]], Losses]) -> None:
        super().__init__()
        self.model = model
        self.losses = losses

    def forward(self, batch: list[Any]) -> Losses:
        return self.losses(self.model, batch)
