"""What a run keeps of each video or clip, and of how it was made, so that runs can be compared."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

import evt
from evt.evaluate.race import machine
from evt.settings import as_python

RUN, SAMPLES = "run.json", "samples.jsonl"
"""How a run was made, and a line of records for each video or clip, the first line apart."""

FORMAT = 1
"""Of both files."""

PACKAGES = ("torch", "numpy", "av", "hydra-core", "pycocotools", "timm", "transformers")
"""The packages that figures may depend on."""


def made(cfg: DictConfig, checkpoint: str | None, device: torch.device) -> str:
    """How a run is made, as JSON.

    Args:
        cfg: its settings.
        checkpoint: sha256 of the weights' files; None where they were drawn.
        device: on which it runs.
    """
    content = {
        "format": FORMAT,
        "code": {"evt": evt.__version__, **_commit(Path(__file__).parent)},
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "machine": {
            "python": platform.python_version(),
            "system": platform.system(),
            "device": machine(device),
            "threads": torch.get_num_threads(),
        },
        "weights": {"sha256": checkpoint},
        "settings": {name: as_python(part) for name, part in cfg.items() if name != "hydra"},
    }
    return json.dumps(content, indent=2) + "\n"


def records_of(records: Mapping[str, Mapping[str, Any]], classes: Sequence[str] = ()) -> str:
    """What evaluators made of each video or clip, JSON line by line.

    Args:
        records: by the name of the video or clip, and of the evaluator.
        classes: the names of what is detected.
    """
    lines: Iterable[Any] = (
        {"format": FORMAT, "classes": list(classes)},
        *({"name": name, "records": own} for name, own in records.items()),
    )
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> dict[str, Any]:
    """The commit of the code, and whether there were changes that are in none; nothing outside of a git checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        # A package that is installed below somebody else's checkout is none of its files.
        git("ls-files", "--error-unmatch", __file__)
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.CalledProcessError):
        return {}
