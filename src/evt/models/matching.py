"""What a head is trained on: matching of boxes with the ground truth, and sampling (Ren et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor

from evt.models.boxes import pairwise_iou

IGNORED = -1


def match(boxes: Tensor, truth: Tensor, low: float, high: float, keep_best: bool) -> tuple[Tensor, Tensor]:
    """Match each box with the true box that it overlaps most.

    Args:
        boxes: (n, 4).
        truth: (m, 4); m may be 0.
        low, high: an IoU below low makes a box background, one of at least high a match; between, it is ignored.
        keep_best: the boxes that overlap a true box most are matches at any overlap ("low-quality matches").

    Returns:
        (n,) int64 index of the true box, and (n,) int64: 1 for a match, 0 for background, `IGNORED`.
    """
    if len(truth) == 0:
        none = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return none, none.clone()
    iou = pairwise_iou(truth, boxes)  # (m, n)
    best, index = iou.max(0)
    kind = torch.full_like(index, IGNORED)
    kind[best < low] = 0
    kind[best >= high] = 1
    if keep_best:
        # A true box that no box overlaps has none that is best.
        kind[((iou == iou.amax(1, keepdim=True)) & (iou > 0)).any(0)] = 1
    return index, kind


def sample(kind: Tensor, n: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Draw at most n boxes, of which at most a fraction are matches and the rest background.

    Args:
        kind: (boxes,) as from `match`.

    Returns:
        Indices of the drawn matches, and of the drawn background.
    """
    positive, negative = (kind == 1).nonzero().squeeze(1), (kind == 0).nonzero().squeeze(1)
    n_positive = min(int(n * positive_fraction), len(positive))
    n_negative = min(n - n_positive, len(negative))
    return _draw(positive, n_positive), _draw(negative, n_negative)


def _draw(x: Tensor, n: int) -> Tensor:
    return x[torch.randperm(len(x), device=x.device)[:n]]
