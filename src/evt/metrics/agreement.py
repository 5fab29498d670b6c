"""How far one output is from another."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_l2(output: Tensor, reference: Tensor) -> float:
    """The L2 norm of the difference over the L2 norm of the reference."""
    difference = torch.linalg.vector_norm(output.double() - reference.double())
    return float(difference / torch.linalg.vector_norm(reference.double()))
