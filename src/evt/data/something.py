"""Something-Something v2: short videos of hands that do something with things."""

from __future__ import annotations

import re
from pathlib import Path

from evt.data.actions import Segments, whole_videos
from evt.data.annotation_files import read_json, shown
from evt.data.opening import Reader
from evt.errors import DataError


class SomethingSomething(Segments):
    """The videos `<id>.webm` of an annotation file, in its order, with all their frames.

    The class of a video is the number that the label file gives to its template without square brackets.

    Args:
        annotations: a json list of objects with the keys id and template, such as validation.json.
        labels: a json object from each template to its number, labels.json.
        videos: the folder with the files.
        reader: of the videos, see `evt.data.open_video`.

    Raises:
        DataError: a file is missing or of another form, a template has no number, or no video is there.

    Attributes:
        classes: the templates, in the order of their numbers.
    """

    def __init__(
        self, annotations: str | Path, labels: str | Path, videos: str | Path, reader: Reader = "auto"
    ) -> None:
        path, labels_path = Path(annotations), Path(labels)
        self.name = f"Something-Something v2 {path.stem}"
        classes = _classes(labels_path)
        entries = read_json(path, "a json file")
        if not isinstance(entries, list) or not entries:
            raise DataError(
                f"{path}: holds no list of videos; a list of objects with the keys id and template is needed"
            )
        self.n_classes = len(classes)
        self.classes = sorted(classes, key=classes.__getitem__)
        numbers: dict[str, int] = {}
        for i, entry in enumerate(entries):
            where = f"{path}, entry {i + 1}"
            for key in ("id", "template"):
                if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
                    raise DataError(f"{where}: has no {key} that is a text; id and template are needed")
            name, template = entry["id"], entry["template"].replace("[", "").replace("]", "")
            if template not in classes:
                raise DataError(
                    f"{where}: {template!r} is not among the templates of {labels_path}; it must be"
                )
            if name in numbers:
                raise DataError(f"{where}: {name} is there a second time; each video counts once")
            numbers[name] = classes[template]
        super().__init__(*whole_videos(numbers, path, Path(videos), ".webm", reader=reader))


def _classes(path: Path) -> dict[str, int]:
    """The number of each template; they are 0, 1, 2, ... in some order."""
    numbers = read_json(path, "a json file")
    if not isinstance(numbers, dict) or not numbers:
        raise DataError(f"{path}: holds no labels; an object from each template to its number is needed")
    classes: dict[str, int] = {}
    for template, number in numbers.items():
        whole = re.fullmatch(r"\d{1,9}", str(number))
        if not whole or int(number) >= len(numbers) or int(number) in classes.values():
            raise DataError(
                f"{path}: {template!r} has the number {shown(number)}; {len(numbers)} templates have the numbers "
                f"0 to {len(numbers) - 1}, each once"
            )
        classes[template] = int(number)
    return classes
