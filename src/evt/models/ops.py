"""Non-maximum suppression and ROIAlign: torchvision's compiled operators where they import, our own where not.

Which of the two serves is decided here and nowhere else. Our own are vectorised PyTorch and numpy: a torch that was
installed for CPUs only often has no torchvision beside it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

try:
    from torchvision.ops import batched_nms as _compiled_batched_nms
    from torchvision.ops import nms as _compiled_nms
    from torchvision.ops import roi_align as _compiled_roi_align

    COMPILED = True
except (ImportError, RuntimeError):  # RuntimeError: a torchvision that was compiled for another torch
    COMPILED = False

_BLOCK = 256
"""Boxes whose overlaps with all later boxes are in memory at once."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression: drop a box that overlaps a kept one of higher score by more than a threshold.

    Args:
        boxes: (n, 4), x0 y0 x1 y1.
        scores: (n,).
        iou_threshold: a box goes if its intersection over union with a kept box is greater.

    Returns:
        (k,) int64, the indices of the kept boxes by descending score.
    """
    if COMPILED:
        return _compiled_nms(boxes, scores, iou_threshold)
    return own_nms(boxes, scores, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """`nms` in each group apart (a class or a pyramid level), the kept boxes of all groups by descending score.

    Args:
        boxes, scores, iou_threshold: see `nms`.
        groups: (n,) int64; boxes of different groups do not suppress each other.
    """
    if COMPILED:
        return _compiled_batched_nms(boxes, scores, groups, iou_threshold)
    return own_batched_nms(boxes, scores, groups, iou_threshold)


def roi_align(features: Tensor, rois: Tensor, output_size: int, spatial_scale: float) -> Tensor:
    """ROIAlign (He et al. 2017) with aligned corners and an adaptive number of samples.

    A bin averages ceil(height / output_size) x ceil(width / output_size) bilinear samples, height and width being
    those of the region on the feature map. Differentiable in the features; no gradient flows to the regions.

    Args:
        features: (B, C, H, W).
        rois: (n, 5), the index of the picture and x0 y0 x1 y1 in pixels of the input.
        output_size: bins along each side.
        spatial_scale: cells of the feature map in a pixel of the input.

    Returns:
        (n, C, output_size, output_size).
    """
    if COMPILED:
        return _compiled_roi_align(features, rois, output_size, spatial_scale, sampling_ratio=0, aligned=True)
    return own_roi_align(features, rois, output_size, spatial_scale)


def own_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """`nms` without torchvision."""
    order = scores.argsort(descending=True, stable=True)
    x = boxes[order].detach().float().cpu().numpy()
    return order[torch.from_numpy(_greedy(x, iou_threshold)).to(order.device)]


def own_batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """`batched_nms` without torchvision."""
    order = scores.argsort(descending=True, stable=True)
    x = boxes[order].detach().float().cpu().numpy()
    group = groups[order].cpu().numpy()
    kept = [np.empty(0, np.int64)]
    for value in np.unique(group):
        members = np.flatnonzero(group == value)
        kept.append(members[_greedy(x[members], iou_threshold)])
    return order[torch.from_numpy(np.sort(np.concatenate(kept))).to(order.device)]


def _greedy(boxes: np.ndarray, iou_threshold: float) -> np.ndarray:
    """The indices that greedy suppression keeps of boxes (n, 4) that are sorted by descending score."""
    n = len(boxes)
    x0, y0, x1, y1 = np.ascontiguousarray(boxes.T)
    area = (x1 - x0) * (y1 - y0)
    alive = np.ones(n, bool)
    for start in range(0, n, _BLOCK):
        # Rows are what is left of a block, columns these and all that is left after it.
        rows = start + np.flatnonzero(alive[start : start + _BLOCK])
        columns = start + np.flatnonzero(alive[start:])
        width = np.minimum(x1[rows, None], x1[columns]) - np.maximum(x0[rows, None], x0[columns])
        height = np.minimum(y1[rows, None], y1[columns]) - np.maximum(y0[rows, None], y0[columns])
        intersection = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(divide="ignore", invalid="ignore"):  # two boxes of no area: NaN suppresses nothing
            suppresses = intersection / (area[rows, None] + area[columns] - intersection) > iou_threshold
        left = np.ones(len(columns), bool)
        for i in range(len(rows)):
            if left[i]:
                left[i + 1 :] &= ~suppresses[i, i + 1 :]
        alive[columns[~left]] = False
    return np.flatnonzero(alive)


def own_roi_align(features: Tensor, rois: Tensor, output_size: int, spatial_scale: float) -> Tensor:
    """`roi_align` without torchvision.

    Bilinear sampling on a grid is separable, so a bin is a weighted sum over a rectangle of cells whose weights are
    the product of a vertical and a horizontal part. All bins are one `embedding_bag`: rows of the feature map,
    summed with weights, and nothing of the size of the samples is ever stored.
    """
    n, (batch, channels, height, width) = len(rois), features.shape
    if n == 0:
        return features.new_zeros(0, channels, output_size, output_size)
    table = features.permute(0, 2, 3, 1).reshape(batch * height * width, channels).float()
    with torch.no_grad():
        corners = rois[:, 1:].float() * spatial_scale - 0.5
        y0, n_y, weight_y = _taps(corners[:, 1], corners[:, 3], output_size, height)
        x0, n_x, weight_x = _taps(corners[:, 0], corners[:, 2], output_size, width)
        first = rois[:, 0].long() * (height * width)
        cells = (n_y[:, :, None] * n_x[:, None, :]).flatten()  # (bins,) cells in each bin's rectangle
        offsets = cells.cumsum(0) - cells
        bins = torch.repeat_interleave(cells)  # (entries,) the bin of each cell of each rectangle
        entry = torch.arange(len(bins), device=bins.device) - offsets[bins]
        # One bin's share in what follows is that of its region, its row of bins or its column of bins.
        row_of_bins, column_of_bins = bins // output_size, _column(bins, output_size)
        across = n_x.flatten()[column_of_bins]
        i_y = torch.div(entry, across, rounding_mode="floor")
        i_x = entry - i_y * across
        cell = first[bins // output_size**2]
        cell += (y0.flatten()[row_of_bins] + i_y) * width + x0.flatten()[column_of_bins] + i_x
        weights = weight_y.flatten(0, 1)[row_of_bins, i_y] * weight_x.flatten(0, 1)[column_of_bins, i_x]
    out = F.embedding_bag(cell, table, offsets, mode="sum", per_sample_weights=weights)  # (bins, C)
    return out.to(features.dtype).view(n, output_size, output_size, channels).permute(0, 3, 1, 2)


def _column(bins: Tensor, output_size: int) -> Tensor:
    """From (region, row, column) as one index to (region, column) as one index."""
    return bins // output_size**2 * output_size + bins % output_size


def _taps(start: Tensor, end: Tensor, n_bins: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cells that each bin of each region averages along one axis.

    Args:
        start, end: (n,) of the regions, in cells, the centre of cell 0 being 0.
        n_bins: bins of a region.
        size: cells of the axis.

    Returns:
        (n, n_bins) first cell, (n, n_bins) number of cells, (n, n_bins, most cells) their weights.
    """
    length = end - start
    n_samples = (length / n_bins).ceil().clamp(min=0)  # (n,)
    i = torch.arange(max(1, int(n_samples.max())), device=start.device)
    bin_length = (length / n_bins)[:, None, None]
    step = bin_length / n_samples.clamp(min=1)[:, None, None]
    bins = torch.arange(n_bins, device=start.device)[:, None]
    at = start[:, None, None] + bins * bin_length + (i + 0.5) * step  # (n, n_bins, samples)
    # A sample more than one cell outside is nothing; one less far outside is the outermost cell's.
    counts = (i < n_samples[:, None, None]) & (at >= -1) & (at <= size)
    weight = counts / n_samples.clamp(min=1)[:, None, None]
    at = at.clamp(0, size - 1)
    low = at.long()
    high = (low + 1).clamp(max=size - 1)
    first = low.amin(-1)
    # Samples beyond a region's own number may lie farther on; they carry no weight and need no cells.
    last = torch.where(counts, high, first[..., None]).amax(-1)
    n_cells = last - first + 1
    taps = weight.new_zeros(*first.shape, int(n_cells.max()))
    farthest, part = taps.shape[-1] - 1, at - low
    taps.scatter_add_(-1, (low - first[..., None]).clamp(max=farthest), weight * (1 - part))
    taps.scatter_add_(-1, (high - first[..., None]).clamp(max=farthest), weight * part)
    return first, n_cells, taps
