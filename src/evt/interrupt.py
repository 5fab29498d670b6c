"""Ctrl-C ends a command with the word "interrupted" and no traceback, also while it still imports torch.

Imports the standard library alone: `evt` itself calls it before any command is imported, and scripts first of all.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


def is_command() -> bool:
    """Whether Python is about to run `python -m evt.COMMAND`; a program of others that imports `evt` is none."""
    if sys.argv[:1] != ["-m"]:  # what it is while the command is looked for
        return False
    name = sys.orig_argv[-len(sys.argv)]  # what stands before the arguments
    return name.removeprefix("-m").partition(".")[0] == "evt"


def leave_at_once() -> None:
    """Until `imports_are_done`, Ctrl-C ends the process: imports take seconds, and have nothing to clean up."""
    # A command in the background of a script ignores Ctrl-C, and goes on doing so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def imports_are_done() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt again, which whoever catches it not sees as one word."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.excepthook = _tell


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within this, Ctrl-C is not heard: for what ends in a moment, and would leave something broken."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which never hears it
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
