"""Which tokens a gate lets through (section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from evt.eventful.inside import Inside
from evt.eventful.setting import Checked, at_least_1, number, number_or_share, whole


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

    @classmethod
    def joined(cls, parts: Sequence[Selection]) -> Selection:
        """One for all streams of some, in order."""
        n_tokens, n_before, index = parts[0].n_tokens, 0, []
        for part in parts:
            index.append(part.index + n_before * n_tokens)
            n_before += len(part.counts)
        return cls(torch.cat(index), tuple(chain.from_iterable(part.counts for part in parts)), n_tokens)

    def per_stream(self) -> list[Tensor]:
        """List for each stream the positions of its selected tokens, from 0 to N - 1."""
        parts = self.index.split(self.counts)
        return [part - stream * self.n_tokens for stream, part in enumerate(parts)]


class Past:
    """Which gate it is and what passed it since the flush, by which a policy may select.

    gate: its number in the network, from 0 on, in the order in which a frame comes to them; see `States.gates`.
    frames: of each stream, later frames before the present one, (B,) int64; None before the flush.
    passed: tokens of each stream that passed in these, (B,) int64; None before the flush.
    inside: what else there is to look at, for the gate of a whole network while a policy selects; else None.
    """

    def __init__(self) -> None:
        self.gate = 0
        self.frames: Tensor | None = None
        self.passed: Tensor | None = None
        self.inside: Inside | None = None

    @property
    def number(self) -> int:
        """Of the present frame, from the flush on, which is 0."""
        return 1 if self.frames is None else 1 + int(self.frames[0])

    def begin(self, n_streams: int) -> None:
        """Count from the flush of so many streams on."""
        self.frames, self.passed = torch.zeros(2, n_streams, dtype=torch.int64).unbind()

    def add(self, selection: Selection) -> None:
        """Count what passed in the present frame."""
        if self.frames is None or self.passed is None:
            self.begin(len(selection.counts))
        assert self.frames is not None
        assert self.passed is not None
        # In place, since every gate does this in every frame.
        self.frames += 1
        self.passed += torch.tensor(selection.counts).to(self.passed.device)

    def split(self, sizes: Sequence[int]) -> list[Past]:
        """That of the first streams of a batch, of so many after these, and so on, after the flush."""
        assert self.frames is not None
        assert self.passed is not None
        parts = []
        insides = [None] * len(sizes) if self.inside is None else self.inside.split(sizes)
        for frames, passed, inside in zip(
            self.frames.split(sizes), self.passed.split(sizes), insides, strict=True
        ):
            part = Past()
            part.gate, part.frames, part.passed, part.inside = self.gate, frames, passed, inside
            parts.append(part)
        return parts


Selects = Literal["tokens", "tokens once a frame", "frames"]


class Policy(Protocol):
    """Says which tokens pass; what it has as attributes may change before any frame.

    counts_tokens: how many pass is known before a frame is seen, and is the same in all but the flush.
    selects: tokens at any gate, tokens once a frame, as variants with the gate "frame" ask for them, or which frames
        are run at all.

    One that is for some networks or variants alone has `fits(network, variant)` besides, which refuses others with a
    ValueError; a stream asks it. One that was read from a file has `sha256`, a hash of what was read. One that needs
    to know the grid of the tokens has `needs_grid`, one that follows what a detector found `looks_at_boxes`, and one
    that follows what a codec moved `looks_at_motion`, all true; see `evt.eventful.selectors`. One that looks at
    nothing of an error but its L2 norm may have `by_norm`, true, in the class that has this call: on the fast path it
    may be given that, (B, N, 1).
    """

    counts_tokens: bool
    selects: Selects

    def __call__(self, error: Tensor, past: Past, /) -> Selection:
        """Select by the errors e of a gate, (B, N, D), which are infinite where a token must pass.

        A token must not be selected twice; see `top` and `where`.
        """

    def check(self, n_tokens: int, /) -> None:
        """Refuse frames of so many tokens, with a ValueError, where it needs more of them."""


def by_norm(policy: Policy | None) -> bool:
    """Whether L2 norms of errors are enough for a policy, see there.

    A class that selects in a way of its own does not inherit that.
    """
    for kind in type(policy).__mro__:
        if "by_norm" in vars(kind):
            return bool(policy.by_norm)  # type: ignore[union-attr]
        if "__call__" in vars(kind):
            return False
    return False


Norm = Literal["l1", "l2", "max"]
"""Of an error e, by which tokens are told apart: the sum of |e_i|, the root of that of squares, or the largest."""

ORDERS = {"l1": 1, "l2": 2, "max": math.inf}


class TopR:
    """Select the r tokens with the largest error norm; `r` may change before any frame.

    Args:
        r: a whole number of tokens; or their share of all, above 0 and at most 1, as 0.125, which serves frames of
            every size. See `tokens_of`.
        norm: of an error; the paper's is L2.

    Raises:
        ValueError: r is neither or, at selection, is a number larger than the token count; there is no such norm.
    """

    counts_tokens = True
    selects: Selects = "tokens"
    r = Checked(number_or_share)

    def __init__(self, r: float, norm: Norm = "l2") -> None:
        self.r, self.norm = r, checked_norm(norm)

    def __repr__(self) -> str:
        return f"TopR(r={self.r}{named(self.norm)})"

    @property
    def by_norm(self) -> bool:
        """See `Policy`."""
        return self.norm == "l2"

    def tokens(self, n_tokens: int) -> int:
        """How many tokens of so many pass."""
        return tokens_of(self.r, n_tokens)

    def check(self, n_tokens: int) -> None:
        """Refuse frames of this many tokens where they are fewer than r.

        Raises:
            ValueError: they are.
        """
        check_room("r", self.r, n_tokens)

    def __call__(self, error: Tensor, past: Past | None = None) -> Selection:
        """Select by the errors e of a gate, (B, N, D)."""
        n_tokens = error.shape[1]
        self.check(n_tokens)
        return top(norm_of(error, self.norm), self.tokens(n_tokens))


class Refresh(TopR):
    """Top-r, and besides it every token anew once in `every` frames, however little it changes.

    Args:
        r: see `TopR`.
        every: k.
        staggered: a k-th of the tokens in each frame, instead of all in every k-th one.
        norm: see `TopR`.

    Raises:
        ValueError: see `TopR`; every is not a whole number of at least 1.
    """

    counts_tokens = False
    by_norm = TopR.by_norm
    every = Checked(at_least_1)

    def __init__(self, r: float, every: int, staggered: bool = False, norm: Norm = "l2") -> None:
        super().__init__(r, norm)
        self.every, self.staggered = every, staggered

    def __repr__(self) -> str:
        return f"Refresh(r={self.r}, every={self.every}{', staggered' * self.staggered}{named(self.norm)})"

    def __call__(self, error: Tensor, past: Past | None = None) -> Selection:
        """Select by the errors e of a gate, (B, N, D)."""
        n_tokens = error.shape[1]
        self.check(n_tokens)
        turn = 0 if past is None else past.number % self.every
        norm = norm_of(error, self.norm)  # (B, N)
        r = self.tokens(n_tokens)
        if not self.staggered:
            return top(norm, r if turn else n_tokens)
        norm[:, turn :: self.every] = math.inf
        due = len(range(turn, n_tokens, self.every))
        must = int(
            norm.isinf().sum(-1).max()
        )  # class tokens, too, which may not take the place of one that is due
        return top(norm, min(n_tokens, max(r + due, must)))


class Threshold:
    """Select every token whose error norm is greater than h; `h` may change before any frame.

    Args:
        h: a finite number of at least 0.
        norm: see `TopR`.

    Raises:
        ValueError: h is none, or there is no such norm.
    """

    counts_tokens = False
    selects: Selects = "tokens"
    h = Checked(number)

    def __init__(self, h: float, norm: Norm = "l2") -> None:
        self.h, self.norm = h, checked_norm(norm)

    @property
    def by_norm(self) -> bool:
        """See `Policy`."""
        return self.norm == "l2"

    def __repr__(self) -> str:
        return f"Threshold(h={self.h}{named(self.norm)})"

    def check(self, n_tokens: int) -> None:
        """Frames of any number of tokens will do."""

    def __call__(self, error: Tensor, past: Past | None = None) -> Selection:
        """Select by the errors e of a gate, (B, N, D)."""
        return above(error, self.h, self.norm)


class Thresholds:
    """Select by a threshold of each gate's own: every token whose L2 error norm is greater.

    h: of all gates of a network, in their order; each may change before any frame.

    Raises:
        ValueError: one is not a finite number of at least 0.
    """

    counts_tokens = False
    selects: Selects = "tokens"
    by_norm = True

    def __init__(self, h: Sequence[float]) -> None:
        self.h = [number("h", x) for x in h]

    def __repr__(self) -> str:
        return f"Thresholds(of {len(self.h)} gates)"

    def check(self, n_tokens: int) -> None:
        """Frames of any number of tokens will do."""

    def fits(self, network: Any, variant: Any) -> None:
        """Refuse a network that has not as many gates under a variant.

        Raises:
            ValueError: it has not.
        """
        n_gates = len(network.states(variant).gates)
        if n_gates != len(self.h):
            raise ValueError(
                f"policy.h has {len(self.h)} thresholds, but this variant has {n_gates} gates here"
            )

    def __call__(self, error: Tensor, past: Past) -> Selection:
        """Select by the errors e of a gate, (B, N, D)."""
        return above(error, self.h[past.gate])


class Budget:
    """Spend a share of all tokens in the mean, where it helps: one selection a frame.

    In each frame the budget grows by `spend`. As soon as it is enough for all tokens, all are let through. Before,
    what changed is, if that is little, as in front of a camera that stands still: then everything else is as good as
    it was. Where much changes, as under a camera that moves, nothing is let through until all are: frame skipping,
    since tokens among others that are old come out worse than all of one frame held.

    Args:
        spend: share of the tokens of a frame, in the mean, above 0 and at most 1.
        h: a token changed if its error is larger than this share of the mean norm of the tokens.
        little: share of the tokens that may have changed.
        at_once: share of the budget's growth that may be spent before there is enough for all tokens.

    Raises:
        ValueError: a share is not above 0 and at most 1, or h not a number of at least 0.
    """

    counts_tokens = False
    selects: Selects = "tokens once a frame"

    def __init__(self, spend: float, h: float = 0.25, little: float = 0.2, at_once: float = 0.67) -> None:
        self.spend, self.h = number("spend", spend, above=0, most=1), number("h", h)
        self.little, self.at_once = (
            number("little", little, above=0, most=1),
            number("at_once", at_once, above=0, most=1),
        )

    def __repr__(self) -> str:
        return f"Budget(spend={self.spend:g})"

    def check(self, n_tokens: int) -> None:
        """Frames of any number of tokens will do."""

    def __call__(self, error: Tensor, past: Past) -> Selection:
        """Select by the errors of all tokens over their mean norm, (B, N, D)."""
        norm = torch.linalg.vector_norm(error, dim=-1)  # (B, N)
        n_tokens = norm.shape[1]
        changed = ~(norm <= self.h)
        n_changed = (changed & norm.isfinite()).sum(-1, keepdim=True)  # without those that must pass
        still = (n_changed > 0) & (n_changed <= self.little * n_tokens)
        most = max(1, int(self.at_once * self.spend * n_tokens))
        first = torch.zeros_like(changed).scatter_(1, norm.topk(most).indices, True)
        passed = 0 if past.passed is None else past.passed.to(norm.device)[:, None]
        enough = torch.as_tensor(self.spend * past.number * n_tokens - passed >= n_tokens)
        return where(enough | (changed & first & still))


class Every:
    """Frame skipping: the network runs on every k-th frame; `every` may change before any frame.

    Args:
        every: k.
        phase: after the flush, frame 0, the frames of the numbers phase, phase + k, ... are run; from 0 to k - 1.

    Raises:
        ValueError: every is not a whole number of at least 1, or the phase not one from 0 to k - 1.
    """

    counts_tokens = True
    selects: Selects = "frames"
    every = Checked(at_least_1)

    def __init__(self, every: int, phase: int = 0) -> None:
        self.every = every
        self.phase = whole("phase", phase, 0, every - 1)

    def __repr__(self) -> str:
        return f"Every({self.every}, phase={self.phase})"

    def __call__(self, error: Tensor, past: Past | None = None) -> Selection:
        """Select all tokens, (B, N, D): those of a frame that is run."""
        batch, n_tokens, _ = error.shape
        return Selection(torch.arange(batch * n_tokens, device=error.device), (n_tokens,) * batch, n_tokens)

    def due(self, frame: int) -> bool:
        """Whether a frame, by its number from the flush on, is run."""
        return frame % self.every == self.phase % self.every

    def check(self, n_tokens: int) -> None:
        """Frames of any number of tokens will do."""


def above(error: Tensor, h: float, norm: Norm = "l2") -> Selection:
    """Select where the norm of errors, (B, N, D), is greater than h."""
    # Not "> h": a NaN must pass, to be seen in the output instead of staying in a reference.
    return where(~(norm_of(error, norm) <= h))


def norm_of(error: Tensor, norm: Norm) -> Tensor:
    """The norm of each token's error, (B, N, D) to (B, N)."""
    return torch.linalg.vector_norm(error, ORDERS[norm], dim=-1)


def checked_norm(norm: Norm) -> Norm:
    """A norm that there is.

    Raises:
        ValueError: it is none.
    """
    if norm not in ORDERS:
        raise ValueError(f"policy.norm is {norm!r}; it must be {', '.join(ORDERS)}")
    return norm


def named(norm: Norm) -> str:
    """A norm that is not the paper's, as it stands in a policy's name."""
    return "" if norm == "l2" else f", norm={norm}"


def top(norm: Tensor, r: int) -> Selection:
    """Select the r largest of each stream, (B, N)."""
    return taken(norm.topk(r, dim=-1, sorted=False).indices, norm.shape[1])


def taken(index: Tensor, n_tokens: int) -> Selection:
    """Select tokens of each stream, (B, r) from 0 to n_tokens - 1."""
    batch, r = index.shape
    index = index + n_tokens * torch.arange(batch, device=index.device).unsqueeze(-1)
    return Selection(index.flatten(), (r,) * batch, n_tokens)


def where(mask: Tensor) -> Selection:
    """Select where a mask is true, (B, N) bool."""
    return Selection(mask.flatten().nonzero().flatten(), tuple(mask.sum(-1).tolist()), mask.shape[-1])


def tokens_of(r: float, n_tokens: int) -> int:
    """How many of so many tokens r is, see `TopR`; of a share the nearest number, a half up, and at least 1."""
    return r if isinstance(r, int) else max(1, math.floor(r * n_tokens + 0.5))


def check_room(name: str, r: float, n_tokens: int) -> None:
    """Refuse a setting of more tokens than there are.

    Raises:
        ValueError: it is.
    """
    if tokens_of(r, n_tokens) > n_tokens:
        raise ValueError(
            f"policy.{name} is {r}, but a frame has {n_tokens} tokens; it must be at most {n_tokens}"
        )
