"""The paper's method, its ablations and its baselines, as values that say what is switched on in a block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from evt.eventful.policy import Selects


@dataclass(frozen=True)
class Variant:
    """What in a block reuses the previous frame, and how.

    gate: around token-wise operations; "reference" compares with each token's last passed value (section 4.1),
        "previous" with the previous frame (STGT). "frame" is one gate for the whole network, before its first block:
        the tokens that it lets through go through all blocks, their queries attending to the buffered keys and values
        of the others, whose last outputs are kept behind the last block. It needs `rows`. This is what rivals of the
        paper have in common, which differ in how they select (`evt.eventful.selectors`).
    sparse_qk, sparse_av: update the query-key and the attention-value product sparsely (section 4.2).
    pool: side of the square over which k and v are averaged in global blocks (section 5.3); 1 is none. A last row
        or column that fills no square is left out, as published.
    gate_before_norm: the gates see tokens before the layer norm instead of after it (supplement, section B).
    rows: only the queries that changed attend; the others keep their result until they change. An approximation
        that the paper did not try; it needs the sparse products and `fast`. Tokens that stand for no
        place in the picture always pass the gates, within the budget, since a class token's input never changes.
    fast: attention keeps each query's result and log-sum-exp instead of B and A (see `evt.eventful.fast`). Faster,
        and exact in q, k and v, where equation 10 keeps the attention to unchanged keys as it was.
    hold: the whole network runs on some frames, as the policy says, and its last output is kept for the others: frame
        skipping, the rival that costs nothing to build.
    move: what is kept of the output is moved along with what the picture shows (see `evt.eventful.motion`); needs
        hold, or the gate "frame". The states of the blocks stay where they are.
    av_dtype: numbers of the attention-value product alone, and of what is kept for it: the published code's
        `matmul_2_cast`. None leaves them as all others.

    Raises:
        ValueError: hold with anything else, a sparse product or gate_before_norm without a gate of its own, rows,
            move or a gate for the whole network without what it needs, av_dtype on the fast path, or a pool of less
            than 1.
    """

    gate: Literal["reference", "previous", "frame"] | None = None
    sparse_qk: bool = False
    sparse_av: bool = False
    pool: int = 1
    gate_before_norm: bool = False
    rows: bool = False
    fast: bool = False
    hold: bool = False
    move: bool = False
    av_dtype: Literal["bfloat16", "float16"] | None = None

    def __post_init__(self) -> None:
        if self.hold and (self.gate is not None or self.pool > 1 or self.av_dtype is not None):
            raise ValueError("hold is of the dense model: it takes no gate, no pool and no av_dtype")
        if self.gate is None and (self.sparse_qk or self.sparse_av or self.gate_before_norm):
            raise ValueError(
                "a variant without a gate knows of no changed tokens: give it one, or no sparse product"
            )
        if self.rows and not (self.fast and self.sparse_qk and self.sparse_av):
            raise ValueError(
                "rows leaves out what the sparse products update: it needs sparse_qk, sparse_av and fast, as in the "
                "variant `rows`"
            )
        if self.gate == "frame" and (self.gate_before_norm or not self.rows):
            raise ValueError(
                "the gate `frame`, for the whole network, stands before all norms, and only what it selects attends: "
                "it needs rows, and no gate_before_norm, as in the variant `frame`"
            )
        if self.move and not (self.hold or self.gate == "frame"):
            raise ValueError("only an output that is kept can be moved: move needs hold, or the gate `frame`")
        if self.av_dtype is not None and self.fast:
            raise ValueError(
                f"av_dtype is {self.av_dtype}, which is of the reference path alone: the fast path, which variants "
                "with rows are always on, does not compute this product by itself; it must be null, or fast false"
            )
        if self.pool < 1:
            raise ValueError(f"pool is {self.pool}; it must be at least 1")

    @property
    def takes(self) -> tuple[Selects, ...]:
        """What the policies that it takes select; nothing where it takes none."""
        if self.hold:
            return ("frames",)
        if self.gate is None:
            return ()
        return ("tokens", "tokens once a frame") if self.gate == "frame" else ("tokens",)

    @property
    def dense(self) -> Variant:
        """The dense model on the same path, to be compared with."""
        return Variant(fast=self.fast)

    def windowed(self) -> Variant:
        """Leave on only what applies where attention is windowed: token-wise gating (section 5.1), and `rows`."""
        if self.rows:
            return replace(self, pool=1)
        return replace(self, sparse_qk=False, sparse_av=False, pool=1)


VARIANTS = {
    "base": Variant(),
    "temporal": Variant(gate="reference", sparse_qk=True, sparse_av=True),
    "temporal_qk_only": Variant(gate="reference", sparse_qk=True),
    "temporal_gate_before_norm": Variant(
        gate="reference", sparse_qk=True, sparse_av=True, gate_before_norm=True
    ),
    "tokenwise": Variant(gate="reference"),
    "stgt": Variant(gate="previous"),
    "spatial": Variant(pool=2),
    "spatiotemporal": Variant(gate="reference", sparse_qk=True, sparse_av=True, pool=2),
    "skip": Variant(hold=True),
    "rows": Variant(gate="reference", sparse_qk=True, sparse_av=True, rows=True, fast=True),
    "frame": Variant(gate="frame", sparse_qk=True, sparse_av=True, rows=True, fast=True),
    "skip_moved": Variant(hold=True, move=True),
    "frame_moved": Variant(gate="frame", sparse_qk=True, sparse_av=True, rows=True, fast=True, move=True),
}
"""The paper's variants under the names of its tables, and from `skip` on those that are not the paper's."""
