"""A long measurement in several processes, batch by batch."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import NoReturn, TypeVar

import torch
from tqdm import tqdm

from evt.evaluate.ledger import Ledger
from evt.workers import LOOK_EVERY, Watch, on_failure

R = TypeVar("R")


def n_workers(workers: int | None) -> int:
    """How many processes `workers=...` asks for; null is one a CPU core, or a single one beside a GPU."""
    return workers or (1 if torch.cuda.is_available() else os.cpu_count() or 1)


def in_batches(
    function: Callable[[range], R],
    n: int,
    size: int,
    ledger: Ledger,
    settings: str,
    workers: int,
    progress: tqdm[NoReturn],
) -> list[R]:
    """What a function makes of each batch of the positions 0 to n - 1, in order; goes on after those in the ledger.

    Every process computes with one thread, so that results do not depend on how many there are.

    Args:
        function: of a batch; what it returns can be written as JSON.
        n, size: positions in all, and of a batch.
        ledger: keeps finished batches.
        settings: all else that results depend on.
        workers: processes.
        progress: a bar of n.

    Raises:
        ChildProcessError: a process was killed or stopped; what is finished is in the ledger.
    """
    batches = [range(n)[i : i + size] for i in range(0, n, size)]
    keys = {batch: f"{batch} {settings}" for batch in batches}
    todo = [batch for batch in batches if keys[batch] not in ledger]
    with progress:
        progress.update(n - sum(map(len, todo)))
        # Forked processes would inherit torch's threads, which do not survive that.
        processes = max(1, min(workers, len(todo)))
        with ProcessPoolExecutor(processes, get_context("spawn"), _begin) as pool, on_failure(signal.SIGKILL):
            try:
                with _ctrl_c_for_this_process_alone():
                    begun = {pool.submit(function, batch): batch for batch in todo}
                    # A pool notices the death of those processes that were there when it was last woken, and a new
                    # task wakes it before a process is begun for that task: this wakes it once more, for the last.
                    pool.submit(int)
                watch, waiting = Watch(), set(begun)
                while waiting:
                    done, waiting = wait(waiting, LOOK_EVERY, FIRST_COMPLETED)
                    for future in done:
                        batch = begun[future]
                        ledger.put(keys[batch], future.result())
                        progress.update(len(batch))
                    watch.look()
            except BrokenProcessPool as error:
                raise ChildProcessError(
                    "a process of this run was ended from outside, as the system does where memory is short; start "
                    "it again, and it goes on after what is finished (fewer workers need less memory)"
                ) from error
    return [ledger[keys[batch]] for batch in batches]


@contextmanager
def _ctrl_c_for_this_process_alone() -> Iterator[None]:
    """Processes begun in the block do not get Ctrl-C, not even while they import: this one ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    torch.set_num_threads(1)
    Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """Else the processes of a killed run would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
