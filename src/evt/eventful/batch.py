"""Streams that run as one batch, and come and go between frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from evt.eventful.inside import Note
from evt.eventful.policy import Past, Selection, by_norm
from evt.eventful.stream import Stream, put, tensors_of


class Batch:
    """Runs streams on the same weights under the same variant together; each gives and keeps what it would alone.

    Each has a policy of its own, which need not be that of the others, and may itself be of several videos in step.
    Streams may be added and removed between frames, whether they have seen frames or not: the flush of a first frame
    runs alone, and from the next frame on the stream is one of the others.

    What all keep stands together, so that nothing is copied from frame to frame. When a stream was added or removed,
    the next frame puts it together anew; and where one of them is used alone (called, saved, copied, reset or asked
    for its bytes) each has its share back until then. Either takes as long as copying all of it.

    A policy that follows the time of a frame (`Latency`) hears that of the batch, since all wait for the same frame.
    One that follows operations is for a stream alone: those of a batch are counted of all streams together.

    Raises:
        ValueError: see `add`.
    """

    def __init__(self, streams: Iterable[Stream] = ()) -> None:
        self._members: list[Stream] = []
        self._together: _Together | None = None
        for stream in streams:
            self.add(stream)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Those that run, in the order of their frames."""
        return tuple(self._members)

    def add(self, stream: Stream) -> None:
        """Run a stream, too, from the next frame on, as the last.

        Raises:
            ValueError: it is already here, on other weights, under another variant, one of frame skipping, or one of
                several of which a policy follows operations.
        """
        if not isinstance(stream, Stream):
            raise ValueError(f"a batch is of streams; a {type(stream).__name__} was given")
        if any(stream is member for member in self._members):
            raise ValueError("this stream is already in the batch")
        if stream.variant.hold:
            raise ValueError(
                "the variant is of frame skipping (hold), which keeps nothing that could run as a batch: run the "
                "network itself on the frames that are due, torch.cat(frames)"
            )
        if self._members:
            first = self._members[0]
            if stream.network is not first.network:
                raise ValueError("this stream is on another network than those in the batch")
            if stream.variant != first.variant:
                raise ValueError(
                    f"this stream is of the variant {stream.variant}; those in the batch are of {first.variant}"
                )
        _refuse_to_count([*self._members, stream])
        self._members.append(stream)

    def remove(self, stream: Stream) -> None:
        """Let a stream go on alone, with what it keeps.

        Raises:
            ValueError: it is not in the batch.
        """
        places = [i for i, member in enumerate(self._members) if member is stream]
        if not places:
            raise ValueError("this stream is not in the batch")
        self.give_back()
        del self._members[places[0]]

    @torch.inference_mode(False)  # see `Stream.advance`
    def give_back(self) -> None:
        """Give each stream what is kept of it; the next frame puts it together again."""
        if self._together is not None:
            self._together.part()
            self._together = None

    @torch.inference_mode(False)
    def __call__(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """Run the next frame of each stream, (B, ...) each, to what each would have given.

        Raises:
            ValueError: there are more or fewer frames than streams, or one is refused, see `Stream`; then all are as
                they were. Or the network makes values of them that are not finite, or a policy fails: then all
                streams that had a first frame are reset, since it is not known how far each came. Where that is so
                of a first frame, its stream alone is reset, and those after it have not seen theirs.
        """
        if isinstance(frames, Tensor):
            raise ValueError("frames are one tensor; they must be a list, with a tensor for each stream")
        if len(frames) != len(self._members):
            raise ValueError(f"{len(frames)} frames were given to {len(self._members)} streams")
        _refuse_to_count(self._members)  # policies may have changed
        for number in range(len(frames)):
            self._check(number, frames)
        going = [i for i, stream in enumerate(self._members) if stream.flushed]
        # The flush of the others leaves alone what is kept together.
        outputs = {i: self._members[i](frames[i]) for i in range(len(frames)) if i not in going}
        if going:
            streams = [self._members[i] for i in going]
            if self._together is None or self._together.streams != streams:
                self.give_back()
                self._together = _Together(streams, self.give_back)
            outputs |= zip(going, self._together.run([frames[i] for i in going]), strict=True)
        return [outputs[i] for i in range(len(frames))]

    def saw(self, found: Sequence[Sequence[Tensor]]) -> None:
        """Say where objects are in the last frame of each stream; of each what `Stream.saw` takes.

        Raises:
            ValueError: it is of more or fewer streams, or see `Stream.saw`.
        """
        for stream, own, notes in self._told("what was found", found):
            if stream.listens and notes is not None:
                stream.note_boxes(notes, own)
            else:
                stream.saw(own)

    def moves(self, motion: Sequence[Sequence[Tensor]]) -> None:
        """Say how far the codec moved what the next frame of each stream shows; of each what `Stream.moves` takes.

        Raises:
            ValueError: it is of more or fewer streams, or see `Stream.moves`.
        """
        for stream, own, notes in self._told("what moves", motion):
            if stream.looks_ahead and notes is not None:
                stream.note_motion(notes, own)
            else:
                stream.moves(own)

    def _told(
        self, what: str, told: Sequence[Sequence[Tensor]]
    ) -> Iterator[tuple[Stream, Sequence[Tensor], list[Note] | None]]:
        """Each stream with what is told of it, and its notes where they are kept here."""
        if not isinstance(told, Sequence):
            raise ValueError(
                f"{what} is a {type(told).__name__}; it must be a list, with an entry for each stream"
            )
        if len(told) != len(self._members):
            raise ValueError(f"{what} is of {len(told)} streams, and there are {len(self._members)}")
        for stream, own in zip(self._members, told, strict=True):
            yield stream, own, self._notes_of(stream)

    def _notes_of(self, stream: Stream) -> list[Note] | None:
        """What is noted of a stream's videos, where that is kept here."""
        return None if self._together is None else self._together.notes.get(id(stream))

    def _check(self, number: int, frames: Sequence[Tensor]) -> None:
        frame, first = frames[number], frames[0]
        try:
            stream = self._members[number]
            stream.check(frame)
            if stream.looks_ahead:
                notes = self._notes_of(stream)
                stream.check_motion(stream.notes if notes is None else notes)
            if frame.shape[1:] != first.shape[1:]:
                raise ValueError(
                    f"its shape is {tuple(frame.shape)}, and that of the first {tuple(first.shape)}"
                )
        except ValueError as error:
            raise ValueError(f"frame {number} of the batch: {error}") from None


class _Together:
    """The states of streams, put together along the batch, and what runs them.

    Args:
        streams: all have seen frames.
        give_back: what a stream calls that is used alone.
    """

    def __init__(self, streams: list[Stream], give_back: Callable[[], None]) -> None:
        self.streams = streams
        self._rows = [stream.rows for stream in streams]
        first = streams[0]
        policy = _Policies(streams, self._rows) if first.variant.takes else None
        self._whole = type(first)(first.network, first.variant, policy, first._grid)
        assert first._shape is not None
        self._whole._shape = torch.Size((sum(self._rows), *first._shape[1:]))
        whole: Any = first._fresh()
        self._whole.states = whole
        # What was noted of each video stays by itself, since there is more of some than of others.
        self.notes: dict[int, list[Note]] = {}
        for stream in streams:
            own: Any = stream.states
            self.notes[id(stream)], own.notes = own.notes, []
        whole.notes = list(chain.from_iterable(self.notes.values()))
        if len({tuple(name for name, *_ in tensors_of(stream.states)) for stream in streams}) > 1:
            raise ValueError(
                "some streams keep more than others, as those of models that were entered (with stream:); give the "
                "batch those that were called alone"
            )
        for shares in zip(*(tensors_of(stream.states) for stream in streams), strict=True):
            name, owner, attribute, _ = shares[0]
            put(self._whole.states, name, _joined([x for *_, x in shares], _axis(owner, attribute)))
            for _, owner, attribute, _ in shares:  # so that one tensor at a time is there twice
                setattr(owner, attribute, None)
        for stream in streams:
            stream.lend(give_back)

    def run(self, frames: list[Tensor]) -> Sequence[Tensor]:
        """The outputs of a frame of each."""
        try:
            output = self._whole.advance(torch.cat(frames))
            if not isinstance(output, Tensor):
                raise ValueError(
                    f"the network gives a {type(output).__name__}, and a batch is of tensors: convert the "
                    "backbone alone"
                )
            return output.split(self._rows)
        except BaseException:
            for stream in self.streams:
                stream.reset()
            raise

    def part(self) -> None:
        """Give each stream its share, after which this is empty."""
        states: list[Any] = [stream.take_back() for stream in self.streams]
        whole: Any = self._whole.states
        whole.notes = []
        for own, notes in zip(states, self.notes.values(), strict=True):
            own.notes = notes
        for name, owner, attribute, x in tensors_of(self._whole.states):
            axis = _axis(owner, attribute)
            n = x.shape[axis] // sum(self._rows)
            shares = x.split([n * rows for rows in self._rows], axis)
            for own, share in zip(states, shares, strict=True):
                put(own, name, share.clone())
            setattr(owner, attribute, None)


class _Policies:
    """The policies of streams, each for its own tokens; see `evt.eventful.Policy`.

    rows: of the batch, that are of each stream.
    """

    counts_tokens = False

    def __init__(self, streams: list[Stream], rows: list[int]) -> None:
        self._streams, self._rows = streams, rows
        self.selects = streams[0].variant.takes[0]

    @property
    def by_norm(self) -> bool:
        """Whether norms are enough for all."""
        return all(by_norm(stream.policy) for stream in self._streams)

    @property
    def _following(self) -> list[Any]:
        """Those that follow what a frame takes; they may change before any frame."""
        policies: list[Any] = [stream.policy for stream in self._streams]
        return [policy for policy in policies if hasattr(policy, "took")]

    @property
    def took(self) -> Callable[[float, float], None]:
        """Tells all of them; there is no such thing where there are none."""
        if not (following := self._following):
            raise AttributeError("none of these policies follows what a frame takes")

        def tell(seconds: float, ops: float) -> None:
            for policy in following:
                policy.took(seconds, ops)

        return tell

    @property
    def clock(self) -> Callable[[], float]:
        """By which the frame is timed that all of them wait for."""
        clock: Callable[[], float] = self._following[0].clock
        return clock

    @property
    def counts_ops(self) -> bool:
        """Whether the only one needs operations."""
        return any(policy.counts_ops for policy in self._following)

    def check(self, n_tokens: int) -> None:
        """Each says by itself what it needs."""

    def __call__(self, error: Tensor, past: Past) -> Selection:
        """Select by the errors of a gate, (B, N, D)."""
        policies: list[Any] = [stream.policy for stream in self._streams]
        shares = zip(policies, error.split(self._rows), past.split(self._rows), strict=True)
        return Selection.joined([policy(own, past_of_own) for policy, own, past_of_own in shares])


def _refuse_to_count(streams: Sequence[Stream]) -> None:
    """Refuse to run several streams together where a policy follows operations, which are counted of all of them."""
    for stream in streams:
        if len(streams) > 1 and getattr(stream.policy, "counts_ops", False):
            raise ValueError(
                f"{stream.policy} follows the operations of a stream, and those of a batch are counted of all its "
                "streams together: run this one alone, or give it another policy"
            )


def _axis(owner: Any, attribute: str) -> int:
    """Along which axis of a tensor of the state the streams follow one another."""
    axis: int = getattr(owner, "of_streams", {}).get(attribute, 0)
    return axis


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    """Tensors one after the other, in the order in memory that they have."""
    first = parts[0]
    if first.is_contiguous():
        return torch.cat(parts, axis)
    strides = first.stride()
    order = sorted(range(first.dim()), key=lambda i: -strides[i])
    x = torch.cat([part.permute(order) for part in parts], order.index(axis))
    return x.permute([order.index(i) for i in range(first.dim())])
