"""The blocks of a foreign model in their places: within a stream each runs as an Eventful one, and else as it is."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from inspect import signature
from threading import Lock
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from evt.errors import ConversionError
from evt.eventful import Blocks, Policy, Selection, States, count_ops
from evt.eventful.counting import observed, record
from evt.eventful.layout import Grid
from evt.models.foreign.checks import Original
from evt.models.foreign.parts import on_meta, twin

ASKED_FOR = ("output_hidden_states", "return_dict")
"""What a block may be told of that is not its concern: what its model returns."""


class Kept(Protocol):
    """What blocks are run with: a stream that was entered, or what a network was called with."""

    states: Any
    policy: Any

    def begins(self, tokens: Tensor) -> None:
        """Refuse tokens of a frame, (B, N, D), before anything is done with them."""

    def reset(self) -> None:
        """Forget what was kept, as it may be of two frames."""


@dataclass
class Given:
    """What a network was called with; whoever called it looks after it."""

    states: States | None = None
    policy: Policy | None = None

    def begins(self, tokens: Tensor) -> None:
        """See `Kept`."""

    def reset(self) -> None:
        """See `Kept`."""


class Slots:
    """The places of a model's blocks, in the model itself and in its twin.

    Args:
        blocks: the Eventful ones.
        original: the model.
    """

    def __init__(self, blocks: Blocks, original: Original) -> None:
        self.blocks, self.original = blocks, original
        self.family, self.originals = original.family, original.blocks
        self.turns = self.family.rotary(original.backbone)
        self.numbers = {block: number for number, block in enumerate(self.originals)}
        self._of_grids: dict[tuple[Grid, torch.device], Blocks] = {}
        self._counts: dict[tuple[Any, ...], Counter[str]] = {}

    def fill(self, blocks: Sequence[nn.Module]) -> None:
        """Take blocks of the twin, which from here on run as the innermost run says that is of these places."""
        for number, block in enumerate(blocks):
            own: Any = type(block)
            block.__class__ = slotted(own)
            self.numbers[block] = number

    def of_grid(self, grid: Grid | None, device: torch.device) -> Blocks:
        """The blocks for tokens of a grid; those of another grid, perhaps in another thread, are left alone."""
        if grid is None:
            return self.blocks
        if (grid, device) not in self._of_grids:
            blocks: Any = twin(self.blocks)
            for block in blocks:
                _resize(block, grid)
            self._of_grids[grid, device] = blocks
        return self._of_grids[grid, device]

    def count(self, number: int, x: Tensor) -> None:
        """Count what a block does with tokens of the family's form, whose own code tells nobody.

        That follows from shapes, so the Eventful block does it once for each, on torch's meta device.
        """
        if not observed():
            return
        tokens, grid = flat(x, self.family.form)
        key = (number, tokens.shape, grid)
        if key in self._counts:
            for kind, operations in self._counts[key].items():
                record(kind, operations)
            return
        block: Any = on_meta(self.blocks[number])
        if grid is not None:
            _resize(block, grid)
        dtype = next(block.parameters()).dtype
        with count_ops() as self._counts[key]:
            block(torch.empty(tokens.shape, dtype=dtype, device="meta"))


def _resize(block: Any, grid: Grid) -> None:
    block.attn._buffers = {}  # where its tokens stand, which is not for others to see
    block.attn.resize(grid)


class Run:
    """A run of a model's blocks, frame after frame.

    Args:
        slots: where they are.
        kept: what they are run with. Without states, or with those of the dense model, the model's own code runs.
        outer: what runs around it.
    """

    def __init__(self, slots: Slots, kept: Kept, outer: Run | None = None) -> None:
        self.slots, self.kept, self.outer = slots, kept, outer
        self.frames = 0  # that came to the first block
        self.done = 0  # blocks that this frame has passed
        # Where one selection is made a frame, what goes from block to block, and what the model was handed for it.
        self._tokens: Tensor | None = None
        self._selection: Selection | None = None
        self._handed: Any = None
        self._version = 0  # one more each time that it is written to

    def step(self, number: int, own: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run a block on tokens of the family's form, to what the model's own would give.

        Args:
            number: of the block.
            own: the model's code.
            x, args, kwargs: what the model calls it with.

        Raises:
            ConversionError: the model asks for more than that, such as a mask, or runs its blocks in another order.
            ValueError: tokens are not finite.
        """
        states = self.kept.states
        if states is None or not states.blocks:
            out = own(x, *args, **kwargs)
            self.slots.count(number, x)
            return out
        family, n = self.slots.family, len(self.slots.blocks)
        tokens, grid = flat(x, family.form)
        turn = self.slots.turns(kwargs, tokens, grid, number)
        _check_given(args, kwargs)
        if number == 0:
            self.slots.original.check_asked()
            if states.once and self.done % n:  # the last frame's selection did not come to its end
                self.kept.reset()
                states = self.kept.states
            self.kept.begins(tokens)
            self.frames, self.done = self.frames + 1, 0
        if number != self.done:
            raise ConversionError(
                f"the model runs its block {number} where block {self.done} is due; it must run them in turn"
            )
        block: Any = self.slots.of_grid(grid, tokens.device)[number]
        try:
            with _quietly():
                if states.once:
                    tokens = self._once(self.slots.of_grid(grid, tokens.device), number, x, tokens, turn)
                else:
                    tokens = block(tokens, states.blocks[number], self.kept.policy, rotary=turn)
                if number == n - 1:
                    check_finite(tokens, "the network makes {} NaN or infinite values of this frame")
        except BaseException:
            self.kept.reset()
            raise
        self.done += 1
        self._handed = laid_out(tokens, family.form, grid)
        self._version = self._handed._version
        return (self._handed,) if family.returns_tuple else self._handed

    def _once(self, blocks: Any, number: int, x: Tensor, tokens: Tensor, turn: Any) -> Tensor:
        """Run a block, by its number, on what was selected before the first one, to the tokens of all."""
        states, policy = self.kept.states, self.kept.policy
        if number == 0:
            self._tokens, self._selection = states.enter(tokens, policy, blocks, turn)
            tokens = tokens.clone()  # which is none of inference mode, and so tells when it is written to
        elif x is not self._handed or x._version != self._version:
            raise ConversionError(
                "the model, or a hook, does something between its blocks, where the gate 'frame' has selected tokens "
                "alone; take a variant with gates in each block"
            )
        self._tokens = blocks[number](self._tokens, states.blocks[number], policy, self._selection, turn)
        if number == len(states.blocks) - 1:
            return states.buffer(self._tokens, self._selection).clone()
        # Where nobody looks at them, old ones will do.
        return states.between[number](self._tokens, self._selection).clone() if states.between else tokens


@contextmanager
def _quietly() -> Iterator[None]:
    """Without gradients and inference mode, see `Stream.advance`; a program that is exported has neither."""
    if torch.compiler.is_exporting():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def _check_given(args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Refuse what a block is given beside its tokens."""
    given = [repr(value) for value in args if value is not None and value is not False]
    given += [
        name
        for name, value in kwargs.items()
        if value is not None and value is not False and name not in ASKED_FOR
    ]
    # While a network is exported, transformers makes a mask by itself, which hides nothing.
    if given and not torch.compiler.is_compiling():
        raise ConversionError(
            f"the blocks of a converted network take tokens alone; {', '.join(given)} was given"
        )


def check_finite(x: Tensor, sentence: str) -> None:
    """Refuse values that are not, with a sentence that says how many; a program that is exported cannot look.

    Raises:
        ValueError: some are not.
    """
    if not x.is_meta and not torch.compiler.is_exporting() and not x.isfinite().all():
        raise ValueError(sentence.format(int((~x.isfinite()).sum())))


# The innermost run, of each thread its own.
_running: ContextVar[Run | None] = ContextVar("_running", default=None)


def run_of(module_or_slots: nn.Module | Slots) -> Run | None:
    """The innermost run of some places, or of those that have a module among them."""
    if torch.compiler.is_dynamo_compiling():  # which does not know of context variables
        return None
    running = _running.get()
    while running is not None:
        if module_or_slots is running.slots or module_or_slots in running.slots.numbers:
            return running
        running = running.outer
    return None


@contextmanager
def running(slots: Slots, kept: Kept) -> Iterator[Run]:
    """Within this, in this thread, blocks in these places are run with what is kept."""
    own = Run(slots, kept, _running.get())
    token = _running.set(own)
    try:
        yield own
    finally:
        _running.reset(token)


@contextmanager
def not_running() -> Iterator[None]:
    """Within this, in this thread, all blocks run as the model's own."""
    token = _running.set(None)
    try:
        yield
    finally:
        _running.reset(token)


@cache
def slotted(cls: Any) -> Any:
    """A class of blocks once more, of which those run as Eventful ones that a run has in its places."""
    if getattr(cls, "is_slotted", False):
        return cls
    _, tokens, *_ = signature(cls.forward).parameters

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        run = run_of(self)
        if run is None or not (args or tokens in kwargs):
            return cls.forward(self, *args, **kwargs)
        x, *others = args or (kwargs.pop(tokens),)
        return run.step(run.slots.numbers[self], partial(cls.forward, self), x, *others, **kwargs)

    # It goes by the same name, since that is what it is outside of runs.
    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    methods = {
        "forward": forward,
        "__reduce_ex__": _not_pickled,
        "__copy__": _copy,
        "__deepcopy__": _deepcopy,
    }
    return type(cls.__name__, (cls,), {**names, **methods, "is_slotted": True})


def _not_pickled(block: nn.Module, protocol: int) -> NoReturn:
    raise ConversionError(
        "what was converted by evt cannot be pickled: save model.state_dict(), and convert the model that it is "
        "loaded into; a model within a stream that was entered is pickled outside of it"
    )


# By what is not to be pickled, modules are copied, too, if they have no methods for that.
def _copy(block: nn.Module) -> nn.Module:
    other = type(block).__new__(type(block))
    other.__setstate__(vars(block))
    return other


def _deepcopy(block: nn.Module, memo: dict[int, Any]) -> nn.Module:
    memo[id(block)] = other = type(block).__new__(type(block))
    other.__setstate__(copy.deepcopy(vars(block), memo))
    return other


_lock = Lock()
_entered: Counter[nn.Module] = Counter()
_classes: dict[nn.Module, type[nn.Module]] = {}


@contextmanager
def slotted_originals(slots: Slots) -> Iterator[None]:
    """Within this, the model's own blocks ask for a run, as those of its twin do; afterwards they are as before."""
    with _lock:
        for original in slots.originals:
            if not _entered[original]:
                own: Any = type(original)
                _classes[original] = own
                original.__class__ = slotted(own)
            _entered[original] += 1
    try:
        yield
    finally:
        with _lock:
            for original in slots.originals:
                _entered[original] -= 1
                if not _entered[original]:
                    original.__class__ = _classes.pop(original)
                    del _entered[original]


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
