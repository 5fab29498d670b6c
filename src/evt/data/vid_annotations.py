"""ImageNet VID's classes, and the XML files that hold a frame's objects."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch

from evt.data.annotation_files import read_text, read_xml, shown
from evt.data.video import Boxes
from evt.errors import DataError

# In the order of the class indices that detectors of this data set predict.
LABELLED_SYNSETS = {
    "n02691156": "airplane",
    "n02419796": "antelope",
    "n02131653": "bear",
    "n02834778": "bicycle",
    "n01503061": "bird",
    "n02924116": "bus",
    "n02958343": "car",
    "n02402425": "cattle",
    "n02084071": "dog",
    "n02121808": "domestic_cat",
    "n02503517": "elephant",
    "n02118333": "fox",
    "n02510455": "giant_panda",
    "n02342885": "hamster",
    "n02374451": "horse",
    "n02129165": "lion",
    "n01674464": "lizard",
    "n02484322": "monkey",
    "n03790512": "motorcycle",
    "n02324045": "rabbit",
    "n02509815": "red_panda",
    "n02411705": "sheep",
    "n01726692": "snake",
    "n02355227": "squirrel",
    "n02129604": "tiger",
    "n04468005": "train",
    "n01662784": "turtle",
    "n04530566": "watercraft",
    "n02062744": "whale",
    "n02391049": "zebra",
}
SYNSETS = tuple(LABELLED_SYNSETS)
CLASSES = tuple(LABELLED_SYNSETS.values())
LABEL_OF_SYNSET = {synset: label for label, synset in enumerate(SYNSETS)}
CLASSES_FILE = "classes.txt"
"""In the root of a tree with other classes than ImageNet VID's: their names, one a line."""


@dataclass(frozen=True)
class Annotation:
    """What an XML file or a json says of a frame.

    width, height: of the frame, in pixels.
    target: its objects.
    """

    width: int
    height: int
    target: Boxes


def frame_number(file: str) -> int:
    """The number of a frame in its video: the digits before the ending of its file name.

    Raises:
        DataError: there are none.
    """
    stem = file.rpartition(".")[0]
    digits = stem[len(stem.rstrip("0123456789")) :]
    if not digits:
        raise DataError(f"{file}: the name has no frame number; names such as 000012.JPEG are needed")
    return int(digits)


def by_number(files: Iterable[str]) -> list[str]:
    """The frames of one video in the order of their numbers.

    Raises:
        DataError: a name has no number, or two have the same.
    """
    ordered = sorted(files, key=frame_number)
    for file, following in itertools.pairwise(ordered):
        if frame_number(file) == frame_number(following):
            raise DataError(
                f"{min(file, following)} and {max(file, following)} are of the same frame number; "
                "a frame may be there only once"
            )
    return ordered


def labels_of_tree(root: str | Path) -> Mapping[str, int]:
    """The label of each name that objects of a tree may have: those in its classes.txt, else VID's synsets.

    Raises:
        DataError: classes.txt is empty or names a class twice.
    """
    path = Path(root, CLASSES_FILE)
    if not path.is_file():
        return LABEL_OF_SYNSET
    names = read_text(path, "a list of names").split()
    if not names or len(set(names)) < len(names):
        raise DataError(f"{path} is empty or names a class twice; one name a line is needed, each once")
    return {name: label for label, name in enumerate(names)}


def classes_of_tree(root: str | Path) -> Sequence[str]:
    """The names of a tree's classes in the order of their labels; see `labels_of_tree`."""
    labels = labels_of_tree(root)
    return CLASSES if labels is LABEL_OF_SYNSET else list(labels)


def read_annotation(
    path: str | Path, other_synsets: bool = False, labels: Mapping[str, int] = LABEL_OF_SYNSET
) -> Annotation:
    """Read the XML file of a frame.

    A box is (xmin, ymin, xmax, ymax) as the file has it. ILSVRC counts the pixel at xmax as covered, but the usual
    conversion to COCO's form, on which the published evaluation rests, takes xmax - xmin for the width; so nothing
    is added here, and a detection is measured against the same edges everywhere.

    Args:
        path: the file.
        other_synsets: objects of none of the classes are left out (DET has 200), instead of refused.
        labels: the label of each name that objects may have.

    Raises:
        DataError: the file is missing, broken or lacks an entry, or an object is of an unknown synset, reaches
            out of the frame (its far edges may lie on the frame's) or has no area.
    """
    root = read_xml(path, "an ILSVRC annotation")
    width, height = (int(_number(root, f"size/{side}", str(path))) for side in ("width", "height"))
    boxes, found = [], []
    for i, element in enumerate(root.iterfind("object"), 1):
        synset = (element.findtext("name") or "").strip()
        where = f"{path}: object {i} ({synset or 'no name'})"
        if synset not in labels:
            if other_synsets:
                continue
            allowed = "the 30 of ImageNet VID" if labels is LABEL_OF_SYNSET else ", ".join(labels)
            raise DataError(f"{where} is of an unknown synset; allowed are {allowed}")
        box = [_number(element, f"bndbox/{edge}", where) for edge in ("xmin", "ymin", "xmax", "ymax")]
        if problem := box_problem(box, width, height):
            raise DataError(f"{where} {problem}")
        boxes.append(box)
        found.append(labels[synset])
    return Annotation(width, height, as_boxes(boxes, found))


def box_problem(box: list[float], width: float, height: float) -> str | None:
    """What is wrong with a box (x0, y0, x1, y1) in a frame of this size, if anything."""
    x0, y0, x1, y1 = box
    shown = f"({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not (x0 < x1 and y0 < y1):
        return f"has a box of no area, {shown}; xmax and ymax must be above xmin and ymin"
    if not (min(x0, y0) >= 0 and x1 <= width and y1 <= height):
        return f"has a box outside the frame, {shown}; it must lie within 0, 0, {width:g}, {height:g}"
    return None


def as_boxes(boxes: list[list[float]], labels: list[int]) -> Boxes:
    """The objects of a frame as tensors, also where there are none."""
    return Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(labels).long())


def _number(element: ElementTree.Element, tag: str, where: str) -> float:
    text = element.findtext(tag)
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {tag} is {shown(text)}; it must be a number")
    return number
