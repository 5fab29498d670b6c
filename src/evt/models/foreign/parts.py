"""The parts of a foreign block, as an Eventful one takes them. Their weights are the original's own.

All that a block does beside attention, it does to each token alone. So a part may be any module of which that is
known: the original's code runs in it, and only its linear layers are exchanged for counted ones. A module here is a
twin of the original's: another object, with the same dictionary of parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evt.eventful import Block
from evt.eventful.counting import Linear, record


@dataclass(frozen=True)
class Parts:
    """What a block is made of: x + proj(attention(qkv(norm1(x)))), and then the same + mlp(norm2(x)).

    norm1, qkv, proj, norm2, mlp: each of a token alone, with all that is between them, such as LayerScale after
        `proj`. `qkv` makes (..., 3 num_heads d), queries first.
    num_heads: H.
    scale: of the product of a query and a key.
    window_size: side of the windows, in tokens; None for global attention.
    rel_pos: vectors of distances along columns and along rows, (2 side - 1, d) each, which are interpolated linearly.
    pair_bias: what each head adds to the score of each pair of tokens, (H, N, N); where there are no windows.
    """

    norm1: nn.Module
    qkv: nn.Module
    proj: nn.Module
    norm2: nn.Module
    mlp: nn.Module
    num_heads: int
    scale: float
    window_size: int | None = None
    rel_pos: tuple[nn.Parameter, nn.Parameter] | None = None
    pair_bias: nn.Module | None = None

    def block(self, num_prefix_tokens: int) -> Block:
        """An Eventful block of these parts; see `Block`."""
        with torch.device("meta"):  # all weights that it comes with are replaced
            block = Block(
                self.num_heads,
                self.num_heads,
                window_size=self.window_size,
                num_prefix_tokens=num_prefix_tokens,
            )
        block.norm1, block.norm2, block.mlp = self.norm1, self.norm2, self.mlp  # type: ignore[assignment]
        block.attn.qkv, block.attn.proj = self.qkv, self.proj  # type: ignore[assignment]
        block.attn.scale = self.scale
        if self.rel_pos is not None:
            block.attn.rel_pos_h, block.attn.rel_pos_w = self.rel_pos
            block.attn.rel_pos_of_distances = True
        block.attn.pair_bias = self.pair_bias
        return block


class Apart(nn.Module):
    """Queries, keys and values by a layer each, (..., D) to (..., 3D): one for all would hold copies of weights."""

    def __init__(self, q: nn.Module, k: nn.Module, v: nn.Module) -> None:
        super().__init__()
        self.q, self.k, self.v = q, k, v

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens, (..., D) to (..., 3D)."""
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


class HeadNorms(nn.Module):
    """Queries and keys that are normalised, each head for itself (qk-norm)."""

    def __init__(self, qkv: nn.Module, q_norm: nn.Module, k_norm: nn.Module, num_heads: int) -> None:
        super().__init__()
        self.qkv, self.q_norm, self.k_norm = qkv, q_norm, k_norm
        self.num_heads = num_heads

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens, (..., D) to (..., 3D)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)  # (..., H, d) each
        return torch.stack([self.q_norm(q), self.k_norm(k), v], dim=-3).flatten(-3)


class Biased(nn.Module):
    """Queries, keys and values with biases that are apart, and none of keys, (..., D) to (..., 3D)."""

    def __init__(self, qkv: nn.Module, q_bias: nn.Parameter, v_bias: nn.Parameter) -> None:
        super().__init__()
        self.qkv, self.q_bias, self.v_bias = qkv, q_bias, v_bias

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens, (..., D) to (..., 3D)."""
        y: Tensor = self.qkv(x)
        record("bias", y.numel())
        return y + torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias]).to(y.dtype)


class PairBias(nn.Module):
    """What is added to the scores of pairs of tokens, as a module says by a method of its own."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = twin(module), method

    def forward(self) -> Tensor:
        """The biases, (H, N, N)."""
        biases: Tensor = getattr(self.module, self.method)()
        return biases.squeeze(0)


class Scale(nn.Module):
    """LayerScale, where a block has no module for it, but a parameter."""

    def __init__(self, gamma: nn.Parameter) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, x: Tensor) -> Tensor:
        """Scale tokens, (..., D) to (..., D)."""
        return x * self.gamma


def twin(module: nn.Module, swap: Callable[[nn.Module], nn.Module | None] = lambda module: None) -> nn.Module:
    """The same module once more, with other modules in the place of some below it.

    Parameters and buffers stay the original's: the twin has the same dictionaries of them, so that one which is
    replaced there is replaced here. It has the hooks that the original has now, and is in evaluation mode.

    Args:
        module: with all below it.
        swap: what stands in the place of a module, or None for its twin.
    """
    other = swap(module)
    if other is not None:
        return other
    other = copy.copy(module)
    other.training = False
    for name in ("_forward_hooks", "_forward_pre_hooks"):
        # Libraries add hooks on first use, to the model and to its twin.
        setattr(other, name, getattr(module, name).copy())
    other._modules = {
        name: None if child is None else twin(child, swap) for name, child in module._modules.items()
    }
    return other


def on_meta(module: nn.Module) -> nn.Module:
    """A twin with weights on torch's meta device: shapes, and no numbers."""
    other = twin(module)
    for part in other.modules():
        for name in ("_parameters", "_buffers"):
            tensors: dict[str, Tensor | None] = getattr(part, name)
            setattr(part, name, {key: None if x is None else x.to("meta") for key, x in tensors.items()})
    return other


def counted(module: nn.Module) -> nn.Module:
    """A twin whose linear layers are counted."""
    return twin(module, lambda m: _counted_linear(m) if type(m) is nn.Linear else None)


def _counted_linear(linear: nn.Linear) -> Linear:
    other = copy.copy(linear)
    other.training = False
    other.__class__ = Linear
    return other  # type: ignore[return-value]


def chain(*modules: nn.Module | None) -> nn.Module:
    """Some modules one after the other, without those that do nothing; each is `counted`."""
    some = [counted(module) for module in modules if module is not None and not does_nothing(module)]
    if not some:
        return nn.Identity()
    return some[0] if len(some) == 1 else nn.Sequential(*some)


def does_nothing(module: nn.Module) -> bool:
    """Whether a part is left out, as timm does it."""
    return type(module) is nn.Identity
