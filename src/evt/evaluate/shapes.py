"""Operations from shapes alone, as the paper's tables count them: on torch's meta device no frame is needed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from evt.evaluate.trace import Model, trace
from evt.eventful import Policy, Stream, TopR, Variant, count_ops
from evt.models.vivit import ViViT


class Shaped(Model, Protocol):
    """A model that knows what its streams take without a sample."""

    def blank(self) -> Tensor:
        """An input, all zeros, of one frame or of one view's step."""


@dataclass(frozen=True)
class Operations:
    """Operations of one view, by kind.

    first: of its first input, the flush.
    later: of every other input.
    decoding: of what is made of all outputs; none where that is not counted.
    """

    first: Counter[str]
    later: Counter[str]
    decoding: Counter[str]


@torch.no_grad()
def operations_of_shapes(
    model: Shaped, variant: Variant, policy: Policy | None, steps: int = 0
) -> Operations:
    """Count a flush and a later input, on whatever device the model is; the meta device is enough.

    A threshold has no such count: what it selects depends on the frames.

    Args:
        model, variant, policy: what runs.
        steps: outputs that are decoded together; 0 leaves that out.
    """
    stream, first = _flushed(model, variant)  # type: ignore[arg-type]  # modules can be hashed
    stream.policy = policy
    (later,) = trace(stream, [model.blank()], first=False)
    with count_ops() as decoding:
        if steps:
            model.decode([later.output] * steps, None)
    return Operations(first, later.ops, decoding)


@lru_cache(maxsize=8)
def _flushed(model: Shaped, variant: Variant) -> tuple[Stream, Counter[str]]:
    """A stream after its flush, which no policy changes, and what that cost; rows that differ in policy share it."""
    stream: Any = model.stream(variant, None if variant.gate is None else TopR(0))
    (first,) = trace(stream, [model.blank()])
    return stream, first.ops


def mean_operations(model: Any, variant: Variant, policy: Policy | None, flush_rate: float) -> float:
    """Operations from shapes alone: of a mean frame, or of a whole clip.

    Args:
        model, variant, policy: what runs.
        flush_rate: flushes a frame, for a model of frames.
    """
    if model.sees == "steps":
        return operations_of_clip(model, variant, policy)
    ops = operations_of_shapes(model, variant, policy)
    first, later = ops.first.total(), ops.later.total()
    return later + flush_rate * (first - later)


def operations_of_clip(model: ViViT, variant: Variant, policy: Policy | None) -> int:
    """Operations of a whole clip, all steps of all views, from shapes alone."""
    ops = operations_of_shapes(model, variant, policy, model.steps)
    return len(model.views) * (
        ops.first.total() + (model.steps - 1) * ops.later.total() + ops.decoding.total()
    )
