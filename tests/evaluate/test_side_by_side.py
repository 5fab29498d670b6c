"""What small tables make of the dense model's outputs, against streams that run by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evt.evaluate.side_by_side import SideBySide
from evt.evaluate.trace import trace
from evt.eventful import VARIANTS, Every, Regions
from tests.common import small_frames, small_vit


@dataclass(frozen=True)
class Sample:
    """A frame of a video."""

    frame: Tensor
    first: bool


class Bare:
    """A network as a model, whose outputs mean themselves."""

    def __init__(self) -> None:
        self.net = small_vit()

    def stream(self, variant: Any, policy: Any = None) -> Any:
        return self.net.stream(variant, policy)

    def inputs(self, sample: Sample) -> Iterator[Tensor]:
        yield sample.frame

    def decode(self, outputs: Any, sample: Sample) -> Tensor:
        (output,) = outputs
        return output.clone()


@pytest.mark.parametrize("variant", ["skip", "skip_moved"])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(("every", "phase"), [(1, 0), (2, 1), (3, 0)])
def test_frame_skipping_is_what_streams_give(variant: str, fast: bool, every: int, phase: int) -> None:
    """Of two videos side by side. The tables run no such streams, but show their outputs and operations."""
    model, chosen, policy = Bare(), replace(VARIANTS[variant], fast=fast), Every(every, phase)
    videos = [small_frames(6, changed=9, seed=seed) for seed in (1, 2)]
    moments = [[Sample(video[t], t == 0) for video in videos] for t in range(6)]
    inputs = [[torch.cat([sample.frame for sample in now])] for now in moments]
    beside = SideBySide(model, moments, inputs, chosen.dense)
    found = list(beside.run(chosen, policy, [[model]] * 6, True))
    for k, video in enumerate(videos):
        own, dense = (
            list(trace(model.stream(*run), video)) for run in ((chosen, policy), (chosen.dense, None))
        )
        for t, (step, other) in enumerate(zip(own, dense, strict=True)):
            seen = found[t][0][k]
            torch.testing.assert_close(seen.steps[0].output, step.output)
            torch.testing.assert_close(seen.prediction, step.output)
            torch.testing.assert_close(seen.dense[0].output, other.output)
            # But for the bias of padding, which is counted once a batch, as published.
            assert seen.steps[0].ops.total() == pytest.approx(step.ops.total(), rel=1e-3)
            assert seen.steps[0].first is step.first


def test_a_policy_that_follows_what_is_found_is_told_in_frames_that_are_not_measured() -> None:
    """A table decodes one of a few frames; boxes of the last of those would be old, and none are there before it."""

    class Finds(Bare):
        def regions(self, found: Tensor, sample: Sample) -> Tensor:
            """A box whose place follows from what was found, and nothing of confidence in half of all frames."""
            x = float(found.abs().sum() % 4)
            return torch.tensor([[x, x, x + 2, x + 2, float(x > 2)]])

    model, policy = Finds(), Regions(0.5, 0, None)
    video = small_frames(6, changed=9)
    samples = [Sample(frame, t == 0) for t, frame in enumerate(video)]
    beside = SideBySide(
        model, [[sample] for sample in samples], [[frame] for frame in video], VARIANTS["base"]
    )
    found = list(beside.run(VARIANTS["frame"], policy, [[model] if t == 4 else [] for t in range(6)], False))
    assert [now[0][0].prediction is not None for now in found] == [t == 4 for t in range(6)]
    stream = model.stream(VARIANTS["frame"], policy)
    for sample, now in zip(samples, found, strict=True):
        out = stream(sample.frame)
        assert torch.equal(now[0][0].steps[0].output, out)
        stream.saw([model.regions(out, sample)])
