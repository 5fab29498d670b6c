"""Finished parts of a long run, on disk as soon as they are finished, so that a run killed at any point resumes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Ledger:
    """An append-only file of (key, value) lines.

    A key must name everything that its value depends on. A line that a kill cut short is dropped on reading.

    Args:
        path: the file; made with its folder when the first part is put.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: dict[str, Any] = {}
        if path.exists():
            whole, newline, _ = path.read_bytes().rpartition(b"\n")
            for line in whole.splitlines():
                key, value = json.loads(line)
                self._parts[key] = value
            if newline:
                os.truncate(path, len(whole) + 1)

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
