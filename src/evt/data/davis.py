"""DAVIS 2016 and 2017: videos whose objects are masked in every frame, in the layout in which they are distributed.

    JPEGImages/480p/<video>/00000.jpg      Annotations/480p/<video>/00000.png
    ImageSets/2017/val.txt                 names of videos, one a line (2016 lists files, in ImageSets/480p)

Perazzi et al. 2016, "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation"; Pont-Tuset et al.
2017, "The 2017 DAVIS Challenge on Video Object Segmentation". A mask of 2017 is an indexed picture of object numbers,
in which 255 does not count; of 2016 a grey one, in which everything above 0 is the one object.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import torch
from pydantic import PositiveInt
from torch import Tensor

from evt.data.annotation_files import read_text
from evt.data.images import read_image, read_values
from evt.data.vid_annotations import by_number
from evt.data.video import Frame
from evt.errors import DataError

log = logging.getLogger(__name__)

VOID = 255
"""In an indexed mask: pixels that do not count."""


@dataclass(frozen=True)
class DAVISVideo:
    """A video; pictures and masks are read when they are asked for.

    name: its folder.
    files, masks: of its frames, in order.
    one_object: whether the objects of an indexed mask are taken for one, as those of a grey one are.
    """

    name: str
    files: list[str]
    masks: list[str]
    one_object: bool

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        """A hash of the pictures and masks by name and size. No file is read."""
        try:
            sizes = [
                f"{os.path.basename(file)}\n{os.path.getsize(file)}\n" for file in [*self.files, *self.masks]
            ]
        except OSError as error:
            raise DataError(f"{error.filename}: the picture cannot be read ({error.strerror})") from error
        return hashlib.sha1(os.fsencode("".join(sizes))).hexdigest()

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order; a change of their size begins a new sequence."""
        shape = None
        for file, mask_file in zip(self.files, self.masks, strict=True):
            image, mask = read_image(file), read_mask(mask_file, self.one_object)
            if image.shape[1:] != mask.shape:
                (height, width), (of_mask, across) = image.shape[1:], mask.shape
                raise DataError(
                    f"{mask_file}: the mask is {across}x{of_mask} pixels, but its picture is {width}x{height}; "
                    "they must be equal"
                )
            yield Frame(image, file, first=image.shape != shape, mask=mask)
            shape = image.shape


def read_mask(path: str | os.PathLike[str], one_object: bool = False) -> Tensor:
    """A mask: 0 is background, `VOID` does not count, every other number is an object.

    Args:
        path: the file.
        one_object: take all objects for number 1, as those of a grey picture are.

    Returns:
        (H, W) uint8.

    Raises:
        DataError: the file cannot be read, or is neither indexed nor grey.
    """
    values, indexed = read_values(path)
    if not indexed:
        return (values > 0).to(torch.uint8)
    return torch.where(values == VOID, VOID, values > 0).to(torch.uint8) if one_object else values


class DAVIS(Sequence[DAVISVideo]):
    """Videos in the order of their list, or else of their names.

    Args:
        root: the folder DAVIS.
        split: the name of a list, such as val or train. Without a folder ImageSets, all videos that are there.
        year: whose list it is, and 2016 takes all objects for one. None takes the list that is there, the later of
            two, and the objects as the masks have them.
        names: of videos, instead of a split.
        n_videos: how many at most; `n_found` says how many there are.
        n_frames: the first so many of each.
        resolution: the folder of pictures and masks.

    Raises:
        DataError: a folder, a list, a picture or a mask is missing, or a video has one frame. What is wrong with
            pictures and masks themselves is found when they are read.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        year: Literal[2016, 2017] | None = None,
        names: Sequence[str] | None = None,
        n_videos: PositiveInt | None = None,
        n_frames: PositiveInt | None = None,
        resolution: str = "480p",
    ) -> None:
        for setting, value, least in (("n_videos", n_videos, 1), ("n_frames", n_frames, 2)):
            if value is not None and value < least:
                raise DataError(
                    f"data.{setting} is {value}; it must be a whole number of at least {least}, or null"
                )
        pictures, masks = (Path(root, tree, resolution) for tree in ("JPEGImages", "Annotations"))
        for folder in (Path(root), pictures, masks):
            if not folder.is_dir():
                raise DataError(
                    f"{folder}: no such folder; data.root must be the folder DAVIS, with JPEGImages/{resolution} and "
                    f"Annotations/{resolution}"
                )
        listed = _listed(Path(root), split, year, resolution) if names is None else names
        found = list(dict.fromkeys(_folders(pictures) if listed is None else listed))
        if not found:
            if names is not None:
                raise DataError("data.names is empty; it must have names of videos, or be null")
            raise DataError(f"{root}: no videos; folders of pictures in {pictures} are needed")
        self._listed = names is None and listed is not None
        self._what = f"DAVIS {year or ''} {split if self._listed else ''}".strip().replace("  ", " ")
        self.n_found = len(found)
        self._videos = [
            _video(name, pictures / name, masks / name, n_frames, year == 2016) for name in found[:n_videos]
        ]

    masked = True

    @property
    def name(self) -> str:
        """What it is, in words: a part of a list is called one."""
        if len(self) < self.n_found:
            return f"{self._what}, first {len(self)} of {self.n_found} videos"
        return self._what if self._listed else f"{self._what}, {len(self)} video{'s' * (len(self) > 1)}"

    def videos(self) -> DAVIS:
        """Itself."""
        return self

    def __len__(self) -> int:
        return len(self._videos)

    @overload
    def __getitem__(self, i: int) -> DAVISVideo: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[DAVISVideo]: ...
    def __getitem__(self, i: int | slice) -> DAVISVideo | Sequence[DAVISVideo]:
        return self._videos[i]


def _listed(root: Path, split: str, year: int | None, resolution: str) -> list[str] | None:
    """The videos of a split, or None where there are no lists."""
    lists = root / "ImageSets"
    if not lists.is_dir():
        log.info("%s has no folder ImageSets; all videos that are there are taken", root)
        return None
    folders = {2016: ["2016", resolution], 2017: ["2017"], None: ["2017", "2016", resolution]}[year]
    for path in (lists / folder / f"{split}.txt" for folder in folders):
        if path.is_file():
            lines = read_text(path, "a list of videos").split("\n")
            # 2016 has a line for each frame: /JPEGImages/480p/<video>/00000.jpg and its mask.
            firsts = (Path(line.split()[0]) for line in lines if line.strip())
            return list(dict.fromkeys(x.parent.name if x.suffix else x.name for x in firsts))
    raise DataError(
        f"data.split is {split}, but {lists} has no {split}.txt in {' or '.join(folders)}; it must be the "
        "name of a list"
    )


def _video(name: str, pictures: Path, masks: Path, n_frames: int | None, one_object: bool) -> DAVISVideo:
    if not pictures.is_dir():
        raise DataError(f"{pictures}: no such video; its folder of pictures is needed")
    files = by_number(str(path) for path in _ending(pictures, ".jpg"))[:n_frames]
    if len(files) < 2:
        raise DataError(
            f"{pictures}: too few frames, {len(files)}; at least 2, such as 00000.jpg and 00001.jpg, are needed"
        )
    there = {path.stem: str(path) for path in _ending(masks, ".png")}
    if not there:
        raise DataError(f"{masks}: no masks of video {name}; files such as 00000.png are needed")
    for file in files:
        if Path(file).stem not in there:
            raise DataError(f"{file}: no mask {masks / Path(file).stem}.png; each frame needs one")
    return DAVISVideo(name, files, [there[Path(file).stem] for file in files], one_object)


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _ending(folder: Path, ending: str) -> list[Path]:
    """The files of a folder with such an ending, in no order; none where the folder is missing."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.suffix == ending and not path.name.startswith(".")]
