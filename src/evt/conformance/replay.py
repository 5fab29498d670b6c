"""Replays conformance cases: what the published implementations computed on small models, and what this one does.

A case is a folder with `case.json` (what was built and run) and `tensors.safetensors` (weights, inputs, outputs).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from evt.conformance import backbone, detector, dinov2, rlt, tome, vivit
from evt.conformance.case import CaseError

KINDS: dict[str, Any] = {
    "backbone": backbone,
    "detector": detector,
    "vivit": vivit,
    "rlt": rlt,
    "dinov2": dinov2,
    "tome": tome,
}
"""Of each kind the module that runs its cases, and has the largest absolute error that usually passes."""


@dataclass(frozen=True)
class Replay:
    """How a replayed case compares with its recorded outputs.

    errors: the largest absolute error of each output, by name.
    counts_equal: whether the operations of every frame and kind are equal; None where a case records none.
    tolerance: the largest error that passes.
    """

    errors: dict[str, float]
    counts_equal: bool | None
    tolerance: float

    @property
    def error(self) -> float:
        """The largest absolute error of all outputs; NaN if any is."""
        return float(torch.tensor(list(self.errors.values())).max())

    @property
    def passed(self) -> bool:
        """Whether all errors are within the tolerance and all counts equal."""
        return self.error <= self.tolerance and self.counts_equal is not False


def replay(folder: Path, tolerance: float | None = None, device: str = "cpu") -> Replay:
    """Replay the case in a folder; without a tolerance the largest absolute error that passes is its kind's.

    Raises:
        SkippedError: it needs weights that are not installed.
        CaseError: a file is missing or broken, the case is of a kind or variant that is not known, or what it says
            cannot be built or run.
    """
    try:
        return _replay(folder, tolerance, device)
    except CaseError:
        raise
    except KeyError as error:
        raise CaseError(f"the case has no {error}") from error
    except Exception as error:
        # A case may hold anything, and what fails on it first is any line of the model.
        raise CaseError(f"the case cannot be replayed: {type(error).__name__}: {error}") from error


def _replay(folder: Path, tolerance: float | None, device: str) -> Replay:
    files = case_file, tensor_file = folder / "case.json", folder / "tensors.safetensors"
    if missing := [str(file) for file in files if not file.exists()]:
        raise CaseError(f"not a case: there is no {' and no '.join(missing)}")
    try:
        case = json.loads(case_file.read_text())
        tensors = load_file(tensor_file, device)
    except (OSError, ValueError, SafetensorError) as error:
        raise CaseError(f"not a case: {error}") from error
    if not isinstance(case, dict):
        raise CaseError(f"not a case: case.json holds a {type(case).__name__}; it must hold settings by name")
    if case.get("kind") not in KINDS:
        raise CaseError(f"kind is {case.get('kind')!r}; allowed are {', '.join(KINDS)}")
    kind = KINDS[case["kind"]]
    with torch.device(device):  # where models are built
        outputs, counts = kind.run(case, tensors)
    if not outputs:
        raise CaseError("the case has no frames")
    errors = {name: max_error(x, tensors[f"output/{name}"]) for name, x in outputs.items()}
    counts_equal = None if counts is None else _counts_of(case) == counts
    return Replay(errors, counts_equal, kind.TOLERANCE if tolerance is None else tolerance)


def _counts_of(case: dict[str, Any]) -> list[Counter[str]]:
    """The recorded operations: of each frame, or of a whole video."""
    recorded = case["counts"]
    return [Counter(x) for x in (recorded if isinstance(recorded, list) else [recorded])]


def max_error(out: Tensor, recorded: Tensor) -> float:
    """The largest absolute difference; infinite where the shapes differ."""
    if out.shape != recorded.shape:
        return float("inf")
    return float((out.float() - recorded.float()).abs().max()) if out.numel() else 0.0
