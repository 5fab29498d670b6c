"""Which tokens a gate lets through (section 4.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """The tokens that a policy selected, of each stream of a batch its own and perhaps another number of them.

    index: (K,) int64, positions in the batch's tokens laid end to end: stream * N + token.
    counts: how many of them belong to each stream, in order; their sum is K.
    n_tokens: N, the tokens of one stream.
    """

    index: Tensor
    counts: tuple[int, ...]
    n_tokens: int

    def gather(self, x: Tensor) -> Tensor:
        """Take the selected tokens, (B, N, D) to (K, D)."""
        return x.flatten(0, 1).index_select(0, self.index)

    def scatter_(self, x: Tensor, values: Tensor) -> None:
        """Write (K, D) values to the selected tokens of a contiguous (B, N, D) tensor."""
        x.view(-1, x.shape[-1]).index_copy_(0, self.index, values)

    def per_stream(self) -> list[Tensor]:
        """List for each stream the positions of its selected tokens, from 0 to N - 1."""
        parts = self.index.split(self.counts)
        return [part - stream * self.n_tokens for stream, part in enumerate(parts)]


class Policy(Protocol):
    """Says which tokens pass; what it has as attributes may change before any frame.

    counts_tokens: how many pass is known before a frame is seen.
    """

    counts_tokens: bool

    def __call__(self, error: Tensor, /) -> Selection:
        """Select by the errors e of a gate, (B, N, D)."""

    def check(self, n_tokens: int, /) -> None:
        """Refuse frames of so many tokens, with a ValueError, where it needs more of them."""


class TopR:
    """Select the r tokens with the largest L2 error norm; `r` may change before any frame.

    Raises:
        ValueError: r is not a whole number of at least 0 or, at selection, is larger than the token count.
    """

    counts_tokens = True
    _r: int

    def __init__(self, r: int) -> None:
        self.r = r

    def __repr__(self) -> str:
        return f"TopR(r={self.r})"

    @property
    def r(self) -> int:
        """The budget: tokens of each stream that pass a gate, from 0 to the token count."""
        return self._r

    @r.setter
    def r(self, r: int) -> None:
        if isinstance(r, bool) or not isinstance(r, Integral) or r < 0:
            raise ValueError(f"policy.r is {r!r}; it must be a whole number of tokens, 0 or more")
        self._r = int(r)

    def check(self, n_tokens: int) -> None:
        """Refuse frames of this many tokens where they are fewer than r.

        Raises:
            ValueError: they are.
        """
        if self.r > n_tokens:
            raise ValueError(
                f"policy.r is {self.r}, but a frame has {n_tokens} tokens; it must be at most {n_tokens}"
            )

    def __call__(self, error: Tensor) -> Selection:
        """Select by the errors e of a gate, (B, N, D)."""
        batch, n_tokens, _ = error.shape
        if self.r > n_tokens:
            raise ValueError(
                f"policy.r is {self.r}, but there are {n_tokens} tokens: r must be at most {n_tokens}"
            )
        norm = torch.linalg.vector_norm(error, dim=-1)  # (B, N)
        index = norm.topk(self.r, dim=-1, sorted=False).indices  # (B, r)
        index = index + n_tokens * torch.arange(batch, device=index.device).unsqueeze(-1)
        return Selection(index.flatten(), (self.r,) * batch, n_tokens)


class Threshold:
    """Select every token whose L2 error norm is greater than h; `h` may change before any frame.

    Raises:
        ValueError: h is not a finite number of at least 0.
    """

    counts_tokens = False

    def __init__(self, h: float) -> None:
        self.h = h

    def __repr__(self) -> str:
        return f"Threshold(h={self.h})"

    @property
    def h(self) -> float:
        """The error norm that a token must exceed to be selected."""
        return self._h

    @h.setter
    def h(self, h: float) -> None:
        if isinstance(h, bool) or not isinstance(h, int | float) or not math.isfinite(h) or h < 0:
            raise ValueError(f"policy.h is {h!r}; it must be a finite number, 0 or more")
        self._h = float(h)

    def check(self, n_tokens: int) -> None:
        """Frames of any number of tokens will do."""

    def __call__(self, error: Tensor) -> Selection:
        """Select by the errors e of a gate, (B, N, D)."""
        # Not "> h": a NaN must pass, to be seen in the output instead of staying in a reference.
        mask = ~(torch.linalg.vector_norm(error, dim=-1) <= self.h)  # (B, N)
        return Selection(mask.flatten().nonzero().flatten(), tuple(mask.sum(-1).tolist()), mask.shape[-1])


class Every:
    """Frame skipping: the network runs on every k-th frame; `every` may change before any frame.

    Args:
        every: k.
        phase: after the flush, frame 0, the frames of the numbers phase, phase + k, ... are run; from 0 to k - 1.

    Raises:
        ValueError: every is not a whole number of at least 1, or the phase not one from 0 to k - 1.
    """

    counts_tokens = True
    _every: int

    def __init__(self, every: int, phase: int = 0) -> None:
        self.every = every
        if isinstance(phase, bool) or not isinstance(phase, Integral) or not 0 <= phase < every:
            raise ValueError(f"policy.phase is {phase!r}; it must be a whole number from 0 to {every - 1}")
        self.phase: int = int(phase)

    def __repr__(self) -> str:
        return f"Every({self.every}, phase={self.phase})"

    @property
    def every(self) -> int:
        """One of so many frames is run."""
        return self._every

    @every.setter
    def every(self, every: int) -> None:
        if isinstance(every, bool) or not isinstance(every, Integral) or every < 1:
            raise ValueError(f"policy.every is {every!r}; it must be a whole number of at least 1")
        self._every = int(every)

    def __call__(self, error: Tensor) -> Selection:
        """Select all tokens, (B, N, D): those of a frame that is run."""
        batch, n_tokens, _ = error.shape
        return Selection(torch.arange(batch * n_tokens, device=error.device), (n_tokens,) * batch, n_tokens)

    def due(self, frame: int) -> bool:
        """Whether a frame, by its number from the flush on, is run."""
        return frame % self.every == self.phase % self.every

    def check(self, n_tokens: int) -> None:
        """Frames of any number of tokens will do."""
