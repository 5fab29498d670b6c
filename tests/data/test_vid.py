"""ImageNet VID from its tree and from json, good and bad."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from evt.data.vid import VID, VIDVideo
from evt.data.vid_annotations import CLASSES, LABEL_OF_SYNSET, SYNSETS, read_annotation
from evt.data.vid_coco import CocoWriter, read_coco
from evt.data.video import Frame
from evt.errors import DataError
from tests.common import VID_FRAMES, needs_vid_frames
from tests.data.vid_tree import (
    CAR,
    HEIGHT,
    LABELS,
    TURTLE,
    VIDEOS,
    WIDTH,
    Object,
    coco_json,
    write_frame,
    write_json,
    write_tree,
    write_xml,
)


def assert_same(a: VID, b: VID, names: bool = True) -> None:
    assert [video.name for video in a] == [video.name for video in b]
    for one, other in zip(a, b, strict=True):
        assert len(one) == len(other)
        for x, y in zip(one, other, strict=True):
            assert_same_frame(x, y)
            assert not names or x.name == y.name


def assert_same_frame(x: Frame, y: Frame) -> None:
    assert x.first == y.first
    assert torch.equal(x.image, y.image)
    assert x.target is not None
    assert y.target is not None
    assert torch.equal(x.target.boxes, y.target.boxes)
    assert torch.equal(x.target.labels, y.target.labels)
    assert x.target.boxes.dtype == y.target.boxes.dtype == torch.float32
    assert x.target.labels.dtype == y.target.labels.dtype == torch.int64


def test_the_classes_are_in_the_usual_order() -> None:
    """A detector's outputs are numbered so: any other order would read its turtles as trains."""
    assert len(CLASSES) == len(SYNSETS) == len(LABEL_OF_SYNSET) == 30
    assert list(CLASSES) == sorted(CLASSES)
    assert (CLASSES[0], CLASSES[9], CLASSES[26], CLASSES[29]) == (
        "airplane",
        "domestic_cat",
        "turtle",
        "zebra",
    )
    assert {synset: LABEL_OF_SYNSET[synset] for synset in LABELS} == LABELS


def test_frames_and_targets_of_the_tree(tmp_path: Path) -> None:
    data = VID(write_tree(tmp_path))
    assert [video.name for video in data] == list(VIDEOS)
    assert [len(video) for video in data] == [3, 5]
    for video in data:
        for frame, (number, objects) in zip(video, VIDEOS[video.name].items(), strict=True):
            assert frame.name == str(tmp_path / "Data/VID/val" / video.name / f"{number:06}.JPEG")
            assert frame.image.shape == (3, HEIGHT, WIDTH)
            assert frame.target is not None
            assert frame.target.boxes.tolist() == [list(box) for _, *box in objects]
            assert frame.target.labels.tolist() == [LABELS[synset] for synset, *_ in objects]
            assert frame.target.boxes.shape == (len(objects), 4)


def test_a_gap_in_the_frame_numbers_begins_a_new_sequence(tmp_path: Path) -> None:
    """Else a stream would compare frames that lie seconds apart, where the published run flushes."""
    firsts = [[frame.first for frame in video] for video in VID(write_tree(tmp_path))]
    assert firsts == [[True, False, False], [True, False, True, True, False]]


def resize(root: Path, video: str, number: int, xml: bool = True) -> None:
    """Make a frame half as high as it was."""
    path = root / f"Data/VID/val/{video}/{number:06}.JPEG"
    Image.new("RGB", (WIDTH, HEIGHT // 2)).save(path)
    if xml:
        annotation = root / f"Annotations/VID/val/{video}/{number:06}.xml"
        write_xml(annotation, [])
        text = annotation.read_text()
        annotation.write_text(text.replace(f"<height>{HEIGHT}<", f"<height>{HEIGHT // 2}<"))


def test_a_change_of_size_begins_a_new_sequence(tmp_path: Path) -> None:
    """Else the stream would compare the frame with one that lies elsewhere in its input."""
    root = write_tree(tmp_path)
    resize(root, "ILSVRC2015_val_00000000", 1)
    resize(root, "ILSVRC2015_val_00007010", 5)
    firsts = [[frame.first for frame in video] for video in VID(root)]
    assert firsts == [[True, True, True], [True, True, True, True, False]]
    assert not VID(root)[0][1].first  # a frame on its own does not know the one before


def test_a_picture_of_another_size_than_its_annotation_is_refused(tmp_path: Path) -> None:
    """Its boxes would lie beside the objects, and count against the detector."""
    root = write_tree(tmp_path)
    resize(root, "ILSVRC2015_val_00000000", 1, xml=False)
    path = write_json(tmp_path / "val.json", coco_json())
    message = r"000001\.JPEG: the picture is 64x24 pixels, but its annotation says 64x48"
    for data in (VID(root), VID(root, annotations=path)):
        with pytest.raises(DataError, match=message):
            list(data[0])
        with pytest.raises(DataError, match=message):
            data[0][1]
        assert data[0][0].image.shape == (3, HEIGHT, WIDTH)


def test_a_turned_picture_is_compared_as_it_is_shown(tmp_path: Path) -> None:
    """detectron2 holds the width and height of an annotation against the picture after its EXIF turn."""
    root, exif = write_tree(tmp_path), Image.Exif()
    exif[274] = 6
    path = root / "Data/VID/val/ILSVRC2015_val_00000000/000001.JPEG"
    Image.new("RGB", (HEIGHT, WIDTH)).save(path, exif=exif)
    assert VID(root)[0][1].image.shape == (3, HEIGHT, WIDTH)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, exif=exif)
    with pytest.raises(DataError, match=rf"the picture is {HEIGHT}x{WIDTH} pixels, but its annotation says"):
        VID(root)[0][1]


@pytest.mark.parametrize("ending", ["webp", "bmp", "tiff", "TIF", "JPG"])
def test_a_tree_of_other_pictures_is_read(tmp_path: Path, ending: str) -> None:
    assert [len(video) for video in VID(write_tree(tmp_path, ending=ending))] == [3, 5]
    assert VID(tmp_path)[0][0].image.shape == (3, HEIGHT, WIDTH)


def test_det_pictures_that_differ_in_their_ending_only_are_refused(tmp_path: Path) -> None:
    """Which of them is meant, their annotation does not say."""
    path = write_det(tmp_path) / "Data/DET/train/ILSVRC2014_train_0000/ILSVRC2014_train_00000001.png"
    write_frame(path, 0)
    with pytest.raises(DataError, match=r"00000001\.JPEG and .*00000001\.png are of the same name"):
        VID(tmp_path, "det")


@pytest.mark.parametrize("second", ["000001.jpg", "1.JPEG", "000001.png"])
def test_a_frame_that_is_there_twice_is_refused(tmp_path: Path, second: str) -> None:
    """Which of them came first would be chance, and mAP50 would count the frame twice."""
    root = write_tree(tmp_path)
    write_frame(root / "Data/VID/val/ILSVRC2015_val_00000000" / second, 1)
    names = sorted(["000001.JPEG", second])
    with pytest.raises(DataError, match=rf"{names[0]} and .*{names[1]} are of the same frame number"):
        VID(root)


def test_pictures_that_differ_in_their_ending_only_are_refused(tmp_path: Path) -> None:
    """A json for DET names its videos after its pictures: two would become one."""
    write_det(tmp_path)
    content = coco_json()
    for ending, image in zip(("JPEG", "jpg"), content["images"][:2], strict=True):
        image["file_name"] = f"train/a.{ending}"
        content["annotations"].append(
            {"image_id": image["id"], "category_id": 10, "bbox": [0, 0, 9, 9]},
        )
    with pytest.raises(DataError, match=r"train/a\.JPEG and train/a\.jpg are of the same name"):
        VID(tmp_path, "det", annotations=write_json(tmp_path / "det.json", content))


def test_the_fingerprint_tells_changed_data(tmp_path: Path) -> None:
    """Else a resumed run would take results of other data for those of these."""
    root = write_tree(tmp_path)

    def of_json(edit: Callable[[dict[str, Any]], object] = lambda content: None) -> str:
        content = coco_json()
        edit(content)
        video: VIDVideo = VID(root, annotations=write_json(tmp_path / "val.json", content))[0]
        return video.fingerprint

    def relabel(content: dict[str, Any]) -> None:
        content["annotations"][0]["category_id"] = 12

    def move_box(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"][0] += 1

    def move_to_next_frame(content: dict[str, Any]) -> None:
        # The order of the boxes and their numbers stay; only which frame the middle one is of changes.
        content["annotations"][2]["image_id"] = content["annotations"][0]["image_id"]

    of_tree = VID(root)[0].fingerprint
    assert of_tree == VID(root)[0].fingerprint
    assert of_json() == of_json()
    assert len({of_tree, of_json(), of_json(relabel), of_json(move_box), of_json(move_to_next_frame)}) == 5
    write_frame(root / "Data/VID/val/ILSVRC2015_val_00000000/000003.JPEG", 3)
    assert VID(root)[0].fingerprint != of_tree


def test_json_and_tree_are_the_same_data_set(tmp_path: Path) -> None:
    tree = VID(write_tree(tmp_path / "ILSVRC2015"))
    path = write_json(tmp_path / "val.json", coco_json())
    assert_same(tree, VID(tmp_path / "ILSVRC2015", annotations=path))


@pytest.mark.parametrize("prefix", ["val/", ""])
def test_json_finds_frames_below_the_split_and_without_the_xml_tree(tmp_path: Path, prefix: str) -> None:
    write_tree(tmp_path / "whole")
    (tmp_path / "frames").mkdir()
    (tmp_path / "whole/Data").rename(tmp_path / "frames/Data")
    path = write_json(tmp_path / "val.json", coco_json(prefix=prefix))
    write_tree(tmp_path / "whole")
    assert_same(VID(tmp_path / "whole"), VID(tmp_path / "frames", annotations=path), names=False)


def test_a_written_png_tree_is_read(tmp_path: Path) -> None:
    for folder, ending in (("a", "png"), ("b", "PNG")):
        data = VID(write_tree(tmp_path / folder, ending=ending))
        path = write_json(tmp_path / "val.json", coco_json(ending=ending))
        assert_same(data, VID(tmp_path / folder, annotations=path))


def test_frames_that_a_json_leaves_out_are_gaps(tmp_path: Path) -> None:
    content = coco_json()
    content["images"] = [image for image in content["images"] if image["frame_id"] != 1]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [x for x in content["annotations"] if x["image_id"] in kept]
    video = VID(write_tree(tmp_path), annotations=write_json(tmp_path / "val.json", content))[0]
    assert [frame.first for frame in video] == [True, True]


def test_the_written_json_is_the_same_data_set(tmp_path: Path) -> None:
    """The classes of the file are numbered from 1 and named, as evaluation tools expect."""
    tree, writer = VID(write_tree(tmp_path)), CocoWriter()
    for name, frames in VIDEOS.items():
        for number in frames:
            annotation = read_annotation(tmp_path / f"Annotations/VID/val/{name}/{number:06}.xml")
            writer.add(f"val/{name}/{number:06}.JPEG", annotation, f"val/{name}", number)
    writer.write(tmp_path / "new/val.json")
    assert_same(tree, VID(tmp_path, annotations=tmp_path / "new/val.json"))
    content = json.loads((tmp_path / "new/val.json").read_text())
    [car] = [x for x in content["annotations"] if x["image_id"] == 3 and x["category_id"] == 7]
    assert car["bbox"] == [1, 0, 10, 10]
    assert car["area"] == 100
    assert content["categories"][6] == {"id": 7, "name": "car", "encode_name": CAR}
    assert content["images"][7]["frame_id"] == 12


def test_train_has_a_further_folder_level(tmp_path: Path) -> None:
    part = "ILSVRC2015_VID_train_0001/"
    videos = {part + name: frames for name, frames in VIDEOS.items()}
    tree = VID(write_tree(tmp_path, videos, "VID/train"), "train")
    assert [video.name for video in tree] == list(videos)
    path = write_json(tmp_path / "train.json", coco_json(videos, "train/"))
    assert_same(tree, VID(tmp_path, "train", annotations=path))


def write_det(root: Path) -> Path:
    """Three pictures with an object of the 30 classes, two without, and one that has no XML file."""
    pictures: dict[str, list[Object]] = {
        "ILSVRC2013_train/n02958343/n02958343_1": [(CAR, 1, 2, 30, 40), ("n00007846", 0, 0, 20, 20)],
        "ILSVRC2014_train_0000/ILSVRC2014_train_00000001": [(TURTLE, 0, 0, 5, 5)],
        "ILSVRC2014_train_0000/ILSVRC2014_train_00000002": [("n00007846", 0, 0, 20, 20)],
        "ILSVRC2014_train_0000/ILSVRC2014_train_00000003": [],
        "ILSVRC2014_train_0000/ILSVRC2014_train_00000004": [("n00007846", 0, 0, 9, 9), (CAR, 2, 2, 9, 9)],
    }
    for i, (name, objects) in enumerate(pictures.items()):
        write_frame(root / "Data/DET/train" / f"{name}.JPEG", i)
        write_xml(root / "Annotations/DET/train" / f"{name}.xml", objects)
    write_frame(root / "Data/DET/train/ILSVRC2013_train_extra0/ILSVRC2013_train_00000001.JPEG", 9)
    return root


def test_det_is_its_pictures_of_the_30_classes(tmp_path: Path) -> None:
    data = VID(write_det(tmp_path), "det")
    assert [video.name for video in data] == [
        "ILSVRC2013_train/n02958343/n02958343_1",
        "ILSVRC2014_train_0000/ILSVRC2014_train_00000001",
        "ILSVRC2014_train_0000/ILSVRC2014_train_00000004",
    ]
    for video, label in zip(data, (6, 26, 6), strict=True):
        [frame] = video
        assert frame.first
        assert frame.target is not None
        assert frame.target.labels.tolist() == [label]


def test_det_from_json_is_the_same(tmp_path: Path) -> None:
    tree = VID(write_det(tmp_path), "det")
    size = {"width": WIDTH, "height": HEIGHT}
    names = [*(video.name for video in tree), "ILSVRC2014_train_0000/ILSVRC2014_train_00000002"]
    content: dict[str, Any] = {
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "turtle"}, {"id": 3, "name": "person"}],
        "images": [{"id": i, "file_name": f"train/{name}.JPEG", **size} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": 3, "category_id": 3, "bbox": [0, 0, 20, 20]},
            {"image_id": 2, "category_id": 3, "bbox": [0, 0, 9, 9]},
            {"image_id": 2, "category_id": 1, "bbox": [2, 2, 7, 7]},
            {"image_id": 0, "category_id": 1, "bbox": [1, 2, 29, 38]},
            {"image_id": 1, "category_id": 2, "bbox": [0, 0, 5, 5]},
        ],
    }
    assert_same(tree, VID(tmp_path, "det", annotations=write_json(tmp_path / "det.json", content)))


def test_a_broken_det_annotation_is_not_passed_over(tmp_path: Path) -> None:
    write_det(tmp_path)
    xml = tmp_path / "Annotations/DET/train/ILSVRC2014_train_0000/ILSVRC2014_train_00000002.xml"
    xml.write_text(xml.read_text()[:150])
    broken = next(video for video in VID(tmp_path, "det") if video.name.endswith("2"))
    with pytest.raises(DataError, match=r"00000002\.xml: not whole XML"):
        list(broken)


def test_the_first_videos_can_be_chosen(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    assert [video.name for video in VID(root, n_videos=1)] == ["ILSVRC2015_val_00000000"]
    assert len(VID(root, n_videos=100)) == 2
    with pytest.raises(DataError, match=r"data\.n_videos is 0; it must be a whole number"):
        VID(root, n_videos=0)


def test_a_video_can_be_sent_to_a_worker_process(tmp_path: Path) -> None:
    write_tree(tmp_path)
    for path in (None, write_json(tmp_path / "val.json", coco_json())):
        video: VIDVideo = pickle.loads(pickle.dumps(VID(tmp_path, annotations=path)[1]))
        assert_same_frame(video[2], VID(tmp_path)[1][2])


def test_xml_is_read_only_where_it_is_needed(tmp_path: Path) -> None:
    """Listing a data set must not parse hundreds of thousands of files."""
    root = write_tree(tmp_path)
    (root / "Annotations/VID/val/ILSVRC2015_val_00000000/000002.xml").write_text("<annotation>")
    frames = iter(VID(root)[0])
    next(frames), next(frames)
    with pytest.raises(DataError, match=r"000002\.xml: not whole XML"):
        next(frames)


def test_frames_without_annotations_are_read_if_asked_for(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    (root / "Annotations/VID/val/ILSVRC2015_val_00000000/000001.xml").unlink()
    with pytest.raises(DataError, match=r"000001\.xml: no such annotation"):
        list(VID(root)[0])
    targets = [frame.target is None for frame in VID(root, require_annotations=False)[0]]
    assert targets == [False, True, False]


@needs_vid_frames
def test_the_real_frames_are_read() -> None:
    [video] = VID(VID_FRAMES.parents[3], require_annotations=False)
    assert len(video) == 144
    frame = next(iter(video))
    assert frame.image.shape == (3, 720, 1280)
    assert frame.target is None
    assert sum(video.first(i) for i in range(144)) == 1
    with pytest.raises(DataError, match="has no folder Annotations/VID/val"):
        VID(VID_FRAMES.parents[3])


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (".", "which is not a folder"),
        ("Data", "has no folder Data/VID/val"),
        ("Annotations", "has no folder Annotations/VID/val"),
        ("Annotations/VID/val/ILSVRC2015_val_00007010", "the XML files of video ILSVRC2015_val_00007010"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, missing: str, message: str) -> None:
    root = write_tree(tmp_path / "ILSVRC2015")
    (root / missing).resolve().rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=message):
        VID(root)


def test_other_bad_roots_are_refused(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    with pytest.raises(DataError, match=r"data\.split is 'test'; allowed are val, train, det"):
        VID(root, "test")
    (root / "Data/VID/val/empty").mkdir()
    with pytest.raises(DataError, match="empty has no frames"):
        VID(root)
    (root / "Data/VID/val/empty").rmdir()
    write_frame(root / "Data/VID/val/ILSVRC2015_val_00000000/cover.JPEG", 0)
    with pytest.raises(DataError, match=r"cover\.JPEG: the name has no frame number"):
        VID(root)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([(CAR, 0, 0, 9, 9), ("n00007846", 0, 0, 9, 9)], r"object 2 \(n00007846\) is of an unknown synset"),
        ([(CAR, 0, 0, WIDTH + 1, 9)], r"object 1 \(n02958343\) has a box outside the frame, \(0, 0, 65, 9\)"),
        ([(CAR, 0, 0, 9, HEIGHT + 1)], "outside the frame"),
        ([(CAR, -1, 0, 9, 9)], "outside the frame"),
        ([(CAR, 0, -1, 9, 9)], "outside the frame"),
        ([(CAR, 100, 100, 120, 120)], "outside the frame"),
        ([(CAR, 9, 0, 9, 9)], r"has a box of no area, \(9, 0, 9, 9\)"),
        ([(CAR, 0, 9, 9, 3)], "has a box of no area"),
    ],
)
def test_a_bad_object_is_named(tmp_path: Path, objects: list[Object], message: str) -> None:
    write_xml(tmp_path / "000007.xml", objects)
    with pytest.raises(DataError, match=rf"000007\.xml: {message}|000007\.xml: object 1 .*{message}"):
        read_annotation(tmp_path / "000007.xml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "not whole XML"),
        (lambda text: text[:-20], "not whole XML"),
        (lambda text: "<?xml version='1.0' encoding='foo'?>" + text, "not whole XML"),
        (lambda text: "<?xml version='1.0' encoding='utf-7'?>" + text, "not whole XML"),
        (lambda text: text.replace("<width>64</width>", ""), "size/width is None; it must be a number"),
        (
            lambda text: text.replace("<xmin>1<", "<xmin>one<"),
            r"object 1 \(n02958343\): bndbox/xmin is 'one'",
        ),
        (lambda text: text.replace("<xmin>1</xmin>", ""), "bndbox/xmin is None"),
        (
            lambda text: text.replace("<width>64<", "<width>nan<"),
            "size/width is 'nan'; it must be a number",
        ),
        (lambda text: text.replace("<height>48<", "<height>inf<"), "size/height is 'inf'"),
        (lambda text: text.replace("<height>48<", "<height>1e999<"), "size/height is '1e999'"),
        (lambda text: text.replace("<xmin>1<", "<xmin>nan<"), "bndbox/xmin is 'nan'; it must be a number"),
        (
            lambda text: text.replace(f"<name>{CAR}</name>", ""),
            r"object 1 \(no name\) is of an unknown synset",
        ),
    ],
)
def test_a_broken_xml_is_named(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    path = tmp_path / "000007.xml"
    write_xml(path, [(CAR, 1, 2, 9, 9)])
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=rf"000007\.xml.*{message}"):
        read_annotation(path)


def edited(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def write(path: Path) -> object:
        content = coco_json()
        edit(content)
        return write_json(path, content)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such annotation file"),
        (lambda path: path.write_text(""), "not whole json"),
        (lambda path: path.write_text('{"images": ['), "not whole json"),
        (lambda path: path.write_text("[]"), "there is no list 'images'"),
        (edited(lambda x: x.pop("videos")), "there is no list 'videos'"),
        (edited(lambda x: x["images"][2].pop("file_name")), r"images\[2\] has no 'file_name'"),
        (edited(lambda x: x["images"][3].pop("width")), r"images\[3\] has no 'width'"),
        (edited(lambda x: x["annotations"].insert(0, 1)), r"annotations\[0\] has no 'category_id'"),
        (edited(lambda x: x["annotations"][1].pop("bbox")), r"annotations\[1\] has no 'bbox'"),
        (
            edited(lambda x: x["annotations"][1].update(bbox=[1, 2, 3])),
            "a bbox, width or height is no number",
        ),
        (edited(lambda x: x["annotations"][1].update(image_id=7)), r"annotations\[1\] has image_id 7"),
        (edited(lambda x: x["annotations"][1].update(category_id=7)), r"annotations\[1\] has category_id 7"),
        (edited(lambda x: x["categories"][0].update(name="person")), "category_id 10; it must be one of"),
        (edited(lambda x: x["images"][0].update(video_id=7)), r"images\[0\] has video_id 7"),
        (
            edited(lambda x: x["images"][2].update(file_name=5)),
            r"images\[2\] has file_name 5; it must be a text",
        ),
        (edited(lambda x: x["images"][2].update(id=[1])), r"images\[2\] has id \[1\]; it must be a number"),
        (edited(lambda x: x["images"][2].update(video_id={})), r"images\[2\] has video_id {}; it must be"),
        (edited(lambda x: x["images"][2].update(width="inf")), r"images\[2\] has the size infx48"),
        (edited(lambda x: x["images"][2].update(width="ten")), "a bbox, width or height is no number"),
        (edited(lambda x: x["annotations"][1].update(image_id=[1])), r"annotations\[1\] has image_id \[1\]"),
        (
            edited(lambda x: x["annotations"][1].update(category_id={})),
            r"annotations\[1\] has category_id {}",
        ),
        (edited(lambda x: x["categories"][0].update(id=[])), r"categories\[0\] has id \[\]"),
        (edited(lambda x: x["categories"][0].update(name=[])), r"categories\[0\] has name \[\]"),
        (edited(lambda x: x["videos"][0].update(name=3)), r"videos\[0\] has name 3; it must be a text"),
        (edited(lambda x: x["videos"][0].update(id=[])), r"videos\[0\] has id \[\]"),
        (
            edited(lambda x: x["images"].append({**x["images"][1], "id": 7})),
            r"images\[1\] and images\[8\] both have file_name 'val/ILSVRC2015_val_00000000/000001.JPEG'",
        ),
        (
            edited(lambda x: x["images"][1].update(id=100)),
            r"images\[0\] and images\[1\] both have id 100; an image may be listed only once",
        ),
        (
            edited(lambda x: x["categories"][1].update(id=10)),
            r"categories\[0\] and categories\[1\] both have id 10; a category may be listed only once",
        ),
        (
            edited(lambda x: x["categories"][2].update(name="turtle")),
            r"categories\[0\] and categories\[2\] both have name 'turtle'",
        ),
        (
            edited(lambda x: x["videos"][1].update(id=0)),
            r"videos\[0\] and videos\[1\] both have id 0; a video may be listed only once",
        ),
        (
            edited(lambda x: x["videos"][1].update(name=x["videos"][0]["name"])),
            r"videos\[0\] and videos\[1\] both have name 'val/ILSVRC2015_val_00000000'",
        ),
        (
            edited(lambda x: x["videos"][1].update(name="ILSVRC2015_val_00000000")),
            "the videos ILSVRC2015_val_00000000 and val/ILSVRC2015_val_00000000 are the same",
        ),
        (
            edited(lambda x: [x["annotations"][i].update(id=i // 2) for i in range(len(x["annotations"]))]),
            r"annotations\[0\] and annotations\[1\] both have id 0; an annotation may be listed only once",
        ),
        (edited(lambda x: x["annotations"][2].update(id=5)), r"annotations\[0\] has no 'id'"),
        (
            edited(lambda x: x["annotations"][2].update(bbox=[60, 0, 5, 5])),
            r"annotations\[2\], in val/ILSVRC2015_val_00000000/000001.JPEG, has a box outside the frame",
        ),
        (edited(lambda x: x["annotations"][2].update(bbox=[6, 0, 0, 5])), "has a box of no area"),
        (
            edited(lambda x: [image.update(file_name=f"x/{image['id']:06}.JPEG") for image in x["images"]]),
            r"the frame x/\d+\.JPEG is in none of",
        ),
    ],
)
def test_a_bad_json_is_named(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "val.json"
    write(path)
    with pytest.raises(DataError, match=rf"val\.json: .*{message}"):
        VID(write_tree(tmp_path), annotations=path)


def test_read_coco_orders_frames_by_number(tmp_path: Path) -> None:
    videos = {video.name: video for video in read_coco(write_json(tmp_path / "val.json", coco_json()))}
    name = "val/ILSVRC2015_val_00007010"
    assert videos[name].files == [f"{name}/{number:06}.JPEG" for number in (4, 5, 9, 11, 12)]
    assert [len(videos[name].targets[i].target.labels) for i in range(5)] == [1, 0, 1, 1, 1]
