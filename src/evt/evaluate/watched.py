"""Which tokens passed which gates, and by what errors, while a stream runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evt.eventful.policy import Past, Policy, Selection


class Watched:
    """A policy that does as another one does, and remembers which tokens passed each gate in the last frame.

    policy: what it does; its settings may change before any frame.
    n_tokens: of a frame, once one was selected in.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._passed: dict[int, Selection] = {}
        self._norms: dict[int, Tensor] = {}
        self.n_tokens = 0

    def __getattr__(self, name: str) -> Any:
        # Whatever a stream asks of a policy: which it is, what it must be told, what it hears of time.
        if name == "policy":  # asked for while it is copied, before it is there
            raise AttributeError(name)
        return getattr(self.policy, name)

    def __repr__(self) -> str:
        return repr(self.policy)

    def __call__(self, error: Tensor, past: Past) -> Selection:
        """See `evt.eventful.Policy`."""
        self.n_tokens = error.shape[1]
        self._norms[past.gate] = torch.linalg.vector_norm(error.float(), dim=-1)
        self._passed[past.gate] = selection = self.policy(error, past)
        return selection

    def begin(self) -> None:
        """Forget the last frame, before the next one."""
        self._passed, self._norms = {}, {}

    @property
    def gates(self) -> list[int]:
        """The gates at which tokens were selected in the last frame; none in a flush, where all pass."""
        return sorted(self._passed)

    def share(self, n_tokens: int, gate: int | None = None) -> Tensor:
        """Of each token of a single stream, at which share of the gates it passed, (N,) from 0 to 1; 1 in a flush.

        Args:
            n_tokens: N.
            gate: this one alone, by its number in the network; None is all of them.

        Raises:
            ValueError: tokens were selected in the frame, but not at this gate.
        """
        if not self._passed:
            return torch.ones(n_tokens)
        chosen = self.gates if gate is None else [self._checked(gate)]
        passed = torch.zeros(n_tokens)
        for number in chosen:
            (tokens,) = self._passed[number].per_stream()
            passed[tokens.cpu()] += 1 / len(chosen)
        return passed

    def norms(self, n_tokens: int, gate: int) -> Tensor:
        """The L2 norms of the errors at a gate, (N,); 0 in a flush, which compares with nothing; see `share`."""
        if not self._norms:
            return torch.zeros(n_tokens)
        (norms,) = self._norms[self._checked(gate)].cpu()
        return norms

    def _checked(self, gate: int) -> int:
        if gate not in self._passed:
            raise ValueError(
                f"gate is {gate}; tokens are selected at gates {', '.join(map(str, self.gates))}"
            )
        return gate
