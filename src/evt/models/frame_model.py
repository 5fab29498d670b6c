"""What models of single frames have in common: pictures of any shape, each as one square tensor."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from evt.data.video import Frame
from evt.errors import DataError


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

    def preprocess(self, image: Tensor) -> Tensor:
        """Make of a picture, (3, H, W) RGB in [0, 255], what a stream takes, (1, 3, size, size) float32.

        Raises:
            ValueError: see `check_picture`.
        """
        raise NotImplementedError


def check_picture(image: Tensor) -> None:
    """Refuse what is no picture.

    Raises:
        ValueError: it is not (3, H, W), or has NaN or infinite pixels.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"a frame of shape {tuple(image.shape)}; it must be (3, H, W)")
    if image.is_floating_point() and not torch.isfinite(image).all():
        raise ValueError("a frame with NaN or infinite pixels; all must be finite numbers in [0, 255]")
