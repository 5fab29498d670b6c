"""`data.reader=decord`: the pictures of decord, where they can be told to be the right ones.

decord reads all frames in order faster than PyAV, and frames at random slower (scripts/time_video_reader.py). The
times that it gives are those of its own index and not of the picture that it decoded, so that a frame cannot be
checked by them; what can be checked is that the file is of the kind in which the two are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evt.data.reader import VideoFile
from evt.errors import DataError


class DecordFile(VideoFile):
    """A video that decord decodes, on one thread, and PyAV indexes.

    Only H.264 in mp4, mov and mkv whose key frames can all be jumped to, complete, shown as stored and without an
    edit list; with decord's index equal to PyAV's, and its first, middle and last frame bit for bit PyAV's.

    Args:
        path: the file.

    Raises:
        DataError: see `VideoFile`; also, decord is not installed, or its frames of this file are not known to be
            right. When read, a frame cannot be decoded.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        if reason := self.not_plain:
            raise self._refused(reason)
        try:
            import decord
        except ImportError as error:
            raise DataError(
                "data.reader is decord, which is not installed: pip install decord2, or give data.reader=av"
            ) from error
        decord.logging.set_level(decord.logging.FATAL)
        self._decord_error = decord.DECORDError
        self._open_decord = lambda: decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        try:
            self._decord = self._open_decord()
            begin = self._decord.get_frame_timestamp(list(range(len(self._decord))))[:, 0]
        except (RuntimeError, self._decord_error) as error:
            raise self._refused("decord cannot open it") from error
        if len(begin) != len(self) or np.abs(begin - begin[0] - (self.times - self.times[0])).max() > 1e-3:
            raise self._refused("decord finds other frames in it than PyAV")
        for i in {0, len(self) // 2, len(self) - 1}:
            if not torch.equal(self._read(i), super()._read(i)):
                raise self._refused(f"decord's frame {i} is another than PyAV's")

    def _refused(self, reason: str) -> DataError:
        return DataError(f"{self.path}: data.reader is decord, but {reason}; data.reader=av reads the file")

    def _reopen(self) -> None:
        super()._reopen()
        self._of_parent = self._decord  # whose threads are not here to be ended
        self._decord = self._open_decord()

    def _read(self, i: int) -> Tensor:
        return self._read_all([i])[0]

    def _read_all(self, places: Sequence[int]) -> list[Tensor]:
        for i in places:
            self._check(i)
        try:
            pixels = self._decord.get_batch(places).asnumpy()  # (n, H, W, 3)
        except (RuntimeError, self._decord_error) as error:
            raise self._refused(f"decord cannot decode frames {places[0]} to {places[-1]}") from error
        if pixels.shape != (len(places), *self.size, 3):
            raise self._refused(f"decord gives frames of shape {pixels.shape[1:]}")
        return list(torch.from_numpy(pixels).permute(0, 3, 1, 2))
