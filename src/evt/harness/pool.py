"""Several rows of a table at once, one process each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

import torch

from evt.harness.setup import ConfigError

T = TypeVar("T")
R = TypeVar("R")


def n_workers(workers: object) -> int:
    """How many processes `workers=...` asks for; null is one a CPU core, or a single one beside a GPU.

    Raises:
        ConfigError: it is not a whole number from 1 to the number of cores.
    """
    most = os.cpu_count() or 1
    if workers is None:
        return 1 if torch.cuda.is_available() else most
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= most:
        raise ConfigError(f"workers is {workers!r}; it must be a whole number from 1 to {most}, or null")
    return workers


def in_processes(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[tuple[T, R]]:
    """Each task and what the function makes of it, as they are finished.

    Every process computes with one thread, so that results do not depend on how many there are.
    """
    # Forked processes would inherit torch's threads, which do not survive that.
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        begun = {pool.submit(function, task): task for task in tasks}
        try:
            for done in as_completed(begun):
                yield begun[done], done.result()
        finally:
            pool.shutdown(cancel_futures=True)
