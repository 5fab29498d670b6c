"""Pictures on disk, as tensors."""

from __future__ import annotations

import io
import logging
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from evt.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Those of Pillow's that may be opened; among the others is EPS, which starts another program."""

ENDINGS = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""What the names of pictures end in, in small or capital letters."""

MAX_PIXELS = 89_478_485
"""Of a picture: where Pillow begins to warn of decompression bombs."""

MAX_RATIO = 100
"""Of the longer to the shorter side: models that scale the shorter side would blow up anything longer."""

MAX_BYTES = 2**30
"""Of a file: more than the largest picture with 16 bits a channel needs."""

MAX_SCANS = 100
"""Of a progressive JPEG, each of which takes a pass over all pixels; encoders write about 10."""

_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
"""Of a JPEG; FF 00, FF D0 to FF D7 are within a scan, and others have no length."""

_stderr = threading.Lock()
"""While it goes nowhere for all threads."""

_8_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")
_16_BITS = ("I;16", "I;16B")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation; Pillow's rotations go against the clock."""

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # Pillow's own lines are not for the user


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Reads a JPEG, PNG, WebP, BMP or TIFF picture; its content counts, whatever its name ends in.

    It is turned as its EXIF orientation says, as detectron2's `read_image` does, so boxes on it are those of the
    turned picture, and so are width and height. Grey, palette and CMYK become RGB, and transparency is dropped, by
    Pillow's `convert`. Of 16 bits a channel the upper 8 are taken. Of a JPEG that holds further pictures (MPO, the
    previews of cameras) the first is read.

    Args:
        path: The file.

    Returns:
        (3, H, W) uint8, RGB.

    Raises:
        DataError: The file is missing, is none of these or is broken (a PNG also where a chunk's checksum does not
            hold), has several pictures, channels of other than 1 to 8 or 16 bits, or more pixels, a longer shape or
            more scans than any frame has.
    """
    return torch.from_numpy(_pixels(path, _rgb)).permute(2, 0, 1).contiguous()


def read_values(path: str | os.PathLike[str]) -> tuple[Tensor, bool]:
    """Reads a picture whose values are numbers, as masks are: as `read_image`, but for what becomes of the pixels.

    Args:
        path: The file.

    Returns:
        The indices of an indexed picture, or the values of a grey one, (H, W) uint8; and whether it is indexed. One
        with channels of colour is grey where these are equal.

    Raises:
        DataError: See `read_image`, and where it is neither.
    """
    indexed = False

    def values(picture: Image.Image) -> np.ndarray:
        nonlocal indexed
        indexed = picture.mode == "P"
        if indexed or picture.mode == "L":
            return np.array(picture)
        pixels = _rgb(picture)
        if picture.mode in _16_BITS or (pixels != pixels[..., :1]).any():
            raise DataError(
                f"{path}: a picture of mode {picture.mode}; a mask must be indexed, or grey of 8 bits"
            )
        return pixels[..., 0].copy()

    return torch.from_numpy(_pixels(path, values)), indexed


def _pixels(path: str | os.PathLike[str], convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """Those of a picture, once it is decoded and turned; see `read_image` for what is raised."""
    content = _read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                _check(path, picture, content)
                _decode(picture)  # Pillow turns a TIFF here, and its orientation is gone then
                return convert(_turned(picture))
        except DataError:
            raise
        except UnidentifiedImageError:
            raise DataError(
                f"{path}: not a picture in one of the formats {', '.join(FORMATS)}, or its header is broken"
            ) from None
        except Image.DecompressionBombError as error:
            raise DataError(
                f"{path}: the header claims too large a picture; at most {MAX_PIXELS} pixels are allowed"
            ) from error
        except Exception as error:  # Pillow's plugins raise about everything on broken content
            raise DataError(
                f"{path}: the picture is truncated or broken ({error}); it must decode whole"
            ) from error


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            raise DataError(f"{path}: {'not a file' if os.path.exists(path) else 'no such picture'}")
        if (size := os.path.getsize(path)) > MAX_BYTES:
            raise DataError(f"{path}: a picture of {size} bytes; at most {MAX_BYTES} are allowed")
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the picture cannot be read ({error.strerror})") from error


def _check(path: str | os.PathLike[str], picture: Image.Image, content: bytes) -> None:
    """Check what can be known without decoding.

    Raises:
        DataError: see `read_image`.
    """
    width, height = picture.size
    sides = f"{path}: the header claims a picture of {width}x{height} pixels"
    if width * height > MAX_PIXELS:
        raise DataError(f"{sides}; at most {MAX_PIXELS} pixels are allowed")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise DataError(f"{sides}; the longer side may be at most {MAX_RATIO} times the shorter one")
    if picture.mode not in _8_BITS + _16_BITS:
        raise DataError(
            f"{path}: a {picture.format} picture of mode {picture.mode}; allowed are grey, palette, RGB and CMYK "
            "of at most 8 bits a channel, or of 16"
        )
    if picture.format == "PNG":
        _check_chunks(path, content)
    if picture.format == "TIFF":
        _check_tags(path, picture)
    if picture.format in ("JPEG", "MPO"):
        if (scans := _scans(content)) > MAX_SCANS:
            raise DataError(f"{path}: a JPEG picture of {scans} scans; at most {MAX_SCANS} are allowed")
    else:
        with suppress(EOFError):
            picture.seek(1)
            raise DataError(f"{path}: a {picture.format} file of several pictures; a frame must be one")


def _scans(content: bytes) -> int:
    """Of the first picture of a JPEG; those of the previews in its headers, and of what follows it, are others'.

    Markers are FF and another byte, and all but those within a scan are followed by the length of what belongs to
    them (ITU-T T.81, B.1.1).
    """
    scans, at = 0, 2
    while (found := _MARKER.search(content, at)) and found[0][-1] != 0xD9:  # the picture's end
        scans += found[0][-1] == 0xDA
        at = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    return scans


def _check_chunks(path: str | os.PathLike[str], content: bytes) -> None:
    """Check a PNG's checksums, of which Pillow leaves those of pixels and of what follows them aside.

    A chunk is the length of its data, its kind, its data, and the CRC of kind and data (PNG specification, 5.3).

    Raises:
        DataError: one does not hold, or the last chunk, IEND, is missing.
    """
    at, kind, view = 8, b"", memoryview(content)
    while kind != b"IEND":
        if at + 8 > len(content):
            raise DataError(f"{path}: the picture is truncated or broken (a PNG without its end)")
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        if view[end : end + 4] != zlib.crc32(view[at + 4 : end]).to_bytes(4, "big"):
            raise DataError(
                f"{path}: the picture is truncated or broken (the checksum of the PNG chunk {kind!r} at byte {at} "
                "does not hold)"
            )
        at = end + 4


def _check_tags(path: str | os.PathLike[str], picture: Image.Image) -> None:
    """Check what Pillow would read from a TIFF as other numbers than are meant, or into too large a tile.

    Raises:
        DataError: its numbers have a sign or 12 bits, its zero is white at 16 bits, or its tiles are too large.
    """
    tags = picture.tag_v2  # type: ignore[attr-defined]
    bits, inverted = max(tags.get(258, (1,))), tags.get(262) == 0
    if set(tags.get(339, (1,))) != {1} or bits == 12 or (bits == 16 and inverted):
        raise DataError(
            f"{path}: a TIFF picture of {bits} bits a channel, sample format {max(tags.get(339, (1,)))}, in which "
            f"0 is {'white' if inverted else 'black'}; allowed are at most 8 bits, or 16 with 0 for black, of sample "
            "format 1"
        )
    if (pixels := tags.get(322, 0) * tags.get(323, 0)) > MAX_PIXELS:
        raise DataError(
            f"{path}: a TIFF picture in tiles of {pixels} pixels; at most {MAX_PIXELS} are allowed"
        )


def _decode(picture: Image.Image) -> None:
    """Decode all of it; what libtiff has to say of a TIFF goes to no terminal, and ends in an error anyway."""
    if picture.format != "TIFF":
        picture.load()
        return
    with _stderr:
        try:
            stderr = os.dup(2)
        except OSError:  # it is closed, so nothing reaches a terminal
            picture.load()
            return
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            picture.load()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _turned(picture: Image.Image) -> Image.Image:
    """As the EXIF orientation says; an EXIF that cannot be read says nothing, as for detectron2."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # as about everything else in broken content
        return picture
    return picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture


def _rgb(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8."""
    if picture.mode in _16_BITS:  # `convert` would clip to 255
        grey = (np.asarray(picture) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(picture.convert("RGB"))
