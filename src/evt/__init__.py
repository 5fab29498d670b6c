"""Eventful Transformers: recompute only the tokens of a video that changed (Dutson, Li, Gupta, ICCV 2023)."""

import sys

from evt.interrupt import leave_at_once

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # what it is while `python -m evt.COMMAND` looks for the command
    leave_at_once()
