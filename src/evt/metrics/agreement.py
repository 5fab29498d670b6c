"""How far one output is from another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def relative_l2(output: Tensor, reference: Tensor) -> float:
    """The L2 norm of the difference over the L2 norm of the reference."""
    difference = torch.linalg.vector_norm(output.double() - reference.double())
    return float(difference / torch.linalg.vector_norm(reference.double()))


def cosine(output: Tensor, reference: Tensor) -> float:
    """The cosine of the angle between two vectors, the mean over all of them, (..., D) each."""
    return float(F.cosine_similarity(output.double(), reference.double(), dim=-1).mean())


def mean_absolute_error(output: Tensor, reference: Tensor) -> float:
    """The mean of the absolute difference."""
    return float((output.double() - reference.double()).abs().mean())


def correlation(output: Tensor, reference: Tensor) -> float:
    """Pearson's, over all values; where either has one value alone, 1 if they are equal and else 0."""
    a, b = (x.double().flatten() - x.double().mean() for x in (output, reference))
    norms = torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b)
    return float(a @ b / norms) if norms else float(torch.equal(output, reference))


def iou(output: Tensor, reference: Tensor, above: float = 0.5) -> float:
    """Where both are above a threshold, over where either is; 1 where neither is anywhere."""
    return overlap(output > above, reference > above)


def overlap(a: Tensor, b: Tensor) -> float:
    """The Jaccard index of two masks, bool: where both are, over where either is; 1 where neither is anywhere."""
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0
