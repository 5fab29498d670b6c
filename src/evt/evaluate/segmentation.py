"""Video object segmentation and saliency: objects followed by the features of patches, and what stands out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.data.video import Frame
from evt.errors import DataError
from evt.evaluate.trace import Seen
from evt.metrics.propagation import Propagation
from evt.metrics.segmentation import VOID, f_of_thresholds, mean_absolute_error, object_measures, stretched
from evt.models.features import Features


@dataclass
class Followed:
    """What was measured on a sequence, frame by frame.

    name: of the folder of its pictures.
    objects: their numbers in the first mask.
    j, f: from the second frame on, of each object, 0 to 1.
    mae: error of each saliency map.
    curve: F-measure of the maps at 256 thresholds, added up over frames.
    """

    name: str
    objects: list[int]
    j: list[list[float]] = field(default_factory=list)
    f: list[list[float]] = field(default_factory=list)
    mae: list[float] = field(default_factory=list)
    curve: list[float] = field(default_factory=lambda: [0.0] * 256)


@dataclass(frozen=True)
class Scores:
    """What following objects and saliency maps are worth; None where there is nothing to be measured.

    j, f, jf: region similarity, boundary measure and their mean, in percent.
    mae: mean absolute error of the maps, 0 to 1.
    max_f: their maximal F-measure, in percent.
    """

    j: float | None = None
    f: float | None = None
    jf: float | None = None
    mae: float | None = None
    max_f: float | None = None


@dataclass(frozen=True)
class SegmentationResult:
    """Scores in the mean, J and F over all objects of all videos as DAVIS does, saliency over videos.

    per_video: those of each, over its own objects and frames.
    n_objects: whose J and F were measured.
    reason: why there are none, where there are none.
    """

    mean: Scores
    per_video: list[tuple[str, Scores]]
    n_objects: int
    reason: str | None


Follow = Callable[[Tensor, Tensor, tuple[int, int]], Propagation]


@dataclass
class Segmentation:
    """An evaluator: J and F of objects that are followed through each sequence, and what its saliency maps hit.

    Samples are frames with masks, the first of which says what is to be followed; predictions are `Features`, whose
    map may have any range of values. As in DAVIS's semi-supervised task the first and the last frame count neither
    for J nor for F. For saliency all do, and all objects are one.

    follow: of a first mask, its features and grid.
    sequences: seen so far.
    """

    follow: Follow = Propagation
    sequences: list[Followed] = field(default_factory=list)
    _tracked: Propagation | None = None

    def update(self, seen: Seen) -> None:
        """See `Evaluator`; the sample is a frame, the prediction `Features`.

        Raises:
            DataError: the frame has no mask, or the first one shows no object.
        """
        self.add_frame(seen.sample, seen.prediction)

    @torch.no_grad()
    def add_frame(self, frame: Frame, found: Features) -> None:
        """Add what a model makes of the next frame; see `update` for what is raised."""
        if frame.mask is None:
            raise DataError(f"{frame.name}: there is no mask of this frame; segmentation needs one for each")
        mask = frame.mask.to(found.features.device)
        left, right, top, bottom = _scaled(found, mask)
        if frame.first or self._tracked is None:
            objects = [number for number in mask.unique().tolist() if number not in (0, VOID)]
            if not objects:
                raise DataError(f"{frame.name}: its mask shows no object; the first of a video must")
            self.sequences.append(Followed(Path(frame.name).parent.name or frame.name, objects))
            # Patches at the edges may reach beyond the picture.
            whole = F.pad(mask, (left, right, top, bottom))
            self._tracked = self.follow(whole, found.features, found.grid)
        else:
            followed = self._tracked.step(found.features)
            height, width = mask.shape
            followed = followed[top : top + height, left : left + width]
            j, f = object_measures(followed, mask, self.sequences[-1].objects, VOID)
            self.sequences[-1].j.append(j)
            self.sequences[-1].f.append(f)
        if found.map is not None:
            void = mask == VOID
            resized = F.interpolate(
                found.map[None, None], mask.shape, mode="bilinear", align_corners=False, antialias=True
            )
            salient, there = stretched(resized[0, 0]), (mask > 0) & ~void
            of_all, curve = self.sequences[-1], f_of_thresholds(salient, there, void).tolist()
            of_all.mae.append(mean_absolute_error(salient, there, void))
            of_all.curve = [sum(pair) for pair in zip(of_all.curve, curve, strict=True)]

    def record(self) -> list[dict[str, Any]]:
        """See `Evaluator`."""
        return [asdict(sequence) for sequence in self.sequences]

    def add(self, record: list[dict[str, Any]]) -> None:
        """See `Evaluator`."""
        self.sequences += [Followed(**sequence) for sequence in record]

    def compute(self) -> SegmentationResult:
        """The scores of all sequences."""
        objects = [_object_scores(sequence) for sequence in self.sequences]  # a list of (J, F) for each
        saliency = [_saliency_scores(sequence) for sequence in self.sequences]
        n_objects = sum(map(len, objects))
        return SegmentationResult(
            _scores([pair for pairs in objects for pair in pairs], [one for one in saliency if one]),
            [
                (sequence.name, _scores(pairs, [one] if one else []))
                for sequence, pairs, one in zip(self.sequences, objects, saliency, strict=True)
            ],
            n_objects,
            None if n_objects else "no video has a frame between its first and its last",
        )


def _scaled(found: Features, mask: Tensor) -> list[int]:
    """How far patches reach beyond a mask, in its own pixels: to the left, right, top and bottom."""
    left, right, top, bottom = found.beyond
    height, width = (own / resized for own, resized in zip(mask.shape, found.size or mask.shape, strict=True))
    return [round(left * width), round(right * width), round(top * height), round(bottom * height)]


def _object_scores(sequence: Followed) -> list[tuple[float, float]]:
    """Mean J and F of each object over the frames that count; empty where none does."""
    if len(sequence.j) < 2:
        return []
    j, f = (
        [mean(of_one) for of_one in zip(*frames[:-1], strict=True)] for frames in (sequence.j, sequence.f)
    )
    return list(zip(j, f, strict=True))


def _saliency_scores(sequence: Followed) -> tuple[float, Tensor] | None:
    """Mean error and mean F-measure at each threshold, (256,), of a sequence's maps."""
    if not sequence.mae:
        return None
    return mean(sequence.mae), torch.tensor(sequence.curve, dtype=torch.float64) / len(sequence.mae)


def _scores(objects: list[tuple[float, float]], saliency: list[tuple[float, Tensor]]) -> Scores:
    j = f = jf = mae = max_f = None
    if objects:
        j, f = (100 * mean(values) for values in zip(*objects, strict=True))
        jf = (j + f) / 2
    if saliency:
        errors, curves = zip(*saliency, strict=True)
        mae, max_f = mean(errors), 100 * float(torch.stack(curves).mean(0).max())
    return Scores(j, f, jf, mae, max_f)
