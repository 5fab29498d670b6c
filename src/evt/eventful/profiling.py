"""Names for what a block does, so that a profiler can say where the time goes.

Nothing is named outside of `named_parts`. Within it, modules are named by hooks, and functions that are `named`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar

from torch import nn
from torch.profiler import record_function
from torch.utils.hooks import RemovableHandle

P = ParamSpec("P")
T = TypeVar("T")

PARTS = ("norm", "gate", "qkv", "windows", "attention", "proj", "mlp")
"""What the time of a block goes to; gates and their buffers are one."""

PREFIX = "evt::"
"""What a part is called in a profile begins with this."""

MODULES = {".norm1": "norm", ".norm2": "norm", ".attn.qkv": "qkv", ".attn.proj": "proj", ".mlp": "mlp"}
"""The parts that are modules of a block, by the end of their names."""

_naming = False


class Modules(Protocol):
    """What has modules with names, as `nn.Module` does."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Each module below this one, and its dotted name."""


def named(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Name a function as a part; it may not call a function or a module of another one."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            if not _naming:
                return function(*args, **kwargs)
            with record_function(PREFIX + name):
                return function(*args, **kwargs)

        return wrapped

    return decorate


@contextmanager
def named_parts(network: Modules) -> Iterator[None]:
    """Within this, the parts of a network have their names in torch's profiler."""
    global _naming
    hooks = [
        hook
        for name, module in network.named_modules()
        for end, part in MODULES.items()
        if name.endswith(end)
        for hook in _hooks(module, part)
    ]
    _naming = True
    try:
        yield
    finally:
        _naming = False
        for hook in hooks:
            hook.remove()


def _hooks(module: nn.Module, part: str) -> tuple[RemovableHandle, RemovableHandle]:
    running = record_function(PREFIX + part)

    def begin(*_: object) -> None:
        running.__enter__()

    def end(*_: object) -> None:
        running.__exit__(None, None, None)

    return module.register_forward_pre_hook(begin), module.register_forward_hook(end)
