"""A run in several processes of torchrun: each measures a share of the videos, and the first puts them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist

from evt.evaluate.ledger import Ledger


class Share:
    """Some videos or clips of a data set, which it is for everything else.

    data: whose they are.
    places: theirs, in order.
    """

    missing = ()  # who puts all together tells of them

    def __init__(self, data: Any, places: Sequence[int]) -> None:
        self._data, self._places = data, places

    def __getattr__(self, name: str) -> Any:
        if name == "_data":  # asked for while it is copied, before it is there
            raise AttributeError(name)
        return getattr(self._data, name)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> Any:
        return self._data[self._places[i]]

    def __iter__(self) -> Iterator[Any]:
        return (self._data[place] for place in self._places)


def places_of(lengths: Sequence[int], rank: int, world: int) -> list[int]:
    """What of units one of so many processes does: the longest first, each to the one with the least to do."""
    loads, chosen = [0] * world, []
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        least = loads.index(min(loads))
        loads[least] += lengths[place]
        if least == rank:
            chosen.append(place)
    return sorted(chosen)


def share_of(data: Any, rank: int, world: int) -> Share:
    """The videos or clips of a data set that one of so many processes does; clips count as equally long."""
    lengths = [len(unit) if hasattr(unit, "__len__") else 1 for unit in data]
    return Share(data, places_of(lengths, rank, world))


@contextmanager
def _all_there() -> Iterator[None]:
    """Say of a process that ended that it did, where others wait for it.

    Raises:
        ChildProcessError: one ended.
    """
    try:
        yield
    except RuntimeError as error:  # of torch's back ends
        raise ChildProcessError(
            "another process of this run ended; start the run again with the same hydra.run.dir, and it goes on "
            "after what is finished"
        ) from error


def wait_for_all() -> None:
    """Wait until all processes have come here.

    Raises:
        ChildProcessError: one ended.
    """
    with _all_there():
        dist.barrier()


def agreed(folder: Path) -> Path:
    """The folder of the first process, in all of them; one that another made for itself, in vain, goes.

    Raises:
        ChildProcessError: one ended.
    """
    told: list[Any] = [folder]
    with _all_there():
        dist.broadcast_object_list(told)
    if told[0] != folder:
        with suppress(OSError):
            folder.rmdir()
    return Path(told[0])


def ledger_of(folder: Path, name: str, rank: int | None = None) -> Ledger:
    """The ledger of a run, or of one of its processes, with what those of all others know.

    name: of the files.
    """
    own = folder / (f"{name}.jsonl" if rank is None else f"{name}.{rank}.jsonl")
    ledger = Ledger(own)
    for path in sorted(folder.glob(f"{name}*.jsonl")):
        if path != own:
            ledger.know(Ledger(path))
    return ledger


def forget(folder: Path, name: str) -> None:
    """Remove the ledgers of processes, once what they were for is written."""
    for path in folder.glob(f"{name}.*.jsonl"):
        path.unlink(missing_ok=True)
