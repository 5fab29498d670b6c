"""Finished parts of a long run, on disk as soon as they are finished, so that a run killed at any point resumes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from evt.data.video import DataError


class Ledger:
    """An append-only file of (key, value) lines.

    A key must name everything that its value depends on. A line that a kill cut short is dropped on reading.

    Args:
        path: the file; made with its folder when the first part is put.

    Raises:
        DataError: another line of the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: dict[str, Any] = {}
        if path.exists():
            whole, newline, _ = path.read_bytes().rpartition(b"\n")
            for number, line in enumerate(whole.splitlines(), 1):
                try:
                    part = json.loads(line)
                except ValueError:
                    part = None
                match part:
                    case [str(key), value]:
                        self._parts[key] = value
                    case _:
                        raise DataError(
                            f"{path}: line {number} is damaged, so that finished parts cannot be taken up; "
                            "delete the file to compute them anew"
                        )
            os.truncate(path, len(whole) + len(newline))

    def __contains__(self, key: str) -> bool:
        return key in self._parts

    def __getitem__(self, key: str) -> Any:
        return self._parts[key]

    def put(self, key: str, value: Any) -> None:
        """Record a finished part; it is on disk when this returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(json.dumps([key, value]).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._parts[key] = value

    def finish(self) -> None:
        """Forget all parts, once what they were for is written: a later run computes anew."""
        self._path.unlink(missing_ok=True)
