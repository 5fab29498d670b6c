"""Pictures on disk, as tensors."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evt.data.video import DataError


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Reads a picture as it is stored: no EXIF rotation, grey and CMYK turned into RGB, transparency dropped.

    Args:
        path: A file that Pillow reads, with 8 bits a channel.

    Returns:
        (3, H, W) uint8, RGB.
    """
    try:
        with Image.open(path) as picture:
            # Pillow would clip 16-bit and float pictures to 255 without a word.
            if picture.mode.startswith(("I", "F")):
                raise DataError(f"{path}: a picture of mode {picture.mode}; allowed are 8 bits a channel")
            pixels = np.array(picture.convert("RGB"))  # (H, W, 3)
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture") from None
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: the picture is truncated or broken ({error}); it must decode whole"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """The (width, height) in a picture's header, without decoding it."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a picture ({error}); a readable picture is needed") from error
