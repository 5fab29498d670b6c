"""Pictures of every kind that is read, and those that are refused. What is expected is Pillow's or made by hand."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from evt.data.images import read_image, read_values
from evt.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)  # (H, W, 3)

LOSSLESS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("BMP", {}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
]


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def read(folder: Path, content: bytes) -> Tensor:
    """What is read from a file of this content; its name says nothing about the content."""
    (folder / "0.JPEG").write_bytes(content)
    return read_image(folder / "0.JPEG")


def as_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) as (3, H, W)."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand: rows are those of the picture, each behind a byte 0."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_formats_without_loss_are_read_exactly(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    got = read(tmp_path, encoded(Image.fromarray(PIXELS), kind, **options))
    assert got.dtype == torch.uint8
    assert torch.equal(got, as_tensor(PIXELS))


# Of a picture of the pixels (0 1 2 / 3 4 5): what is shown for each orientation, by the EXIF specification.
SHOWN = {
    1: [[0, 1, 2], [3, 4, 5]],
    2: [[2, 1, 0], [5, 4, 3]],
    3: [[5, 4, 3], [2, 1, 0]],
    4: [[3, 4, 5], [0, 1, 2]],
    5: [[0, 3], [1, 4], [2, 5]],
    6: [[3, 0], [4, 1], [5, 2]],
    7: [[5, 2], [4, 1], [3, 0]],
    8: [[2, 5], [1, 4], [0, 3]],
}


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_as_their_exif_says(tmp_path: Path, kind: str, orientation: int) -> None:
    """As detectron2's reader turns them; else boxes of upright pictures would lie beside the objects."""
    exif = Image.Exif()
    exif[274] = orientation
    blocks = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((8, 8), np.uint8))
    picture = Image.fromarray(np.repeat(blocks[..., None], 3, 2))
    got = read(tmp_path, encoded(picture, kind, exif=exif, quality=100))
    shown = (got[0, 4::8, 4::8].float() / 40).round().int()
    assert shown.tolist() == SHOWN[orientation]


def test_an_exif_that_cannot_be_read_turns_nothing(tmp_path: Path) -> None:
    plain = encoded(Image.fromarray(PIXELS), "JPEG")
    broken = encoded(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01")
    assert torch.equal(read(tmp_path, broken), read(tmp_path, plain))


def test_16_bits_become_8(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Pillow would clip grey ones to 255 without a word."""
    grey = np.array([[0, 255, 256, 0x1234], [0x7FFF, 0x8000, 0xFF00, 0xFFFF]], np.uint16)
    upper = [[0, 0, 1, 0x12], [0x7F, 0x80, 0xFF, 0xFF]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in grey)
    triple = np.repeat(grey[..., None], 3, 2)
    rgb_rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in triple)
    for content in (
        png(4, 2, 16, 0, rows),
        png(4, 2, 16, 2, rgb_rows),
        encoded(Image.fromarray(grey), "TIFF"),
        encoded(Image.fromarray(grey), "TIFF", compression="tiff_lzw"),
        encoded(Image.fromarray(grey.astype(">u2")), "TIFF"),
        tiff(4, 2, [16] * 3, 2, triple.astype("<u2").tobytes()),
    ):
        assert read(tmp_path, content).tolist() == [upper] * 3
    assert capfd.readouterr() == ("", "")


def tiff(
    width: int,
    height: int,
    bits: list[int],
    photometric: int,
    data: bytes,
    tags: dict[int, int] | None = None,
) -> bytes:
    """A TIFF by hand, of one strip without compression, little-endian; other tags are added to its own."""
    plain = {256: width, 257: height, 262: photometric, 277: len(bits), 278: height, 279: len(data)}
    numbers = plain | (tags or {})
    at = 8 + 2 + 12 * (len(numbers) + 2) + 4
    values = struct.pack(f"<{len(bits)}H", *bits) if len(bits) > 2 else b""
    entries = [(tag, 4, 1, value) for tag, value in numbers.items()]
    entries += [(258, 3, len(bits), at if values else bits[0]), (273, 4, 1, at + len(values))]
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + body + b"\0\0\0\0" + values + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff(2, 1, [16], 1, b"\1\2\3\4", {339: 2}), "mode I; allowed are grey"),
        (tiff(1, 1, [32], 1, b"\1\2\3\4", {339: 3}), "mode F; allowed are grey"),
        (tiff(2, 1, [8], 1, b"\1\2", {339: 2}), "8 bits a channel, sample format 2"),
        (tiff(2, 1, [16], 0, b"\1\2\3\4"), "16 bits a channel, .*0 is white"),
        (tiff(2, 1, [12], 1, b"\1\2\3"), "12 bits a channel"),
        (tiff(1, 1, [8, 8, 8], 8, b"\1\2\3"), "mode LAB"),
    ],
)
def test_numbers_that_would_be_misread_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"0\.JPEG: .*{message}"):
        read(tmp_path, content)


def test_other_modes_become_rgb(tmp_path: Path) -> None:
    """Grey is three times the same, the colour below transparency stays, palettes are looked up."""
    red = [[[255]], [[0]], [[0]]]
    assert read(tmp_path, encoded(Image.new("L", (1, 1), 7), "PNG")).flatten().tolist() == [7, 7, 7]
    assert read(tmp_path, encoded(Image.new("1", (1, 1), 1), "BMP")).flatten().tolist() == [255] * 3
    for mode, colour in (("RGBA", (255, 0, 0, 0)), ("LA", (9, 0))):
        got = read(tmp_path, encoded(Image.new(mode, (1, 1), colour), "PNG")).flatten().tolist()
        assert got == ([255, 0, 0] if mode == "RGBA" else [9, 9, 9])
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert read(tmp_path, encoded(palette, "PNG", transparency=b"\0\0")).tolist() == red
    cmyk = read(tmp_path, encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert (cmyk[:, 4, 4].int() - torch.tensor([255, 0, 0])).abs().max() <= 2


def test_only_the_named_formats_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript, a program, on an EPS."""
    started = tmp_path / "started"
    program = tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    picture = Image.fromarray(PIXELS)
    for kind in ("EPS", "GIF", "PPM", "TGA", "ICO", "JPEG2000", "PCX", "PDF"):
        with pytest.raises(DataError, match=r"0\.JPEG: not a picture in one of the formats JPEG, PNG, WEBP"):
            read(tmp_path, encoded(picture, kind))
    assert not started.exists()


def test_every_damage_to_a_png_is_found(tmp_path: Path) -> None:
    """Also to the text before the pixels, to the text after them, and to the last chunk."""
    text = chunk(b"tEXt", b"a\0b") + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"c"))
    plain = encoded(Image.fromarray(PIXELS), "PNG")
    whole = plain[:33] + text + plain[33:-12] + text + plain[-12:]
    assert torch.equal(read(tmp_path, whole), as_tensor(PIXELS))
    generator = random.Random(0)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << generator.randrange(8)
        for content in (bytes(damaged), whole[:at]):
            with pytest.raises(DataError, match=r"0\.JPEG: "):
                read(tmp_path, content)
    with pytest.raises(DataError, match=r"the checksum of the PNG chunk b'IDAT' at byte 33 does not hold"):
        read(tmp_path, plain[:60] + bytes([plain[60] ^ 1]) + plain[61:])


@pytest.mark.parametrize(
    ("kind", "options"), [*LOSSLESS, ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {})]
)
def test_a_cut_picture_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, options: dict[str, Any]
) -> None:
    """Or it is whole, where what is cut off holds no pixels; nothing of it reaches the terminal."""
    whole = encoded(Image.fromarray(PIXELS), kind, **options)
    expected = read(tmp_path, whole)
    refused = 0
    for end in range(0, len(whole), max(1, len(whole) // 50)):
        with suppress(DataError):
            refused += 1
            assert torch.equal(read(tmp_path, whole[:end]), expected)
            refused -= 1
    assert refused >= 20
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(1, 200_000_000, 8, 2, b""), "claims .* at most 89478485 pixels are allowed"),
        (png(100_000, 100_000, 1, 0, b""), "claims .* at most 89478485 pixels"),
        (png(10_000, 10_000, 8, 2, b""), "a picture of 10000x10000 pixels; at most 89478485 pixels"),
        (png(80_000_000, 1, 8, 2, b""), "80000000x1 pixels; the longer side may be at most 100 times"),
        (encoded(Image.new("L", (5000, 10)), "WEBP"), "5000x10 pixels; the longer side"),
        (tiff(65535, 65535, [8], 1, b""), "at most 89478485 pixels"),
        (struct.pack("<2sIII", b"BM", 54, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 20000, 20000, 1, 24, *[0] * 6),
         "at most 89478485 pixels"),
        (tiff(16, 16, [8], 1, bytes(256), {322: 2**16, 323: 2**16}),
         "in tiles of 4294967296 pixels"),
    ],
)  # fmt: skip
def test_bombs_end_in_a_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=rf"0\.JPEG: .*{message}"):
        read(tmp_path, content)
    assert capfd.readouterr() == ("", "")


def test_bombs_of_text_and_of_scans_end_in_a_sentence(tmp_path: Path) -> None:
    plain = encoded(Image.fromarray(PIXELS), "PNG")
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000)))
    with pytest.raises(DataError, match="too large"):
        read(tmp_path, plain[:33] + text + plain[33:])
    progressive = encoded(Image.fromarray(PIXELS), "JPEG", progressive=True)
    last = progressive.rindex(b"\xff\xda")
    with pytest.raises(DataError, match=r"\d+ scans; at most 100 are allowed"):
        read(tmp_path, progressive[:last] + progressive[last:-2] * 100 + progressive[-2:])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_a_file_of_several_pictures_is_refused(tmp_path: Path, kind: str) -> None:
    """Which of them is the frame, nothing says."""
    first, *more = (Image.fromarray(np.roll(PIXELS, i, 1)) for i in range(3))
    with pytest.raises(DataError, match=rf"a {kind} file of several pictures"):
        read(tmp_path, encoded(first, kind, save_all=True, append_images=more))


def test_of_a_jpeg_with_previews_the_first_picture_is_read(tmp_path: Path) -> None:
    """Cameras write them; every reader of JPEG takes the first."""
    first, second = Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)
    several = encoded(first, "MPO", save_all=True, append_images=[second])
    assert torch.equal(read(tmp_path, several), read(tmp_path, encoded(first, "JPEG")))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe would be waited for."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name, message in (
        ("pipe.png", "not a file"),
        ("folder.png", "not a file"),
        ("x.png", "no such picture"),
    ):
        with pytest.raises(DataError, match=rf"{name}: {message}"):
            read_image(tmp_path / name)
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(DataError, match=r"large\.png: a picture of 1073741825 bytes; at most"):
        read_image(tmp_path / "large.png")


def test_scans_of_previews_and_of_further_pictures_are_not_its_own(tmp_path: Path) -> None:
    """A header of 60 KB with what would be beginnings of scans, and as many after the end."""
    picture = encoded(Image.new("RGB", (16, 16), (200, 30, 60)), "JPEG", progressive=True)
    preview = b"\xff\xda\0\2" * 15000
    segment = b"\xff\xe5" + (len(preview) + 2).to_bytes(2, "big") + preview
    (tmp_path / "a.jpg").write_bytes(picture[:2] + segment + picture[2:] + preview)
    (tmp_path / "b.jpg").write_bytes(picture)
    assert torch.equal(read_image(tmp_path / "a.jpg"), read_image(tmp_path / "b.jpg"))


def test_threads_and_programs_without_stderr_read_tiffs(tmp_path: Path) -> None:
    """The terminal is there afterwards, and a picture is not broken for want of one."""
    path = tmp_path / "a.tif"
    path.write_bytes(encoded(Image.new("RGB", (64, 64), (200, 30, 60)), "TIFF", compression="tiff_lzw"))
    before = os.fstat(2)
    with ThreadPoolExecutor(8) as pool:
        assert all(x[0].eq(200).all() for x in pool.map(read_image, [path] * 400))
    assert os.path.samestat(before, os.fstat(2))
    kept = os.dup(2)
    os.close(2)
    try:
        picture = read_image(path)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert picture[0].eq(200).all()


def test_values_are_indices_of_indexed_pictures_and_those_of_grey_ones(tmp_path: Path) -> None:
    numbers = PIXELS[..., 0].copy()
    indexed = Image.fromarray(numbers)
    indexed.putpalette(bytes(range(256)) * 3)
    grey = Image.fromarray(numbers)
    for picture, is_indexed in ((indexed, True), (grey, False), (grey.convert("RGBA"), False)):
        picture.save(tmp_path / "0.png")
        values, found = read_values(tmp_path / "0.png")
        assert (values.dtype, found) == (torch.uint8, is_indexed)
        assert values.tolist() == numbers.tolist()
    Image.fromarray(PIXELS).save(tmp_path / "0.png")
    with pytest.raises(
        DataError, match=r"0\.png: a picture of mode RGB; a mask must be indexed, or grey of 8 bits"
    ):
        read_values(tmp_path / "0.png")
