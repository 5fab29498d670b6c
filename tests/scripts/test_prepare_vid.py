"""scripts/prepare_vid.py on good trees and on broken ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from evt.data.sprites import SpriteVideos
from evt.data.sprites.writing import write_vid
from evt.data.vid import VID
from tests.common import ROOT
from tests.data.test_vid import assert_same, write_det
from tests.data.vid_tree import CAR, VIDEOS, coco_json, write_frame, write_json, write_tree, write_xml

SCRIPT = ROOT / "scripts/prepare_vid.py"
FIRST = "ILSVRC2015_val_00000000"


@pytest.fixture
def prepare_vid(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import prepare_vid

    return prepare_vid


def test_it_runs_as_a_command(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    done = subprocess.run([sys.executable, SCRIPT, root, "--decode"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{root}, split val: 2 videos, 8 frames, 4 sequences, 9 boxes\nall is well\n"
    assert "Traceback" not in done.stderr


def test_train_and_json_are_counted_too(
    tmp_path: Path, prepare_vid: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = "2 videos, 8 frames, 4 sequences, 9 boxes\nall is well"
    root = write_tree(
        tmp_path, {f"ILSVRC2015_VID_train_0000/{name}": x for name, x in VIDEOS.items()}, "VID/train"
    )
    assert prepare_vid.main([str(root), "--split", "train"]) == 0
    assert counts in capsys.readouterr().out
    write_tree(tmp_path)
    assert prepare_vid.main([str(root), "--json", str(write_json(tmp_path / "x.json", coco_json()))]) == 0
    assert counts in capsys.readouterr().out


def test_the_json_that_it_writes_is_the_same_data_set(tmp_path: Path, prepare_vid: ModuleType) -> None:
    write_det(write_tree(tmp_path))
    for split in ("val", "det"):
        out = tmp_path / f"{split}.json"
        assert prepare_vid.main([str(tmp_path), "--split", split, "--write-json", str(out)]) == 0
        assert_same(VID(tmp_path, split), VID(tmp_path, split, annotations=out))


def test_a_tree_of_other_classes_becomes_a_json_of_them(tmp_path: Path, prepare_vid: ModuleType) -> None:
    write_vid(SpriteVideos(2, 3, (96, 128)), tmp_path, "val", "png")
    out = tmp_path / "val.json"
    assert prepare_vid.main([str(tmp_path), "--write-json", str(out)]) == 0
    read = VID(tmp_path, annotations=out)
    assert tuple(read.classes) == SpriteVideos.classes
    assert_same(VID(tmp_path), read)


def test_classes_that_cannot_be_are_told(
    tmp_path: Path, prepare_vid: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    (write_tree(tmp_path) / "classes.txt").write_text("car\ncar\n")
    assert prepare_vid.main([str(tmp_path)]) == 1
    assert "classes.txt is empty or names a class twice" in capsys.readouterr().out


def test_everything_that_is_wrong_is_named_at_once(
    tmp_path: Path, prepare_vid: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person who downloads 86 GB wants one list of what to fetch again, not one error a run."""
    root = write_tree(tmp_path)
    data, annotations = root / "Data/VID/val", root / "Annotations/VID/val"
    (annotations / FIRST / "000000.xml").unlink()
    (annotations / FIRST / "000001.xml").write_text("<annotation>")
    write_xml(annotations / FIRST / "000002.xml", [(CAR, 0, 0, 999, 9)])
    write_xml(annotations / FIRST / "000003.xml", [])
    write_xml(annotations / "only_xml" / "000000.xml", [])
    write_frame(data / "only_frames/000000.JPEG", 0)
    picture = data / "ILSVRC2015_val_00007010/000011.JPEG"
    picture.write_bytes(picture.read_bytes()[:-100])
    assert prepare_vid.main([str(root)]) == 1
    printed = capsys.readouterr().out
    for expected in (
        f"{FIRST}/000000.xml: no such annotation",
        f"{FIRST}/000001.xml: not whole XML",
        f"{FIRST}/000002.xml: object 1 ({CAR}) has a box outside the frame",
        f"{FIRST}/000003.xml: there is no frame for it",
        f"{data}/only_xml: no frames of this video",
        f"{annotations}/only_frames: no XML files of this video",
        "6 things are missing or broken",
        "3 videos, 9 frames, 5 sequences, 4 boxes",
    ):
        assert expected in printed
    assert prepare_vid.main([str(root), "--decode"]) == 1
    assert f"{picture}: the picture is truncated" in capsys.readouterr().out


def test_frames_that_are_there_twice_are_named(
    tmp_path: Path, prepare_vid: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(tmp_path)
    folder = root / "Data/VID/val" / FIRST
    write_frame(folder / "000001.jpg", 1)
    assert prepare_vid.main([str(root)]) == 1
    message = f"{folder}/000001.JPEG and {folder}/000001.jpg are of the same frame number"
    assert message in capsys.readouterr().out
    content = coco_json()
    content["images"].append({**content["images"][0], "id": 7})
    assert prepare_vid.main([str(root), "--json", str(write_json(tmp_path / "x.json", content))]) == 1
    assert "images[0] and images[8] both have file_name" in capsys.readouterr().out


def test_det_pictures_that_are_there_twice_are_named(
    tmp_path: Path, prepare_vid: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_det(tmp_path) / "Data/DET/train/ILSVRC2014_train_0000"
    write_frame(folder / "ILSVRC2014_train_00000001.png", 1)
    assert prepare_vid.main([str(tmp_path), "--split", "det"]) == 1
    message = (
        f"{folder}/ILSVRC2014_train_00000001.JPEG and {folder}/ILSVRC2014_train_00000001.png are of the same"
    )
    assert message in capsys.readouterr().out


def test_pictures_that_cannot_be_are_named(
    tmp_path: Path, prepare_vid: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another format than their name says, and with a checksum that does not hold."""
    root = write_tree(tmp_path, ending="png")
    folder = root / "Data/VID/val" / FIRST
    Image.new("RGB", (8, 8)).save(folder / "000000.png", format="EPS")
    content = (folder / "000001.png").read_bytes()
    (folder / "000001.png").write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    assert prepare_vid.main([str(root), "--decode"]) == 1
    printed = capsys.readouterr().out
    assert f"{folder}/000000.png: not a picture in one of the formats JPEG" in printed
    assert "the checksum of the PNG chunk b'IDAT'" in printed
    assert "2 things are missing or broken" in printed


def test_a_json_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, prepare_vid: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(tmp_path)
    (tmp_path / "file").write_text("")
    for out, told in (
        (tmp_path / "file/x/y.json", f"{tmp_path}/file/x: not a directory"),
        (tmp_path, f"{tmp_path}: is a folder, and a file is to be written there"),
    ):
        assert prepare_vid.main([str(root), "--write-json", str(out)]) == 1
        assert capsys.readouterr().out.splitlines() == [told]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (".", "which is not a folder"),
        ("Data", "Data/VID/val: no such folder"),
        ("Annotations", "Annotations/VID/val: no such folder"),
    ],
)
def test_missing_folders_are_one_line_each(
    tmp_path: Path, prepare_vid: ModuleType, capsys: pytest.CaptureFixture[str], missing: str, message: str
) -> None:
    root = write_tree(tmp_path / "ILSVRC2015")
    (root / missing).resolve().rename(tmp_path / "elsewhere")
    assert prepare_vid.main([str(root)]) == 1
    printed = capsys.readouterr().out
    assert printed.count(message) == 1
    assert len(printed.splitlines()) <= 4


def test_det_and_json_problems_are_named(
    tmp_path: Path, prepare_vid: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_det(write_tree(tmp_path))
    picture = root / "Data/DET/train/ILSVRC2014_train_0000/ILSVRC2014_train_00000004.JPEG"
    picture.unlink()
    assert prepare_vid.main([str(root), "--split", "det"]) == 1
    assert f"{picture}: no such picture" in capsys.readouterr().out
    frame = root / "Data/VID/val" / FIRST / "000000.JPEG"
    frame.unlink()
    assert prepare_vid.main([str(root), "--json", str(write_json(tmp_path / "val.json", coco_json()))]) == 1
    assert f"{frame}: no such picture" in capsys.readouterr().out
    assert prepare_vid.main([str(root), "--json", str(tmp_path / "none.json")]) == 1
    assert "none.json: no such annotation file" in capsys.readouterr().out
    content = coco_json()
    content["videos"][1]["name"] = content["videos"][0]["name"]
    assert prepare_vid.main([str(root), "--json", str(write_json(tmp_path / "twice.json", content))]) == 1
    assert "twice.json: videos[0] and videos[1] both have name 'val/" in capsys.readouterr().out


def test_a_picture_of_another_size_than_its_annotation_is_named(
    tmp_path: Path, prepare_vid: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its boxes would lie beside the objects, and every detection would be wrong."""
    root = write_tree(tmp_path)
    xml = root / "Annotations/VID/val" / FIRST / "000001.xml"
    xml.write_text(xml.read_text().replace("<width>64<", "<width>128<"))
    assert prepare_vid.main([str(root), "--decode"]) == 1
    message = "000001.JPEG: the picture is 64x48 pixels, but its annotation says 128x48"
    assert message in capsys.readouterr().out
    content = coco_json()
    content["images"][1]["width"] = 128
    path = write_json(tmp_path / "val.json", content)
    assert prepare_vid.main([str(root), "--decode", "--json", str(path)]) == 1
    assert message in capsys.readouterr().out
