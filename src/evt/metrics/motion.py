"""How much a camera moves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 128
"""Pixels on a side that pictures are resized to, whatever their shape."""


def shift(a: Tensor, b: Tensor) -> float:
    """By how much of its width or height, whichever is more, a picture is shifted against another, (3, H, W) each.

    Phase correlation (Kuglin and Hines 1975), to the nearest of `SIDE` pixels: what moves alone, in front of a camera
    that stands still, does not count as long as more of the picture stands still with it.
    """
    window = torch.hann_window(SIDE, periodic=False, device=a.device)
    x, y = (_small(image) * window * window[:, None] for image in (a, b))
    cross = torch.fft.rfft2(x) * torch.fft.rfft2(y).conj()
    peak = int(torch.fft.irfft2(cross / (cross.abs() + 1e-6), (SIDE, SIDE)).argmax())
    return max(min(at, SIDE - at) for at in divmod(peak, SIDE)) / SIDE


def _small(image: Tensor) -> Tensor:
    grey = F.interpolate(image.float().mean(0)[None, None], (SIDE, SIDE), mode="area")[0, 0]
    return grey - grey.mean()
