"""Something-Something v2: labels by template, the distributed webm files, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evt.data.something import SomethingSomething
from evt.errors import DataError
from tests.videos import frame_numbers, write_video

LABELS = {"Holding something": "1", "Putting something similar to other things": "0"}
ENTRIES = [
    {"id": "41775", "label": "holding a cup", "template": "Holding [something]", "placeholders": ["a cup"]},
    {"id": "99", "template": "Putting [something similar to other things]"},
    {"id": "7", "template": "Holding [something]"},
]


def write(root: Path, entries: Any = ENTRIES, labels: Any = LABELS) -> tuple[Path, Path, Path]:
    for name, content in (("validation.json", entries), ("labels.json", labels)):
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (root / "videos").mkdir(exist_ok=True)
    return root / "validation.json", root / "labels.json", root / "videos"


def test_videos_have_the_number_of_their_template_and_the_missing_are_listed(tmp_path: Path) -> None:
    paths = write(tmp_path)
    for name, n in (("41775", 8), ("99", 5)):
        write_video(paths[2] / f"{name}.webm", n, fps=12)
    data = SomethingSomething(*paths)
    assert [(clip.name, clip.label, len(clip.frames)) for clip in data] == [("41775", 1, 8), ("99", 0, 5)]
    assert frame_numbers(data[0].frames[[0, 3, 7]]) == [0, 3, 7]
    assert data.missing == ["7"]
    assert data.n_classes == 2


@pytest.mark.parametrize(
    ("entries", "labels", "message"),
    [
        ("[", LABELS, "validation.json: not whole json"),
        ([], LABELS, "validation.json: holds no list of videos"),
        (
            [{"id": 7, "template": "Holding [something]"}],
            LABELS,
            "entry 1: has no id that is a text",
        ),
        (
            [{"id": "7", "template": "Eating [something]"}],
            LABELS,
            "'Eating something' is not among the templates",
        ),
        ([ENTRIES[0], ENTRIES[0]], LABELS, "entry 2: 41775 is there a second time"),
        (ENTRIES, ["Holding something"], "labels.json: holds no labels"),
        (ENTRIES, {}, "labels.json: holds no labels"),
        (ENTRIES, {**LABELS, "Holding something": "2"}, "'Holding something' has the number '2'"),
        (
            ENTRIES,
            dict.fromkeys(LABELS, "0"),
            "has the number '0'; 2 templates have the numbers 0 to 1, each once",
        ),
        (ENTRIES, LABELS, "none of the 3 videos of .* is here, the first as 41775.webm"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(
    tmp_path: Path, entries: Any, labels: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        SomethingSomething(*write(tmp_path, entries, labels))


def test_missing_files_are_named(tmp_path: Path) -> None:
    annotations, labels, videos = write(tmp_path)
    with pytest.raises(DataError, match=r"none.json: no such annotation file"):
        SomethingSomething(tmp_path / "none.json", labels, videos)
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        SomethingSomething(annotations, labels, tmp_path / "nowhere")
