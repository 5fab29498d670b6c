"""JSON files that a command writes for a policy to read, sealed by the sha256 of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from evt.errors import ConfigError, DataError
from evt.files import check_writable, write

T = TypeVar("T")


def write_sealed(path: Path, content: Mapping[str, Any], indent: int | None = None) -> None:
    """Write content as JSON, with the sha256 of all that is before it.

    Raises:
        OSError: it cannot be written.
    """
    write(path, json.dumps({**content, "sha256": _sha256(content)}, indent=indent) + "\n")


def check_sealed(path: Path, kind: Callable[..., Any], command: str) -> None:
    """Find out now that such a file can be written, and takes the place of nothing else; see `read_sealed`.

    Raises:
        ConfigError: the name has another ending, or is that of a file of another kind.
        OSError: it cannot be written.
    """
    if path.suffix != ".json":
        raise ConfigError(f"out is {path}; it must end in .json")
    if path.is_file():
        try:
            read_sealed(path, kind, command)
        except DataError as error:
            raise ConfigError(
                f"out is {path}, a file that `python -m {command}` did not write; it must be another"
            ) from error
    check_writable(path)


def read_sealed(path: Path, kind: Callable[..., T], command: str) -> tuple[T, str]:
    """Read what `write_sealed` wrote.

    Args:
        path: of the file.
        kind: made of the content, by name.
        command: `python -m` of which writes such files.

    Returns:
        What was made, and the sha256.

    Raises:
        DataError: the file is missing, of another kind, damaged or edited.
        OSError: it cannot be read.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "there is no such file"
        raise DataError(f"{path}: {what}; `python -m {command}` writes one")
    try:
        content = json.loads(path.read_bytes())
        sha256 = content.pop("sha256")
        found = kind(**content)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: damaged, or no file that `python -m {command}` wrote") from error
    if sha256 != _sha256(content):
        raise DataError(f"{path}: damaged or edited; its sha256 is of other content")
    return found, sha256


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
