"""What models of single frames have in common: pictures of any shape, each as one square tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from evt.data.video import Frame
from evt.errors import DataError
from evt.models.letterbox import Box


class FrameModel(nn.Module):
    """A model whose streams take a tensor (1, 3, size, size) for each frame of a video.

    size: side of the square in pixels.
    pixel_mean: a buffer, by which it is known where the model is.
    """

    sees = "frames"
    size: int
    pixel_mean: Tensor

    @property
    def input_numbers(self) -> int:
        """How many numbers a frame is in memory."""
        return 3 * self.size**2

    def blank(self) -> Tensor:
        """A frame as a stream takes it, all zeros, (1, 3, size, size)."""
        return self.pixel_mean.new_zeros(1, 3, self.size, self.size)

    def inputs(self, frame: Frame) -> Iterator[Tensor]:
        """What a stream takes of a frame: the one tensor that `preprocess` makes of it.

        Raises:
            DataError: it has NaN or infinite pixels; the message names it.
        """
        try:
            yield self.preprocess(frame.image)
        except ValueError as error:
            raise DataError(f"{frame.name}: {error}") from error

    def motion(self, frame: Frame) -> Tensor:
        """How far the codec moved what each token of a frame shows, (rows, columns); see `Stream.moves`.

        Raises:
            DataError: that is not known of this frame.
        """
        if frame.motion is None:
            raise DataError(
                f"{frame.name}: the policy follows how far the codec moved what a frame shows, and of this data that "
                "is not known; it must be data=video data.motion=true"
            )
        net: Any = self.net
        return self.place_of(*frame.image.shape[-2:]).most(frame.motion, self.size, net.grid)

    def place_of(self, height: int, width: int) -> Box:
        """Where a picture of some height and width lies in the square."""
        return Box.of(height, width, self.size)

    def preprocess(self, image: Tensor) -> Tensor:
        """Make of a picture, (3, H, W) RGB in [0, 255], what a stream takes, (1, 3, size, size) float32.

        Raises:
            ValueError: see `check_picture`.
        """
        raise NotImplementedError
