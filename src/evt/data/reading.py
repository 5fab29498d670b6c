"""What becomes of what cannot be read in a data set, a clip say: it is left out and listed, or the work ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from evt.data.actions import ActionData
from evt.errors import DataError

log = logging.getLogger(__name__)

T = TypeVar("T")

OnError = Literal["skip", "fail"]
"""Leave out a clip that cannot be read, or end the work."""


def check_missing(data: ActionData, on_error: OnError) -> None:
    """Refuse a data set of which videos are missing, where errors are to end the work.

    Raises:
        DataError: the message names the first.
    """
    if data.missing and on_error == "fail":
        raise DataError(
            f"{data.name}: the videos of {len(data.missing)} clips are not on disk, the first {data.missing[0]}; all "
            "are needed where on_error is fail"
        )


def read_or_skip(name: str, read: Callable[[], T], skip: bool, skipped: dict[str, str]) -> T | None:
    """Read something; None where it cannot be read and is to be left out.

    Args:
        name: of what is read, unique in its data set.
        read: reads it.
        skip: leave out what cannot be read.
        skipped: what was left out, by name, with why; what is left out here is added.

    Raises:
        DataError: it cannot be read, and is not to be left out.
    """
    try:
        return read()
    except DataError as error:
        if not skip:
            raise
        log.warning("left out: %s", error)
        skipped[name] = str(error)
        return None


def left_out(missing: Sequence[str], skipped: Mapping[str, str]) -> list[str]:
    """A line for each clip that nothing was made of, with why.

    Args:
        missing: the clips whose video is not on disk.
        skipped: those that could not be read, with why.
    """
    return [
        *(f"{name}: not on disk" for name in missing),
        *(f"{name}: {reason.removeprefix(f'{name}: ')}" for name, reason in skipped.items()),
    ]
