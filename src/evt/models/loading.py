"""From the settings below `model` to a model with its weights."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, overload

import torch
from omegaconf import DictConfig

from evt.build import build, choices, class_of, plain
from evt.errors import ConfigError
from evt.models.checkpoints import classes_in, files_of, read_class_names
from evt.models.memory import check_memory
from evt.models.shipped import checkpoint_path

M = TypeVar("M")


class Model(Protocol):
    """What a model offers, to be built from a config and checked; `evt.evaluate.trace.Model` is to be run.

    A new one is a file with a class that has all this, and a yaml in configs/model.

    sees: what its streams take one after another: frames of a video, steps of a clip, or whole clips.
    size: side of its input in pixels.
    predicts: of a model of frames, what `decode` gives, by which its evaluator is chosen.
    """

    sees: Literal["frames", "steps", "clips"]
    size: int

    @property
    def n_tokens(self) -> int:
        """Tokens of an input."""

    @property
    def n_classes(self) -> int:
        """How many classes its predictions are of."""

    @property
    def input_numbers(self) -> int:
        """How many numbers of a sample are in memory together."""

    def initialise(self) -> None:
        """Draw the weights that are not drawn as the layers are built."""

    def load(self, paths: Sequence[str], allow_pickle: bool = False) -> list[str]:
        """Load the checkpoint, and over it the fine-tuned weights if there are any; what to tell of it."""

    def check(self, variant: Any, /) -> None:
        """Refuse a variant that the model is too small for, with a ConfigError."""


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from.

    source: the checkpoint's file or the seed, in words.
    sha256: of the checkpoint; None where the weights were drawn from a seed.
    classes: the names of what they tell apart, in order; None where these are not known.
    """

    source: str
    sha256: str | None = None
    classes: Sequence[str] | None = None

    @property
    def trained(self) -> bool:
        """Whether they come from a checkpoint."""
        return self.sha256 is not None

    def __str__(self) -> str:
        return self.source


def sees_of(cfg: DictConfig) -> str:
    """What the streams of the model see that the settings below `model` name; see `Model`."""
    sees: str = class_of(cfg, "model").sees  # type: ignore[attr-defined]
    return sees


@overload
def build_model(cfg: DictConfig, device: torch.device) -> tuple[Any, Weights]: ...
@overload
def build_model(
    cfg: DictConfig, device: torch.device, kind: type[M], backbone_only: bool = False
) -> tuple[M, Weights]: ...
def build_model(
    cfg: DictConfig, device: torch.device, kind: type = object, backbone_only: bool = False
) -> tuple[Any, Weights]:
    """The model that `model=...` names, in evaluation mode; what is to be told of its checkpoint goes to stderr.

    Args:
        cfg: the settings below `model`.
        device: where it is.
        kind: the class that is needed.
        backbone_only: take nothing but the backbone from the checkpoint, which may be for other classes.

    Raises:
        ConfigError: the model is of another class, or a setting cannot be.
        CheckpointError: the weights cannot be read, or do not fit.
    """
    if not issubclass(class_of(cfg, "model"), kind):
        allowed = list(choices("model", lambda cls: issubclass(cls, kind)))
        raise ConfigError(f"model.name is {cfg.name}; this needs a {kind.__name__}: {' or '.join(allowed)}")
    # A checkpoint may be what another setting says, which is not set; building the model tells of that.
    checkpoint, fine_tuned = map(plain(cfg).get, ("checkpoint", "fine_tuned"))
    if fine_tuned is not None and checkpoint is None:
        raise ConfigError("model.fine_tuned is set and model.checkpoint is not; fine-tuned weights need both")
    model = _seeded(cfg, device)
    if checkpoint is None:
        return model, Weights(f"seeded initialisation (seed {cfg.seed})")
    paths = [checkpoint_path(name) for name in (checkpoint, fine_tuned) if name]
    said = (
        model.load_backbone(*paths, cfg.allow_pickle)
        if backbone_only
        else model.load(paths, cfg.allow_pickle)
    )
    for sentence in said:
        print(f"{checkpoint}: {sentence}", file=sys.stderr)
    weights = _weights_of(*paths)
    # Of a backbone the classes are those of the data to come.
    return model, weights if backbone_only else _named(weights, cfg, model.n_classes)


def _seeded(cfg: DictConfig, device: torch.device) -> Any:
    """A model in evaluation mode, its weights drawn from its seed."""
    check_memory(cfg)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(cfg.seed)
        model = build(cfg, "model")
        model.initialise()
    model.eval()
    return model


def _weights_of(*paths: str) -> Weights:
    digest = hashlib.sha256()
    for path in paths:
        for file in files_of(path):
            digest.update(file.read_bytes())
    return Weights(
        " with ".join(Path(os.path.abspath(path)).name for path in paths),
        digest.hexdigest(),
        classes_in(paths[-1]),  # fine-tuned weights bring a classifier of their own
    )


def _named(weights: Weights, cfg: DictConfig, n_classes: int) -> Weights:
    """Weights with the names of their classes: those of `model.class_names`, else those in the checkpoint."""
    names = weights.classes if cfg.get("class_names") is None else read_class_names(cfg.class_names)
    if names is not None and len(names) != n_classes:
        where = cfg.get("class_names") or cfg.checkpoint
        raise ConfigError(
            f"{where} names {len(names)} classes, but the model has {n_classes}; they must be as many"
        )
    return replace(weights, classes=names)
