"""Kinetics-400: whole, short videos, each of one action (supplement, section B)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evt.data.actions import LabelledClip, Segment, find_videos
from evt.data.annotation_files import read_csv, shown
from evt.data.reader import Reader
from evt.errors import DataError

FPS = 25.0
"""The frame rate at which the published evaluation decodes the videos."""


class Kinetics:
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
    """

    def __init__(
        self,
        annotations: str | Path,
        videos: str | Path,
        split: str | None = None,
        labels_from: str | Path | None = None,
        reader: Reader = "auto",
    ) -> None:
        self._reader = reader
        path, folder = Path(annotations), Path(videos)
        self.name = f"Kinetics-400 {split or path.stem}"
        table = read_csv(path, ["label", "youtube_id", "time_start", "time_end", "split"])
        every = table if labels_from is None else read_csv(Path(labels_from), ["label"])
        self.labels = sorted(set(every["label"]))
        if split is not None:
            allowed = sorted(set(table["split"]))
            table = table[table["split"] == split]
            if table.empty:
                raise DataError(f"{path}: no row is of split {split}; allowed are {', '.join(allowed)}")
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; the videos of {path} are needed")

        files = find_videos([folder, *sorted(below for below in folder.iterdir() if below.is_dir())])
        classes = {label: i for i, label in enumerate(self.labels)}
        self._videos: list[tuple[str, int, Path]] = []
        self.missing: list[str] = []
        lines: dict[str, int] = {}
        for line, label, youtube_id, start, end, _ in table.itertuples():
            where = f"{path}, line {line}"
            if label not in classes:
                raise DataError(f"{where}: label {label!r} is not among those of {labels_from}; it must be")
            name = f"{youtube_id}_{_seconds(start, where):06d}_{_seconds(end, where):06d}"
            if name in lines:
                raise DataError(f"{where}: {name} is in line {lines[name]} too; each video counts once")
            lines[name] = line
            if name in files:
                self._videos.append((name, classes[label], files[name]))
            else:
                self.missing.append(name)
        if not self._videos:
            raise DataError(
                f"{folder}: none of the {len(self.missing)} videos of {path} is here or one folder below, "
                f"the first as {self.missing[0]}.mp4; at least 1 is needed"
            )

    @property
    def classes(self) -> list[str]:
        """The names of the labels, in their order."""
        return self.labels

    @property
    def n_classes(self) -> int:
        """The labels of the csv."""
        return len(self.labels)

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, i: int) -> LabelledClip:
        name, label, path = self._videos[i]
        return Segment(path, name, FPS, reader=self._reader).labelled(label)

    def __iter__(self) -> Iterator[LabelledClip]:
        return (self[i] for i in range(len(self)))


def _seconds(text: str, where: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value.is_integer() or value < 0:
        raise DataError(f"{where}: {shown(text)} is no time; a whole number of seconds is needed")
    return int(value)
