"""Eventful Transformers: recompute only the tokens of a video that changed (Dutson, Li, Gupta, ICCV 2023)."""

from evt.interrupt import is_command, leave_at_once

__version__ = "0.1.0"

if is_command():
    leave_at_once()
