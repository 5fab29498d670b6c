"""One video stream, or a batch of them in step, through a network of Eventful blocks."""

from __future__ import annotations

import copy
import hashlib
import json
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from evt.eventful.block import States
from evt.eventful.counting import count_ops
from evt.eventful.inside import Note
from evt.eventful.layout import Grid, check_grid
from evt.eventful.motion import cells, moved, replaced, shifts
from evt.eventful.policy import Every, Past, Policy, Selection, TopR
from evt.eventful.variant import Variant

S = TypeVar("S", bound="Stream")

HEADER = "header"
"""The entry of a saved stream that says what it is of, and which tensors it holds."""

FORMAT = 3
"""Of what a saved stream holds. 1, which had no number, counted frames of all streams of a batch together; with 2 the
queries of `rows` were kept."""


class Network(Protocol):
    """What a stream runs: a module whose forward takes the states of its blocks and a policy."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Its parts, by name."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of its weights that are trained."""

    def buffers(self) -> Iterator[Tensor]:
        """Tensors beside these."""

    def states(self, variant: Variant) -> States:
        """Empty states of its blocks."""

    def state_dict(self) -> dict[str, Tensor]:
        """The weights."""

    def __call__(self, x: Tensor, states: States | None, policy: Policy | None) -> Tensor:
        """Run one frame of each stream."""


class Held:
    """What frame skipping keeps.

    output: the last that the network made.
    frames: how many there were since the flush, it included, () int64.
    cells: see `States`.
    All are None before the flush.
    """

    def __init__(self) -> None:
        self.output: Tensor | None = None
        self.frames: Tensor | None = None
        self.cells: Tensor | None = None


SUCH_AS = {
    "tokens": "TopR(r=64) or Threshold(h=1.0)",
    "tokens once a frame": "Budget(spend=0.25)",
    "frames": "Every(every=4)",
}
"""Policies by what they select."""


class Stream:
    """The state of a batch of streams on a network's weights, which any number of streams share.

    The first frame after creation or `reset` is the flush: all is computed. `policy`, and its `r` or `h`, may be
    changed before any frame.

    Args:
        network: the weights.
        variant: what reuses the previous frame.
        policy: which tokens pass the gates, or which frames are run; needed exactly by variants that have gates, or
            hold their output.
        grid: rows and columns of the last tokens, where the network does not say it; for variants that move them.

    Raises:
        ValueError: a variant without the policy that it needs, with one that it does not take or that is for other
            networks, or one that moves tokens which form no grid; when called, what is no frame, one of another shape
            than the one the stream was flushed with, weights that were moved or rounded since, a frame on another
            device, or one with values that are not finite, all of which leave the stream as it was, or a frame of
            which the network makes such values, or tokens that do not form the grid.
    """

    def __init__(
        self, network: Network, variant: Variant, policy: Policy | None = None, grid: Grid | None = None
    ) -> None:
        if not isinstance(variant, Variant):
            raise ValueError(f"variant is {variant!r}; it must be a Variant, such as evt.VARIANTS['rows']")
        self.network = network
        self.variant = variant
        self._grid = getattr(network, "grid", None) if grid is None else _checked(grid)
        self.policy = policy
        if variant.move and self._grid is None:
            raise ValueError(
                "variant.move is true, but the tokens of this network form no grid that is known; say grid=(rows, "
                "columns) of the last of them, or take a variant that moves nothing"
            )
        self._recall: Callable[[], None] | None = None
        self.reset()

    @property
    def policy(self) -> Policy | None:
        """Which tokens pass the gates, or which frames are run.

        Raises:
            ValueError: it is set to none that the variant takes, or to one for other networks.
        """
        return self._policy

    @policy.setter
    def policy(self, policy: Policy | None) -> None:
        if policy is not None and (isinstance(policy, type) or not hasattr(policy, "selects")):
            raise ValueError(f"policy is {policy!r}; it must be a policy, such as TopR(r=64)")
        takes = self.variant.takes
        if (policy is None) is not (takes == ()) or (policy and policy.selects not in takes):
            needs = " or ".join(takes)
            needs = f"needs a policy that selects {needs}" if needs else "takes no policy"
            given = f"{policy}, which selects {policy.selects}," if policy else "none"
            such = " or ".join(SUCH_AS[selects] for selects in takes)
            such = f"; take {such}" if such else ""
            raise ValueError(f"this variant {needs}; {given} was given{such}")
        if getattr(policy, "needs_grid", False) and self._grid is None:
            raise ValueError(
                f"{policy} looks at where tokens are, but the tokens of this network form no grid that is known; say "
                "grid=(rows, columns) of the last of them, or take a policy that does not, such as Change with "
                "neighbours=0"
            )
        if fits := getattr(policy, "fits", None):
            fits(self.network, self.variant)
        self._policy = policy

    def reset(self) -> None:
        """Forget all frames; the next one is a flush."""
        self.states = self._fresh()
        self._shape: torch.Size | None = None
        self._kind = kind_of_weights(self.network)

    @torch.inference_mode(False)  # see `advance`
    def copy(self: S) -> S:
        """Another stream on the same weights that goes on from here by itself, with a policy of its own."""
        self._have_back()
        return copy.deepcopy(self, self._not_copied())

    def _not_copied(self) -> dict[int, Any]:
        """What a copy has in the place of what objects, by their id."""
        return {id(self.network): self.network}

    @property
    def states(self) -> States | Held:
        """What is kept between frames."""
        self._have_back()
        return self._states

    @states.setter
    def states(self, states: States | Held) -> None:
        self._have_back()
        self._states = states

    def _have_back(self) -> None:
        if self._recall is not None:
            self._recall()

    def lend(self, recall: Callable[[], None]) -> None:
        """Leave what is kept to another, who is asked to give it back before it is needed here."""
        self._recall = recall

    def take_back(self) -> States | Held:
        """Where what was lent belongs."""
        self._recall = None
        return self._states

    @property
    def flushed(self) -> bool:
        """Whether it has seen a frame."""
        return self._shape is not None

    @property
    def rows(self) -> int:
        """Videos that it is of, all in step; 0 before the first frame."""
        return 0 if self._shape is None else self._shape[0]

    def _fresh(self) -> States | Held:
        """The state before the flush."""
        if self.variant.hold:
            return Held()
        states = self._empty()
        states.grid = self._grid
        return states

    def _empty(self) -> States:
        return self.network.states(self.variant)

    @property
    def listens(self) -> bool:
        """Whether its policy follows what a detector found, so that `saw` is to be called after each frame."""
        return bool(getattr(self.policy, "looks_at_boxes", False))

    def saw(self, found: Sequence[Tensor]) -> None:
        """Say where objects are in the last frame; a policy for which none of it matters takes no note.

        Args:
            found: of each video that the stream is of, (n, 5): x0 y0 x1 y1 of each object in tokens, so that the
                first patch is from 0 to 1, and its score.

        Raises:
            ValueError: there was no frame, or it is not that; the stream stays as it was.
        """
        if self.listens:
            self.note_boxes(self.notes, found)

    def note_boxes(self, notes: Sequence[Note], found: Sequence[Tensor]) -> None:
        """Write what was found, see `saw`, into notes of its videos."""
        if not self.flushed:
            raise ValueError("this stream has seen no frame yet, in which something could have been found")
        self._check_told("found", found, "(n, 5)")
        for boxes in found:
            if boxes.ndim != 2 or boxes.shape[1] != 5 or _not_finite(boxes):
                raise ValueError(
                    f"what was found is of shape {tuple(boxes.shape)}; it must be (n, 5), x0 y0 x1 y1 in tokens and "
                    "a score, all of them finite"
                )
        for note, boxes in zip(notes, found, strict=True):
            note.boxes = boxes.detach().to(self._device, torch.float32, copy=True)

    @property
    def looks_ahead(self) -> bool:
        """Whether its policy follows what the codec moved, so that `moves` is to be called before the next frame."""
        return bool(getattr(self.policy, "looks_at_motion", False)) and self.flushed

    def moves(self, motion: Sequence[Tensor]) -> None:
        """Say how far the codec has moved what the next frame shows; where none of it matters no note is taken.

        Args:
            motion: of each video that the stream is of, (rows, columns): of what each token shows, in pixels of the
                video, or in any unit that the policy's `at_least` is in.

        Raises:
            ValueError: it is not that; the stream stays as it was.
        """
        if self.looks_ahead:
            self.note_motion(self.notes, motion)

    def note_motion(self, notes: Sequence[Note], motion: Sequence[Tensor]) -> None:
        """Write what is moved, see `moves`, into notes of its videos."""
        self._check_told("motion", motion, "(rows, columns)")
        for own in motion:
            if own.ndim != 2 or _not_finite(own) or (own < 0).any():
                raise ValueError(
                    f"motion is of shape {tuple(own.shape)}; it must be (rows, columns), finite and not negative"
                )
        for note, own in zip(notes, motion, strict=True):
            note.motion = own.detach().to(self._device, torch.float32, copy=True)

    def check_motion(self, notes: Sequence[Note]) -> None:
        """Refuse a frame of which it was not said how far the codec moved what it shows.

        notes: of the videos.

        Raises:
            ValueError: it was not.
        """
        if any(note.motion is None for note in notes):
            raise ValueError(
                f"{self.policy} follows how far the codec moved what a frame shows, and this stream was not told; "
                "call moves([pixels, (rows, columns)]) before each frame but the first (the stream is as it was "
                "before this frame)"
            )

    def _check_told(self, name: str, told: Sequence[Tensor], shape: str) -> None:
        """Refuse what is not said of each video, or not in tensors of real numbers."""
        must = f"it must be a list of {self.rows}, a tensor {shape} for each video"
        if isinstance(told, Tensor):
            raise ValueError(f"{name} is a tensor of shape {tuple(told.shape)}; {must}")
        if not isinstance(told, Sequence) or isinstance(told, str):
            raise ValueError(f"{name} is a {type(told).__name__}; {must}")
        if len(told) != self.rows:
            raise ValueError(f"{name} is a list of {len(told)}; {must}")
        for own in told:
            if not isinstance(own, Tensor):
                raise ValueError(f"{name} has a {type(own).__name__} in it; {must}")
            if own.is_complex():
                raise ValueError(f"{name} has a tensor of {own.dtype} in it; it must be of real numbers")

    @property
    def notes(self) -> list[Note]:
        """What is noted of each video, for a policy that asks for it."""
        states: Any = self.states  # of a variant that selects once a frame
        notes: list[Note] = states.notes
        return notes

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def __call__(self, frame: Tensor) -> Tensor:
        """Run one frame of each stream, (B, ...) as the network takes it, to the network's output."""
        self.check(frame)
        if self.looks_ahead:
            self.check_motion(self.notes)
        return self.advance(frame)

    def check(self, frame: Tensor) -> None:
        """Refuse a frame that cannot be run.

        Raises:
            ValueError: it cannot, see the class.
        """
        if not isinstance(frame, Tensor):
            raise ValueError(f"a frame must be a tensor of torch; a {type(frame).__name__} was given")
        if not frame.is_floating_point():
            raise ValueError(
                f"the frame is of {frame.dtype}; it must be of floating-point numbers, as the network wants them"
            )
        if not frame.numel():
            raise ValueError(f"the frame is of shape {tuple(frame.shape)}, and empty; no side may be 0")
        if self._shape is not None and frame.shape != self._shape:
            raise ValueError(
                f"this stream holds a frame of shape {tuple(self._shape)} and was given one of shape "
                f"{tuple(frame.shape)}; call reset() before a frame of another shape"
            )
        self.check_weights(frame.device)
        # One NaN would stay in references and buffers for all later frames.
        if bad := _not_finite(frame):
            raise ValueError(
                f"{bad} of the frame's {frame.numel()} values are NaN or infinite; all must be finite (the stream is "
                "as it was before this frame)"
            )

    def check_weights(self, device: torch.device) -> None:
        """Refuse weights that were moved or rounded since the flush, or are on another device than a frame.

        Raises:
            ValueError: they are.
        """
        kind = kind_of_weights(self.network)
        if self._shape is not None and kind != self._kind:
            now, was = ("{} on {}".format(*x) for x in (kind, self._kind))
            move = ", or save the stream by state_dict() before they are moved, and load it after that"
            raise ValueError(
                f"the weights are {now}, and were {was} when this stream was flushed; call reset()"
                + (move if kind[0] == self._kind[0] else "")
            )
        if device != kind[1]:
            raise ValueError(f"the frame is on {device}, but the weights are on {kind[1]}")

    # What is kept must be no tensor of inference mode: it may not be written to outside of that.
    @torch.inference_mode(False)
    @torch.no_grad()
    def advance(self, frame: Tensor) -> Tensor:
        """Run a frame that was checked, to the network's output.

        Raises:
            ValueError: see the class; the stream is reset.
        """
        try:
            with self._measured(frame.is_cuda):
                out = self._moving(frame) if self.variant.move else self._run(frame, self.policy)
            if bad := self._count_bad(out):
                raise ValueError(
                    f"the network makes {bad} NaN or infinite values of this frame, whose largest is "
                    f"{float(frame.abs().max()):.3g}; the stream was reset, so that the next frame is a flush"
                )
        except BaseException:
            # Some gates may already hold this frame and others the last: only a flush is safe now.
            self.reset()
            raise
        self._shape, self._kind = frame.shape, kind_of_weights(self.network)
        return out

    @contextmanager
    def _measured(self, cuda: bool) -> Iterator[None]:
        """Tell a policy that follows what a later frame takes what this one did."""
        policy: Any = self.policy
        if not (self.flushed and hasattr(policy, "took")):
            yield
            return
        start = policy.clock()
        counting: AbstractContextManager[Counter[str]] = (
            count_ops() if policy.counts_ops else nullcontext(Counter())
        )
        with counting as ops:
            yield
        if cuda:
            torch.cuda.synchronize()
        policy.took(policy.clock() - start, ops.total() / self.rows)

    def _count_bad(self, out: Any) -> int:
        """How many values of an output are not finite; one that is no tensor is not looked into."""
        return _not_finite(out) if isinstance(out, Tensor) else 0

    def _run(self, frame: Tensor, policy: Policy | None) -> Tensor:
        """The output of a frame, as it is kept."""
        if isinstance(self.states, Held):
            return self._skip(frame, self.states)
        return self.network(frame, self.states, policy)

    def _moving(self, frame: Tensor) -> Tensor:
        """The output of a frame; what is kept in it is moved from where it was in the picture that it is of."""
        assert self._grid is not None
        states, now, passed = self.states, cells(frame, self._grid), []
        before = states.output if isinstance(states, Held) else None

        def noted(error: Tensor, past: Past) -> Selection:
            assert self.policy is not None
            passed.append(self.policy(error, past))
            return passed[-1]

        out = self._run(frame, self.policy if isinstance(states, Held) else noted)  # type: ignore[arg-type]
        if states.cells is None:
            self._check_grid(out)
        if states.cells is None or (isinstance(states, Held) and states.output is not before):
            states.cells = now
            return out
        for tokens in passed:
            states.cells = replaced(states.cells, now, tokens, self._grid)
        # Nothing is of another picture, as in a frame that was run whole; on torch's meta device nobody knows.
        if not now.is_meta and torch.equal(states.cells, now):
            return out
        return moved(out, shifts(states.cells, now, self._grid))

    def _check_grid(self, out: Any) -> None:
        """Refuse an output that is no tokens of the grid, with those before them that stand for no place."""
        assert self._grid is not None
        if not isinstance(out, Tensor) or out.dim() != 3:
            what = f"of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise ValueError(
                f"variant.move is true, but what the network gives is {what}; it must be tokens (B, N, D)"
            )
        n_prefix = self.network.states(self.variant.dense).num_prefix_tokens
        check_grid(self._grid, out.shape[1] - n_prefix)

    def _skip(self, frame: Tensor, held: Held) -> Tensor:
        """The network's output of a frame that is due, else what it was."""
        policy: Any = self.policy  # that selects frames
        number = 0 if held.frames is None else int(held.frames)
        if number == 0 or policy.due(number):
            held.output = self.network(frame, self.network.states(self.variant.dense), None)
        held.frames = torch.tensor(number + 1)
        assert held.output is not None
        # Whoever writes to the output must not write to what is held.
        out: Tensor = tree_map_only(Tensor, Tensor.clone, held.output)
        return out

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the stream keeps between frames."""
        return sum(x.numel() * x.element_size() for _, _, _, x in tensors_of(self.states))

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of what the stream keeps between frames, by name, to be saved. Empty before the first frame.

        Raises:
            ValueError: it holds what is no tensor, as frame skipping does of a model that gives something else.
        """
        if self._shape is None:
            return {}
        if isinstance(self.states, Held) and not isinstance(self.states.output, Tensor):
            raise ValueError(
                f"this stream holds a {type(self.states.output).__name__}, and one that holds a tensor alone can be "
                "saved; convert the backbone alone, or let a new stream begin with a flush"
            )
        tensors = {
            name: x.clone(memory_format=torch.contiguous_format) for name, _, _, x in tensors_of(self.states)
        }
        return {HEADER: _as_tensor(json.dumps(self._header(list(self._shape), tensors))), **tensors}

    @torch.inference_mode(False)  # see `advance`
    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Continue where a saved stream of the same network, weights and variant stopped.

        Raises:
            ValueError: the saved stream is of another variant or network, or lacks something of what was saved; the
                stream is left as it was.
        """
        if not isinstance(tensors, Mapping):
            raise ValueError(f"the saved stream is a {type(tensors).__name__}; it must be a dict of tensors")
        if not tensors:  # of a stream that had seen nothing
            self.reset()
            return
        tensors = dict(tensors)
        for name, x in tensors.items():
            if not isinstance(x, Tensor):
                raise ValueError(f"the saved stream is damaged: {name} is no tensor but a {type(x).__name__}")
        try:
            saved = json.loads(bytes(tensors.pop(HEADER).tolist()))
            frame_shape = torch.Size(saved["frame_shape"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                "the saved stream does not say what it is of, so it is damaged or of an older version"
            ) from error
        # What is told first explains what would be told after it.
        for key, own in self._header(saved["frame_shape"], tensors).items():
            if saved.get(key) != own:
                raise ValueError(f"the saved stream {_differs(key, saved.get(key), own)}")
        states = self._fresh()
        if isinstance(states, States) and states.once:
            states.notes = [Note() for _ in range(frame_shape[0])]
        device = next(iter(self.network.state_dict().values())).device
        for name, x in tensors.items():
            put(states, name, x.to(device, copy=True))
        self.states, self._shape, self._kind = states, frame_shape, kind_of_weights(self.network)

    def _header(self, frame_shape: list[int], tensors: dict[str, Tensor]) -> dict[str, Any]:
        """What a saved stream with these tensors says of itself, for JSON."""
        return {
            "format": FORMAT,
            "frame_shape": frame_shape,
            "variant": repr(self.variant),
            "tensors": {name: f"{x.dtype} {list(x.shape)}" for name, x in sorted(tensors.items())},
            "weights": _fingerprint(self.network.state_dict()),
            "content": _fingerprint(tensors),
        }


def state_bytes(network: Network, variant: Variant, frame_shape: Sequence[int]) -> int:
    """Bytes that a stream will keep from its first frame on, as `Stream.nbytes` will say; nothing is computed.

    Args:
        network: the weights; the frames are of their type.
        variant: of the stream.
        frame_shape: (B, ...), as the network takes it.

    Raises:
        ValueError: the network does not take such frames, or the variant is not for it.
    """
    # The network once more, on torch's meta device, where tensors have shapes and no numbers.
    weights = {id(x): x.to("meta") for x in chain(network.parameters(), network.buffers())}
    blank = torch.empty(tuple(frame_shape), dtype=next(network.parameters()).dtype, device="meta")
    policy: Policy | None = None
    if variant.takes:
        policy = Every(1) if variant.hold else TopR(0)
    stream = Stream(copy.deepcopy(network, weights), variant, policy)
    try:
        stream(blank)
    except Exception as error:  # whatever the code of others raises
        raise ValueError(
            f"the network does not take frames of shape {tuple(frame_shape)}: {error}"
        ) from error
    return stream.nbytes


def kind_of_weights(network: Network) -> tuple[torch.dtype, torch.device]:
    """Of which type weights are, and where."""
    weight = next(network.parameters())
    return weight.dtype, weight.device


def _not_finite(x: Tensor) -> int:
    """How many values are NaN or infinite; on torch's meta device there are none."""
    if x.is_meta or not x.numel():
        return 0
    # The ends tell in a tenth of the time that all values take.
    if x.is_floating_point() and all(end.isfinite() for end in x.aminmax()):
        return 0
    return int((~x.isfinite()).sum())


def _checked(grid: Any) -> Grid:
    """Rows and columns, as they were given.

    Raises:
        ValueError: they are none.
    """
    try:
        rows, columns = grid
        if min(rows, columns) >= 1:
            return operator.index(rows), operator.index(columns)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"grid is {grid!r}; it must be (rows, columns), two whole numbers of at least 1")


def _differs(key: str, saved: Any, own: Any) -> str:
    """In words, what a saved stream says of itself and what is so."""
    if key == "format":
        return "was saved by another version of evt, which kept other numbers"
    if key == "variant":
        return f"is of another variant, {saved}; this one is of {own}"
    if key == "weights":
        return "is of another network: its weights are not this network's"
    if key == "content":
        return "is damaged: its numbers are not those that were saved"
    saved = saved if isinstance(saved, dict) else {}
    name = min(name for name in saved.keys() | own.keys() if saved.get(name) != own.get(name))
    was, now = saved.get(name, "not there"), own.get(name, "not there")
    return f"is damaged: {name} was {was} when it was saved and is {now} now"


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A hash of tensors, their names, types and shapes."""
    digest = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {x.dtype} {list(x.shape)}\n".encode())
        digest.update(x.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _as_tensor(text: str) -> Tensor:
    # A tensor, so that safetensors can hold it.
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def put(states: Any, name: str, x: Tensor) -> None:
    """Set a tensor of a state object, by the name that `tensors_of` gives it.

    Raises:
        ValueError: it has no place of that name.
    """
    *path, attribute = name.split(".")
    owner = states
    try:
        for key in path:
            owner = owner[int(key)] if isinstance(owner, list) else getattr(owner, key)
    except (AttributeError, IndexError, ValueError) as error:
        raise ValueError(f"the saved stream keeps {name}, which this one does not") from error
    setattr(owner, attribute, x)


def tensors_of(state: Any, prefix: str = "") -> Iterator[tuple[str, Any, str, Tensor]]:
    """Every tensor below a state object: dotted name, owner, attribute, and the tensor."""
    items: Any = enumerate(state) if isinstance(state, list | tuple) else vars(state).items()
    for key, value in items:
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            yield name, state, key, value
        elif isinstance(value, list | tuple) or hasattr(value, "__dict__"):
            yield from tensors_of(value, f"{name}.")
