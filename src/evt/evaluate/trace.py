"""The one measuring loop: a stream over what a model makes of a sample, step by step."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import tee
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from evt.eventful import count_ops

P = ParamSpec("P")
T = TypeVar("T")


class Streamed(Protocol):
    """What runs input after input: a `Stream`, or a model of whole clips, which keeps nothing between them."""

    @property
    def nbytes(self) -> int:
        """Bytes kept between inputs."""

    def reset(self) -> None:
        """Forget what came before."""

    def __call__(self, x: Any, /) -> Tensor:
        """Run one input."""


class Model(Protocol):
    """What a model offers to be measured."""

    def stream(self, variant: Any, policy: Any = None, /) -> Streamed:
        """A new stream on its weights."""

    def inputs(self, sample: Any, /) -> Iterator[Tensor]:
        """What its stream takes, in order, of one sample: of a frame one input, of a clip those of its steps."""

    def decode(self, outputs: Sequence[Tensor], sample: Any, /) -> Any:
        """What the stream's outputs of a sample mean: detections, or probabilities of classes."""


@dataclass(frozen=True)
class Step:
    """What a stream made of one input.

    output: of the network.
    ops: operations, by kind.
    seconds: that it took.
    nbytes: what the stream keeps after it.
    first: it was the first after a reset, a flush.
    """

    output: Tensor
    ops: Counter[str]
    seconds: float
    nbytes: int
    first: bool


def trace(stream: Streamed, inputs: Iterable[Tensor], first: bool = True) -> Iterator[Step]:
    """Run inputs through a stream, one when it is asked for.

    Args:
        stream: is reset before the first input, unless `first` is false.
        inputs: as the stream takes them.
    """
    if first:
        stream.reset()
    for x in inputs:
        with count_ops() as ops:
            output, seconds = timed(stream, x)
        yield Step(output, ops, seconds, stream.nbytes, first)
        first = False


@dataclass(frozen=True)
class Subject:
    """What is measured.

    model: what turns samples into inputs, and outputs into predictions.
    stream: the variant.
    dense: the dense model beside it, to compare times and outputs with; None where it does not run.
    decode: make predictions.
    also: what makes further evaluators of its frames, by name.
    """

    model: Model
    stream: Streamed
    dense: Streamed | None = None
    decode: bool = True
    also: Mapping[str, Callable[[], Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """What came of one sample.

    sample: a frame or a clip.
    steps: of the variant.
    dense: the same of the dense model; empty where it did not run.
    prediction: what the outputs mean; None where none was made.
    decode_ops, decode_seconds: of making it.
    kept: share of its tokens that the network saw, where some are dropped before it.
    """

    sample: Any
    steps: Sequence[Step]
    dense: Sequence[Step]
    prediction: Any
    decode_ops: int
    decode_seconds: float
    kept: float | None = None

    @property
    def ops(self) -> int:
        """Operations of the variant in all."""
        return sum(step.ops.total() for step in self.steps) + self.decode_ops

    @property
    def dense_ops(self) -> int:
        """Operations of the dense model in all, whose outputs are decoded as the variant's are."""
        return sum(step.ops.total() for step in self.dense) + self.decode_ops

    @property
    def seconds(self) -> float:
        """Seconds of the variant in all."""
        return sum(step.seconds for step in self.steps) + self.decode_seconds


@torch.no_grad()
def observe(subject: Subject, sample: Any, inputs: Iterable[Tensor] | None = None) -> Seen:
    """Run a sample through the variant, and through the dense model, each step of one before that of the other.

    Args:
        subject: what runs.
        sample: a frame, which goes on with the streams as they are unless it is the first of its sequence, or a clip.
        inputs: what the streams take of it, where that is known.

    Raises:
        DataError: it cannot be read or used; the message names it.
    """
    own, again = tee(subject.model.inputs(sample) if inputs is None else inputs)
    first = getattr(sample, "first", True)
    prepare(subject.stream, subject.model, [sample])
    steps, dense = [], []
    rivals = trace(subject.dense, again, first) if subject.dense is not None else None
    for step in trace(subject.stream, own, first):
        steps.append(step)
        if rivals is not None:
            dense.append(next(rivals))
    kept = getattr(subject.stream, "kept", None)
    seen = seen_of(subject.model if subject.decode else None, sample, steps, dense, kept)
    if subject.decode:
        tell(subject.stream, subject.model, [seen])
    return seen


@torch.no_grad()
def observe_together(
    stream: Streamed,
    inputs: Iterable[Tensor],
    samples: Sequence[Any],
    models: Sequence[Model],
    dense: Sequence[Sequence[Step]] | None = None,
    teller: Model | None = None,
) -> list[list[Seen]]:
    """Run samples of the same kind side by side, as one batch of streams.

    Args:
        stream: what runs.
        inputs: as it takes them, those of all samples along the batch, (B * V, ...) each.
        samples: B of them.
        models: what decodes; none decodes nothing.
        dense: of each sample, what the dense model made of the same inputs, where it ran.
        teller: says to a stream that follows it what was found, or what the codec moved; None: the first of models.

    Returns:
        For each of the models what came of each sample: its share of operations and seconds. One without models.
    """
    teller = teller or next(iter(models), None)
    prepare(stream, teller, samples)
    steps = list(trace(stream, inputs, getattr(samples[0], "first", True)))
    n, kept = len(samples), getattr(stream, "kept", None)
    shared_ops = [Counter({kind: x / n for kind, x in step.ops.items()}) for step in steps]
    shares = [
        [replace(step, output=output, ops=ops, seconds=step.seconds / n) for output in step.output.chunk(n)]
        for step, ops in zip(steps, shared_ops, strict=True)
    ]
    of_samples = list(zip(samples, zip(*shares, strict=True), dense or [()] * n, strict=True))
    decoders: Sequence[Model | None] = models or [None]
    seen = [[seen_of(model, *of_sample, kept) for of_sample in of_samples] for model in decoders]
    if getattr(stream, "listens", False):
        # What is decoded for that alone is no part of what is measured.
        found = seen[0] if models else [seen_of(teller, *of_sample, kept) for of_sample in of_samples]
        tell(stream, teller, found)
    return seen


def begin(policy: Any) -> None:
    """Let a policy that learns from frames begin anew: a video's figures are the same, whichever came before it."""
    if forget := getattr(policy, "forget", None):
        forget()


def prepare(stream: Any, model: Any, samples: Sequence[Any]) -> None:
    """Say to a stream what the codec moved in its next frames, side by side, if its policy follows that."""
    if getattr(stream, "looks_ahead", False) and not samples[0].first:
        stream.moves([model.motion(sample) for sample in samples])


def tell(stream: Any, model: Any, seen: Sequence[Seen]) -> None:
    """Say to a stream what was found in its last frames, side by side, if its policy follows that."""
    if getattr(stream, "listens", False):
        stream.saw([model.regions(one.prediction, one.sample) for one in seen])


def seen_of(
    model: Model | None,
    sample: Any,
    steps: Sequence[Step],
    dense: Sequence[Step] = (),
    kept: float | None = None,
) -> Seen:
    """What came of a sample; decoded by a model, if there is one."""
    if model is None:
        return Seen(sample, steps, dense, None, 0, 0.0, kept)
    with count_ops() as ops:
        prediction, seconds = timed(model.decode, [step.output for step in steps], sample)
    return Seen(sample, steps, dense, prediction, ops.total(), seconds, kept)


def timed(run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """Run, and take the seconds until the result is there."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    out = run(*args, **kwargs)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return out, time.perf_counter() - start


def peak_memory() -> int:
    """The most bytes of memory that this process has held: of the GPU where there is one, else of the machine's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes
