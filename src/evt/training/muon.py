"""Muon: momentum whose matrices are made orthogonal (Jordan et al. 2024), beside AdamW for all other parameters.

From scratch, a small ViT learns from half as many pictures as under AdamW. torch has a Muon since 2.9, which
orthogonalises one matrix at a time in bfloat16: on a CPU without units for it, a step takes four times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
# A quintic that, iterated, takes singular values from (0, 1] to about 1 (0.68 to 1.13).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """Muon on the parameter groups in which `muon` is true, AdamW on the others.

    Updates are scaled as large as AdamW's (Liu et al. 2025), so that one learning rate serves both.

    Args:
        params: groups of parameters, each with `muon`; those with it hold matrices only.
        lr: the learning rate.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update all parameters; gradients that Muon used are dropped."""
        for group in self.param_groups:
            if group["muon"]:
                for matrices in _by_shape([p for p in group["params"] if p.grad is not None]):
                    self._update(matrices, group["lr"], group["weight_decay"])
        return super().step(closure)

    def _update(self, matrices: list[Tensor], lr: float, weight_decay: float) -> None:
        directions = []
        for p in matrices:
            assert p.grad is not None
            state = self.state[p]
            if not state:  # AdamW expects to find steps in every state that it loads
                state.update(momentum=torch.zeros_like(p), step=torch.zeros(()))
            momentum = state["momentum"]
            momentum.lerp_(p.grad, 1 - MOMENTUM)
            directions.append(p.grad.lerp(momentum, MOMENTUM))  # Nesterov's
            p.grad = None  # AdamW passes over those without
        size = 0.2 * max(matrices[0].shape) ** 0.5
        for p, direction in zip(matrices, orthogonal(torch.stack(directions)), strict=True):
            p.mul_(1 - lr * weight_decay).sub_(direction, alpha=lr * size)


def orthogonal(x: Tensor) -> Tensor:
    """Matrices (n, a, b) with their singular vectors and singular values near 1, by Newton and Schulz's iteration."""
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return x.transpose(1, 2) if tall else x


def _by_shape(matrices: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.Size, list[Tensor]] = {}
    for p in matrices:
        groups.setdefault(p.shape, []).append(p)
    return list(groups.values())
