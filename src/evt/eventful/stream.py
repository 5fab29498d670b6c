"""One video stream, or a batch of them in step, through a network of Eventful blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from evt.eventful.block import BlockState
from evt.eventful.policy import Policy
from evt.eventful.variant import Variant

TENSORS = ("u", "b", "av", "q", "k", "v", "out", "lse", "frame")
"""The attributes that hold state: references, buffers and B, and the attention-value product."""

_NOTHING = torch.empty(0)
"""Stands in a saved stream for what a state does not keep."""


class Network(Protocol):
    """What a stream runs: a module whose forward takes the states of its blocks and a policy."""

    def states(self, variant: Variant) -> list[BlockState]:
        """An empty state for every block."""

    def __call__(self, x: Tensor, states: list[BlockState], policy: Policy | None) -> Tensor:
        """Run one frame of each stream."""


class Stream:
    """The state of a batch of streams on a network's weights, which any number of streams share.

    The first frame after creation or `reset` is the flush: all is computed. `policy`, and its `r` or `h`, may be
    changed before any frame.

    Args:
        network: the weights.
        variant: what reuses the previous frame.
        policy: which tokens pass the gates; needed exactly by variants that have gates.

    Raises:
        ValueError: a gated variant without a policy, or a policy for a variant without gates; when called, a
            frame of another shape than the one the stream was flushed with.
    """

    def __init__(self, network: Network, variant: Variant, policy: Policy | None = None) -> None:
        if variant.gate is not None and policy is None:
            raise ValueError("this variant has gates and needs a policy: TopR(r) or Threshold(h)")
        if variant.gate is None and policy is not None:
            raise ValueError(f"this variant has no gates, so it takes no policy; {policy} was given")
        self.network = network
        self.variant = variant
        self.policy = policy
        self.reset()

    def reset(self) -> None:
        """Forget all frames; the next one is a flush."""
        self.states = self.network.states(self.variant)
        self._shape: torch.Size | None = None

    @torch.no_grad()
    def __call__(self, frame: Tensor) -> Tensor:
        """Run one frame of each stream, (B, ...) as the network takes it, to the network's output."""
        if self._shape is not None and frame.shape != self._shape:
            raise ValueError(
                f"this stream holds a frame of shape {tuple(self._shape)} and was given one of shape "
                f"{tuple(frame.shape)}; call reset() before a frame of another shape"
            )
        try:
            out = self.network(frame, self.states, self.policy)
        except BaseException:
            # Some gates may already hold this frame and others the last: only a flush is safe now.
            self.reset()
            raise
        self._shape = frame.shape
        return out

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the stream keeps between frames."""
        return sum(x.numel() * x.element_size() for _, _, _, x in _slots(self.states) if x is not None)

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of what the stream keeps between frames, by name, to be saved. Empty before the first frame."""
        if self._shape is None:
            return {}
        tensors = {
            name: _NOTHING if x is None else x.clone(memory_format=torch.contiguous_format)
            for name, _, _, x in _slots(self.states)
        }
        # All are tensors, so that safetensors can hold them.
        return {"frame_shape": torch.tensor(self._shape), "variant": _text(repr(self.variant)), **tensors}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Continue where a saved stream of the same network and variant stopped.

        Raises:
            ValueError: the saved stream is of another variant or network, or of a version that did not name it.
        """
        self.reset()
        if not tensors:
            return
        slots = {name: (owner, attribute) for name, owner, attribute, _ in _slots(self.states)}
        differ = sorted((tensors.keys() - {"frame_shape", "variant"}) ^ slots.keys())
        if differ:
            raise ValueError(
                f"the saved stream is of another variant or network: only one of them has {differ[0]}"
            )
        if "variant" not in tensors:
            raise ValueError(
                "the saved stream does not say of which variant it is, so it is of an older version"
            )
        saved = bytes(tensors["variant"].tolist()).decode()
        if saved != repr(self.variant):
            raise ValueError(
                f"the saved stream is of another variant, {saved}; this one is of {self.variant}"
            )
        for name, (owner, attribute) in slots.items():
            setattr(owner, attribute, tensors[name].clone() if tensors[name].numel() else None)
        self._shape = torch.Size(tensors["frame_shape"].tolist())


def _text(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _slots(state: Any, prefix: str = "") -> Iterator[tuple[str, Any, str, Tensor | None]]:
    """The places for tensors below a state object: dotted name, owner, attribute, and what is there now."""
    items = enumerate(state) if isinstance(state, list) else vars(state).items()
    for key, value in items:
        name = f"{prefix}{key}"
        if value is None or isinstance(value, Tensor):
            if key in TENSORS:
                yield name, state, key, value
        elif isinstance(value, list) or (hasattr(value, "__dict__") and not isinstance(value, Variant)):
            yield from _slots(value, f"{name}.")
