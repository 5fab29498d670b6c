"""What frame skipping would have given, against streams that really skip."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from evt.evaluate.skipping import LAGS, Skipping, between, held
from evt.evaluate.trace import Seen, Step, trace
from evt.eventful import VARIANTS, Every
from evt.metrics.agreement import relative_l2
from tests.common import small_frames, small_vit


def seen(outputs: list[torch.Tensor], ratio: float) -> list[Seen]:
    """Frames of a variant that costs so many times less than the dense model, whose outputs these are."""
    found = []
    for i, x in enumerate(outputs):
        dense = Step(x, Counter(linear=1200), 0.0, 0, i == 0)
        own = Step(x, Counter(linear=int(1200 / ratio)), 0.0, 0, i == 0)
        found.append(Seen(None, [own], [dense], None, 0, 0.0))
    return found


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_a_whole_k_is_the_mean_over_all_phases_of_streams_that_skip(every: int) -> None:
    """Else the figure would not be what a user gets who skips frames."""
    net, frames = small_vit(), small_frames(11, changed=9)
    dense = [step.output for step in trace(net.stream(VARIANTS["base"]), frames)]
    evaluator = Skipping()
    for one in seen(dense, every):
        evaluator.update(one)
    found = evaluator.compute()
    errors = []
    for phase in range(every):
        steps = list(trace(net.stream(VARIANTS["skip"], Every(every, phase)), frames))
        errors += [relative_l2(s.output, x) for s, x in zip(steps[1:], dense[1:], strict=True)]
    assert found["every"] == every
    # Phases hold each frame of the first group for as long as the flush lasts; the rest is the same.
    assert found["relative_l2_error"] == pytest.approx(sum(errors) / len(errors), rel=1e-6)


def test_between_two_whole_numbers_the_operations_decide() -> None:
    """At 2.4 of 1200 operations, 500: halves and thirds mix so that 1/2 s + 1/3 (1 - s) = 1/2.4, s = 1/2."""
    evaluators = []
    for ratio in (2.0, 3.0, 2.4):
        evaluator = Skipping()
        outputs = [torch.tensor([float(i % 7 + 1), 1.0]) for i in range(20)]
        for one in seen(outputs, ratio):
            evaluator.update(one)
        evaluators.append(evaluator.compute()["relative_l2_error"])
    two, three, between = evaluators
    assert between == pytest.approx((two + three) / 2)


def test_skipping_keeps_its_output() -> None:
    """Else a table would say that it takes no memory; a stream counts frames, besides, in 8 bytes."""
    net, frames = small_vit(), small_frames(5)
    own = list(held(trace(net.stream(VARIANTS["base"]), frames), Every(2)))
    stream = net.stream(VARIANTS["skip"], Every(2))
    for frame, step in zip(frames, own, strict=True):
        stream(frame)
        assert step.nbytes == stream.nbytes - 8 == step.output.numel() * 4


def test_records_add_up_and_go_through_json() -> None:
    whole, parts = Skipping(), Skipping()
    for seed in range(2):
        outputs = [torch.randn(3, generator=torch.Generator().manual_seed(10 * seed + i)) for i in range(5)]
        part = Skipping()
        for one in seen(outputs, 2):
            whole.update(one)
            part.update(one)
        parts.add(json.loads(json.dumps(part.record())))
    assert parts.compute() == pytest.approx(whole.compute())


@pytest.mark.parametrize(("frames", "ratio"), [(1, 2), (3, LAGS + 1), (3, 0.5)])
def test_nothing_is_said_where_there_is_nothing_to_compare_with(frames: int, ratio: float) -> None:
    evaluator = Skipping()
    for one in seen([torch.ones(2)] * frames, ratio):
        evaluator.update(one)
    assert evaluator.compute() == {}


@pytest.mark.parametrize(("every", "phase"), [(1, 0), (2, 0), (2, 1), (3, 1), (5, 4)])
def test_what_is_held_is_what_a_stream_that_skips_gives(every: int, phase: int) -> None:
    """The small tables run no such stream, but show its outputs and operations, video after video."""
    net, frames = small_vit(), small_frames(7, changed=9)
    policy = Every(every, phase)
    dense = list(trace(net.stream(VARIANTS["base"]), frames))
    made = list(held([*dense, *dense], policy))
    steps = list(trace(net.stream(VARIANTS["skip"], policy), frames))
    for own, other in zip(made, [*steps, *steps], strict=True):
        assert own.output.equal(other.output)
        assert (own.ops, own.first) == (other.ops, other.first)


def test_the_nearest_costs_by_hand() -> None:
    costs = [2.0, 8.0, 4.0]
    assert between(5, costs) == (1, 2, 0.25)
    assert between(3, costs) == (2, 0, 0.5)
    assert between(4, costs) == (2, 2, 1)
    assert between(1.9, costs) is None
    assert between(8.1, costs) is None
    assert between(1, []) is None
