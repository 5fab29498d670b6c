"""ImageNet VID, and the part of ImageNet DET that is trained on with it, in the layout of ILSVRC2015.

    Data/VID/val/<video>/000000.JPEG                Annotations/VID/val/<video>/000000.xml
    Data/VID/train/<part>/<video>/000000.JPEG       Annotations/VID/train/<part>/<video>/000000.xml
    Data/DET/train/<any folders>/<picture>.JPEG     Annotations/DET/train/<any folders>/<picture>.xml

A tree of this layout may have classes of its own: see `labels_of_tree`.
Boxes are x0 y0 x1 y1 = xmin ymin xmax ymax of the XML, without the +1 of inclusive pixels: see `read_annotation`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

from torch import Tensor

from evt.data.annotation_files import read_bytes
from evt.data.images import ENDINGS, read_image
from evt.data.vid_annotations import (
    CLASSES,
    LABEL_OF_SYNSET,
    SYNSETS,
    Annotation,
    by_number,
    classes_of_tree,
    frame_number,
    labels_of_tree,
    read_annotation,
)
from evt.data.vid_coco import CocoTargets, read_coco
from evt.data.video import Frame
from evt.errors import DataError

SPLITS = {"val": "VID/val", "train": "VID/train", "det": "DET/train"}

# Only synsets within <name> are an object's; finding them is 20 times as fast as parsing the file.
_OBJECT_OF_A_CLASS = re.compile(rb"<name>\s*(?:%s)\s*</name>" % "|".join(SYNSETS).encode())


@dataclass(frozen=True)
class XmlTargets:
    """The annotations of a video's frames, each read from its XML file when it is asked for.

    folder: where the XML files are.
    files: those of the frames.
    required: a missing file is an error; else its frame has no ground truth.
    other_synsets, labels: see `read_annotation`.
    """

    folder: str
    files: list[str]
    required: bool
    other_synsets: bool
    labels: Mapping[str, int]

    def path(self, i: int) -> str:
        """The XML file of frame i."""
        name = os.path.basename(self.files[i])
        return os.path.join(self.folder, name[: name.rindex(".")] + ".xml")

    @property
    def fingerprint(self) -> str:
        """The labels of names; not the files, which would take as long to read as the data set."""
        return repr(self.labels)

    def __getitem__(self, i: int) -> Annotation | None:
        path = self.path(i)
        if not self.required and not os.path.exists(path):
            return None
        return read_annotation(path, self.other_synsets, self.labels)


@dataclass(frozen=True)
class VIDVideo:
    """A video of the data set; frames and XML files are read when they are asked for.

    name: its folder below the split's; for DET, that of the picture without its ending.
    files: its frames, in order.
    targets: the ground truth of each.
    """

    name: str
    files: list[str]
    targets: XmlTargets | CocoTargets

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        """A hash of the frames' files by name and, from a json, of their objects. No file is read."""
        names = map(os.path.basename, self.files)
        return hashlib.sha1(os.fsencode("\n".join([*names, self.targets.fingerprint]))).hexdigest()

    def first(self, i: int) -> bool:
        """Whether frame i begins a new sequence by its number, which does not follow on that of the frame before."""
        return i == 0 or frame_number(self.files[i]) != frame_number(self.files[i - 1]) + 1

    @property
    def n_sequences(self) -> int:
        """How many sequences of consecutive numbers the video has.

        A change of the pictures' size begins one too, but is only found by reading them, which this does not.
        """
        return sum(map(self.first, range(len(self))))

    def __getitem__(self, i: int) -> Frame:
        """Frame i, `first` by its number alone."""
        image, annotation = read_image(self.files[i]), self.targets[i]
        if annotation is None:
            return Frame(image, self.files[i], self.first(i))
        check_size(self.files[i], image, annotation)
        return Frame(image, self.files[i], self.first(i), annotation.target)

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order, `first` also where their size changes."""
        shape = None
        for i in range(len(self)):
            frame = self[i]
            yield replace(frame, first=frame.first or frame.image.shape != shape)
            shape = frame.image.shape


class VID(Sequence[VIDVideo]):
    """The videos of a split, in the order of their names.

    DET is a split of one-frame videos: its pictures with an object of the 30 classes. To find them, every one of
    its XML files is read; a json by `scripts/prepare_vid.py --split det --write-json` saves that.

    Args:
        root: the folder ILSVRC2015.
        split: val, train or det.
        annotations: a COCO-style json that is read instead of the XML files. Only the frames that it lists are in
            the data set; where others are left out, a new sequence begins. Its `file_name` are relative to
            Data/VID (for DET, Data/DET), the split's folder in there, the root, or the json's own folder.
        n_videos: how many videos at most; `n_found` says how many there are.
        require_annotations: frames without an XML file are an error; else they come without ground truth.

    Raises:
        DataError: a folder, the json or a video's frames are missing, two frames have the same number, or the
            json is broken. Broken frames and XML files, and those of different sizes, are found when they are read.
    """

    classes: Sequence[str] = CLASSES

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        annotations: str | Path | None = None,
        n_videos: int | None = None,
        require_annotations: bool = True,
    ) -> None:
        if n_videos is not None and (not isinstance(n_videos, int) or n_videos < 1):
            raise DataError(
                f"data.n_videos is {n_videos!r}; it must be a whole number of at least 1, or null"
            )
        if annotations is not None:
            check_layout(root, split, trees=())
            videos = _listed_in_json(Path(root), split, Path(annotations))
        else:
            check_layout(root, split, ("Data", "Annotations") if require_annotations else ("Data",))
            list_videos = _det_pictures if split == "det" else _videos
            videos = list_videos(Path(root), split, require_annotations)
        if not videos:
            raise DataError(f"{root}: split {split} has no videos with frames of the 30 classes")
        self._split = split
        self.n_found = len(videos)
        self.classes = classes_of_tree(root)
        self._videos = sorted(videos, key=lambda video: video.name)[:n_videos]

    @property
    def name(self) -> str:
        """What it is, in words: a part of a split is called one."""
        part = f", first {len(self)} of {self.n_found} videos" if len(self) < self.n_found else ""
        return f"VID {self._split}{part}"

    def videos(self) -> VID:
        """Itself."""
        return self

    def __len__(self) -> int:
        return len(self._videos)

    @overload
    def __getitem__(self, i: int) -> VIDVideo: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[VIDVideo]: ...
    def __getitem__(self, i: int | slice) -> VIDVideo | Sequence[VIDVideo]:
        return self._videos[i]


def check_size(file: str, image: Tensor, annotation: Annotation) -> None:
    """Check that a picture, (3, H, W), is as large as its annotation says; else its boxes lie beside the objects.

    Raises:
        DataError: it is not.
    """
    height, width = image.shape[-2:]
    if (width, height) != (annotation.width, annotation.height):
        raise DataError(
            f"{file}: the picture is {width}x{height} pixels, but its annotation says "
            f"{annotation.width}x{annotation.height}; they must be equal"
        )


def check_layout(root: str | Path, split: str, trees: Sequence[str]) -> None:
    """Check that the folders of a split are there.

    Args:
        root: the folder ILSVRC2015.
        split: val, train or det.
        trees: which of Data and Annotations are needed.

    Raises:
        DataError: one is missing, or the split is none of the three.
    """
    if split not in SPLITS:
        raise DataError(f"data.split is {split!r}; allowed are {', '.join(SPLITS)}")
    if not Path(root).is_dir():
        raise DataError(f"data.root is {root}, which is not a folder; the folder ILSVRC2015 is needed")
    for tree in trees:
        if not Path(root, tree, SPLITS[split]).is_dir():
            raise DataError(
                f"data.root is {root}, which has no folder {tree}/{SPLITS[split]}; "
                "the folder ILSVRC2015 is needed, laid out as distributed"
            )


def video_folders(tree: Path, split: str) -> list[str]:
    """The names of the videos below Data/VID/<split> or Annotations/VID/<split>, sorted."""
    if split == "val":
        return _folders(tree)
    return [f"{part}/{video}" for part in _folders(tree) for video in _folders(tree / part)]


def picture_files(folder: str | Path) -> list[str]:
    """The pictures in a folder, in no order; none where the folder is missing."""
    if not os.path.isdir(folder):
        return []
    prefix = f"{folder}{os.sep}"
    return [prefix + name for name in os.listdir(folder) if name.lower().endswith(ENDINGS)]


def annotated_pictures(root: Path) -> Iterator[tuple[str, str, bytes]]:
    """The name below DET/train, picture and XML content of each annotated picture of DET.

    Raises:
        DataError: two pictures have the same name but for the ending.
    """
    tree = os.path.join(root, "Annotations", SPLITS["det"])
    for folder, _, names in os.walk(tree):
        relative = os.path.relpath(folder, tree)
        data = os.path.normpath(os.path.join(root, "Data", SPLITS["det"], relative))
        pictures: dict[str, str] = {}
        for file in sorted(picture_files(data)):
            if (other := pictures.setdefault(os.path.splitext(file)[0], file)) != file:
                raise DataError(f"{other} and {file} are of the same name; a picture may be there only once")
        for name in sorted(names):
            if name.endswith(".xml"):
                stem = name.removesuffix(".xml")
                # A picture that is missing is named as it should be, for the message when it is read.
                file = pictures.get(os.path.join(data, stem), os.path.join(data, stem + ".JPEG"))
                content = read_bytes(Path(folder, name), "an ILSVRC annotation")
                yield os.path.normpath(os.path.join(relative, stem)), file, content


def has_object_of_a_class(xml: bytes) -> bool:
    """Whether an XML file has an object of the 30 classes, or was cut short, which is to be found on reading it."""
    return bool(_OBJECT_OF_A_CLASS.search(xml)) or not xml.rstrip().endswith(b"</annotation>")


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _videos(root: Path, split: str, require_annotations: bool) -> list[VIDVideo]:
    data, annotations = root / "Data" / SPLITS[split], root / "Annotations" / SPLITS[split]
    labels, videos = labels_of_tree(root), []
    for name in video_folders(data, split):
        files = by_number(picture_files(data / name))
        if not files:
            raise DataError(f"{data / name} has no frames; files such as 000000.JPEG are needed")
        if require_annotations and not (annotations / name).is_dir():
            raise DataError(f"{annotations / name}: no such folder; the XML files of video {name} are needed")
        targets = XmlTargets(str(annotations / name), files, require_annotations, False, labels)
        videos.append(VIDVideo(name, files, targets))
    return videos


def _det_pictures(root: Path, split: str, require_annotations: bool) -> list[VIDVideo]:
    if not require_annotations:
        raise DataError("split det is chosen by its annotations; require_annotations must be true")
    return [
        VIDVideo(
            name,
            [file],
            XmlTargets(
                str((root / "Annotations" / SPLITS[split] / name).parent), [file], True, True, LABEL_OF_SYNSET
            ),
        )
        for name, file, xml in annotated_pictures(root)
        if has_object_of_a_class(xml)
    ]


def _listed_in_json(root: Path, split: str, path: Path) -> list[VIDVideo]:
    listed = read_coco(path, pictures=split == "det", classes=classes_of_tree(root))
    data_set, folder = SPLITS[split].split("/")
    bases = [root / "Data" / data_set, root / "Data" / data_set / folder, root, path.parent]
    if not listed:
        return []
    names = {video.name for video in listed}
    for name in (video.name for video in listed):
        if f"{folder}/{name}" in names:
            raise DataError(f"{path}: the videos {name} and {folder}/{name} are the same; keep one of them")
    for base in bases:
        if any((base / video.files[0]).exists() for video in listed):
            return [
                VIDVideo(
                    video.name.removeprefix(f"{folder}/"),
                    [os.path.join(base, file) for file in video.files],
                    video.targets,
                )
                for video in listed
            ]
    raise DataError(
        f"{path}: the frame {listed[0].files[0]} is in none of {', '.join(map(str, bases))}; "
        "frames must lie where file_name says, relative to one of these"
    )
