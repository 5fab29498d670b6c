"""What becomes of the clips of a data set that cannot be read: they are left out and listed, or the work ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

from evt.data.actions import ActionClip, ActionData, Frames
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


def read_or_skip(
    clip: ActionClip, read: Callable[[Frames], T], on_error: OnError, skipped: dict[str, str]
) -> T | None:
    """Read a clip; None where it cannot be read and is to be left out.

    Args:
        clip: what to read.
        read: what to make of its frames.
        on_error: what to do where they cannot be read.
        skipped: the clips that were left out, with why; one that is left out here is added.

    Raises:
        DataError: it cannot be read, and `on_error` is "fail".
    """
    try:
        return read(clip.frames)
    except DataError as error:
        if on_error == "fail":
            raise
        log.warning("left out: %s", error)
        skipped[clip.name] = str(error)
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
