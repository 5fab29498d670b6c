"""What the packets of an H.264 stream say of themselves (ITU-T H.264, sections 7.3 and 7.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

IDR, SLICE, PARAMETERS = 5, 1, 7
WITH_CHROMA_FORMAT = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""The profiles whose parameters begin with the format of the colours and the scaling lists."""


class Bits:
    """Numbers of a part of a stream, one after the other; ValueError or IndexError where it ends."""

    def __init__(self, part: bytes) -> None:
        raw = part.replace(b"\0\0\3", b"\0\0")  # a 3 keeps two zeros from looking like a beginning
        self._bits = format(int.from_bytes(b"\1" + raw, "big"), "b")[1:]
        self._at = 0

    def u(self, n: int) -> int:
        """A number of n bits."""
        self._at += n
        if self._at > len(self._bits):
            raise ValueError("the part ends within a number")
        return int(self._bits[self._at - n : self._at], 2)

    def ue(self) -> int:
        """A number in the Exponential-Golomb code."""
        zeros = self._bits.index("1", self._at) - self._at
        self._at += zeros
        return self.u(zeros + 1) - 1

    def se(self) -> int:
        """The same, with a sign."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class Parameters(NamedTuple):
    """What is needed of the parameters of a sequence to read the beginning of a picture.

    bits_of_number: of a frame's number; 0 where it is not known.
    planes: the number of a colour plane is before it.
    order: how the order of showing is told: 0 by a number, 2 by that of the packets, 1 in a way that is not read.
    bits_of_order: of that number.
    fields: a picture may be one of two fields.
    gaps: numbers may be left out.
    """

    bits_of_number: int = 0
    planes: bool = False
    order: int = 1
    bits_of_order: int = 0
    fields: bool = False
    gaps: bool = False


class Picture(NamedTuple):
    """Of a packet.

    key: it needs no memory of what was before, an IDR picture.
    follows: none that others are built on is known to be missing before it.
    order: pictures are shown in the order of these; None where that is not known.
    """

    key: bool = False
    follows: bool = True
    order: tuple[int, int] | None = None


class FrameNumbers:
    """Follows the numbers of the frames that others are built on, so that a missing one is noticed, and their order.

    header: of the stream; where it begins with 1, each part of a packet is preceded by its length (ISO 14496-15).
    """

    def __init__(self, header: bytes | None) -> None:
        self._bytes_of_length = 0
        self._parameters = Parameters()
        self._last: int | None = None
        self._sequence = 0  # IDR pictures so far
        # Of a picture that others are built on: what was added to its number, and that.
        self._last_order = (0, 0)
        self._packets = 0
        if header and header[0] == 1 and len(header) > 8:
            self._bytes_of_length = (header[4] & 3) + 1
            self._read_parameters(header[8 : 8 + int.from_bytes(header[6:8], "big")])
        elif header:
            for part in split(header, 0):
                if part[0] & 31 == PARAMETERS:
                    self._read_parameters(part)

    def read(self, packet: bytes) -> Picture:
        """What a packet says; where that cannot be known, nothing is missing before it."""
        self._packets += 1
        for part in split(packet, self._bytes_of_length):
            kind = part[0] & 31
            if kind == PARAMETERS:
                self._read_parameters(part)
            elif kind in (IDR, SLICE):
                return self._read_slice(part, kind == IDR)
        return Picture()

    def _read_slice(self, part: bytes, idr: bool) -> Picture:
        known, built_on = self._parameters, bool(part[0] & 0x60)
        self._sequence += idr
        if not known.bits_of_number:
            return Picture(idr)
        try:
            bits = Bits(part[1:32])
            for _ in range(3):  # place, type, and which parameters
                bits.ue()
            number = bits.u(known.bits_of_number + 2 * known.planes) % (1 << known.bits_of_number)
            order = self._read_order(bits, idr, built_on)
        except (ValueError, IndexError):
            self._last = None
            return Picture(idr)
        last = self._last
        if built_on or idr:
            self._last = number
        # The second field of a frame has the number of the first.
        follows = idr or last is None or (number - last) % (1 << known.bits_of_number) in (0, 1)
        return Picture(idr, follows or known.gaps, order)

    def _read_order(self, bits: Bits, idr: bool, built_on: bool) -> tuple[int, int] | None:
        """When a picture is shown (section 8.2.1); the bits go on after its number."""
        known = self._parameters
        if known.order:
            return (self._sequence, self._packets) if known.order == 2 else None
        if known.fields and bits.u(1):
            bits.u(1)
        if idr:
            bits.ue()
            self._last_order = (0, 0)
        low, size = bits.u(known.bits_of_order), 1 << known.bits_of_order
        high, last = self._last_order
        if low < last and last - low >= size // 2:
            high += size
        elif low > last and low - last > size // 2:
            high -= size
        if built_on:
            self._last_order = (high, low)
        return self._sequence, high + low

    def _read_parameters(self, part: bytes) -> None:
        try:
            self._parameters = _parameters_of(Bits(part[1:]))
        except (ValueError, IndexError):
            self._parameters = Parameters()


def _parameters_of(bits: Bits) -> Parameters:
    profile = bits.u(8)
    bits.u(16)
    bits.ue()
    planes = False
    if profile in WITH_CHROMA_FORMAT:
        chroma = bits.ue()
        planes = chroma == 3 and bool(bits.u(1))
        bits.ue()
        bits.ue()
        bits.u(1)
        if bits.u(1):
            for i in range(12 if chroma == 3 else 8):
                if bits.u(1):
                    _skip_scaling_list(bits, 16 if i < 6 else 64)
    n = bits.ue() + 4
    order, bits_of_order = bits.ue(), 0
    if order == 0:
        bits_of_order = bits.ue() + 4
    elif order == 1:
        bits.u(1)
        for _ in range(2):
            bits.se()
        for _ in range(bits.ue()):
            bits.se()
    bits.ue()
    gaps = bool(bits.u(1))
    bits.ue()
    bits.ue()
    fields = not bits.u(1)
    return Parameters(0 if n > 16 else n, planes, order, bits_of_order, fields, gaps)


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = next_ = 8
    for _ in range(size):
        if next_:
            next_ = (last + bits.se()) % 256
        last = next_ or last


def split(data: bytes, bytes_of_length: int) -> Iterator[bytes]:
    """The parts of a packet that hold anything."""
    if not bytes_of_length:
        yield from (part for part in data.split(b"\0\0\1")[1:] if part)
        return
    at = 0
    while at + bytes_of_length < len(data):
        end = at + bytes_of_length + int.from_bytes(data[at : at + bytes_of_length], "big")
        if part := data[at + bytes_of_length : end]:
            yield part
        at = end
