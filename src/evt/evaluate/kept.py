"""What a run keeps of each video or clip, and of how it was made, so that runs can be compared."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

import evt
from evt.evaluate.budget import lines
from evt.evaluate.race import machine
from evt.settings import as_python

RUN, SAMPLES, BUDGET = "run.json", "samples.jsonl", "budget.csv"
"""How a run was made; a line of records for each video or clip, after one of its own; and r, where that is logged."""

FORMAT = 2
"""Of the first two. 1 did not say what a video of a name shows."""

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


@dataclass(frozen=True)
class Kept:
    """What was made of a video or clip.

    fingerprint: changes with what it shows.
    records: of the evaluators, by name.
    """

    fingerprint: str
    records: Mapping[str, Any]


def files_of(kept: Mapping[str, Kept], classes: Sequence[str] = ()) -> dict[str, str]:
    """What is kept of videos or clips, by name, as files: JSON line by line, and what budgets were.

    classes: the names of what is detected.
    """
    content: Iterable[Any] = (
        {"format": FORMAT, "classes": list(classes)},
        *(
            {"name": name, "content": _short(own.fingerprint), "records": own.records}
            for name, own in kept.items()
        ),
    )
    files = {SAMPLES: "".join(f"{json.dumps(line)}\n" for line in content)}
    if logs := {name: own.records["budget"] for name, own in kept.items() if "budget" in own.records}:
        files[BUDGET] = lines(logs)
    return files


def _short(fingerprint: str) -> str:
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git(folder: Path, *arguments: str) -> list[str]:
    """What git says in a folder, line by line.

    Raises:
        OSError: there is no git.
        CalledProcessError: it fails, as where the folder is in no checkout.
    """
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def _commit(folder: Path) -> dict[str, Any]:
    """The commit of the code, and whether there were changes that are in none; nothing outside of a git checkout."""
    try:
        # A package that is installed below somebody else's checkout is none of its files.
        git(folder, "ls-files", "--error-unmatch", __file__)
        (commit,) = git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(git(folder, "status", "--porcelain", "--", "."))}
    except (OSError, subprocess.CalledProcessError):
        return {}
