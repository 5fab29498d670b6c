"""Mean average precision of detections over the frames of many videos."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evt.metrics.bootstrap import Estimate, map50_of, resample
from evt.metrics.coco import SUMMARY, Instances, evaluate


@dataclass(frozen=True)
class DetectionResult:
    """What detections are worth. All scores in percent; None where no object was there to be found.

    map50: AP at IoU 0.5, mean over the classes that have objects: the paper's mAP50.
    map: the same, mean over IoU 0.5 to 0.95.
    summary: COCO's 12 numbers by name; s, m and l stand for objects below 32², up to 96² and above 96² pixels.
    ap50_per_class: AP at IoU 0.5 of each class by name.
    n_frames, n_boxes, n_detections: how many there were, on all frames.
    reason: why map50 is None.
    """

    map50: float | None
    map: float | None
    summary: dict[str, float | None]
    ap50_per_class: dict[str, float | None]
    n_frames: int
    n_boxes: int
    n_detections: int
    reason: str | None


@dataclass(frozen=True)
class _Part:
    """Some frames: their names, how many boxes and detections each has, and these one after the other."""

    frames: list[str]
    labelled: np.ndarray  # (frames,) bool, which have ground truth
    n_boxes: np.ndarray  # (frames,) int64
    boxes: np.ndarray  # (n, 4) float32
    labels: np.ndarray  # (n,) int64
    crowd: np.ndarray  # (n,) bool
    n_detections: np.ndarray  # (frames,) int64
    detected_boxes: np.ndarray  # (m, 4) float32
    detected_labels: np.ndarray  # (m,) int64
    scores: np.ndarray  # (m,) float32


_DTYPES = {
    "labelled": "|b1",
    "n_boxes": "<i8",
    "boxes": "<f4",
    "labels": "<i8",
    "crowd": "|b1",
    "n_detections": "<i8",
    "detected_boxes": "<f4",
    "detected_labels": "<i8",
    "scores": "<f4",
}
_BOXES = ("boxes", "detected_boxes")
_ROWS_OF = {
    **dict.fromkeys(("boxes", "labels", "crowd"), "n_boxes"),
    **dict.fromkeys(("detected_boxes", "detected_labels", "scores"), "n_detections"),
}
"""By the name of an array that has a row for each box or detection: that which says how many each frame has."""


class DetectionMetrics:
    """Collects detections and ground truth frame by frame, and evaluates them as COCO does.

    A long run makes one of these for each video, keeps its `records()`, and adds them up in the end. Numbers
    depend neither on the order in which frames are added nor on how they are split into records.

    Args:
        classes: the names of the classes, in the order of their labels.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = list(classes)
        self._parts: list[_Part] = []
        self._videos: list[list[str]] = []
        self._seen: set[str] = set()

    def add(
        self,
        frame: str,
        target_boxes: Tensor,
        target_labels: Tensor,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        *,
        target_crowd: Tensor | None = None,
        labelled: bool = True,
    ) -> None:
        """Add a frame.

        Args:
            frame: its name, which no other frame has.
            target_boxes, target_labels: its objects, (n, 4) x0 y0 x1 y1 in pixels of the frame, and (n,).
            boxes, scores, labels: its detections, (m, 4), (m,) and (m,).
            target_crowd: which boxes stand for a group of objects, (n,) bool; see `Boxes`. None where none does.
            labelled: whether the frame has ground truth, if only that it is empty. Else its detections are kept,
                and count neither as right nor as wrong.

        Raises:
            ValueError: the frame was added before, the shapes are others, a number is not finite, or a label is of
                no class.
        """
        self._add(
            _Part(
                [frame],
                np.array([labelled]),
                np.array([len(target_boxes)]),
                _array(target_boxes, torch.float32),
                _array(target_labels, torch.int64),
                np.zeros(len(target_boxes), bool)
                if target_crowd is None
                else _array(target_crowd, torch.bool),
                np.array([len(boxes)]),
                _array(boxes, torch.float32),
                _array(labels, torch.int64),
                _array(scores, torch.float32),
            )
        )

    def records(self) -> dict[str, Any]:
        """All that was added, for JSON. Numbers are kept bit for bit, as base64 of little-endian arrays."""
        part = self._merged()
        arrays = {name: getattr(part, name).astype(dtype).tobytes() for name, dtype in _DTYPES.items()}
        return {
            "frames": part.frames,
            **{name: base64.b64encode(raw).decode() for name, raw in arrays.items()},
        }

    def add_records(self, records: dict[str, Any]) -> None:
        """Add what another one of these collected.

        Raises:
            ValueError: a frame was added before, or a label is of no class.
        """
        arrays = {
            name: np.frombuffer(base64.b64decode(records[name]), dtype) for name, dtype in _DTYPES.items()
        }
        for name in _BOXES:
            arrays[name] = arrays[name].reshape(-1, 4)
        self._add(_Part(records["frames"], **arrays))
        self._videos.append(records["frames"])

    def detections(self) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        """Each frame's name, and the boxes (m, 4), scores (m,) and labels (m,) detected in it."""
        part = self._merged()
        ends = part.n_detections.cumsum()
        for frame, start, end in zip(part.frames, ends - part.n_detections, ends, strict=True):
            yield (
                frame,
                part.detected_boxes[start:end],
                part.scores[start:end],
                part.detected_labels[start:end],
            )

    def map50(self) -> Estimate:
        """mAP50 in percent, not a number where there are no objects, and the same on videos that are drawn.

        Everything must have come by `add_records`, a video each time; see `evt.metrics.bootstrap`.
        """
        part, rank, objects, detections = self._instances()
        of_name = {frame: i for i, frames in enumerate(self._videos) for frame in frames}
        video_of = np.empty(len(part.frames), np.int64)
        video_of[rank] = [of_name[frame] for frame in part.frames]
        draws = resample(len(self._videos))
        drawn = 100 * map50_of(len(self._classes), objects, detections, video_of, draws)
        whole = self.compute().map50
        return Estimate(np.nan if whole is None else whole, drawn)

    def _instances(self) -> tuple[_Part, np.ndarray, Instances, Instances]:
        """All frames, the rank of each, their objects, and the detections of those that are labelled."""
        part = self._merged()
        # Equal scores rank in the order of the images, so that order must be the same however frames came in.
        rank = np.empty(len(part.frames), np.int64)
        rank[sorted(range(len(part.frames)), key=part.frames.__getitem__)] = np.arange(len(part.frames))
        no_scores, no_crowds = np.zeros(len(part.labels), np.float32), np.zeros(len(part.scores), bool)
        objects = Instances(rank.repeat(part.n_boxes), part.boxes, part.labels, no_scores, part.crowd)
        where = rank.repeat(part.n_detections)
        detections = Instances(where, part.detected_boxes, part.detected_labels, part.scores, no_crowds)
        return part, rank, objects, detections.of(part.labelled.repeat(part.n_detections))

    def only(self, chosen: Callable[[str], bool]) -> DetectionMetrics:
        """The same, of the frames whose names are chosen."""
        part, few = self._merged(), DetectionMetrics(self._classes)
        shown = np.array([chosen(frame) for frame in part.frames], bool)
        rows = {
            name: shown.repeat(getattr(part, _ROWS_OF[name])) if name in _ROWS_OF else shown
            for name in _DTYPES
        }
        frames = [frame for frame in part.frames if chosen(frame)]
        few._add(_Part(frames, **{name: getattr(part, name)[mask] for name, mask in rows.items()}))
        few._videos = [[frame for frame in video if chosen(frame)] for video in self._videos]
        return few

    def compute(self) -> DetectionResult:
        """Evaluate all frames: 176 thousand with 15 detections each take 5 minutes of one CPU core and 0.8 GB."""
        part, _, objects, detections = self._instances()
        stats, ap50 = evaluate(len(self._classes), objects, detections)
        summary = {name: _percent(value) for name, value in zip(SUMMARY, stats, strict=True)}
        reason = None
        if not part.frames:
            reason = "no frame was added"
        elif not part.labelled.any():
            reason = "there is no ground truth"
        elif part.crowd.all():
            crowds = " but in crowds, which need not be found" if len(part.crowd) else ""
            reason = f"no frame has an object{crowds}"
        return DetectionResult(
            map50=summary["AP50"],
            map=summary["AP"],
            summary=summary,
            ap50_per_class={name: _percent(value) for name, value in zip(self._classes, ap50, strict=True)},
            n_frames=len(part.frames),
            n_boxes=len(part.labels),
            n_detections=len(part.scores),
            reason=reason,
        )

    def _add(self, part: _Part) -> None:
        where = f"the frames from {part.frames[0]} on" if part.frames else "no frames"
        if len(part.frames) == 1:
            where = f"frame {part.frames[0]}"
        for name, counts in _ROWS_OF.items():
            n = int(getattr(part, counts).sum())
            shape = (n, 4) if name in _BOXES else (n,)
            array = getattr(part, name)
            if array.shape != shape:
                raise ValueError(f"{where}: {name} has shape {array.shape}; it must be {shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{where}: {name} has a number that is not finite; all must be")
        for labels in (part.labels, part.detected_labels):
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self._classes):
                raise ValueError(
                    f"{where}: labels go from {labels.min()} to {labels.max()}; "
                    f"they must lie in 0 to {len(self._classes) - 1}"
                )
        for frame in part.frames:
            if frame in self._seen:
                raise ValueError(f"frame {frame} is added twice; each frame counts once")
            self._seen.add(frame)
        self._parts.append(part)

    def _merged(self) -> _Part:
        """All parts as one, which then also stands for them."""
        empty = {name: np.empty((0, 4) if name in _BOXES else 0, d) for name, d in _DTYPES.items()}
        parts = self._parts or [_Part([], **empty)]
        merged = _Part(
            [frame for part in parts for frame in part.frames],
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _DTYPES},
        )
        self._parts = [merged]
        return merged


def _array(tensor: Tensor, dtype: torch.dtype) -> np.ndarray:
    return tensor.detach().to("cpu", dtype).numpy()


def _percent(value: float) -> float | None:
    """COCO writes -1 where there was nothing to find."""
    return 100 * float(value) if value >= 0 else None
