"""The libraries whose models are converted; neither is needed for anything else."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import torch

from evt.errors import ConfigError

_kept: list[torch.library.Library] = []


def library(name: str) -> Any:
    """timm or transformers, which then ask no server for anything.

    Raises:
        ConfigError: it is not installed, or cannot be imported.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        found = imported(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"this model needs {error.name}: pip install 'evt[{name}]'") from error
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"this model needs {name}, which is installed and cannot be imported: {first_line(error)}"
        ) from error
    if name == "transformers":
        # It tells of what was not loaded in a table, and draws a bar.
        found.utils.logging.set_verbosity_error()
        found.utils.logging.disable_progress_bar()
    return found


def imported(name: str) -> Any:
    """timm or transformers, also beside a torchvision that was built for another torch.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    # It looks whether torchvision has operators, and must not find those below.
    importlib.import_module("evt.models.ops")
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        pass  # transformers does without
    except RuntimeError:
        # A build for another torch than this one, as beside torch for CPUs: on import it asks for two operators.
        ops = torch.library.Library("torchvision", "FRAGMENT")
        ops.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        ops.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(ops)  # they are there for as long as this is
        for half in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[half]
    return importlib.import_module(name)


def first_line(error: Exception) -> str:
    """The first line of what others say."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
