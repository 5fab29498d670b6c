"""What the packets of an H.264 stream say of themselves (ITU-T H.264, sections 7.3 and 7.4)."""

from __future__ import annotations

from collections.abc import Iterator

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


class FrameNumbers:
    """Follows the numbers of the frames that others are built on, so that a missing one is noticed.

    header: of the stream; where it begins with 1, each part of a packet is preceded by its length (ISO 14496-15).
    """

    def __init__(self, header: bytes | None) -> None:
        self._bytes_of_length = 0
        self._bits_of_number = 0  # not known, or gaps are allowed
        self._planes = False
        self._last: int | None = None
        if header and header[0] == 1 and len(header) > 8:
            self._bytes_of_length = (header[4] & 3) + 1
            self._read_parameters(header[8 : 8 + int.from_bytes(header[6:8], "big")])
        elif header:
            for part in _split(header, 0):
                if part[0] & 31 == PARAMETERS:
                    self._read_parameters(part)

    def read(self, packet: bytes) -> tuple[bool, bool]:
        """Whether a packet needs no memory of what was before, an IDR picture, and whether none is missing before it.

        Where that cannot be known, none is.
        """
        for part in _split(packet, self._bytes_of_length):
            kind = part[0] & 31
            if kind == PARAMETERS:
                self._read_parameters(part)
            elif kind in (IDR, SLICE):
                return kind == IDR, self._follows(part, kind == IDR)
        return False, True

    def _follows(self, part: bytes, idr: bool) -> bool:
        if not self._bits_of_number:
            return True
        try:
            bits = Bits(part[1:32])
            for _ in range(3):  # place, type, and which parameters
                bits.ue()
            number = bits.u(self._bits_of_number + 2 * self._planes) % (1 << self._bits_of_number)
        except (ValueError, IndexError):
            self._last = None
            return True
        last, built_on = self._last, part[0] & 0x60
        if built_on or idr:
            self._last = number
        # The second field of a frame has the number of the first.
        return idr or last is None or (number - last) % (1 << self._bits_of_number) in (0, 1)

    def _read_parameters(self, part: bytes) -> None:
        try:
            self._bits_of_number, self._planes = _number_of_bits(Bits(part[1:]))
        except (ValueError, IndexError):
            self._bits_of_number = 0


def _number_of_bits(bits: Bits) -> tuple[int, bool]:
    """Of a frame's number, 0 where numbers may be left out; and whether the number of a colour plane is before it."""
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
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.u(1)
        for _ in range(2):
            bits.se()
        for _ in range(bits.ue()):
            bits.se()
    bits.ue()
    return (0 if bits.u(1) or n > 16 else n), planes


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = next_ = 8
    for _ in range(size):
        if next_:
            next_ = (last + bits.se()) % 256
        last = next_ or last


def _split(data: bytes, bytes_of_length: int) -> Iterator[bytes]:
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
