"""Gates and buffers (section 4.1): the memory of one video stream around token-wise operations.

They hold state, never weights. Each starts empty; the first call is the flush, which passes every token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evt.eventful.counting import record
from evt.eventful.policy import Policy, Selection


class Gate:
    """Lets through the tokens that differ most from u, their value when they last passed (figure 2).

    always: so many tokens, the first ones, are taken to differ more than any other.
    """

    def __init__(self, always: int = 0) -> None:
        self.always = always
        self.u: Tensor | None = None  # (B, N, D)

    def __call__(
        self, c: Tensor, policy: Policy | None, own: bool = False
    ) -> tuple[Tensor, Selection | None]:
        """Gate the tokens c (B, N, D): the selected ones, (K, D), and which they are.

        On the flush: all of them, (B, N, D), and None.

        own: nobody reads c after this frame, or writes to it, so that it need not be copied.
        """
        if self.u is None:
            self.u = _kept(c, own)
            return c, None
        selection = _select(policy, self.u, c, self.always)
        c_tilde = selection.gather(c)
        selection.scatter_(self.u, c_tilde)
        return c_tilde, selection


class STGTGate:
    """The gate of STGT as the paper simplifies it: compares with the previous input, updated or not (5.1).

    always: see `Gate`.
    """

    def __init__(self, always: int = 0) -> None:
        self.always = always
        self.u: Tensor | None = None  # (B, N, D)

    def __call__(
        self, c: Tensor, policy: Policy | None, own: bool = False
    ) -> tuple[Tensor, Selection | None]:
        """Gate the tokens c as `Gate` does."""
        previous, self.u = self.u, _kept(c, own)
        if previous is None:
            return c, None
        selection = _select(policy, previous, c, self.always)
        return selection.gather(c), selection


class DeltaGate:
    """Returns how much the selected slices changed, beside their new value (section 4.2, equation 8).

    Its selection is given, so that the A gate follows the v gate (section 4.2, before equation 10).

    dim: the axis that the selection indexes: -2 for the tokens of v, -1 for the columns of A.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.u: Tensor | None = None  # (B, H, ...)

    def flush(self, c: Tensor) -> None:
        """Take c as the reference of every slice; c belongs to the gate from here on."""
        self.u = c

    def __call__(self, c: Tensor, selection: Selection) -> list[tuple[Tensor, Tensor]]:
        """For each stream of the batch the selected slices of u after the update, and their change."""
        assert self.u is not None
        record("gate", self.u.numel())
        slices = []
        for u, c_stream, index in zip(self.u, c, selection.per_stream(), strict=True):
            new = c_stream.index_select(self.dim, index)
            change = new - u.index_select(self.dim, index)
            u.index_copy_(self.dim, index, new)
            slices.append((new, change))
        return slices


class Buffer:
    """Keeps the latest known output of every token (figure 3)."""

    def __init__(self) -> None:
        self.b: Tensor | None = None  # (B, N, D)

    def __call__(self, x: Tensor, selection: Selection | None) -> Tensor:
        """Write the tokens x (K, D) to their places and return all, (B, N, D); on the flush x is all of them.

        The result is the state itself: read it, do not write to it.
        """
        if selection is None or self.b is None:
            self.b = x.contiguous()
        else:
            selection.scatter_(self.b, x)
        return self.b


def _kept(c: Tensor, own: bool) -> Tensor:
    return c.contiguous() if own else c.clone(memory_format=torch.contiguous_format)


def _select(policy: Policy | None, reference: Tensor, c: Tensor, always: int) -> Selection:
    if policy is None:
        raise ValueError("after the first frame a gate needs a policy: TopR(r) or Threshold(h)")
    record("gate", reference.numel())
    error = reference - c
    error[:, :always] = math.inf
    return policy(error)
