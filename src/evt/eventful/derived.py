"""What follows from a weight alone, such as an interpolated table: computed once, not in every frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Derived:
    """Computes a tensor from a parameter, and keeps it for as long as the parameter holds the same numbers.

    The numbers themselves are compared, since no counter tells of every way to change them: `weight.data.copy_` is
    not seen in `weight._version`. That takes microseconds, where a table takes milliseconds.

    It keeps nothing and computes anew in each call

    - while gradients are recorded, because the result then belongs to a graph;
    - in what `torch.compile` and `torch.export` record, so that this, too, follows its parameters;
    - on other devices than the CPU, which a comparison would have to wait for; but for torch's meta device, where
      there are no numbers, and interpolation is slow.

    compute: from the parameter and further arguments, which can be hashed.
    """

    def __init__(self, compute: Callable[..., Tensor]) -> None:
        self.compute = compute
        # A copy of the parameter, and what follows from it. Together, since threads may share a model.
        self._kept: tuple[Tensor | None, dict[tuple[Any, ...], Tensor]] = (None, {})

    def __call__(self, parameter: Tensor, *args: Any) -> Tensor:
        """The tensor for a parameter; it is shared: read it, do not write to it."""
        recorded = torch.is_grad_enabled() and parameter.requires_grad
        if recorded or torch.compiler.is_compiling() or parameter.device.type not in ("cpu", "meta"):
            return self.compute(parameter, *args)
        # Tensors made in inference mode could not be used in training later.
        with torch.inference_mode(False), torch.no_grad():
            source, results = self._kept
            if source is None or not _same(source, parameter):
                source, results = self._kept = parameter.detach().clone(), {}
            if args not in results:
                results[args] = self.compute(source, *args)
            return results[args]


def _same(a: Tensor, b: Tensor) -> bool:
    alike = (a.dtype, a.device, a.shape) == (b.dtype, b.device, b.shape)
    return alike and (a.is_meta or torch.equal(a, b))
