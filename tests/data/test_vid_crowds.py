"""`iscrowd` and `ignore` of a json count as in pycocotools run directly on that json."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evt.data.samples import FrameSamples
from evt.data.vid import VID
from evt.data.vid_coco import CocoWriter, read_coco
from evt.errors import DataError
from evt.metrics.detection import DetectionMetrics
from tests.data.vid_tree import coco_json, write_json, write_tree

CLASSES = ("cat", "dog")


def random_json(seed: int, crowds: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Three videos of four frames, with objects of which many are crowds, to be ignored, or both."""
    rng = np.random.default_rng(seed)
    images = [
        {
            "id": i + 1,
            "file_name": f"v{i // 4}/{i % 4:06}.JPEG",
            "width": 400,
            "height": 400,
            "video_id": i // 4,
        }
        for i in range(12)
    ]
    annotations: list[dict[str, Any]] = []
    for image in images:
        for _ in range(int(rng.integers(4))):
            x, y, w, h = (int(v) for v in (*rng.integers(0, 200, 2), *rng.integers(20, 200, 2)))
            flags = {"iscrowd": int(crowds and rng.random() < 0.4), "ignore": int(rng.random() < 0.4)}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.integers(2)) + 7,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    **flags,
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7 + k, "name": name} for k, name in enumerate(CLASSES)],
        "videos": [{"id": k, "name": f"v{k}"} for k in range(3)],
    }


def detections_of(content: dict[str, list[dict[str, Any]]], seed: int) -> list[dict[str, Any]]:
    """Some on objects, several inside of each crowd, some elsewhere; scores that are all different."""
    rng = np.random.default_rng(seed)
    found = []
    for x in content["annotations"]:
        left, top, w, h = x["bbox"]
        for _ in range(2):
            part = [left + int(rng.integers(0, 9)), top, w * rng.uniform(0.4, 1), h * rng.uniform(0.6, 1)]
            found.append({"image_id": x["image_id"], "category_id": x["category_id"], "bbox": part})
    for image in content["images"]:
        label = int(rng.integers(2)) + 7
        found.append({"image_id": image["id"], "category_id": label, "bbox": [5, 5, 60, 70]})
    for x, score in zip(found, rng.permutation(len(found)) / len(found), strict=True):
        x["score"] = float(np.float32(score))
        x["bbox"] = [float(np.float32(v)) for v in x["bbox"]]
    return found


def pycocotools(path: Path, found: list[dict[str, Any]]) -> np.ndarray:
    """The 12 numbers of COCO's summary, straight from the file."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        plain = COCOeval(truth, truth.loadRes(found), "bbox")
        plain.evaluate()
        plain.accumulate()
        plain.summarize()
    return plain.stats


def ours(path: Path, found: list[dict[str, Any]]) -> DetectionMetrics:
    """The same detections on what `read_coco` makes of the file, a record a video."""
    ids = {image["file_name"]: image["id"] for image in json.loads(path.read_text())["images"]}
    whole = DetectionMetrics(CLASSES)
    for video in read_coco(path, classes=CLASSES):
        metrics = DetectionMetrics(CLASSES)
        for i, file in enumerate(video.files):
            mine = [x for x in found if x["image_id"] == ids[file]]
            boxes = torch.tensor([x["bbox"] for x in mine]).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            target = video.targets[i].target
            metrics.add(
                file,
                target.boxes,
                target.labels,
                boxes,
                torch.tensor([x["score"] for x in mine]),
                torch.tensor([x["category_id"] - 7 for x in mine]).long(),
                target_crowd=target.crowd,
            )
        whole.add_records(metrics.records())
    return whole


@pytest.mark.parametrize("seed", range(6))
def test_crowds_count_as_pycocotools_counts_them(tmp_path: Path, seed: int) -> None:
    content = random_json(seed)
    path = write_json(tmp_path / "val.json", content)
    found = detections_of(content, seed)
    expected = pycocotools(path, found)
    metrics = ours(path, found)
    summary = list(metrics.compute().summary.values())
    assert [-1 if x is None else x / 100 for x in summary] == pytest.approx(expected, abs=1e-6)
    # And that they are read at all changes the number.
    for x in content["annotations"]:
        x["iscrowd"] = 0
    assert abs(pycocotools(write_json(tmp_path / "plain.json", content), found)[1] - expected[1]) > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_an_interval_counts_crowds_as_the_number_does(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random_json(seed)
    path = write_json(tmp_path / "val.json", content)
    found = detections_of(content, seed)
    monkeypatch.setattr("evt.metrics.detection.resample", lambda n: np.ones((1, n), np.int64))
    assert ours(path, found).map50().resamples == pytest.approx(100 * pycocotools(path, found)[1], abs=1e-4)


def test_a_crowd_by_hand() -> None:
    """Right; two in a crowd, of which neither counts; right: the precision is 1 at each recall."""
    boxes = torch.tensor([[0, 0, 10, 10], [100, 100, 200, 200], [50, 0, 60, 10.0]])
    crowd = torch.tensor([False, True, False])
    found = torch.tensor([[0, 0, 10, 10], [110, 110, 120, 120], [150, 150, 160, 160], [50, 0, 60, 10.0]])
    labels, scores = torch.zeros(4, dtype=torch.long), torch.tensor([0.9, 0.8, 0.7, 0.6])

    def map50(crowd: torch.Tensor | None) -> float | None:
        metrics = DetectionMetrics(CLASSES)
        metrics.add("0", boxes, labels[:3], found, scores, labels, target_crowd=crowd)
        return metrics.compute().map50

    assert map50(crowd) == pytest.approx(100)
    # As plain objects: right, wrong, wrong, right of three: precision 1 up to recall 1/3, 0.5 up to 2/3, then 0.
    assert map50(None) == pytest.approx(100 * (34 + 33 * 0.5) / 101)


@pytest.mark.parametrize("flag", [2, -1, "yes", None, [1], 0.5])
def test_other_flags_are_refused(tmp_path: Path, flag: object) -> None:
    content = random_json(0)
    content["annotations"][1]["iscrowd"] = flag
    with pytest.raises(DataError, match=r"val\.json: annotations\[1\] has iscrowd .*; it must be 0 or 1"):
        read_coco(write_json(tmp_path / "val.json", content), classes=CLASSES)


def test_crowds_are_kept_by_the_writer(tmp_path: Path) -> None:
    content = coco_json()
    for x in content["annotations"][::2]:
        x["iscrowd"] = 1
    target = read_coco(write_json(tmp_path / "val.json", content))[0].targets
    writer = CocoWriter()
    for i in range(3):
        writer.add(f"v/{i:06}.JPEG", target[i], "v", i)
    writer.write(tmp_path / "new.json")
    written = json.loads((tmp_path / "new.json").read_text())["annotations"]
    kept = [flag for i in range(3) for flag in target[i].target.crowd.tolist()]  # type: ignore[union-attr]
    assert [x["iscrowd"] for x in written] == kept
    assert 0 < sum(kept) < len(kept)


def test_crowds_are_not_trained_on(tmp_path: Path) -> None:
    """detectron2 leaves them out of its training data, too."""
    content = coco_json()
    for x in content["annotations"][::2]:
        x["iscrowd"] = 1
    videos = VID(write_tree(tmp_path), annotations=write_json(tmp_path / "val.json", content))
    samples, generator = FrameSamples(videos, None), torch.Generator().manual_seed(0)
    targets = [samples.sample(i, generator).target for i in range(len(samples))]
    assert sum(len(target.labels) for target in targets if target) == 4  # of 9
