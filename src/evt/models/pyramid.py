"""The simple feature pyramid of ViTDet (Li et al. 2022, section 3), under the names of its published checkpoints."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell of a map (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); in channels-last memory, as here, nothing is copied."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNorm(nn.Conv2d):
    """A convolution that keeps the map's size, without bias, and a `ChannelNorm`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = ChannelNorm(out_channels)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        return self.norm(super().forward(x))


def add_pyramid(backbone: nn.Module, dim: int, channels: int) -> None:
    """Give a backbone the layers `simfp_2` to `simfp_5` of a pyramid; named after the levels they make.

    Args:
        backbone: the module that gets them, beside its `net`.
        dim: width of a token.
        channels: of each level.

    Raises:
        ValueError: dim is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"model.backbone.dim is {dim}; it must be a multiple of 4: the pyramid quarters it")
    half, quarter = dim // 2, dim // 4
    upsample: list[nn.Module] = [nn.ConvTranspose2d(dim, half, 2, 2), ChannelNorm(half), nn.GELU()]
    scales: dict[str, tuple[int, list[nn.Module]]] = {
        "simfp_2": (quarter, [*upsample, nn.ConvTranspose2d(half, quarter, 2, 2)]),
        "simfp_3": (half, [nn.ConvTranspose2d(dim, half, 2, 2)]),
        "simfp_4": (dim, []),
        "simfp_5": (dim, [nn.MaxPool2d(2)]),
    }
    for name, (width, layers) in scales.items():
        convs = [ConvNorm(width, channels, 1), ConvNorm(channels, channels, 3)]
        backbone.add_module(name, nn.Sequential(*layers, *convs))


def pyramid(backbone: nn.Module, x: Tensor) -> list[Tensor]:
    """The levels p2 to p6 of a feature map.

    Args:
        backbone: what `add_pyramid` was given.
        x: (B, D, H, W).

    Returns:
        Five maps (B, channels, h, w); see `strides`.
    """
    levels = [backbone.get_submodule(f"simfp_{i}")(x) for i in (2, 3, 4, 5)]
    return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]


def strides(patch_size: int) -> list[float]:
    """Pixels of the input between the cells of p2 to p6: 4, 8, 16, 32 and 64 for the patches of 16 as published."""
    return [patch_size * factor for factor in (0.25, 0.5, 1, 2, 4)]
