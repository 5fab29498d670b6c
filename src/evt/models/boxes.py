"""Boxes as (..., 4) tensors x0 y0 x1 y1: overlaps, losses, and the deltas by which heads move them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SCALE_CLAMP = math.log(1000 / 16)
"""The most that a delta may enlarge a side, as the logarithm of the factor (detectron2)."""


class Proposals(NamedTuple):
    """Where objects may be in one picture, by descending logit.

    boxes: (n, 4) in pixels of the input.
    logits: (n,) of being an object.
    """

    boxes: Tensor
    logits: Tensor


class Detections(NamedTuple):
    """The objects found in one picture, by descending score.

    boxes: (n, 4) in pixels.
    scores: (n,) in (0, 1].
    labels: (n,) int64, zero-based classes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def area(boxes: Tensor) -> Tensor:
    """The areas of boxes, (..., 4) to (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every pair, (n, 4) and (m, 4) to (n, m); 0 where both have no area."""
    overlap = _intersection(a[:, None], b)
    union = area(a)[:, None] + area(b) - overlap
    return torch.where(overlap > 0, overlap / union, 0)


def giou_loss(a: Tensor, b: Tensor) -> Tensor:
    """1 - the generalised IoU (Rezatofighi et al. 2019) of each box with its partner, (n, 4) twice to (n,)."""
    overlap = _intersection(a, b)
    union = area(a) + area(b) - overlap
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    # The small number keeps two boxes of no area from dividing by zero.
    return 1 - overlap / (union + 1e-7) + (hull - union) / (hull + 1e-7)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    return (high - low).clamp(min=0).prod(-1)


def encode(boxes: Tensor, targets: Tensor, weights: Sequence[float]) -> Tensor:
    """The deltas that move boxes of some area onto targets, (..., 4) both; the inverse of `decode`.

    Centres move in units of the box's sides, sides change by the logarithm of the factor; `weights` multiply dx, dy,
    dw and dh.
    """
    size, target_size = boxes[..., 2:] - boxes[..., :2], targets[..., 2:] - targets[..., :2]
    centre, target_centre = boxes[..., :2] + 0.5 * size, targets[..., :2] + 0.5 * target_size
    deltas = torch.cat([(target_centre - centre) / size, torch.log(target_size / size)], -1)
    return deltas * deltas.new_tensor(weights)


def decode(boxes: Tensor, deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """Move boxes by deltas, (..., 4) both, with sides growing by a factor of at most 1000 / 16; see `encode`."""
    deltas = deltas.float() / deltas.new_tensor(weights, dtype=torch.float32)
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + 0.5 * size
    centre = deltas[..., :2] * size + centre
    size = torch.exp(deltas[..., 2:].clamp(max=SCALE_CLAMP)) * size
    return torch.cat([centre - 0.5 * size, centre + 0.5 * size], -1)


def clip(boxes: Tensor, height: float, width: float) -> Tensor:
    """Boxes (..., 4) cut off at the borders of a picture."""
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
