"""The Transformer block, dense and Eventful in one (section 4.2, figure 4)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from evt.eventful.attention import Attention, AttentionState, Grid
from evt.eventful.counting import add, linear
from evt.eventful.gate import Buffer, Gate, STGTGate
from evt.eventful.parts import part
from evt.eventful.policy import Policy, Selection
from evt.eventful.variant import Variant

TokenOperation = Callable[[Tensor], Tensor]


class TokenwiseState:
    """A gate and a buffer around a sequence of token-wise operations (figure 3), or nothing in a dense block.

    always: so many of the first tokens always pass.
    """

    def __init__(self, variant: Variant, always: int, buffered: bool = True) -> None:
        self.gate: Gate | STGTGate | None = None
        if variant.gate is not None:
            self.gate = Gate(always) if variant.gate == "reference" else STGTGate(always)
            if buffered:
                self.buffer = Buffer()
        self.gate_before_norm = variant.gate_before_norm

    def __call__(
        self, x: Tensor, norm: TokenOperation, operations: TokenOperation, policy: Policy | None
    ) -> Tensor:
        """Apply norm and operations where tokens changed, (B, N, D) to (B, N, D')."""
        y, selection = self.gated(x, norm, operations, policy)
        if self.gate is None:
            return y
        with part("gate"):
            return self.buffer(y, selection)

    def gated(
        self, x: Tensor, norm: TokenOperation, operations: TokenOperation, policy: Policy | None
    ) -> tuple[Tensor, Selection | None]:
        """Apply norm and operations to the tokens that changed, (B, N, D) to (K, D'), and say which they are.

        All of them, (B, N, D'), and None on the flush and in a dense block.
        """
        if self.gate is None:
            return operations(norm(x)), None
        if self.gate_before_norm:
            with part("gate"):
                c, selection = self.gate(x, policy)
            return operations(norm(c)), selection
        normed = norm(x)
        with part("gate"):
            c, selection = self.gate(normed, policy, own=normed is not x)
        return operations(c), selection


class BlockState:
    """All that one block keeps between the frames of one batch of streams.

    num_prefix_tokens: see `Block`.
    """

    def __init__(self, variant: Variant, num_prefix_tokens: int = 0) -> None:
        self.variant = variant
        # Elsewhere all queries attend in every frame, and what that changes in a token is for the gates to see.
        always = num_prefix_tokens if variant.rows else 0
        self.qkv = TokenwiseState(variant, always, buffered=False)  # attention keeps what comes of it
        self.attn = AttentionState(variant)
        self.proj = TokenwiseState(variant, always)
        self.mlp = TokenwiseState(variant, always)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens, (..., D) to (..., D)."""
        with part("mlp"):
            return linear(self.fc2, F.gelu(linear(self.fc1, x)))


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
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, grid, window_size, rel_pos_grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def state(self, variant: Variant) -> BlockState:
        """An empty state for this block under a variant."""
        variant = variant if self.attn.window_size is None else variant.windowed()
        return BlockState(variant, self.num_prefix_tokens)

    def forward(self, x: Tensor, state: BlockState | None = None, policy: Policy | None = None) -> Tensor:
        """Map the tokens of one frame of each stream, (B, N, D) to (B, N, D).

        Args:
            x: tokens of all streams in the batch.
            state: what the block keeps between frames; None computes this frame densely and keeps nothing.
            policy: which tokens the gates let through; not needed on a first frame or without gates.
        """
        state = state or self.state(Variant())
        qkv = partial(_named, "qkv", partial(linear, self.attn.qkv))
        proj = partial(_named, "proj", partial(linear, self.attn.proj))
        y, selection = state.qkv.gated(x, partial(_named, "norm", self.norm1), qkv, policy)
        y = self.attn(y, selection, state.variant, state.attn)
        x = add(state.proj(y, _identity, proj, policy), x)
        return add(state.mlp(x, partial(_named, "norm", self.norm2), self.mlp, policy), x)


def _identity(x: Tensor) -> Tensor:
    return x


def _named(name: str, operations: TokenOperation, x: Tensor) -> Tensor:
    with part(name):
        return operations(x)


def init_weights(module: nn.Module) -> None:
    """The initialisation of ViT: truncated normal weights of deviation 0.02, zero biases. Use with `apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, Attention) and module.rel_pos_h is not None and module.rel_pos_w is not None:
        nn.init.trunc_normal_(module.rel_pos_h, std=0.02)
        nn.init.trunc_normal_(module.rel_pos_w, std=0.02)
