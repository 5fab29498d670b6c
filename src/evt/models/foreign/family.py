"""What is known of a kind of model, and how one is refused that is not of a kind that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch.nn.functional as F
from torch import Tensor, nn

from evt.eventful import Rotary
from evt.eventful.layout import Grid
from evt.models.foreign.parts import Parts


class Refused(Exception):  # noqa: N818
    """A module that is not what a conversion relies on.

    Args:
        module: which one.
        reason: a sentence's end, after the module's name and class.
    """

    def __init__(self, module: nn.Module, reason: str) -> None:
        super().__init__(reason)
        self.module, self.reason = module, reason


def refuse(module: nn.Module, reason: str) -> NoReturn:
    """Refuse a model for what a module of it is."""
    raise Refused(module, reason)


def kind_of(x: Any) -> str:
    """The class of an object, or a class itself, as it is imported; nothing is imported for it."""
    cls = x if isinstance(x, type) else type(x)
    return f"{cls.__module__}.{cls.__qualname__}"


def expect(module: Any, owner: nn.Module, *kinds: str) -> None:
    """Refuse a module of another class than those that are known; a subclass may compute something else."""
    if kind_of(module) not in kinds:
        refuse(
            module if isinstance(module, nn.Module) else owner,
            f"it must be a {' or a '.join(kinds)}, and no subclass",
        )


Turns = Callable[[dict[str, Any], Tensor, Grid | None, int], Rotary | None]
"""From what a block is given beside its tokens (B, N, D), the grid of these, and its number, how it turns queries and
keys. What is read is taken out of the arguments."""


def no_turns(given: dict[str, Any], tokens: Tensor, grid: Grid | None, number: int) -> None:
    """Of blocks that do not turn queries and keys."""


def with_prefix(cos: Tensor, sin: Tensor, n_tokens: int, neighbours: bool) -> Rotary:
    """Positions of the last tokens, (n, d) each, as those of all; what stands before has no place."""
    n_prefix = n_tokens - len(cos)
    cos, sin = F.pad(cos, (0, 0, n_prefix, 0), value=1), F.pad(sin, (0, 0, n_prefix, 0))
    return Rotary(cos, sin, neighbours)


def of_config(model: Any) -> tuple[int, ...]:
    """The shape of one frame of the size that a model of transformers is made for, (1, C, H, W)."""
    side = model.config.image_size
    sides = tuple(side) if isinstance(side, list | tuple) else (side, side)
    return 1, model.config.num_channels, *sides


@dataclass(frozen=True)
class Family:
    """A kind of model, by what of its code a conversion relies on.

    method: runs the blocks one after the other, and does nothing else with them. A subclass may not have its own.
    blocks: where they are, as `encoder.layer`.
    encoder: the class of what has them, and runs them, where that is not the model itself.
    parts: what a block is made of; raises `Refused` where it is anything else.
    features: what the model makes of frames (B, C, H, W), a tensor; None where it gives more than one.
    num_prefix_tokens: the first tokens that stand for no place in the picture.
    check: raises `Refused` for what else cannot be.
    rotary: of a model.
    form: of the tokens that blocks take and give: "BNC", "BHWC" or "BCHW".
    returns_tuple: a block gives a tuple of one.
    pads: the grid of tokens need not be whole windows.
    frame_shape: of one frame, or clip, of the size that a model is made for.
    arguments: what a block must be given, if it is to turn queries and keys by cos and sin, (N, d) each, if it can.
    """

    method: str
    blocks: str
    parts: Callable[[Any], Parts]
    features: Callable[[Any, Tensor], Tensor] | None
    num_prefix_tokens: Callable[[Any], int]
    encoder: str | None = None
    check: Callable[[Any], None] = lambda model: None
    rotary: Callable[[Any], Turns] = lambda model: no_turns
    form: str = "BNC"
    returns_tuple: bool = False
    pads: bool = True
    frame_shape: Callable[[Any], tuple[int, ...]] = of_config
    arguments: Callable[[Tensor, Tensor], dict[str, Any]] = lambda cos, sin: {}
