"""The two products of self-attention, updated instead of recomputed (section 4.2).

Each keeps its last result for one batch of streams, and updates stream by stream, since each stream may have selected
another number of tokens.
"""

from __future__ import annotations

from torch import Tensor

from evt.eventful.counting import matmul, record
from evt.eventful.gate import DeltaGate
from evt.eventful.policy import Selection


class QueryKeyProduct:
    """Keeps B = q k^T and replaces the rows of queries that changed and the columns of keys that did (figure 5)."""

    def __init__(self) -> None:
        self.b: Tensor | None = None  # (B, H, N, Nk)

    def __call__(self, q: Tensor, k: Tensor, new_q: Selection | None, new_k: Selection | None) -> Tensor:
        """Update B to this frame.

        Args:
            q: all queries, (B, H, N, d).
            k: all keys, (B, H, Nk, d).
            new_q, new_k: which queries and which keys changed; None for all.

        Returns:
            B, (B, H, N, Nk). It is the state itself: read it, do not write to it.
        """
        if self.b is None or new_q is None or new_k is None:
            self.b = matmul(q, k.transpose(-2, -1))
            return self.b
        streams = zip(self.b, q, k, new_q.per_stream(), new_k.per_stream(), strict=True)
        for b, q_all, k_all, rows, columns in streams:
            b.index_copy_(-2, rows, matmul(q_all.index_select(-2, rows), k_all.transpose(-2, -1)))
            b.index_copy_(-1, columns, matmul(q_all, k_all.index_select(-2, columns).transpose(-2, -1)))
        return self.b


class AttentionValueProduct:
    """Keeps A v and adds to it what the values and the columns of A that changed make of it (equation 10)."""

    def __init__(self) -> None:
        self.a_gate = DeltaGate(dim=-1)
        self.v_gate = DeltaGate(dim=-2)
        self.av: Tensor | None = None  # (B, H, N, d)

    def __call__(self, a: Tensor, v: Tensor, new_v: Selection | None) -> Tensor:
        """Update A v to this frame.

        Args:
            a: the attention, (B, H, N, Nk); it belongs to the product from here on.
            v: all values, (B, H, Nk, d).
            new_v: which values changed; None for all. The same columns of A are looked at.

        Returns:
            A v, (B, H, N, d). It is the state itself: read it, do not write to it.
        """
        if self.av is None or new_v is None:
            self.a_gate.flush(a)
            self.v_gate.flush(v.clone())
            self.av = matmul(a, v)
            return self.av
        streams = zip(self.av, self.v_gate(v, new_v), self.a_gate(a, new_v), strict=True)
        for av, (v_n, v_delta), (a_n, a_delta) in streams:
            av += matmul(a_n, v_delta)
            av += matmul(a_delta, v_n - v_delta)
            record("accumulator", v_n.numel() + 2 * av.numel())
        return self.av
