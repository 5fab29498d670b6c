"""Budgets that follow a schedule, a time, or operations a second."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evt.eventful import VARIANTS, Batch, Latency, Operations, Scheduled, TopR, count_ops
from tests.common import small_frames, small_vit

N = 1000


class Simulated:
    """A stream whose frames take the time that a function of r says, on a clock of its own."""

    def __init__(self, policy: Latency, ms: Callable[[int, int], float]) -> None:
        self.policy, self.ms, self.frame = policy, ms, 0
        self.spent: list[float] = []

    def run(self, n: int) -> None:
        for _ in range(n):
            r = len(self.policy(torch.rand(1, N, 1)).index)
            self.spent.append(self.ms(r, self.frame))
            self.policy.took(self.spent[-1] / 1000, 0)
            self.frame += 1


@settings(deadline=None, max_examples=40)
@given(
    rest=st.floats(0, 60),
    token=st.floats(0.05, 0.5),
    targets=st.lists(st.floats(0.1, 0.9), min_size=2, max_size=3),
    noise=st.floats(0, 0.02),
    seed=st.integers(0, 9),
)
def test_a_target_that_changes_is_followed_within_ten_frames_and_held(
    rest: float, token: float, targets: list[float], noise: float, seed: int
) -> None:
    """Whatever a frame costs besides its tokens; every target lies between no token and all of them."""
    draw = torch.Generator().manual_seed(seed)

    def ms(r: int, frame: int) -> float:
        return (rest + token * r) * (1 + noise * float(torch.rand((), generator=draw) - 0.5))

    policy = Latency(rest + token * N)
    simulated = Simulated(policy, ms)
    simulated.run(3)
    for share in targets:
        policy.target = rest + token * N * share
        simulated.run(30)
        for spent in simulated.spent[-20:]:
            assert abs(spent - policy.target) < (0.05 + noise) * policy.target
        recent = [x.r for x in list(policy.log)[-20:]]
        assert max(recent) - min(recent) <= (0.07 + 3 * noise) * policy.target / token  # it does not swing


def test_one_slow_frame_changes_nothing() -> None:
    policy = Latency(60)
    simulated = Simulated(policy, lambda r, frame: 10 + 0.1 * r + (500 if frame == 40 else 0))
    simulated.run(60)
    assert all(abs(spent - 60) < 3 for spent in simulated.spent[20:40] + simulated.spent[41:])


def test_a_machine_that_slows_down_is_followed() -> None:
    policy = Latency(60)
    simulated = Simulated(policy, lambda r, frame: (10 + 0.1 * r) * (2 if frame >= 30 else 1))
    simulated.run(60)
    assert all(abs(spent - 60) < 4 for spent in simulated.spent[41:])


def test_what_no_r_meets_is_said_once_and_the_smallest_is_held(caplog: pytest.LogCaptureFixture) -> None:
    policy = Latency(5, low=0.01)
    simulated = Simulated(policy, lambda r, frame: 50 + 0.1 * r)
    with caplog.at_level(logging.WARNING):
        simulated.run(40)
    assert [x.r for x in list(policy.log)[-20:]] == [10] * 20
    (said,) = caplog.messages
    assert (
        said
        == "no r meets policy.target_ms=5: at r = 10, the smallest allowed, a frame takes 51 ms; that r is held"
    )


def test_a_stream_times_its_later_frames_by_the_clock_of_the_policy() -> None:
    """The network turns the clock by a second for each token that passes; the flush is not counted."""
    net, policy, now = small_vit(), Latency(12_000), [0.0]
    policy.clock = lambda: now[0]
    stream = net.stream(VARIANTS["rows"], policy)
    block: Any = net.blocks[0]
    block.register_forward_hook(lambda *_: now.__setitem__(0, now[0] + policy.tokens(36)))
    for frame in small_frames(8, changed=36):
        stream(frame)
    assert policy.log[0].cost == 36_000
    assert [x.r for x in policy.log][-3:] == [12] * 3
    assert len(policy.log) == 7


def test_operations_a_second_are_those_that_are_counted() -> None:
    net = small_vit()
    per_frame = []
    for r in (36, 9):
        stream = net.stream(VARIANTS["rows"], TopR(r))
        for frame in small_frames(2, changed=36):
            with count_ops() as ops:
                stream(frame)
        per_frame.append(ops.total() / 1e9)
    policy = Operations(25 * per_frame[1], fps=25)
    together = [net.stream(VARIANTS["rows"], policy), net.stream(VARIANTS["rows"], TopR(9))]
    batch = Batch(together[:1])
    for frame in small_frames(10, changed=36):
        batch([frame])
    assert policy.log[0].cost == pytest.approx(25 * per_frame[0])
    assert abs(policy.log[-1].r - 9) <= 1
    # Of several videos in step each has its share.
    both, two = Operations(25 * per_frame[1], fps=25), small_frames(10, changed=36, batch=2)
    stream = net.stream(VARIANTS["rows"], both)
    for frame in two:
        stream(frame)
    assert both.log[0].cost == pytest.approx(25 * per_frame[0])
    assert abs(both.log[-1].r - 9) <= 1


def test_r_says_what_is_held_now() -> None:
    """A user who prints it, or steers by it, is not told that all tokens pass."""
    latency, scheduled = Latency(60, high=0.9), Scheduled({0: 30, 3: 6})
    assert (latency.r, scheduled.r) == (0.9, 30)
    simulated = Simulated(latency, lambda r, frame: 10 + 0.1 * r)
    simulated.run(1)
    while simulated.frame < 20:
        held = latency.r
        assert latency.held().r == held
        simulated.run(1)
        assert latency.log[-1].r == held
    assert abs(latency.r - 500) < 30
    stream = small_vit().stream(VARIANTS["rows"], scheduled)
    told = []
    for frame in small_frames(5):
        stream(frame)
        told.append(scheduled.r)
    assert told == [30, 30, 30, 6, 6]
    latency.forget()
    assert (latency.r, len(latency.log)) == (0.9, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda: setattr(Latency(60), "r", 5), "policy.r follows policy.target_ms, and cannot be set"),
        (lambda: setattr(Operations(60, 25), "r", 5), "policy.r follows policy.per_second"),
        (lambda: setattr(Scheduled({0: 30}), "r", 5), "policy.r follows policy.schedule"),
        (lambda: setattr(Latency(60), "low", 1.5), "policy.low is 1.5; it must be a whole number"),
        (lambda: setattr(Latency(60), "high", "all"), "policy.high is 'all'; it must be a whole number"),
    ],
)
def test_what_would_be_of_no_effect_is_refused(change: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        change()


def test_a_schedule_says_r_by_frame() -> None:
    steps, ramp, shares = (
        Scheduled({0: 30, 3: 6}),
        Scheduled({0: 10, 4: 30}, ramp=True),
        Scheduled({1: 0.5, 3: 1.0}, True),
    )
    assert [steps.at(i) for i in range(1, 6)] == [30, 30, 6, 6, 6]
    assert [ramp.at(i) for i in range(6)] == [10, 15, 20, 25, 30, 30]
    assert [shares.at(i) for i in range(1, 5)] == [0.5, 0.75, 1.0, 1.0]
    net = small_vit()
    stream, scheduled = net.stream(VARIANTS["temporal"], TopR(30)), net.stream(VARIANTS["temporal"], steps)
    for i, frame in enumerate(small_frames(6, changed=36)):
        stream.policy = TopR(30 if i < 3 else 6)
        assert torch.equal(scheduled(frame), stream(frame))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Latency(0), "policy.target_ms is 0"),
        (lambda: Latency(10, low=-1), "policy.low is -1"),
        (lambda: Latency(10, low=300, high=0.1).check(1000), "low must be less"),
        (lambda: Latency(10, high=300).check(100), "policy.high is 300, but a frame has 100 tokens"),
        (lambda: Operations(10, fps=0), "policy.fps is 0"),
        (lambda: Scheduled({}), "it must say r by frame"),
        (lambda: Scheduled({"a": 4}), "policy.schedule is {'a': 4}; it must say r by frame, as {0: 256"),
        (lambda: Scheduled([1, 2]), "policy.schedule is [1, 2]; it must say r by frame"),
        (lambda: Scheduled({0: 4, 1.5: 3}), "with whole numbers of at least 0 as frames"),
        (lambda: Scheduled({-1: 4}), "with whole numbers of at least 0 as frames"),
        (
            lambda: Scheduled({0: None}),
            "policy.schedule[0] is None; it must be a whole number of at least 0, or a",
        ),
        (lambda: Scheduled({5: 10}), "begins at frame 5"),
        (lambda: Scheduled({0: 10, 5: -1}), "policy.schedule[5] is -1"),
        (lambda: Scheduled({0: 10, 5: 0.5}, ramp=True), "all of one kind"),
        (lambda: Scheduled({0: 10, 5: 50}).check(36), "policy.schedule[5] is 50, but a frame has 36 tokens"),
    ],
)
def test_bad_settings_are_told(build: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        build()


def test_a_target_that_cannot_be_is_refused_when_it_is_set() -> None:
    policy = Latency(40)
    for target in (-1, 0, "30", float("nan")):
        with pytest.raises(ValueError, match=r"policy.target_ms is .*; it must be a finite number, above 0$"):
            policy.target = target  # type: ignore[assignment]
    policy.target = 30
    assert policy.target == 30
