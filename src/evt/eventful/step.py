"""One frame of a stream as a function of tensors: what is kept between frames goes in and comes out.

This is what `torch.export` takes. All shapes are fixed: a policy of which it is known how many tokens it selects, and
variants of which nothing is looked at on the way. Batch and size of the frames are those of the example.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evt.eventful.policy import Past, Policy
from evt.eventful.stream import put, tensors_of
from evt.eventful.variant import Variant


class FirstStep(nn.Module):
    """The flush: a frame to the network's output and all that is kept.

    Args:
        network: of Eventful blocks, see `evt.eventful.stream.Network`.
        variant: that `refusal` says nothing of.
    """

    def __init__(self, network: Any, variant: Variant) -> None:
        super().__init__()
        self.network, self.variant = network, variant

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Run a frame (B, ...)."""
        out, kept = self.run(frame)
        return (out, *kept.values())

    def run(self, frame: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The same, with the names of what is kept."""
        states = self.network.states(self.variant)
        out = self.network(frame, states, None)
        return out, _kept(states)


class LaterStep(nn.Module):
    """A later frame: it and what was kept, to the network's output and what is kept now, in the same order.

    Args:
        network, variant: see `FirstStep`.
        policy: which tokens pass.
        names: of what is kept.
    """

    def __init__(self, network: Any, variant: Variant, policy: Policy, names: list[str]) -> None:
        super().__init__()
        self.network, self.variant, self.policy, self.names = network, variant, policy, names

    def forward(self, frame: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        """Run a frame (B, ...); what is given stays as it is."""
        states = self.network.states(self.variant)
        for name, x in zip(self.names, kept, strict=True):
            # In this order, whatever it had: of what is recorded, a view of it could be none later.
            put(states, name, x.clone(memory_format=torch.contiguous_format))
        out = self.network(frame, states, self.policy)
        return (out, *_kept(states).values())


def refusal(network: Any, variant: Variant) -> str | None:
    """Why a variant has no step of fixed shapes on a network, if it has none, after "the variant ..."."""
    windows = any(block.attn.window_size is not None for block in network.blocks)
    reasons = {
        "skips frames, and has no other step than the network itself": variant.hold,
        "keeps nothing between frames; export the network itself": variant.gate is None,
        "moves its output outside of the network": variant.move,
        "pools keys (pool), and how many of these change depends on the frame": variant.pool > 1,
        "looks at its own results on the way (fast, without rows)": variant.fast and not variant.rows,
        "attends in windows here (rows), and how many tokens of each change depends on the frame": variant.rows
        and windows,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _kept(states: Any) -> dict[str, Tensor]:
    """All that is kept, by name, but for what policies count: none that is exported asks for it."""
    return {name: x for name, owner, _, x in tensors_of(states) if not isinstance(owner, Past)}
