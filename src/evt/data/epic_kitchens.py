"""EPIC-Kitchens 100: verbs in segments of full-length videos (section 5.2)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from evt.data.actions import Segment, Segments, find_videos
from evt.data.annotation_files import read_csv, shown
from evt.data.opening import Reader
from evt.errors import DataError

N_VERBS = 97
VERB_CLASSES = "EPIC_100_verb_classes.csv"

FPS = 30.0
"""The frame rate for which the published ViViT takes every frame; videos are stored at 50 or 60."""


class EpicKitchens(Segments):
    """The segments of one split, in the order of its csv, labelled with their verbs.

    Videos are found, under any usual ending, in `videos/` and in the folders in which they are distributed:
    `P01/videos/`, also below `EPIC-KITCHENS/`.

    Args:
        root: the folder that holds `EPIC_100_<split>.csv` and the videos.
        split: which csv.
        reader: of the videos, see `evt.data.open_video`.

    Raises:
        DataError: a csv is missing, lacks a column or has a value that cannot be, or no video is there.

    Attributes:
        classes: the names of the verbs in their order, where `EPIC_100_verb_classes.csv` lies there, too; else none.
    """

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "validation"] = "validation",
        reader: Reader = "auto",
    ) -> None:
        self.name = f"EPIC-Kitchens 100 {split}"
        root = Path(root)
        segments = read_segments(root / f"EPIC_100_{split}.csv")
        folders = [
            root / "videos",
            *sorted(root.glob("P*/videos")),
            root / "EPIC-KITCHENS" / "videos",
            *sorted(root.glob("EPIC-KITCHENS/P*/videos")),
        ]
        videos = find_videos(folders)
        found = [
            (Segment(videos[video], name, FPS, start, stop, reader), verb)
            for name, video, verb, start, stop in segments
            if video in videos
        ]
        super().__init__(found, [name for name, video, *_ in segments if video not in videos])
        if not found:
            raise DataError(
                f"{root}: none of the {len({video for _, video, *_ in segments})} videos of EPIC_100_{split}.csv "
                "is in videos/, P*/videos/ or EPIC-KITCHENS/P*/videos/; at least 1 is needed"
            )

        verbs = root / VERB_CLASSES
        self.classes = read_verbs(verbs) if verbs.exists() else ()

    @property
    def n_classes(self) -> int:
        """The verbs."""
        return N_VERBS


def read_verbs(path: Path) -> list[str]:
    """The names of the verbs, in the order of their numbers, from EPIC_100_verb_classes.csv.

    Raises:
        DataError: it lacks a column, or its ids are not the numbers of the verbs, each once.
    """
    names = {number: key for _, number, key in read_csv(path, ["id", "key"]).itertuples()}
    if set(names) != set(map(str, range(N_VERBS))):
        raise DataError(f"{path}: its ids must be the whole numbers from 0 to {N_VERBS - 1}, each once")
    return [names[str(number)] for number in range(N_VERBS)]


def read_segments(path: Path) -> list[tuple[str, str, int, float, float]]:
    """The rows of an EPIC-Kitchens 100 csv: narration, video, verb class, start and stop in seconds.

    Raises:
        DataError: see `EpicKitchens`; the message names file and line.
    """
    columns = ["narration_id", "video_id", "verb_class", "start_timestamp", "stop_timestamp"]
    segments = []
    lines: dict[str, int] = {}
    for line, name, video, verb, start, stop in read_csv(path, columns).itertuples():
        if name in lines:
            raise DataError(
                f"{path}, line {line}: narration_id {name} is that of line {lines[name]} too; each needs its own"
            )
        lines[name] = line
        if not re.fullmatch(r"\d{1,9}", verb) or int(verb) >= N_VERBS:
            raise DataError(
                f"{path}, line {line}: verb_class is {shown(verb)}; verbs are whole numbers from 0 to {N_VERBS - 1}"
            )
        seconds = (_seconds(start, f"{path}, line {line}"), _seconds(stop, f"{path}, line {line}"))
        segments.append((name, video, int(verb), *seconds))
    return segments


def _seconds(timestamp: str, where: str) -> float:
    match = re.fullmatch(r"(\d{1,4}):([0-5]?\d):([0-5]?\d(?:\.\d*)?)", timestamp)
    if match is None:
        raise DataError(
            f"{where}: {shown(timestamp)} is no time; hours:minutes:seconds is needed, as in 00:01:02.50"
        )
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
