"""Operation counting by the supplement's rules ("Operation counting"), and the operations that are counted.

`with count_ops() as ops:` counts what runs inside it, by kind; outside of it nothing is counted, at next to no cost.
A multiply-accumulate is one operation. Counts follow from shapes alone, so they are the same on torch's meta device.
Layer norm, GELU, softmax, pooling and the selection itself are not counted, and neither is what `torch.compile` made.

Numbers of half precision are multiplied as `evt.eventful.precision` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.eventful.precision import wide

KINDS = ("linear", "bias", "matmul", "einsum", "add", "gate", "accumulator")
"""linear, bias: linear layers. matmul: query-key and attention-value products. einsum: relative positions.
add: residual, position and relative-position additions. gate: the errors of the gates, one per element of their
references. accumulator: the additions of the attention-value update."""

_observers: ContextVar[tuple[Counter[str], ...]] = ContextVar("_observers", default=())


@contextmanager
def count_ops() -> Iterator[Counter[str]]:
    """Count the operations that run inside the `with` block, by kind. Blocks may be nested."""
    ops: Counter[str] = Counter()
    token = _observers.set((*_observers.get(), ops))
    try:
        yield ops
    finally:
        _observers.reset(token)


def observed() -> bool:
    """Whether anybody counts."""
    return not torch.compiler.is_compiling() and bool(_observers.get())


def record(kind: str, operations: int) -> None:
    """Tell the observers, if there are any, that `operations` of this kind ran."""
    if torch.compiler.is_compiling():
        return
    for ops in _observers.get():
        ops[kind] += operations


class Linear(nn.Linear):
    """torch's linear layer, counted."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        bias = None if self.bias is None else wide(self.bias)
        y = F.linear(wide(x), wide(self.weight), bias).to(x.dtype)
        record("linear", y.numel() * self.in_features)
        if self.bias is not None:
            record("bias", y.numel())
        return y


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Multiply matrices, (..., n, k) by (..., k, m)."""
    y = (wide(a) @ wide(b)).to(a.dtype)
    record("matmul", y.numel() * a.shape[-1])
    return y


def einsum(equation: str, a: Tensor, b: Tensor) -> Tensor:
    """Contract the last axis of `a` with the last axis of `b`."""
    y = torch.einsum(equation, wide(a), wide(b)).to(a.dtype)
    record("einsum", y.numel() * a.shape[-1])
    return y


def add(a: Tensor, b: Tensor) -> Tensor:
    """Add two tensors that broadcast."""
    y = a + b
    record("add", y.numel())
    return y


def add_(a: Tensor, b: Tensor) -> Tensor:
    """Add `b`, which broadcasts to `a`, into `a`."""
    record("add", a.numel())
    return a.add_(b)
