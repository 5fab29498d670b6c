"""Finished parts of a long run, on disk as soon as they are finished, so that a run killed at any point resumes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from evt.files import append, naming

log = logging.getLogger(__name__)


class Ledger:
    """An append-only file of lines, each [key, value, hash] as JSON.

    A key must name everything that its value depends on. The hash, a sha256, is of the line without it. A line that
    a kill cut short is dropped on reading; one that is damaged, edited, or of another program is told and left
    alone, so that its part is computed anew.

    Args:
        path: the file; its folder is made, and the file when the first part is put.

    Raises:
        OSError: the file cannot be read, or its folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return
        with naming(path):
            content = path.read_bytes()
            whole, newline, rest = content.rpartition(b"\n")
            if rest:
                os.truncate(path, len(whole) + len(newline))
        lines = whole.split(b"\n") if newline else []
        damaged = []
        for number, line in enumerate(lines, 1):
            # Nothing of a line is read before its hash is: JSON that is damaged need not look so.
            text, end = line[:-_END], line[-_END:]
            if end == _end(text):
                key, value = json.loads(text + b"]")
                self._parts[key] = value
            else:
                damaged.append(str(number))
        if damaged:
            log.warning(
                "%s: line %s is damaged, edited or of another program; what it was of is computed anew",
                path,
                ", ".join(damaged),
            )

    def __contains__(self, key: str) -> bool:
        return key in self._parts

    def __getitem__(self, key: str) -> Any:
        return self._parts[key]

    def put(self, key: str, value: Any) -> None:
        """Record a finished part; it is on disk when this returns.

        Raises:
            OSError: it cannot be written; the parts before are kept.
        """
        text = json.dumps([key, value])[:-1].encode()
        append(self._path, (text + _end(text)).decode())
        self._parts[key] = value

    def know(self, other: Ledger) -> None:
        """Know the parts of another one, too, without writing them here."""
        self._parts = {**other._parts, **self._parts}

    def finish(self) -> None:
        """Forget all parts, once what they were for is written: a later run computes anew."""
        self._path.unlink(missing_ok=True)


def _end(text: bytes) -> bytes:
    """The end of a line: its hash, as the last entry of its list."""
    return f', "{hashlib.sha256(text).hexdigest()}"]'.encode()


_END = len(_end(b""))
