"""Gates and buffers (section 4.1): the memory of one video stream around token-wise operations.

They hold state, never weights. Each starts empty; its first call is the flush, in which every token passes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evt.eventful import kernel
from evt.eventful.counting import record
from evt.eventful.inside import Inside
from evt.eventful.policy import Past, Policy, Selection, by_norm
from evt.eventful.profiling import named


class Gate:
    """Lets through the tokens that differ most from u, their value when they last passed (figure 2).

    always: so many of the first tokens pass before any other.
    relative: errors are over the mean norm of the tokens, so that a threshold is a share.
    fast: a policy to which norms are enough is given them as a kernel computes them, see `Policy`.
    """

    def __init__(self, always: int = 0, relative: bool = False, fast: bool = False) -> None:
        self.always = always
        self.relative = relative
        self.fast = fast
        self.u: Tensor | None = None  # (B, N, D)
        self.past = Past()

    @named("gate")
    def __call__(
        self, c: Tensor, policy: Policy | None, own: bool = False, inside: Inside | None = None
    ) -> tuple[Tensor, Selection | None]:
        """Select tokens and remember them as their new u.

        Args:
            c: all tokens of this frame, (B, N, D).
            policy: selects them; not needed on the flush.
            own: c belongs to the gate from here on, and need not be copied.
            inside: what else the policy may look at.

        Returns:
            The selected tokens, (K, D), and which they are; on the flush all tokens, (B, N, D), and None.

        Raises:
            ValueError: there is no policy after the flush.
        """
        if self.u is None:
            self.u = _kept(c, own)
            self.past.begin(len(c))
            return c, None
        error = _error(self.u, c, self.always, self.fast and by_norm(policy))
        if self.relative:
            error /= torch.linalg.vector_norm(self.u, dim=-1).mean(-1)[:, None, None]
        self.past.inside = inside
        selection = _select(policy, error, self.past)
        self.past.inside = None
        c_tilde = selection.gather(c)
        selection.scatter_(self.u, c_tilde)
        return c_tilde, selection


class STGTGate:
    """Lets through the tokens that differ most from the previous frame, whether they passed there or not.

    This is the gate of STGT as the paper simplifies it (section 5.1). always: see `Gate`.
    """

    def __init__(self, always: int = 0) -> None:
        self.always = always
        self.u: Tensor | None = None  # (B, N, D)
        self.past = Past()

    @named("gate")
    def __call__(
        self, c: Tensor, policy: Policy | None, own: bool = False
    ) -> tuple[Tensor, Selection | None]:
        """Select tokens, as `Gate` does, and remember all of them as u."""
        previous, self.u = self.u, _kept(c, own)
        if previous is None:
            self.past.begin(len(c))
            return c, None
        selection = _select(policy, _error(previous, c, self.always), self.past)
        return selection.gather(c), selection


def no_gate(
    c: Tensor, policy: Policy | None, own: bool = False, inside: Inside | None = None
) -> tuple[Tensor, Selection | None]:
    """The gate of a dense block: all tokens pass, and nothing is kept."""
    return c, None


class DeltaGate:
    """Says of slices that are given how much they changed, and what they are now (section 4.2, equation 8).

    It selects none itself, so that the A gate can follow the v gate (section 4.2, before equation 10).

    dim: the axis of the slices: -2 for the tokens of v, -1 for the columns of A.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.u: Tensor | None = None  # (B, H, ...)

    def flush(self, c: Tensor) -> None:
        """Remember c as u; c belongs to the gate from here on."""
        self.u = c

    def __call__(self, c: Tensor, selection: Selection) -> list[tuple[Tensor, Tensor]]:
        """Remember the selected slices of c as their new u; for each stream these slices and their change."""
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
    """Keeps the last output of every token (figure 3)."""

    def __init__(self) -> None:
        self.b: Tensor | None = None  # (B, N, D)

    @named("gate")
    def __call__(self, x: Tensor, selection: Selection | None) -> Tensor:
        """Put new outputs of some tokens in their places, and return those of all.

        Args:
            x: the new outputs, (K, D); of all tokens, (B, N, D), on the flush.
            selection: which tokens they are of; None on the flush.

        Returns:
            (B, N, D). It is the state itself: read it, do not write to it.
        """
        if selection is None or self.b is None:
            self.b = x.contiguous()
        else:
            selection.scatter_(self.b, x)
        return self.b


def no_buffer(x: Tensor, selection: Selection | None) -> Tensor:
    """The buffer of a dense block: x is of all tokens, and nothing is kept."""
    return x


def _kept(c: Tensor, own: bool) -> Tensor:
    return c.contiguous() if own else c.clone(memory_format=torch.contiguous_format)


def _error(reference: Tensor, c: Tensor, always: int, norms: bool = False) -> Tensor:
    """How each token changed, (B, N, D), or its norm, (B, N, 1)."""
    record("gate", reference.numel())
    error = kernel.distances(reference, c) if norms and kernel.serves(c) else reference - c
    if always:  # exported, this would write, too
        error[:, :always] = math.inf
    return error


def _select(policy: Policy | None, error: Tensor, past: Past) -> Selection:
    if policy is None:
        raise ValueError("after the first frame a gate needs a policy: TopR(r) or Threshold(h)")
    selection = policy(error, past)
    if not isinstance(selection, Selection):
        raise TypeError(f"{policy} gave a {type(selection).__name__}; a policy must give a Selection")
    past.add(selection)
    return selection
