"""Pictures of which patches of a clip became one, as in figures of ToMe: each group in its mean color, bordered."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def draw_groups(frames: Tensor, groups: Tensor, border: int = 1) -> Tensor:
    """Fill each group of patches with the mean of all its pixels, over all steps that it spans.

    Args:
        frames: of a clip, (T, 3, H, W), in [0, 1] or any other range.
        groups: of each patch, whose numbers are the same where they became one, (steps, rows, columns), as in
            `VideoMAE.trace`; -1 for patches that were dropped, which are black.
        border: pixels between patches of different groups that are white, on one side.

    Returns:
        A picture of each step, (steps, 3, H, W), whose numbers are those of the frames.

    Raises:
        ValueError: the frames are not of whole steps, or their sides not of whole patches.
    """
    steps, rows, columns = groups.shape
    n_frames, _, height, width = frames.shape
    if n_frames % steps or height % rows or width % columns:
        raise ValueError(
            f"frames are of shape {tuple(frames.shape)}; they must be {steps} steps of {rows} by {columns} patches, "
            "of whole frames and pixels"
        )
    size = (height // rows, width // columns)
    patches = F.avg_pool2d(frames, size).unflatten(0, (steps, -1)).mean(1)  # (steps, 3, rows, columns)
    patches = patches.movedim(1, -1).flatten(0, 2)  # (N, 3)
    number = groups.flatten() + 1
    sums = patches.new_zeros(int(number.max()) + 1, 3).index_add_(0, number, patches)
    means = sums / number.bincount().clamp(min=1).unsqueeze(-1)
    means[0] = frames.min()
    drawn = _enlarged(means[number].view(steps, rows, columns, 3).movedim(-1, 1), size)
    of_pixels = _enlarged(groups.unsqueeze(1), size)  # (steps, 1, H, W)
    edge = torch.zeros_like(of_pixels, dtype=torch.bool)
    for side in range(1, border + 1):
        edge[..., side:, :] |= of_pixels[..., side:, :] != of_pixels[..., :-side, :]
        edge[..., side:] |= of_pixels[..., side:] != of_pixels[..., :-side]
    return torch.where(edge, frames.max(), drawn)


def _enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Each number as so many pixels, (..., rows, columns) to (..., H, W)."""
    return x.repeat_interleave(size[0], -2).repeat_interleave(size[1], -1)
