"""Policies by which one stream lets through what another one did."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evt.eventful.policy import Past, Policy, Selection


class Leader:
    """Selects as another policy does, and remembers it."""

    def __init__(self, policy: Any) -> None:
        self.policy: Policy = policy
        self.counts_tokens, self.selects, self.check = policy.counts_tokens, policy.selects, policy.check
        self.chosen: list[Selection] = []

    def __call__(self, error: Tensor, past: Past) -> Selection:
        self.chosen.append(self.policy(error, past))
        return self.chosen[-1]


class Follower(Leader):
    """Lets through what a leader did, gate by gate, and counts the tokens that it would have taken instead.

    Two ways to compute one thing differ in last digits, which decide between errors that are nearly equal.
    """

    def __init__(self, leader: Leader) -> None:
        super().__init__(leader.policy)
        self.leader = leader
        self.differ = self.all = 0

    def __call__(self, error: Tensor, past: Past) -> Selection:
        theirs = self.leader.chosen.pop(0)
        own = self.policy(error, past).index
        self.differ += int((~torch.isin(own, theirs.index)).sum())
        self.all += len(own)
        return theirs
