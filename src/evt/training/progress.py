"""How far a run has come: what it writes down so that it can be killed at any moment, and goes on."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evt.errors import TrainingError
from evt.files import append, seal, unsealed, write
from evt.models.checkpoints import BROKEN, hash_of
from evt.training.recipe import Recipe
from evt.workers import is_first


@dataclass
class Progress:
    """A run's folder and all that it goes on from.

    Leaves `log.jsonl` (a line a step) and `last.pt` (weights, optimizers, scaler, identity, log, and behind them
    their hash) in the folder.

    folder: of the run.
    model, optimizers, scaler: what a step changes; optimizers by their names in `last.pt`.
    identity: what must not change between a run and its resumption, see `identity_of`.
    log: the lines of all steps so far.
    """

    folder: Path
    model: nn.Module
    optimizers: Mapping[str, torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    identity: dict[str, Any]
    log: list[str] = field(default_factory=list)

    def resume(self, device: torch.device) -> int:
        """Take up the run in the folder, if there is one; the number of steps that it has done.

        Raises:
            TrainingError: the folder holds another run, which differs in its identity, or a broken one.
        """
        path, log = self.folder / "last.pt", self.folder / "log.jsonl"
        if not path.exists():
            if is_first():
                log.unlink(missing_ok=True)
            return 0
        broken = (
            f"{path}: is broken, or of another version of this program; delete {self.folder} to start anew"
        )
        try:
            content = unsealed(path.read_bytes())
            if content is None:
                raise ValueError("the hash is of something else")
            last = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
            found = last["identity"]
        except (OSError, *BROKEN) as error:
            raise TrainingError(broken) from error
        if differ := differences(self.identity, found):
            raise TrainingError(
                f"{self.folder} holds another run, which differs in {differ}; "
                "give another folder, or the settings that it was begun with"
            )
        if not self.optimizers.keys() <= last.keys():
            raise TrainingError(broken)
        self.model.load_state_dict(last["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(last[name])
        self.scaler.load_state_dict(last["scaler"])
        self.log = last["log"]
        if is_first():
            # What was logged after the last checkpoint will be done, and logged, again.
            write(log, "".join(f"{line}\n" for line in self.log))
        return len(self.log)

    def add(self, step: Mapping[str, float]) -> None:
        """Write a step's line into the log."""
        self.log.append(json.dumps(step))
        append(self.folder / "log.jsonl", self.log[-1])

    def save(self) -> None:
        """Write all that a run goes on from; the log, too, so that no step is lost from it, or twice in it."""
        state = {
            "model": self.model.state_dict(),
            **{name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "identity": self.identity,
            "log": self.log,
        }
        content = io.BytesIO()  # torch ends the process where it cannot write to a file
        torch.save(state, content)
        view = content.getbuffer()  # a copy would be as large again
        write(self.folder / "last.pt", view, seal(view))


def differences(own: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The names of what is not the same in both, for a message."""
    absent = object()  # is equal to nothing that is there
    return ", ".join(name for name in {**own, **found} if own.get(name, absent) != found.get(name, absent))


def identity_of(
    recipe: Recipe, model: nn.Module, n_samples: int, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """All that a run depends on, by the names that a message gives it; as json reads it again.

    Args:
        recipe: of which workers and save_every change nothing.
        model: with the weights to start from.
        n_samples: to train on.
        origin: what else it depends on.
    """
    settings = {
        f"train.{name}": value
        for name, value in asdict(recipe).items()
        if name not in {"workers", "save_every"}
    }
    rest = {"number of samples": n_samples, "starting weights": hash_of(model.state_dict())}
    identity: dict[str, Any] = json.loads(json.dumps({**settings, **origin, **rest}))
    return identity
