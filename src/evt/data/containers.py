"""What the containers of videos say of themselves and ffmpeg does not pass on: where a file should end, how long a
track should last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

HEAD = 2**16
"""Bytes of a file that hold the headers looked at here."""

ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""The name of the object with the file's size (Advanced Systems Format, section 3.2)."""


def declared_end(path: Path) -> int | None:
    """The size in bytes that the header of a Matroska, WebM, AVI or WMV file gives it; None where none does."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _matroska_end(head)
    if head.startswith(b"RIFF"):
        return 8 + int.from_bytes(head[4:8], "little")
    at = head.find(
        ASF_PROPERTIES
    )  # then the object's size, the file's name, both of no use here, and its size
    return int.from_bytes(head[at + 40 : at + 48], "little") if at >= 0 else None


def _matroska_end(head: bytes) -> int | None:
    """Of the segment, which is all but the first element (RFC 8794, section 4, RFC 9559, section 5.1)."""
    size, at = _variable(head, 4)
    at += size or 0
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return None
    size, at = _variable(head, at + 4)
    return None if size is None else at + size


def _variable(head: bytes, at: int) -> tuple[int | None, int]:
    """A size of 1 to 8 bytes, None where it is not known, and where it ends."""
    n = 9 - head[at].bit_length() if at < len(head) and head[at] else 8
    value = int.from_bytes(head[at : at + n], "big") % (1 << 7 * n)
    return None if value == (1 << 7 * n) - 1 else value, at + n


def track_lasts(path: Path) -> tuple[float, bool] | None:
    """How many seconds the first track of pictures lasts by the header of an mp4 or mov; if its edit list agrees.

    They are of the clock of the film, beside that of the track by which its frames are shown (ISO 14496-12, sections
    8.3.2 and 8.6.6). None where the header does not say, or says it of the first of several fragments.
    """
    with path.open("rb") as file:
        boxes = list(_boxes(_film(file)))
    if any(kind == b"mvex" for kind, _ in boxes):
        return None
    scale = next((_number(box, 12, 20, 4) for kind, box in boxes if kind == b"mvhd"), 0)
    for track in (dict(_boxes(box)) for kind, box in boxes if kind == b"trak"):
        if dict(_boxes(track.get(b"mdia", b""))).get(b"hdlr", b"")[8:12] != b"vide":
            continue
        header, edits = track.get(b"tkhd", b""), dict(_boxes(track.get(b"edts", b""))).get(b"elst", b"")
        wide = 8 if header[:1] == b"\1" else 4
        duration = _number(header, 20, 28, wide)
        if not scale or duration in (0, (1 << 8 * wide) - 1):
            return None
        # Of an edit: how long it lasts, from when, and how fast.
        wide = 8 if edits[:1] == b"\1" else 4
        edited = sum(
            int.from_bytes(edits[at : at + wide], "big") for at in range(8, len(edits), 2 * wide + 4)
        )
        return duration / scale, abs(edited - duration) <= 0.01 * duration
    return None


def _number(box: bytes, at: int, at_if_long: int, wide: int) -> int:
    """A number of a box, whose place depends on the version, its first byte."""
    at = at_if_long if box[:1] == b"\1" else at
    return int.from_bytes(box[at : at + wide], "big")


def _film(file: BinaryIO) -> bytes:
    """The box of the headers, at the start or after the pictures; empty where there is none."""
    end = file.seek(0, 2)
    at = 0
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if head[4:8] == b"moov":
            return head[8:] + file.read(size - 16)
        if size < 8:
            break
        at += size
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names and contents of boxes that follow one another."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size
