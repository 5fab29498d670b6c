"""The commands, run within the tests' process, and small models for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from evt.cli import run_command
from evt.run import run

Refused = Callable[..., str]
"""See the fixture `refused`."""

SMALL = [
    *(
        "model.backbone.dim=24",
        "model.backbone.depth=3",
        "model.backbone.num_heads=3",
        "model.backbone.window_size=3",
        "model.backbone.window_blocks=[0,1]",
    ),
    *("model.backbone.pretrain_grid=4", "model.backbone.rel_pos_grid=8"),
]
SMALL_RUN = ["model.size=128", "policy.r=16", "data.size=[64,96]", "data.n_frames=3", *SMALL]


def command(monkeypatch: pytest.MonkeyPatch, task: Callable[[DictConfig], object], *arguments: str) -> None:
    """What the command of this task does with these arguments: `python -m evt.run` that of `run`, and so on."""
    name = task.__module__.rpartition(".")[2]
    monkeypatch.setattr("sys.argv", [name, *arguments])
    run_command(name, task)


def run_small(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> dict[str, Any]:
    command(monkeypatch, run, *SMALL_RUN, f"hydra.run.dir={folder}", *arguments)
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


def error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
    task: Callable[[DictConfig], object] = run,
) -> str:
    """The one sentence a refused command ends with."""
    return failed(capsys, lambda: command(monkeypatch, task, *arguments))


def failed(capsys: pytest.CaptureFixture[str], run: Callable[[], object]) -> str:
    """The one sentence that a command ends with when it is given what it cannot use; its status is 2."""
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]
