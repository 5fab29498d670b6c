"""Muon: momentum whose matrices are made orthogonal (Jordan et al. 2024), for the matrices of Transformer blocks.

From scratch, a small ViT learns from half as many pictures as under AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class Muon(torch.optim.Muon):
    """torch's Muon in float32, with updates as large as AdamW's (Liu et al. 2025): one learning rate serves both.

    torch makes matrices orthogonal in bfloat16. On a CPU without units for it a step takes fifteen times as long.

    Args:
        params: matrices, or groups of them.
        lr, weight_decay: as AdamW's.
    """

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float, weight_decay: float
    ) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update all parameters that have gradients."""
        with _NoBfloat16():
            return super().step(closure)


class _NoBfloat16(TorchFunctionMode):
    """Within it, `x.bfloat16()` is a copy of x as it is."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return args[0].clone() if func is torch.Tensor.bfloat16 else func(*args, **(kwargs or {}))
