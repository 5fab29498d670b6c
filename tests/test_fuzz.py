"""What `make fuzz` makes of cases: a hang is told, of whole files as of damaged ones."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from evt.errors import DataError
from tests import fuzz


def hang(folder: Path) -> str:
    signal.pause()
    return "never"


def refuse(folder: Path) -> str:
    raise DataError("v.mp4: ends at frame 3")


def stumble(folder: Path) -> str:
    raise KeyError("a")


def crash(folder: Path) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda folder: "a", "read"),
        (refuse, "refused"),
        (stumble, "traceback"),
        (crash, "crash"),
        (hang, "hang"),
    ],
)
def test_outcomes_are_told(
    read: Callable[[Path], str], outcome: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(fuzz.KINDS, "x", fuzz.Kind(lambda folder: None, "*", read))
    if read is hang:
        monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    assert fuzz.wait_for(fuzz.launch("x", tmp_path), tmp_path)[0] == outcome
