"""What follows from a weight alone, such as an interpolated table: computed once, not in every frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Derived:
    """Computes a tensor from a parameter and further arguments, and keeps it until the parameter changes.

    While gradients are recorded it keeps nothing, because the result then belongs to a graph.

    compute: from the parameter and further arguments, which can be hashed.
    """

    def __init__(self, compute: Callable[..., Tensor]) -> None:
        self.compute = compute
        self._parameter: Tensor | None = None  # its memory; held, so that no other parameter is put there
        self._version = -1  # which counts what is written to it
        self._results: dict[tuple[Any, ...], Tensor] = {}

    def __call__(self, parameter: Tensor, *args: Any) -> Tensor:
        """The tensor for a parameter; it is shared: read it, do not write to it."""
        if parameter.is_inference() or (torch.is_grad_enabled() and parameter.requires_grad):
            return self.compute(parameter, *args)
        parameter = parameter.detach()
        if not self._is_of(parameter):
            self._parameter, self._version, self._results = parameter, parameter._version, {}
        if args not in self._results:
            self._results[args] = self.compute(parameter, *args)
        return self._results[args]

    def _is_of(self, parameter: Tensor) -> bool:
        kept = self._parameter
        return (
            kept is not None
            and kept.data_ptr() == parameter.data_ptr()
            and self._version == parameter._version
            and (kept.dtype, kept.device, kept.shape) == (parameter.dtype, parameter.device, parameter.shape)
        )
