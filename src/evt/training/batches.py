"""The samples of each step of a run: in which order they come, what is random about them, and who reads them.

Order and randomness are drawn from the recipe's seed and the place in the run, so that a run which goes on sees what
it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from evt.errors import DataError
from evt.training.recipe import Recipe
from evt.training.task import TrainingData
from evt.workers import LOOK_EVERY, Watch

S = TypeVar("S")


def batches(
    data: TrainingData[S], recipe: Recipe, start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[list[S]]:
    """One process's share of the samples of each step, from step `start` on.

    Args:
        data: what is trained on; every sample once an epoch, but for those that fill no batch.
        recipe: its batch size, epochs, seed and workers.
        start: steps that are done.
        rank, world: this process, and how many share each batch.

    Raises:
        DataError: a sample cannot be read.
        ChildProcessError: a worker is stopped.
    """
    loader = DataLoader(
        _Seeded(data, recipe.seed),
        batch_sampler=_keys(len(data), recipe, start, slice(rank, None, world)),
        num_workers=recipe.workers,
        collate_fn=list,
        persistent_workers=False,
        timeout=LOOK_EVERY if recipe.workers else 0,
    )
    for batch in _watched(loader):
        for sample in batch:
            if isinstance(sample, _Unread):
                raise DataError(sample.message)
        yield batch


def _watched(batches: DataLoader[Any]) -> Iterator[Any]:
    """A loader's batches; its workers are looked at while one is waited for.

    Raises:
        ChildProcessError: a worker is stopped.
    """
    watch, iterator, end = Watch(), iter(batches), object()
    while True:
        try:
            batch = next(iterator, end)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            watch.look()
            continue
        if batch is end:
            return
        yield batch


@contextmanager
def told_of_workers() -> Iterator[None]:
    """Say in one sentence that a worker was killed while the block ran.

    torch raises a RuntimeError of several lines for it, anywhere.

    Raises:
        ChildProcessError: one was.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            "a process that reads samples was ended from outside, as the system does where memory is short; start "
            "the run again, and it goes on from its last checkpoint (fewer train.workers need less memory)"
        ) from error


@dataclass(frozen=True)
class _Unread:
    """Stands for a sample that cannot be read: an exception would leave a worker with its traceback as message."""

    message: str


@dataclass(frozen=True)
class _Seeded(Dataset[S | _Unread], Generic[S]):
    """Samples by (epoch, index), each augmented by a seed of its own."""

    data: TrainingData[S]
    seed: int

    def __getitem__(self, key: tuple[int, int]) -> S | _Unread:
        epoch, i = key
        try:
            return self.data.sample(i, torch.Generator().manual_seed(seed_of(self.seed, epoch, i)))
        except DataError as error:
            return _Unread(str(error))


def _keys(n_samples: int, recipe: Recipe, start: int, share: slice) -> Iterator[list[tuple[int, int]]]:
    """The (epoch, index) keys of each step from `start` on, for the process that has this share of a batch."""
    size = recipe.batch_size
    per_epoch = n_samples // size
    for epoch in range(start // per_epoch, recipe.epochs):
        generator = torch.Generator().manual_seed(seed_of(recipe.seed, epoch))
        order = torch.randperm(n_samples, generator=generator).tolist()
        first = start % per_epoch if epoch == start // per_epoch else 0
        for step in range(first, per_epoch):
            yield [(epoch, i) for i in order[step * size : (step + 1) * size][share]]


def seed_of(*place: int) -> int:
    """A seed for a place in a run: near places give unrelated ones."""
    value = 0
    for number in place:
        value = (value * 6364136223846793005 + number * 1442695040888963407 + 1) % 2**63
    return value
