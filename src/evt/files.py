"""Files that are whole and on the disk, or not there: everything that this package keeps is written through here.

A disk that is full, a folder that may not be written to or that vanished end in an OSError that names the file, and
leave what was there before.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_SEAL = b"\nsha256 "


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file, of the same ending, which takes the place of `path` once it is written, or is removed.

    The file lies in the same folder under a name that no other writer has: a process that is killed on the way leaves
    `path` as it was. What a link leads to is replaced, and not the link; the rights of the file of before are kept.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    with naming(path):
        target = Path(os.path.realpath(path))
        part, mode = _part_of(target)
        try:
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
            os.replace(part, target)
            _sync_folder(target.parent)
        finally:
            with suppress(OSError):
                part.unlink()


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed left of files in a folder, if it is there, that they were writing."""
    for path in folder.glob(".*.part*"):
        if re.fullmatch(r"\.[0-9a-f]{16}\.part(\..*)?", path.name):
            path.unlink(missing_ok=True)


def _part_of(target: Path) -> tuple[Path, int | None]:
    """An empty file beside a target, no more open to others than it; and the target's rights, where it exists."""
    # The target's own name may have no room for more.
    part = target.with_name(f".{secrets.token_hex(8)}.part{target.suffix}")
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode | 0o600))
    return part, mode


def _sync_folder(folder: Path) -> None:
    """Put on the disk what a folder's files are called."""
    # Folders that may not be read, and disks that know no such thing, keep names as they do.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write(path: Path, *content: str | bytes | memoryview) -> None:
    """Write a file as a whole, of one or more parts.

    Raises:
        OSError: see `replacing`.
    """
    with replacing(path) as part, part.open("wb") as file:
        for x in content:
            file.write(x.encode() if isinstance(x, str) else x)


def write_together(files: Mapping[Path, str]) -> None:
    """Write files that belong together: those of before are replaced only when all are written, the first last.

    Raises:
        OSError: see `replacing`.
    """
    with ExitStack() as stack:
        for path, content in files.items():
            stack.enter_context(replacing(path)).write_text(content)


def append(path: Path, line: str) -> None:
    """Add a line to a file in one go; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written whole, and then none of it is; the error names the file.
    """
    with naming(path), path.open("ab", buffering=0) as file:
        content, size = f"{line}\n".encode(), file.tell()
        try:
            # A full disk takes the part that fits, and says so on the second try.
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                file.truncate(size)
            raise
        if not size:
            _sync_folder(path.parent)


def check_writable(path: Path) -> None:
    """Find out now, rather than after hours, that a file can be written; its folder is made.

    Raises:
        OSError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from None
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, and a file is to be written there")
    with naming(path):
        part, _ = _part_of(Path(os.path.realpath(path)))
        try:
            part.write_bytes(b"0")
        finally:
            part.unlink()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system name this file, for those of a full disk name none, and others one of passing names."""
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error.__cause__, OSError):  # named already, in a block within
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def sentence(error: Exception) -> str:
    """An error in words: the system's with the file first, as all others have it."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    said = f"{error.strerror[0].lower()}{error.strerror[1:]}"
    return said if error.filename is None else f"{error.filename}: {said}"


def sealed(content: bytes) -> bytes:
    """Content with its hash behind it."""
    return content + seal(content)


def seal(content: bytes | memoryview) -> bytes:
    """What stands behind sealed content."""
    return _SEAL + hashlib.sha256(content).hexdigest().encode()


def unsealed(content: bytes) -> bytes | None:
    """What was sealed; None where the content is damaged, cut, or was never sealed."""
    body, seal, digest = content.rpartition(_SEAL)
    whole = seal and hashlib.sha256(body).hexdigest().encode() == digest
    return body if whole else None
