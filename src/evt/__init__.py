"""Eventful Transformers: recompute only the tokens of a video that changed (Dutson, Li, Gupta, ICCV 2023)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from evt.interrupt import is_command, leave_at_once
from evt.version import __version__

if TYPE_CHECKING:
    from evt.eventful import (
        VARIANTS,
        Batch,
        Budget,
        Change,
        Codec,
        Every,
        Latency,
        Operations,
        Refresh,
        Regions,
        Rollout,
        Scheduled,
        Similarity,
        Stream,
        Threshold,
        TopR,
        Variant,
        count_ops,
    )
    from evt.models.exported import export
    from evt.models.foreign import Converted, convert

__all__ = [
    "VARIANTS",
    "Batch",
    "Budget",
    "Change",
    "Codec",
    "Converted",
    "Every",
    "Latency",
    "Operations",
    "Refresh",
    "Regions",
    "Rollout",
    "Scheduled",
    "Similarity",
    "Stream",
    "Threshold",
    "TopR",
    "Variant",
    "__version__",
    "convert",
    "count_ops",
    "export",
]

if is_command():
    leave_at_once()


def __getattr__(name: str) -> Any:
    # A command says its version, or that it was interrupted, before torch is imported.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    rooms = {
        "Converted": "evt.models.foreign",
        "convert": "evt.models.foreign",
        "export": "evt.models.exported",
    }
    return getattr(import_module(rooms.get(name, "evt.eventful")), name)
