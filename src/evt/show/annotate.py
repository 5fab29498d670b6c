"""What was made of a frame, as a picture: what was found, what was computed anew, and what that cost."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from evt.evaluate.trace import Seen
from evt.evaluate.watched import Watched
from evt.models.boxes import Detections
from evt.show.draw import add_boxes, add_map, add_strip, add_tokens, grey, picture_of

LEAST = 480
"""Pixels of the longer side of a small picture, which is made larger, and of the strip of text below it."""
TALLEST = 2
"""Times as high as it may be wide at most that a picture may be."""


class Annotator:
    """Makes of each frame a picture of the same size, with a strip of text below it.

    Args:
        model: of frames.
        classes: names of what it detects; where there are none, classes are told by their numbers.
        label: variant and policy, for the strip.
        watched: the policy of the stream; None where there is none that selects tokens.
        gate: whose tokens are shown; None: at which share of all gates each token passed.
        confidence: score from which on an object is drawn.
        width: of the picture, at most, in pixels.
    """

    def __init__(
        self,
        model: Any,
        classes: Sequence[str],
        label: str,
        watched: Watched | None,
        gate: int | None,
        confidence: float,
        width: int,
    ) -> None:
        self._model, self._classes, self._label = model, classes, label
        self._watched, self._gate, self._confidence, self._width = watched, gate, confidence, width
        self._size: tuple[int, int] | None = None
        self._whole = 0.0  # operations of a whole frame
        self._shares: list[float] = []
        self._ms: list[tuple[float, float]] = []

    def __call__(self, seen: Seen) -> Image.Image:
        """The picture of a frame: this one, and to the right of it the dense model's where that ran.

        Raises:
            ValueError: tokens are selected, but not at the gate that is to be shown.
        """
        (step,) = seen.steps
        height, width = seen.sample.image.shape[-2:]
        if self._size is None:  # even, as H.264 wants it
            larger = max(1, LEAST / max(height, width))
            scale = min(larger, self._width / width, TALLEST * self._width / height)
            self._size = (2 * max(1, round(scale * height / 2)), 2 * max(1, round(scale * width / 2)))
        ops = step.ops.total()
        if step.first:
            self._whole = ops
        else:
            self._shares.append(ops / max(self._whole, 1))
            self._ms.append((1e3 * step.seconds, 1e3 * seen.dense[0].seconds if seen.dense else 0.0))
        share = self._anew(ops)
        lines = [self._label, self._spent(seen, ops, share)]
        picture = self._found(seen.sample.image, seen.prediction, share)
        if seen.dense:
            dense = self._model.decode([seen.dense[0].output], seen.sample) if seen.prediction else None
            other = self._found(seen.sample.image, dense, None)
            both = Image.new("RGB", (picture.width + other.width, picture.height))
            both.paste(picture, (0, 0))
            both.paste(other, (picture.width, 0))
            picture = both
        return add_strip(picture, lines, min(LEAST, self._width) // 2 * 2)

    def column(self, seen: Seen, gate: int) -> list[Image.Image]:
        """Of a frame that was just annotated: what was found, the errors at a gate, and the tokens that passed it.

        Raises:
            ValueError: no tokens are selected, or not at this gate.
        """
        if self._watched is None:
            raise ValueError("this variant has no gates, at which tokens pass")
        assert self._size is not None
        rows, columns = self._model.net.grid
        n_tokens = self._model.n_tokens
        pictures = [self._found(seen.sample.image, seen.prediction, None)]
        for values in (self._watched.norms(n_tokens, gate), self._watched.share(n_tokens, gate)):
            square = self._square(values[-rows * columns :].view(rows, columns))
            pictures.append(
                grey(self._model.place_of(*seen.sample.image.shape[-2:]).crop(square), self._size)
            )
        return pictures

    def summary(self) -> str:
        """What later frames cost."""
        if not self._ms:
            return "no later frame, and so nothing that was saved"
        own, dense = (median(times) for times in zip(*self._ms, strict=True))
        spent = sum(self._shares) / len(self._shares)
        beside = f", {dense:.0f} ms of the dense model" if dense else ""
        return f"later frames took {spent:.1%} of a whole frame's operations and {own:.0f} ms{beside}"

    def _anew(self, ops: float) -> Tensor:
        """Of each token of the grid, how far it was computed anew, (rows, columns) from 0 to 1."""
        rows, columns = self._model.net.grid
        if self._watched is None:
            return torch.full((rows, columns), float(ops > 0))
        return self._watched.share(self._model.n_tokens, self._gate)[-rows * columns :].view(rows, columns)

    def _square(self, values: Tensor) -> Tensor:
        """What is of tokens, (rows, columns), for each pixel of a model's input, (size, size)."""
        rows, columns = values.shape
        return values.repeat_interleave(self._model.size // rows, 0).repeat_interleave(
            self._model.size // columns, 1
        )

    def _spent(self, seen: Seen, ops: float, share: Tensor) -> str:
        (step,) = seen.steps
        kind = "a flush" if step.first else f"{share.mean():.0%} of the tokens"
        beside = f" (dense {1e3 * seen.dense[0].seconds:.0f} ms)" if seen.dense else ""
        return (
            f"{kind}, {ops / max(self._whole, 1):.0%} of the operations, {1e3 * step.seconds:.0f} ms{beside}"
        )

    def _found(self, image: Tensor, prediction: Any, share: Tensor | None) -> Image.Image:
        """A frame with what was found in it, and with what was computed anew where that is given."""
        assert self._size is not None
        picture = picture_of(image, self._size)
        if share is not None and bool((share < 1).any()):
            square = self._square(share)
            picture = add_tokens(picture, self._model.place_of(*image.shape[-2:]).crop(square))
        if isinstance(prediction, Detections):
            shown = prediction.scores >= self._confidence
            labels, scores = prediction.labels[shown].tolist(), prediction.scores[shown].tolist()
            names = [self._classes[label] if self._classes else f"class {label}" for label in labels]
            scale = torch.tensor([self._size[1] / image.shape[-1], self._size[0] / image.shape[-2]] * 2)
            texts = [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
            add_boxes(picture, prediction.boxes[shown].cpu() * scale, texts, labels)
        elif (salient := getattr(prediction, "map", None)) is not None:
            picture = add_map(picture, salient)
        return picture
