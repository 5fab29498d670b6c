"""COCO's detection measures of arrays, computed by pycocotools class by class.

COCOeval holds everything it looks at as Python objects and looks at every pair of image and class. A class at a
time, and only the images that have something of it, gives the same numbers in a fraction of memory and time:
images with neither an object nor a detection of a class do not count for it.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, fields

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class Instances:
    """Objects or detections of many images.

    images: (n,) int64, the index of the image of each.
    boxes: (n, 4) float32, x0 y0 x1 y1.
    labels: (n,) int64, zero-based classes.
    scores: (n,) float32 of detections; of objects, nothing reads them.
    crowd: (n,) bool of objects, which stand for a group of them (COCO's `iscrowd`): they need not be found, and any
        number of detections that lie in one counts neither as right nor as wrong. Nothing reads those of detections.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    crowd: np.ndarray

    def of_class(self, label: int) -> Instances:
        """Those of one class."""
        return self.of(self.labels == label)

    def of(self, chosen: np.ndarray) -> Instances:
        """Those that a mask, (n,) bool, chooses."""
        return Instances(*(getattr(self, field.name)[chosen] for field in fields(self)))


def evaluate(n_classes: int, objects: Instances, detections: Instances) -> tuple[np.ndarray, np.ndarray]:
    """The 12 numbers of COCO's summary over all images, and the AP at IoU 0.5 of each class.

    IoU 0.5 to 0.95 in steps of 0.05, 101 recall points, at most 100 detections of a class in an image.

    Returns:
        (12,) in the order of SUMMARY and (n_classes,), in 0..1; -1 where there are no objects to find.
    """
    parts = [_evaluate_class(objects.of_class(k), detections.of_class(k)) for k in range(n_classes)]
    whole = COCOeval(iouType="bbox")
    whole.eval = {
        "precision": np.concatenate([precision for precision, _ in parts], axis=2),  # (T, R, K, A, M)
        "recall": np.concatenate([recall for _, recall in parts], axis=1),  # (T, K, A, M)
    }
    with contextlib.redirect_stdout(io.StringIO()):
        whole.summarize()
    ap50 = whole.eval["precision"][0, :, :, 0, -1].mean(0)  # (K,): IoU 0.5, all areas, 100 detections
    return whole.stats, ap50


@dataclass(frozen=True)
class Ranking:
    """The detections of a class that count, best first, and what COCO matched them with at IoU 0.5.

    images: (m,) int64, the index of the image of each.
    hits: (m,) bool, whether each found an object.
    objects: (n,) int64, the index of the image of each object that is to be found.
    """

    images: np.ndarray
    hits: np.ndarray
    objects: np.ndarray


def ranking(objects: Instances, detections: Instances) -> Ranking:
    """Match the detections of one class with its objects, image by image."""
    images = np.union1d(objects.images, detections.images).tolist()
    evaluation = _matched(objects, detections, images)
    # For each image, in order; all areas come first of the area ranges.
    found = [x for x in evaluation.evalImgs[: len(images)] if x is not None]
    to_find = objects.images[~objects.crowd]
    if not found:
        return Ranking(np.empty(0, np.int64), np.empty(0, bool), to_find)
    order = np.argsort(-np.concatenate([x["dtScores"] for x in found]), kind="mergesort")
    where = np.concatenate([np.full(len(x["dtScores"]), x["image_id"]) for x in found])
    hits = np.concatenate([x["dtMatches"][0] > 0 for x in found])
    ignored = np.concatenate([x["dtIgnore"][0] for x in found]).astype(bool)
    order = order[~ignored[order]]
    return Ranking(where[order], hits[order], to_find)


def _evaluate_class(objects: Instances, detections: Instances) -> tuple[np.ndarray, np.ndarray]:
    """Precision (T, R, 1, A, M) and recall (T, 1, A, M) of one class, as COCOeval.accumulate makes them."""
    evaluation = _matched(objects, detections, np.union1d(objects.images, detections.images).tolist())
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _matched(objects: Instances, detections: Instances, images: list[int]) -> COCOeval:
    """COCO's evaluation of one class, up to the matches in each image."""
    evaluation = COCOeval(iouType="bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.cocoGt, evaluation.cocoDt = _as_coco(images, objects), _as_coco(images, detections)
        evaluation.params.imgIds, evaluation.params.catIds = images, [0]
        evaluation.evaluate()
    return evaluation


def _as_coco(images: list[int], instances: Instances) -> COCO:
    corners = instances.boxes.astype(np.float64)
    sizes = corners[:, 2:] - corners[:, :2]
    columns = (
        instances.images.tolist(),
        np.concatenate([corners[:, :2], sizes], axis=1).tolist(),
        sizes.prod(1).tolist(),
        instances.scores.tolist(),
        instances.crowd.astype(int).tolist(),
    )
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": 0}],
        # From 1, because COCOeval writes 0 for "not matched".
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": 0,
                "bbox": box,
                "area": area,
                "score": score,
                "iscrowd": crowd,
            }
            for i, (image, box, area, score, crowd) in enumerate(zip(*columns, strict=True), 1)
        ],
    }
    coco.createIndex()
    return coco
