"""The two products of self-attention, updated instead of recomputed (section 4.2).

Each holds the state of one batch of streams. The streams are updated one by one, since they may have selected
different numbers of tokens.
"""

from __future__ import annotations

from torch import Tensor

from evt.eventful.counting import matmul, record
from evt.eventful.gate import DeltaGate
from evt.eventful.policy import Selection


class QueryKeyProduct:
    """B = q k^T, of which the rows of changed queries and the columns of changed keys are replaced (figure 5)."""

    def __init__(self) -> None:
        self.b: Tensor | None = None  # (B, H, N, Nk)

    def __call__(self, q: Tensor, k: Tensor, new_q: Selection | None, new_k: Selection | None) -> Tensor:
        """Update B to the queries q (B, H, N, d) and keys k (B, H, Nk, d), of which these changed.

        The result is the state itself: read it, do not write to it.
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
    """A v, to which the effect of the changed values and attention columns is added (equation 10)."""

    def __init__(self) -> None:
        self.a_gate = DeltaGate(dim=-1)
        self.v_gate = DeltaGate(dim=-2)
        self.av: Tensor | None = None  # (B, H, N, d)

    def __call__(self, a: Tensor, v: Tensor, new_v: Selection | None) -> Tensor:
        """Update A v to the attention a (B, H, N, Nk) and values v (B, H, Nk, d), of which these changed.

        a belongs to the product from here on. The result is the state itself: read it, do not write to it.
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
