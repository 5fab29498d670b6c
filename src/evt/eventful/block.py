"""The Transformer block, dense and Eventful in one (section 4.2, figure 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch.nn.functional as F
from torch import Tensor, nn

from evt.eventful.attention import Attention, AttentionState
from evt.eventful.counting import Linear, add
from evt.eventful.gate import Buffer, Gate, STGTGate, no_buffer, no_gate
from evt.eventful.inside import Inside, Note
from evt.eventful.layout import Grid, check_grid
from evt.eventful.policy import Policy, Selection
from evt.eventful.rotary import Rotary
from evt.eventful.variant import Variant


def no_norm(x: Tensor) -> Tensor:
    """What stands before a gate that has no norm beside it."""
    return x


class TokenGate:
    """A gate before token-wise operations, and its place beside their norm: after it, or before it."""

    def __init__(self, variant: Variant, always: int) -> None:
        self.before_norm = variant.gate_before_norm
        self.gate: Gate | STGTGate | Callable[..., tuple[Tensor, Selection | None]] = no_gate
        if variant.gate not in (None, "frame"):
            self.gate = Gate(always, fast=variant.fast) if variant.gate == "reference" else STGTGate(always)

    def __call__(
        self, x: Tensor, policy: Policy | None, norm: Callable[[Tensor], Tensor] = no_norm
    ) -> tuple[Tensor, Selection | None]:
        """Normalise the tokens x and gate them, (B, N, D) to what `Gate` gives."""
        if self.before_norm:
            c, changed = self.gate(x, policy)
            return norm(c), changed
        normed = norm(x)
        return self.gate(normed, policy, own=normed is not x)


class BlockState:
    """All that a block keeps between the frames of one batch of streams; of the dense model, nothing.

    num_prefix_tokens: see `Block`.
    """

    def __init__(self, variant: Variant, num_prefix_tokens: int = 0) -> None:
        # Where all queries attend in every frame, what that changes in a token is for the gates to see.
        always = num_prefix_tokens if variant.rows else 0
        # One selection a frame is made before the first block.
        gated = variant.gate not in (None, "frame")
        self.qkv_gate = TokenGate(variant, always)
        self.attn = AttentionState(variant)  # the buffer of q, k and v among it
        self.proj_gate = TokenGate(variant, always)
        self.proj_buffer = Buffer() if gated else no_buffer
        self.mlp_gate = TokenGate(variant, always)
        self.mlp_buffer = Buffer() if gated else no_buffer


DENSE = BlockState(Variant())
"""The state of every block of a dense model, since it keeps nothing."""


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens, (..., D) to (..., D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """norm1 -> qkv -> attention -> proj -> norm2 -> mlp, with the two skip connections (equations 1 and 2).

    Args:
        dim: width D of a token.
        num_heads: heads of self-attention.
        mlp_ratio: hidden width of the MLP over D.
        grid, window_size, rel_pos_grid: see `Attention`.
        num_prefix_tokens: the first tokens that stand for no place in the picture, such as a class token.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4,
        grid: Grid | None = None,
        window_size: int | None = None,
        rel_pos_grid: int | None = None,
        num_prefix_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.drop_path: nn.Module | None = None  # of both branches, in training
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, grid, window_size, rel_pos_grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def state(self, variant: Variant) -> BlockState:
        """An empty state for this block under a variant."""
        variant = variant if self.attn.window_size is None else variant.windowed()
        return BlockState(variant, self.num_prefix_tokens)

    def forward(
        self,
        x: Tensor,
        state: BlockState | None = None,
        policy: Policy | None = None,
        of_frame: Selection | None = None,
        rotary: Rotary | None = None,
    ) -> Tensor:
        """Run the tokens of one frame of each stream through the block, (B, N, D) to (B, N, D).

        Args:
            x: the tokens of all streams in the batch; of those in `of_frame` alone, (K, D) to (K, D).
            state: what the block keeps between frames, updated here; without one the block is dense.
            policy: which tokens pass the gates; not needed on a first frame or without gates.
            of_frame: which tokens were selected before the first block, if they were.
            rotary: positions, where they turn queries and keys.

        Raises:
            ValueError: there is no policy after the first frame, or its r is more than N; or tokens that form no grid
                would be pooled.
        """
        state = state or DENSE
        y, changed = state.qkv_gate(x, policy, self.norm1)
        y = self.attn(self.attn.qkv(y), of_frame or changed, state.attn, rotary)
        y = of_frame.gather(y) if of_frame else y
        y, changed = state.proj_gate(y, policy)
        x = add(state.proj_buffer(self._dropped(self.attn.proj(y)), changed), x)
        y, changed = state.mlp_gate(x, policy, self.norm2)
        return add(state.mlp_buffer(self._dropped(self.mlp(y)), changed), x)

    def _dropped(self, y: Tensor) -> Tensor:
        return y if self.drop_path is None else self.drop_path(y)


class States:
    """All that the blocks of a network keep between the frames of one batch of streams.

    blocks: of each.
    gate, buffer: around all of them, where one selection is made a frame.
    between: after each block but the last, where that selection is made and what they give is asked for, too.
    cells: of the picture that each token's output is of, where it is to be moved (see `evt.eventful.motion`).
    grid: rows and columns of the last tokens, where they are known to form one.
    notes: of each stream, where one selection is made a frame.
    num_prefix_tokens: see `Block`.
    """

    def __init__(self, blocks: list[BlockState], variant: Variant, num_prefix_tokens: int) -> None:
        frame = variant.gate == "frame"
        self.gate = Gate(num_prefix_tokens, relative=True) if frame else no_gate
        self.blocks = blocks
        self.num_prefix_tokens = num_prefix_tokens
        self.buffer = Buffer() if frame else no_buffer
        self.between: list[Buffer] = []
        self.cells: Tensor | None = None
        self.grid: Grid | None = None
        self.notes: list[Note] = []
        for number, gate in enumerate(self.gates):
            gate.past.gate = number

    @property
    def once(self) -> bool:
        """Whether one selection is made a frame, before the first block."""
        return self.buffer is not no_buffer

    def enter(
        self, x: Tensor, policy: Policy | None, blocks: Sequence[Block], rotary: Rotary | None = None
    ) -> tuple[Tensor, Selection | None]:
        """Let the tokens of a frame into the network, (B, N, D), those that are selected where that is done once.

        For what is returned, see `Gate`; `rotary` is of the first of the blocks.

        Raises:
            ValueError: see `Gate`; the policy looks at the grid, and that is not of these tokens.
        """
        if not self.once:
            return x, None
        if self.grid is not None and getattr(policy, "needs_grid", False):
            check_grid(self.grid, x.shape[1] - self.num_prefix_tokens)
        if len(self.notes) != len(x):  # the flush
            self.notes = [Note() for _ in x]
        inside = Inside(x, blocks, self.blocks, rotary, self.grid, self.notes)
        return self.gate(x, policy, inside=inside)

    @property
    def gates(self) -> list[Gate | STGTGate]:
        """All gates, in the order in which a frame comes to them: those of qkv, proj and MLP of each block."""
        parts = ((x.qkv_gate.gate, x.proj_gate.gate, x.mlp_gate.gate) for x in self.blocks)
        found = (self.gate, *chain.from_iterable(parts))
        return [gate for gate in found if isinstance(gate, Gate | STGTGate)]


class Blocks(nn.ModuleList):
    """The blocks of a Transformer, one after the other."""

    def states(self, variant: Variant) -> States:
        """Empty states under a variant."""
        states = [block.state(variant) for block in self]  # type: ignore[operator]
        return States(states, variant, self[0].num_prefix_tokens)  # type: ignore[arg-type]

    def forward(
        self,
        x: Tensor,
        states: States | None = None,
        policy: Policy | None = None,
        rotary: Sequence[Rotary | None] | None = None,
    ) -> Tensor:
        """Run the tokens of one frame of each stream, (B, N, D) to (B, N, D); densely without states.

        For the arguments and what is raised, see `Block`; `rotary` is of each block.
        """
        rotary = rotary or [None] * len(self)
        if states is None:
            for block, turns in zip(self, rotary, strict=True):
                x = block(x, rotary=turns)
            return x
        x, changed = states.enter(x, policy, list(self), rotary[0])  # type: ignore[arg-type]
        for block, state, turns in zip(self, states.blocks, rotary, strict=True):
            x = block(x, state, policy, changed, turns)
        x = states.buffer(x, changed)
        # The buffer's own tensor would change under the caller's hands.
        return x if states.buffer is no_buffer else x.clone()


def init_weights(module: nn.Module) -> None:
    """Initialise a module as in ViT: truncated normal weights of deviation 0.02, zero biases. Use with `apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, Attention) and module.rel_pos_h is not None and module.rel_pos_w is not None:
        nn.init.trunc_normal_(module.rel_pos_h, std=0.02)
        nn.init.trunc_normal_(module.rel_pos_w, std=0.02)
