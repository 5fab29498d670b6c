"""A stream that a model runs in: called with frames, or entered, so that the model itself may be called."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from evt.errors import ConfigError
from evt.eventful import Policy, States, Stream, Variant
from evt.eventful.layout import Grid
from evt.eventful.stream import kind_of_weights
from evt.models.foreign.slot import Run, check_finite, running, slotted_originals


class ModelStream(Stream):
    """A stream of frames on a converted network's weights; see `Stream`.

    Entered, as `with net.stream("rows", r=128):`, it takes each frame that comes to the model, however that is
    called: with keywords, by a pipeline, within another model. In other threads, and afterwards, the model is as it
    was.
    """

    network: Any

    def __init__(
        self, network: Any, variant: Variant, policy: Policy | None = None, grid: Grid | None = None
    ) -> None:
        self._whole = network.whole  # what comes between the blocks may be asked for
        self._entries: list[tuple[ExitStack, Run]] = []
        super().__init__(network, variant, policy, grid)

    def _empty(self) -> States:
        states: States = self.network.states(self.variant, self._whole)
        return states

    def check(self, frame: Tensor) -> None:
        """Refuse a frame that cannot be run; see `Stream`.

        Raises:
            ConversionError: the model was changed since it was converted, see `Original`.
        """
        self.network.slots.original.check()
        super().check(frame)

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Continue where a saved stream stopped, that was entered or not; see `Stream`."""
        before = self._whole
        if tensors and not self._entries:
            self._whole = self.network.whole or any(str(name).startswith("between.") for name in tensors)
        try:
            super().load_state_dict(tensors)
        except BaseException:
            self._whole = before
            raise

    def _not_copied(self) -> dict[int, Any]:
        return {**super()._not_copied(), id(self._entries): []}

    def __enter__(self) -> ModelStream:
        """Run the model's blocks in this stream, in this thread.

        Raises:
            ConfigError: the variant keeps or moves what the whole model gives, which is not for blocks to do; the
                policy follows what a frame takes; or the stream was called with frames, of which less was kept than
                may be asked for now.
            ConversionError: the model was changed since it was converted, see `Original`.
        """
        self.network.slots.original.check()
        if self.variant.hold or self.variant.move:
            setting, done = ("hold", "kept") if self.variant.hold else ("move", "moved")
            raise ConfigError(
                f"variant.{setting} is true: what the whole model gives is {done}, so this stream cannot be entered; "
                "call it, as stream(frame)"
            )
        if hasattr(self.policy, "took"):
            raise ConfigError(
                f"{self.policy} follows what a frame takes, and a stream that is entered does not know it; call it, "
                "as stream(frame)"
            )
        if not self._whole:
            if self.variant.gate == "frame" and self._shape is not None:
                raise ConfigError("this stream was called with frames; call reset() before it is entered")
            self._whole = True
            if self._shape is None:
                self.reset()
        stack = ExitStack()
        stack.enter_context(slotted_originals(self.network.slots))
        self._entries.append((stack, stack.enter_context(running(self.network.slots, self))))
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        """Leave the model as it was."""
        stack, run = self._entries.pop()
        stack.close()
        if kind is None and not run.frames:
            warnings.warn(
                "no frame came to a stream that was entered: within it, call the model that was converted, or "
                "net.model, and none that torch.compile made of it",
                stacklevel=2,
            )

    def begins(self, tokens: Tensor) -> None:
        """Take the tokens of a frame that came to the model, (B, N, D).

        Raises:
            ConversionError: the model was changed, see `__enter__`.
            ValueError: they are not finite, of another shape than those before, or of a frame of which it is not
                known what moves, by a policy that follows that; the stream stays as it was.
        """
        self.network.slots.original.check()
        if self._shape is not None and tokens.shape != self._shape:
            raise ValueError(
                f"this stream holds tokens of shape {tuple(self._shape)} and was given some of shape "
                f"{tuple(tokens.shape)}; call reset() before a frame of another size, and where the stream was "
                "called before"
            )
        self.check_weights(tokens.device)
        if self.looks_ahead:
            self.check_motion(self.notes)
        if not tokens.numel():
            raise ValueError(f"the tokens of the frame are of shape {tuple(tokens.shape)}; no side may be 0")
        check_finite(tokens, "{} of the frame's values are NaN or infinite; all must be finite")
        self._shape, self._kind = tokens.shape, kind_of_weights(self.network)

    def _count_bad(self, out: Any) -> int:
        """Of a whole model the blocks are held to be finite, and what it makes of that is its own concern."""
        return 0 if self.network.whole else super()._count_bad(out)
