"""What stands in a foreign model in the place of its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evt.errors import ConversionError
from evt.eventful import Blocks, Policy, States
from evt.eventful.layout import Grid
from evt.models.foreign.family import Family, Turns
from evt.models.foreign.parts import twin


@dataclass
class Run:
    """What the blocks of a converted network are run with, and how often they were."""

    states: States | None = None
    policy: Policy | None = None
    times: int = 0


# That of the network which runs at the moment; of each thread its own.
_running: ContextVar[Run | None] = ContextVar("_running", default=None)


@contextmanager
def run(states: States | None, policy: Policy | None) -> Iterator[None]:
    """Within this, a slot runs its blocks with these states and this policy.

    Raises:
        ConversionError: it did not, or more than once; or a stream is compiled.
    """
    if torch.compiler.is_dynamo_compiling():  # which does not know of context variables
        if states is not None:
            raise ConversionError("torch.compile takes a converted network as it is, without states")
        yield
        return
    own = Run(states, policy)
    token = _running.set(own)
    try:
        yield
    finally:
        _running.reset(token)
    if own.times != 1:
        raise ConversionError(f"the model ran its blocks {own.times} times; it must run them once")


class Slot(nn.Module):
    """All blocks of a model, which the model's own code calls as if they were a single one.

    Args:
        blocks: what it runs.
        family: says how tokens are laid out, and what comes back.
        turns: see `Family.rotary`.
    """

    def __init__(self, blocks: Blocks, family: Family, turns: Turns) -> None:
        super().__init__()
        self.blocks = blocks
        self._family, self.turns = family, turns
        self._of_grids: dict[tuple[Grid, torch.device], Blocks] = {}

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run all blocks on tokens of the family's form, to the same.

        Raises:
            ConversionError: the model asks for more than that, such as a mask.
        """
        tokens, grid = flat(x, self._family.form)
        turns = self.turns(kwargs, tokens, grid)
        running = None if torch.compiler.is_dynamo_compiling() else _running.get()
        given = [repr(value) for value in args if value is not None and value is not False]
        given += [name for name, value in kwargs.items() if value is not None and value is not False]
        # While a network is exported, transformers makes a mask by itself, which hides nothing.
        if given and not (running and torch.compiler.is_compiling()):
            raise ConversionError(
                f"the blocks of a converted network take tokens alone; {', '.join(given)} was given"
            )
        running = running or Run()
        running.times += 1
        tokens = self.of_grid(grid, tokens.device)(tokens, running.states, running.policy, turns)
        out = laid_out(tokens, self._family.form, grid)
        return (out,) if self._family.returns_tuple else out

    def of_grid(self, grid: Grid | None, device: torch.device) -> Blocks:
        """The blocks for tokens of a grid; those of another grid, perhaps in another thread, are left alone."""
        if grid is None:
            return self.blocks
        if (grid, device) not in self._of_grids:
            blocks: Any = twin(self.blocks)
            for block in blocks:
                block.attn._buffers = {}  # where its tokens stand
                block.attn.resize(grid)
            self._of_grids[grid, device] = blocks
        return self._of_grids[grid, device]


def flat(x: Tensor, form: str) -> tuple[Tensor, Grid | None]:
    """Tokens (B, N, D) and their grid of tokens of a form; see `Family`."""
    if form == "BHWC":
        return x.flatten(1, 2), (x.shape[1], x.shape[2])
    if form == "BCHW":
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])
    return x, None


def laid_out(tokens: Tensor, form: str, grid: Grid | None) -> Tensor:
    """Undo `flat`."""
    if grid is None:
        return tokens
    return tokens.unflatten(1, grid) if form == "BHWC" else tokens.transpose(1, 2).unflatten(2, grid)
