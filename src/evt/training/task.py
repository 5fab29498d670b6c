"""A task: what is trained, on what, towards what, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
M = TypeVar("M", bound=nn.Module)

Losses = dict[str, Tensor]


class TrainingData(Protocol[S_co]):
    """Samples to train on. All that is random about a sample comes from the generator it is given."""

    def __len__(self) -> int: ...

    def sample(self, i: int, generator: torch.Generator) -> S_co:
        """Sample i, augmented."""


@dataclass(frozen=True)
class Task(Generic[M, S]):
    """What is trained, on what, towards what, and what is kept of it.

    model: on its device, with the weights to start from, also when a run goes on; it is trained in place.
    data: what it is trained on.
    losses: the losses of a batch of samples by name; their sum is descended.
    origin: what else the run depends on, in words that a message can use, such as the data's settings by name; of
        what json can hold.
    weights: the trained parameters that are kept, by the names under which they are loaded.
    classes: the names of the classes that they tell apart, if these have some.
    file: what they are written to, in the run's folder.
    """

    model: M
    data: TrainingData[S]
    losses: Callable[[M, list[S]], Losses]
    origin: Mapping[str, Any]
    weights: Callable[[], Mapping[str, Tensor]]
    classes: Sequence[str] | None = None
    file: str = "weights.safetensors"
