"""What every data set of this package yields: videos of frames, each with its ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Boxes:
    """The objects of one frame.

    boxes: (n, 4) float32, x0 y0 x1 y1 in pixels of the frame as stored, or of a model's input where it learns them.
    labels: (n,) int64, zero-based classes.
    crowd: (n,) bool, which boxes stand for a group of objects that are not told apart (COCO's `iscrowd`): what is
        found in there is neither right nor wrong. None where no box does.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor | None = None

    def without_crowds(self) -> Boxes:
        """The single objects, to be learned."""
        if self.crowd is None:
            return self
        return Boxes(self.boxes[~self.crowd], self.labels[~self.crowd])


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    image: (3, H, W) uint8, RGB.
    name: the file (and index) it came from, for messages and results.
    first: a new sequence begins here, so the streams that read it flush.
    target: its objects as boxes, None where there is no such ground truth.
    mask: its objects as pixels, (H, W) uint8: 0 is background, 255 counts as neither, every other number is an
        object. None where there is no such ground truth.
    motion: how far the codec moved what each pixel shows, (H, W) float32, in pixels. None where nobody asked for it.
    """

    image: Tensor
    name: str
    first: bool
    target: Boxes | None = None
    mask: Tensor | None = None
    motion: Tensor | None = None


class Video(Protocol):
    """A named list of frames, read in order and one at a time. Its first frame begins a sequence."""

    @property
    def name(self) -> str:
        """A name that is unique in its data set."""

    @property
    def fingerprint(self) -> str:
        """Differs when the video's files have changed, found without reading them; empty for one made from settings.

        With the settings of its data set and its name it says which video this is, for results that are kept.
        """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Frame]: ...
