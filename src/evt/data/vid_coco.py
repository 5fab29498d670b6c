"""ImageNet VID's annotations as one COCO-style json: `images`, `annotations`, `categories` and `videos`."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evt.data.annotation_files import read_json, shown
from evt.data.vid_annotations import CLASSES, SYNSETS, Annotation, box_problem, by_number
from evt.data.video import Boxes
from evt.errors import DataError
from evt.files import write

_Kind = tuple[tuple[type, ...], str]  # of a json's values: the types that are allowed, and these in words
_ANY: _Kind = ((object,), "anything")
_TEXT: _Kind = ((str,), "a text")
_ID: _Kind = ((int, float, str), "a number or a text")
_ONE_OF = {
    "images": "an image",
    "categories": "a category",
    "videos": "a video",
    "annotations": "an annotation",
}


class CocoTargets:
    """The annotations of a video's frames, held together and cut out frame by frame.

    Args:
        boxes: (n, 4) float32, x0 y0 x1 y1, in the order of the frames.
        labels: (n,) int64.
        crowd: (n,) bool, see `Boxes`.
        ends: for each frame, where its objects end.
        sizes: (frames, 2), width and height of each.
    """

    def __init__(
        self, boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray, ends: np.ndarray, sizes: np.ndarray
    ) -> None:
        self._boxes, self._labels, self._crowd = map(torch.from_numpy, (boxes, labels, crowd))
        self._ends, self._sizes = ends, sizes

    @property
    def fingerprint(self) -> str:
        """A hash of all of it."""
        digest = hashlib.sha1()
        objects = (tensor.numpy() for tensor in (self._boxes, self._labels, self._crowd))
        for array in (*objects, self._ends, self._sizes):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def __getitem__(self, i: int) -> Annotation:
        start, end = self._ends[i - 1] if i else 0, self._ends[i]
        width, height = map(int, self._sizes[i])
        mine = slice(start, end)
        return Annotation(width, height, Boxes(self._boxes[mine], self._labels[mine], self._crowd[mine]))


@dataclass(frozen=True)
class CocoVideo:
    """A video of the json.

    name: `name` of its entry in `videos`; for a single picture, its file without the ending.
    files: `file_name` of its frames, in the order of their numbers.
    targets: the annotation of each.
    """

    name: str
    files: list[str]
    targets: CocoTargets


def read_coco(path: str | Path, pictures: bool = False, classes: Sequence[str] = CLASSES) -> list[CocoVideo]:
    """Read a COCO-style VID json.

    `bbox` is x, y, width, height; classes are found by the names in `categories`. A frame's number is that in its
    file name, as it is in the XML tree; `frame_id`, which some converters count anew, is not read. An annotation
    with `iscrowd` stands for a group of objects (see `Boxes`); `ignore` counts for nothing, as in pycocotools, which
    writes `iscrowd` over it (`COCOeval._prepare`).

    Args:
        path: the file.
        pictures: `images` are single pictures, each a video of its own, as in DET. Objects of other classes than
            the 30 are left out, and so are pictures without any of them.
        classes: their names, in the order of their labels.

    Raises:
        DataError: the file is missing, broken or lacks an entry, an image, category, video or annotation is listed
            twice, or an object is of an unknown class or image, reaches out of its frame or has no area.
    """
    content = read_json(path, "a COCO-style json")
    needed = ["images", "annotations", "categories"] + ([] if pictures else ["videos"])
    for key in needed:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: there is no list {key!r}; {', '.join(needed)} are needed")

    def column(table: str, key: str, kind: _Kind = _ANY) -> list[Any]:
        entries = content[table]
        try:
            values = [entry[key] for entry in entries]
        except (KeyError, TypeError):
            i = next(i for i, entry in enumerate(entries) if not (isinstance(entry, dict) and key in entry))
            raise DataError(f"{path}: {table}[{i}] has no {key!r}; every entry needs one") from None
        types, described = kind
        for i, value in enumerate(values):
            if not isinstance(value, types):
                raise DataError(f"{path}: {table}[{i}] has {key} {shown(value)}; it must be {described}")
        return values

    def places_by(table: str, key: str, kind: _Kind) -> dict[Any, int]:
        """Where in a table each value of a key stands, which may be only once: of two, neither can be meant."""
        places: dict[Any, int] = {}
        for i, value in enumerate(column(table, key, kind)):
            if (other := places.setdefault(value, i)) != i:
                raise DataError(
                    f"{path}: {table}[{other}] and {table}[{i}] both have {key} {shown(value)}; "
                    f"{_ONE_OF[table]} may be listed only once"
                )
        return places

    label_of_class = {name: label for label, name in enumerate(classes)}
    names = places_by("categories", "name", _TEXT)
    labels_of_ids = dict(zip(places_by("categories", "id", _ID), map(label_of_class.get, names), strict=True))
    image_of_file = places_by("images", "file_name", _TEXT)
    image_of_id = places_by("images", "id", _ID)
    files = list(image_of_file)

    def looked_up(table: Mapping[Any, Any], key: str, allowed: str) -> np.ndarray:
        keys = column("annotations", key, _ID)
        found = [table.get(value) for value in keys]
        if None in found:
            i = found.index(None)
            raise DataError(
                f"{path}: annotations[{i}] has {key} {shown(keys[i])}; it must be one of {allowed}"
            )
        return np.array(found, np.int64)

    if any(
        isinstance(entry, dict) and "id" in entry for entry in content["annotations"]
    ):  # nothing needs one
        places_by("annotations", "id", _ID)
    if pictures:
        labels_of_ids = {key: -1 if label is None else label for key, label in labels_of_ids.items()}
    labels = looked_up(labels_of_ids, "category_id", _described(classes))
    images = looked_up(image_of_id, "image_id", "the images")
    flags = [entry.get("iscrowd", 0) for entry in content["annotations"]]
    for i, flag in enumerate(flags):
        if flag not in (0, 1):
            raise DataError(f"{path}: annotations[{i}] has iscrowd {shown(flag)}; it must be 0 or 1")
    crowd = np.array(flags, bool)
    try:
        boxes = np.array(column("annotations", "bbox"), np.float64).reshape(len(labels), 4)
        boxes[:, 2:] += boxes[:, :2]
        sizes = np.array([column("images", "width"), column("images", "height")], np.float64).T  # (images, 2)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{path}: a bbox, width or height is no number ({error})") from error
    for i in np.flatnonzero(~np.isfinite(sizes).all(1)):
        width, height = sizes[i]
        raise DataError(f"{path}: images[{i}] has the size {width:g}x{height:g}; both must be finite")
    kept = labels >= 0
    good = (boxes[:, :2] < boxes[:, 2:]) & (boxes[:, :2] >= 0) & (boxes[:, 2:] <= sizes[images])
    for i in np.flatnonzero(kept & ~good.all(1)):
        where = f"{path}: annotations[{i}], in {files[images[i]]},"
        raise DataError(f"{where} {box_problem(boxes[i].tolist(), *sizes[images[i]].tolist())}")

    if pictures:
        frames_of: dict[str, list[int]] = {}
        for i in np.unique(images[kept]).tolist():
            [other] = frames_of.setdefault(os.path.splitext(files[i])[0], [i])
            if other != i:
                raise DataError(
                    f"{path}: {files[other]} and {files[i]} are of the same name; it must tell pictures apart"
                )
    else:
        name_of_id = dict(
            zip(places_by("videos", "id", _ID), places_by("videos", "name", _TEXT), strict=True)
        )
        files_of = defaultdict(list)
        for file, video_id in zip(files, column("images", "video_id", _ID), strict=True):
            if video_id not in name_of_id:
                i = image_of_file[file]
                raise DataError(
                    f"{path}: images[{i}] has video_id {shown(video_id)}; it must be one of the videos"
                )
            files_of[name_of_id[video_id]].append(file)
        frames_of = {
            name: [image_of_file[file] for file in by_number(mine)] for name, mine in files_of.items()
        }

    in_order = [i for frames in frames_of.values() for i in frames]
    place = np.zeros(len(files), np.int64)
    place[in_order] = np.arange(len(in_order))
    objects = np.flatnonzero(kept)
    objects = objects[np.argsort(place[images[objects]], kind="stable")]
    # The objects of the frame at place k lie between starts[k] and starts[k + 1].
    starts = np.searchsorted(place[images[objects]], np.arange(len(in_order) + 1))
    videos, k = [], 0
    for name, frames in frames_of.items():
        mine = objects[starts[k] : starts[k + len(frames)]]
        ends = starts[k + 1 : k + len(frames) + 1] - starts[k]
        targets = CocoTargets(boxes[mine].astype(np.float32), labels[mine], crowd[mine], ends, sizes[frames])
        videos.append(CocoVideo(name, [files[i] for i in frames], targets))
        k += len(frames)
    return videos


def _described(classes: Sequence[str]) -> str:
    names = "of ImageNet VID" if classes is CLASSES else f"among {', '.join(classes)}"
    return f"a category with a class name {names}"


class CocoWriter:
    """Collects frames and their annotations, and writes them as a json that `read_coco` reads.

    Args:
        classes: the names of the classes, in the order of their labels.
    """

    def __init__(self, classes: Sequence[str] = CLASSES) -> None:
        categories: list[dict[str, Any]] = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
        if classes is CLASSES:
            for category, synset in zip(categories, SYNSETS, strict=True):
                category["encode_name"] = synset
        self._content: dict[str, list[dict[str, Any]]] = {
            "categories": categories,
            "videos": [],
            "images": [],
            "annotations": [],
        }

    def add(self, file_name: str, annotation: Annotation, video: str | None, frame_number: int) -> None:
        """Add a frame of a video, or a single picture where video is None. A video's frames come together."""
        videos, images, objects = (self._content[key] for key in ("videos", "images", "annotations"))
        image = {
            "id": len(images) + 1,
            "file_name": file_name,
            "width": annotation.width,
            "height": annotation.height,
        }
        if video is not None:
            if not videos or videos[-1]["name"] != video:
                videos.append({"id": len(videos) + 1, "name": video})
            image |= {"video_id": len(videos), "frame_id": frame_number}
        images.append(image)
        target = annotation.target
        crowd = [False] * len(target.labels) if target.crowd is None else target.crowd.tolist()
        columns = (target.boxes.tolist(), target.labels.tolist(), crowd)
        for (x0, y0, x1, y1), label, many in zip(*columns, strict=True):
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": len(images),
                    "category_id": label + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": int(many),
                }
            )

    def write(self, path: Path) -> None:
        """Write the json, its folder too.

        Raises:
            DataError: it cannot be written there.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, json.dumps(self._content))
        except OSError as error:
            raise DataError(f"{path}: the json cannot be written ({error.strerror})") from error
