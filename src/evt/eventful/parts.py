"""Names for what a block does, so that a profiler can say where the time goes.

Nothing is named, at next to no cost, outside of `named_parts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch.profiler import record_function

PARTS = ("norm", "gate", "qkv", "windows", "attention", "proj", "mlp")
"""What the time of a block goes to; gates and their buffers are one."""

PREFIX = "evt::"
"""What a part is called in a profile begins with this."""

_naming = False
_NOTHING: AbstractContextManager[object] = nullcontext()


def part(name: str) -> AbstractContextManager[object]:
    """Around the code of a part, which may not hold that of another."""
    return record_function(PREFIX + name) if _naming else _NOTHING


@contextmanager
def named_parts() -> Iterator[None]:
    """Within this, parts have their names in torch's profiler."""
    global _naming
    _naming = True
    try:
        yield
    finally:
        _naming = False
