"""A folder for one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evt.errors import ConfigError
from evt.files import remove_parts
from evt.workers import is_first


@contextmanager
def locked(folder: Path, setting: str = "hydra.run.dir") -> Iterator[None]:
    """Keep a folder, which exists, to this run, so that two at once do not write over each other's results.

    What a run that was killed in it left half written is removed.

    A message names the setting that it is of.

    Raises:
        ConfigError: another process has it.
        OSError: it cannot be written to.
    """
    if not is_first():  # of torchrun's processes, which has it for all
        yield
        return
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    _locks.add(lock)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another run is writing to {folder}; wait for it, or give another {setting}"
            ) from None
        for own in (folder, folder / "trace"):
            remove_parts(own)
        yield
    finally:
        _locks.remove(lock)
        os.close(lock)


_locks: set[int] = set()


def _leave_locks() -> None:
    """A forked worker that outlives a killed run would keep the run's folder locked."""
    for lock in _locks:
        os.close(lock)
    _locks.clear()


os.register_at_fork(after_in_child=_leave_locks)
