"""Kinetics-400: whole, short videos, each of one action (supplement, section B)."""

from __future__ import annotations

from pathlib import Path

from evt.data.actions import Segments, whole_videos
from evt.data.annotation_files import read_csv, shown
from evt.data.opening import Reader
from evt.errors import DataError

FPS = 25.0
"""The frame rate at which the published evaluation decodes the videos."""


class Kinetics(Segments):
    """The videos of a csv, in its order, under the names `<youtube_id>_<start>_<end>` with times of six digits.

    Classes are numbered from 0 in the alphabetical order of the csv's labels, which for the csv of a whole split
    is the order of the published checkpoints.

    Args:
        annotations: a csv with the columns label, youtube_id, time_start, time_end and split.
        videos: a folder with the files, directly in it or in a folder for each label.
        split: the rows to take by their column split; None for all.
        labels_from: a csv that holds all labels, where `annotations` is a selection without some of them.
        reader: of the videos, see `evt.data.open_video`.

    Raises:
        DataError: a csv is missing, lacks a column or has a value that cannot be, or no video is there.

    Attributes:
        classes: the labels, in their order.
    """

    if_other_classes = "for a selection of Kinetics, data.labels_from is a csv with all of them"

    def __init__(
        self,
        annotations: str | Path,
        videos: str | Path,
        split: str | None = None,
        labels_from: str | Path | None = None,
        reader: Reader = "auto",
    ) -> None:
        path = Path(annotations)
        self.name = f"Kinetics-400 {split or path.stem}"
        table = read_csv(path, ["label", "youtube_id", "time_start", "time_end", "split"])
        every = table if labels_from is None else read_csv(Path(labels_from), ["label"])
        self.classes = sorted(set(every["label"]))
        self.n_classes = len(self.classes)
        if split is not None:
            allowed = sorted(set(table["split"]))
            table = table[table["split"] == split]
            if table.empty:
                raise DataError(f"{path}: no row is of split {split}; allowed are {', '.join(allowed)}")
        classes = {label: i for i, label in enumerate(self.classes)}
        labels: dict[str, int] = {}
        lines: dict[str, int] = {}
        for line, label, youtube_id, start, end, _ in table.itertuples():
            where = f"{path}, line {line}"
            if label not in classes:
                raise DataError(f"{where}: label {label!r} is not among those of {labels_from}; it must be")
            name = f"{youtube_id}_{_seconds(start, where):06d}_{_seconds(end, where):06d}"
            if name in lines:
                raise DataError(f"{where}: {name} is in line {lines[name]} too; each video counts once")
            lines[name] = line
            labels[name] = classes[label]
        super().__init__(*whole_videos(labels, path, Path(videos), ".mp4", FPS, reader, below=True))


def _seconds(text: str, where: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value.is_integer() or value < 0:
        raise DataError(f"{where}: {shown(text)} is no time; a whole number of seconds is needed")
    return int(value)
