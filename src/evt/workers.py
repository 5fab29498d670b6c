"""The processes of a run: which one writes; none that it starts outlives it, or keeps it waiting when stopped."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children

PATIENCE = 30.0
"""Seconds that one of torchrun's processes leaves to the first one to say what both were given wrong."""
LOOK_EVERY = 2.0
"""Seconds between two looks at workers that a run waits for."""
GRACE = 6.0
"""Seconds that a worker may be stopped: after Ctrl-Z and fg all of a run wake up, but not at the same moment."""


def is_first() -> bool:
    """Whether this is the first of torchrun's processes, or the only one: the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def n_processes() -> int:
    """How many torchrun started; 1 where it did not."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leave_to_the_first() -> None:
    """Wait, but in the first process: torchrun ends all as soon as one fails, and this one is to say why."""
    if not is_first():
        time.sleep(PATIENCE)


@contextmanager
def quiet_unless_first() -> Iterator[None]:
    """Leave warnings to the first process, where all give the same ones."""
    before = logging.root.manager.disable
    if not is_first():
        logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def on_failure(number: signal.Signals) -> Iterator[None]:
    """Where the block fails or is interrupted, its workers get a signal: none is waited for that does not go on.

    Args:
        number: SIGKILL to end them at once; SIGCONT for those that are going to be told to end, and must hear it.
    """
    try:
        yield
    except BaseException:
        for worker in active_children():
            if worker.pid:
                with suppress(ProcessLookupError):  # it ended meanwhile
                    os.kill(worker.pid, number)
        raise


class Watch:
    """Looks for workers that are stopped (by SIGSTOP, say), which would be waited for in vain."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def look(self) -> None:
        """Look once.

        Raises:
            ChildProcessError: a worker has been stopped for so long that it is not going to go on.
        """
        now = time.monotonic()
        stopped = {worker.pid for worker in active_children() if worker.pid and _is_stopped(worker.pid)}
        self._since = {pid: self._since.get(pid, now) for pid in stopped}
        for pid, since in self._since.items():
            if now - since > GRACE:
                raise ChildProcessError(
                    f"process {pid} of this run was stopped, and the run waits for it in vain; "
                    "start it again, and it goes on after what is finished"
                )


def _is_stopped(pid: int) -> bool:
    try:
        # WNOWAIT: whoever else waits for it gets to know, too.
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # it has ended meanwhile
        return False
