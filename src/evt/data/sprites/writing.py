"""Generated videos on disk, in the layouts of ImageNet VID and Kinetics, for the readers of the real ones."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import av
from PIL import Image

from evt.data.sprites.action import ACTIONS, SpriteClip
from evt.data.sprites.detection import SpriteVideo
from evt.data.sprites.shapes import CLASSES
from evt.data.vid_annotations import CLASSES_FILE
from evt.data.video import Boxes, Frame
from evt.errors import DataError
from evt.files import append, check_writable, naming, write

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": (".png", {"compress_level": 1}),
    "jpeg": (".JPEG", {"quality": 95}),
}
"""The ending of a frame's file and how Pillow writes it. PNG keeps every pixel."""
FPS = 25


def write_vid(videos: Iterable[SpriteVideo], root: str | Path, split: str, picture_format: str) -> None:
    """Write videos as an ILSVRC2015 tree that `evt.data.vid.VID` reads; its classes.txt names the classes.

    Args:
        videos: what is written.
        root: the folder to become ILSVRC2015.
        split: train or val.
        picture_format: png or jpeg.

    Raises:
        DataError: the split or the format is none of these, or a video is there already.
        OSError: it cannot be written; the videos before are whole.
    """
    if split not in ("train", "val"):
        raise DataError(f"split {split!r} has no place in an ILSVRC2015 tree; allowed are train, val")
    if picture_format not in FORMATS:
        raise DataError(f"format {picture_format!r} is unknown; allowed are {', '.join(FORMATS)}")
    ending, options = FORMATS[picture_format]
    # VID's train split has one more level of folders.
    below = f"VID/{split}" if split == "val" else f"VID/{split}/sprites"
    path = Path(root, CLASSES_FILE)
    check_writable(path)
    write(path, "".join(f"{name}\n" for name in CLASSES))
    for video in videos:
        pictures, annotations = (Path(root, tree, below, video.name) for tree in ("Data", "Annotations"))
        _make(pictures)
        _make(annotations)
        try:
            for i, frame in enumerate(video):
                picture = Image.fromarray(frame.image.permute(1, 2, 0).numpy())
                with naming(pictures / f"{i:06d}{ending}"):
                    picture.save(pictures / f"{i:06d}{ending}", **options)
                with naming(annotations / f"{i:06d}.xml"):
                    _annotation(f"{below}/{video.name}", f"{i:06d}", frame).write(
                        annotations / f"{i:06d}.xml"
                    )
        except BaseException:  # what is left are whole videos
            shutil.rmtree(pictures, ignore_errors=True)
            shutil.rmtree(annotations, ignore_errors=True)
            raise


def _annotation(folder: str, name: str, frame: Frame) -> ElementTree.ElementTree[ElementTree.Element]:
    """A frame's XML; the far edges of boxes are exclusive, as the reader takes them."""
    root = ElementTree.Element("annotation")
    height, width = frame.image.shape[1:]
    target = frame.target
    assert isinstance(target, Boxes)
    _add(root, {"folder": folder, "filename": name})
    _add(ElementTree.SubElement(root, "source"), {"database": "evt sprites"})
    _add(ElementTree.SubElement(root, "size"), {"width": width, "height": height})
    for (x0, y0, x1, y1), label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True):
        entry = ElementTree.SubElement(root, "object")
        _add(entry, {"name": CLASSES[label]})
        box = {"xmax": round(x1), "xmin": round(x0), "ymax": round(y1), "ymin": round(y0)}
        _add(ElementTree.SubElement(entry, "bndbox"), box)
    ElementTree.indent(root, "\t")
    return ElementTree.ElementTree(root)


def _add(element: ElementTree.Element, entries: dict[str, str] | dict[str, int]) -> None:
    for tag, value in entries.items():
        ElementTree.SubElement(element, tag).text = str(value)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise DataError(
            f"{folder} is there already; frames of two runs must not mix, so remove it first"
        ) from None


def write_kinetics(clips: Iterable[SpriteClip], root: str | Path, split: str) -> None:
    """Write clips as root/<split>/<name>_<start>_<end>.mp4 beside root/<split>.csv, as Kinetics is distributed.

    Args:
        clips: what is written.
        root: the folder.
        split: names the subfolder and the csv.

    Raises:
        DataError: the split is there already.
        OSError: it cannot be written; the csv lists the clips before, which are whole.
    """
    folder = Path(root, split)
    _make(folder)
    table = Path(root, f"{split}.csv")
    write(table, _row("label", "youtube_id", "time_start", "time_end", "split") + "\n")
    for clip in clips:
        end = math.ceil(len(clip) / FPS)
        height, width = clip[[0]].shape[2:]
        content = io.BytesIO()
        with av.open(content, "w", format="mp4") as container:
            # RGB without loss, so that what is read is what was drawn.
            stream = cast(av.VideoStream, container.add_stream("libx264rgb", rate=FPS, options={"crf": "0"}))
            stream.height, stream.width, stream.pix_fmt = height, width, "rgb24"
            for i in range(len(clip)):
                pixels = clip[[i]][0].permute(1, 2, 0).numpy()
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        write(folder / f"{clip.name}_{0:06d}_{end:06d}.mp4", content.getvalue())
        append(table, _row(ACTIONS[clip.label], clip.name, 0, end, split))


def _row(*cells: object) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
