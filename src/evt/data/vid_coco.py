"""ImageNet VID's annotations as one COCO-style json: `images`, `annotations`, `categories` and `videos`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from evt.data.vid_annotations import CLASSES, SYNSETS, Annotation, box_problem, frame_number
from evt.data.video import Boxes, DataError


class CocoTargets:
    """The objects of a video's frames, held together and cut out frame by frame.

    Args:
        boxes: (n, 4) float32, x0 y0 x1 y1, in the order of the frames.
        labels: (n,) int64.
        ends: for each frame, where its objects end.
    """

    def __init__(self, boxes: np.ndarray, labels: np.ndarray, ends: np.ndarray) -> None:
        self._boxes, self._labels, self._ends = torch.from_numpy(boxes), torch.from_numpy(labels), ends

    def __getitem__(self, i: int) -> Boxes:
        start, end = self._ends[i - 1] if i else 0, self._ends[i]
        return Boxes(self._boxes[start:end], self._labels[start:end])


@dataclass(frozen=True)
class CocoVideo:
    """A video of the json.

    name: `name` of its entry in `videos`; for a single picture, its file without the ending.
    files: `file_name` of its frames, in the order of their numbers.
    targets: the objects of each.
    """

    name: str
    files: list[str]
    targets: CocoTargets


def read_coco(path: str | Path, pictures: bool = False) -> list[CocoVideo]:
    """Read a COCO-style VID json.

    `bbox` is x, y, width, height; classes are found by the names in `categories`. A frame's number is that in its
    file name, as it is in the XML tree; `frame_id`, which some converters count anew, is not read.

    Args:
        path: the file.
        pictures: `images` are single pictures, each a video of its own, as in DET. Objects of other classes than
            the 30 are left out, and so are pictures without any of them.

    Raises:
        DataError: the file is missing, broken or lacks an entry, or an object is of an unknown class or image,
            reaches out of its frame or has no area.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation file; a COCO-style json is needed") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not whole json ({error}); a COCO-style json is needed") from error
    needed = ["images", "annotations", "categories"] + ([] if pictures else ["videos"])
    for key in needed:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: there is no list {key!r}; {', '.join(needed)} are needed")

    def column(table: str, key: str) -> list[Any]:
        entries = content[table]
        try:
            return [entry[key] for entry in entries]
        except (KeyError, TypeError):
            i = next(i for i, entry in enumerate(entries) if not (isinstance(entry, dict) and key in entry))
            raise DataError(f"{path}: {table}[{i}] has no {key!r}; every entry needs one") from None

    label_of_class = {name: label for label, name in enumerate(CLASSES)}
    labels_of_ids = dict(
        zip(column("categories", "id"), map(label_of_class.get, column("categories", "name")), strict=True)
    )
    files = column("images", "file_name")
    image_of_id = {image_id: i for i, image_id in enumerate(column("images", "id"))}

    def looked_up(table: Mapping[Any, Any], key: str, allowed: str) -> np.ndarray:
        keys = column("annotations", key)
        found = [table.get(value) for value in keys]
        if None in found:
            i = found.index(None)
            raise DataError(f"{path}: annotations[{i}] has {key} {keys[i]!r}; it must be one of {allowed}")
        return np.array(found, np.int64)

    if pictures:
        labels_of_ids = {key: -1 if label is None else label for key, label in labels_of_ids.items()}
    labels = looked_up(labels_of_ids, "category_id", "a category with a class name of ImageNet VID")
    images = looked_up(image_of_id, "image_id", "the images")
    try:
        boxes = np.array(column("annotations", "bbox"), np.float64).reshape(len(labels), 4)
        boxes[:, 2:] += boxes[:, :2]
        sizes = np.array([column("images", "width"), column("images", "height")], np.float64).T  # (images, 2)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: a bbox, width or height is no number ({error})") from error
    kept = labels >= 0
    good = (boxes[:, :2] < boxes[:, 2:]) & (boxes[:, :2] >= 0) & (boxes[:, 2:] <= sizes[images])
    for i in np.flatnonzero(kept & ~good.all(1)):
        where = f"{path}: annotations[{i}], in {files[images[i]]},"
        raise DataError(f"{where} {box_problem(boxes[i].tolist(), *sizes[images[i]].tolist())}")

    if pictures:
        frames_of = {str(PurePath(files[i]).with_suffix("")): [i] for i in np.unique(images[kept])}
    else:
        name_of_id = dict(zip(column("videos", "id"), column("videos", "name"), strict=True))
        frames_of = defaultdict(list)
        for i, video_id in enumerate(column("images", "video_id")):
            if video_id not in name_of_id:
                raise DataError(
                    f"{path}: images[{i}] has video_id {video_id!r}; it must be one of the videos"
                )
            frames_of[name_of_id[video_id]].append(i)

    for frames in frames_of.values():
        if not pictures:
            frames.sort(key=lambda i: frame_number(files[i]))
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
        targets = CocoTargets(boxes[mine].astype(np.float32), labels[mine], ends)
        videos.append(CocoVideo(name, [files[i] for i in frames], targets))
        k += len(frames)
    return videos


class CocoWriter:
    """Collects frames and their annotations, and writes them as a json that `read_coco` reads."""

    def __init__(self) -> None:
        self._content: dict[str, list[dict[str, Any]]] = {
            "categories": [
                {"id": i, "name": name, "encode_name": synset}
                for i, (name, synset) in enumerate(zip(CLASSES, SYNSETS, strict=True), 1)
            ],
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
        for (x0, y0, x1, y1), label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True):
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": len(images),
                    "category_id": label + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )

    def write(self, path: Path) -> None:
        """Write the json, its folder too."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._content))
