"""Samples that run as one batch of streams, through one variant after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from evt.evaluate.skipping import held
from evt.evaluate.trace import Model, Seen, Step, begin, observe_together, seen_of
from evt.eventful import VARIANTS, Every, States, Variant


@dataclass
class SideBySide:
    """Samples side by side, and what the dense model makes of them, which is found out once.

    model: what runs.
    moments: the samples that are seen at once: the frames of a number of all videos, or all clips.
    inputs: what a stream takes of each moment.
    path: the dense model as it runs, on the reference path or the fast one.
    """

    model: Model
    moments: Sequence[Sequence[Any]]
    inputs: Sequence[Sequence[Tensor]]
    path: Any = VARIANTS["base"]
    _decoded: dict[tuple[int, ...], Seen] = field(default_factory=dict)

    @cached_property
    def dense(self) -> list[list[Sequence[Step]]]:
        """The dense model's steps, by moment and sample."""
        stream = self.model.stream(self.path)
        seen = [
            observe_together(stream, x, now, [])[0] for now, x in zip(self.moments, self.inputs, strict=True)
        ]
        return [[one.steps for one in now] for now in seen]

    def run(
        self, variant: Any, policy: Any, decoders: Sequence[Sequence[Model]], beside: bool
    ) -> Iterator[list[list[Seen]]]:
        """Run a variant; frame skipping is made of what the dense model made.

        Args:
            variant, policy: as the model's streams take them.
            decoders: of each moment, the models that decode it; none decodes nothing.
            beside: give what the dense model made, too.

        Yields:
            For each moment what `observe_together` returns.
        """
        nothing: list[list[Sequence[Step]]] = [[()] * len(now) for now in self.moments]
        dense = self.dense if beside else nothing
        if variant.hold:
            steps = self._moved(variant, policy) if variant.move else self._held(policy)
            see = seen_of if variant.move else self._seen
            for samples, models, own, other in zip(self.moments, decoders, steps, dense, strict=True):
                of_samples = list(zip(samples, own, other, strict=True))
                using: Sequence[Model | None] = models or [None]
                yield [[see(model, *of_sample) for of_sample in of_samples] for model in using]
            return
        begin(policy)
        stream = self.model.stream(variant, policy)
        for x, samples, models, other in zip(self.inputs, self.moments, decoders, dense, strict=True):
            yield observe_together(stream, x, samples, models, other, self.model)

    def _held(self, policy: Every) -> list[list[Sequence[Step]]]:
        """The steps of frame skipping, by moment and sample."""
        flows = [held(chain.from_iterable(steps), policy) for steps in zip(*self.dense, strict=True)]
        return [
            [list(islice(flow, len(steps))) for flow, steps in zip(flows, now, strict=True)]
            for now in self.dense
        ]

    def _moved(self, variant: Variant, policy: Every) -> list[list[Sequence[Step]]]:
        """The same where the output moves along: a stream runs whose network says what the dense model made."""
        stream: Any = self.model.stream(variant, policy)
        stream.network = known = _Known(stream.network)
        found: list[list[Sequence[Step]]] = []
        for x, samples, dense, runs in zip(
            self.inputs, self.moments, self.dense, self._held(policy), strict=True
        ):
            (seen,) = observe_together(stream, known.told(x, dense), samples, [])
            found.append([_together(one.steps, run) for one, run in zip(seen, runs, strict=True)])
        return found

    def _seen(self, model: Model | None, sample: Any, steps: Sequence[Step], dense: Sequence[Step]) -> Seen:
        """What came of a sample; an output that is held by several phases and for several frames is decoded once."""
        key = (id(model), *(id(step.output) for step in steps))
        if key not in self._decoded:
            self._decoded[key] = seen_of(model, sample, steps)
        return replace(self._decoded[key], sample=sample, steps=steps, dense=dense)


class _Known:
    """A network that runs nothing, since its output is known.

    network: whose output it is.
    """

    def __init__(self, network: Any) -> None:
        # By which a stream knows where they are, and how many tokens stand for no place.
        self.parameters, self.states = network.parameters, network.states

    def told(self, inputs: Sequence[Tensor], dense: Sequence[Sequence[Step]]) -> Iterator[Tensor]:
        """The inputs of some samples side by side; what a stream takes next has the output of the same step."""
        for number, x in enumerate(inputs):
            self._output = torch.cat([steps[number].output for steps in dense])
            yield x

    def __call__(self, frame: Tensor, states: States, policy: None) -> Tensor:
        return self._output


def _together(some: Sequence[Step], others: Sequence[Step]) -> list[Step]:
    """Steps with the operations and seconds of others, too."""
    return [
        replace(step, ops=step.ops + other.ops, seconds=step.seconds + other.seconds)
        for step, other in zip(some, others, strict=True)
    ]
