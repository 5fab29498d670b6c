"""mAP50 against hand-computed values and against pycocotools used in the plain way."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from evt.metrics.detection import DetectionMetrics, DetectionResult

CLASSES = ("cat", "dog", "fox")
Row = tuple[list[float], int]  # box, label
Scored = tuple[list[float], int, float]  # box, label, score
A, B, FAR = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0], [60.0, 60.0, 70.0, 70.0]


def tensors(objects: list[Row], detections: list[Scored]) -> tuple[Tensor, ...]:
    return (
        torch.tensor([box for box, _ in objects]).reshape(-1, 4),
        torch.tensor([label for _, label in objects]).long(),
        torch.tensor([box for box, _, _ in detections]).reshape(-1, 4),
        torch.tensor([score for _, _, score in detections]),
        torch.tensor([label for _, label, _ in detections]).long(),
    )


def measured(*frames: tuple[list[Row], list[Scored]]) -> DetectionResult:
    metrics = DetectionMetrics(CLASSES)
    for i, (objects, detections) in enumerate(frames):
        metrics.add(f"{i:06}", *tensors(objects, detections))
    return metrics.compute()


def random_metrics(n_frames: int, seed: int = 0, prefix: str = "") -> DetectionMetrics:
    """Detections near the objects and elsewhere, many with equal scores."""
    metrics = DetectionMetrics(CLASSES)
    generator = torch.Generator().manual_seed(seed)
    for i in range(n_frames):
        n = int(torch.randint(4, (), generator=generator))
        corners = 100 * torch.rand(n, 2, generator=generator)
        boxes = torch.cat([corners, corners + 5 + 100 * torch.rand(n, 2, generator=generator)], 1)
        labels = torch.randint(3, (n,), generator=generator)
        near = boxes + 4 * torch.randn(n, 4, generator=generator)
        far = torch.tensor([[0, 0, 50.3, 50.7]])
        scores = torch.randint(1, 5, (n + 1,), generator=generator) / 7
        detected = torch.cat([labels, torch.randint(3, (1,), generator=generator)])
        metrics.add(f"{prefix}{i:06}", boxes, labels, torch.cat([near, far]), scores, detected)
    return metrics


def test_a_perfect_detector_scores_100() -> None:
    """But for COCO's guard against dividing by zero, 2e-16 in the denominator."""
    objects: list[Row] = [(A, 0), (B, 1), ([0, 0, 200, 200], 1)]
    result = measured(*[(objects, [(box, label, 0.9) for box, label in objects])] * 3)
    assert [result.map50, result.map, result.summary["AP75"]] == pytest.approx([100] * 3, abs=1e-9)
    assert result.ap50_per_class == {"cat": result.map50, "dog": result.map50, "fox": None}
    assert (result.n_frames, result.n_boxes, result.n_detections) == (3, 9, 9)
    assert result.reason is None


def test_a_missed_object_halves_the_recall() -> None:
    """One of two objects found: precision 1 at the 51 recall points 0 to 0.5, and 0 at the other 50."""
    result = measured(([(A, 0)], [(A, 0, 0.9)]), ([(B, 0)], []))
    assert result.map50 == pytest.approx(100 * 51 / 101, abs=1e-9)
    assert result.summary["AR100"] == pytest.approx(50)


def test_a_false_detection_ranked_first_halves_the_precision() -> None:
    assert measured(([(A, 0)], [(FAR, 0, 0.9), (A, 0, 0.5)])).map50 == pytest.approx(50)
    assert measured(([(A, 0)], [(FAR, 0, 0.4), (A, 0, 0.5)])).map50 == pytest.approx(100)


def test_a_false_detection_in_an_empty_frame_counts() -> None:
    """Else a detector that sees things everywhere would look good on a video's empty frames."""
    assert measured(([], [(FAR, 0, 0.9)]), ([(A, 0)], [(A, 0, 0.5)])).map50 == pytest.approx(50)


def test_only_one_detection_of_an_object_is_right() -> None:
    """Ranks: right, a second time (wrong), right. Precision 1 up to recall 0.5, then 2 of 3."""
    result = measured(([(A, 0), (B, 0)], [(A, 0, 0.9), (A, 0, 0.8), (B, 0, 0.7)]))
    assert result.map50 == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)


def test_the_wrong_class_is_wrong() -> None:
    result = measured(([(A, 0)], [(A, 1, 0.9)]))
    assert result.ap50_per_class == {"cat": 0, "dog": None, "fox": None}
    assert result.map50 == 0


@pytest.mark.parametrize(
    ("width", "map50", "mean"),
    # Of a box 100 wide, a detection as high and `width` wide has IoU width / 100: it passes 0.5, 0.55, ... up to it.
    [(49.0, 0, 0), (52.0, 100, 10), (77.0, 100, 60), (96.0, 100, 100)],
)
def test_the_iou_decides(width: float, map50: float, mean: float) -> None:
    result = measured(([([0, 0, 100, 50], 2)], [([0, 0, width, 50], 2, 0.9)]))
    assert result.map50 == pytest.approx(map50)
    assert result.map == pytest.approx(mean)


def test_the_mean_is_over_classes_not_boxes() -> None:
    result = measured(([(A, 0), (B, 1)], [(A, 0, 0.9)]), ([(A, 0)], [(A, 0, 0.9)]))
    assert result.ap50_per_class == {"cat": pytest.approx(100), "dog": 0, "fox": None}
    assert result.map50 == pytest.approx(50)


def test_at_most_100_detections_of_a_class_count() -> None:
    wrong: list[Scored] = [([50.0 + i, 50, 60.0 + i, 60], 0, 0.9) for i in range(100)]
    assert measured(([(A, 0)], [*wrong, (A, 0, 0.5)])).map50 == 0
    assert measured(([(A, 0)], [*wrong[1:], (A, 0, 0.5)])).map50 == pytest.approx(1)


@pytest.mark.parametrize("frames", [[], [([], [])], [([], [(A, 0, 0.9)])]])
def test_without_objects_there_is_no_number_but_a_reason(
    frames: list[tuple[list[Row], list[Scored]]],
) -> None:
    result = measured(*frames)
    assert result.map50 is None
    assert result.map is None
    assert set(result.ap50_per_class.values()) == set(result.summary.values()) == {None}
    assert result.reason == ("no frame has an object" if frames else "no frame was added")
    json.dumps(vars(result), allow_nan=False)


def test_without_labels_the_reason_is_that_there_is_no_ground_truth() -> None:
    """Not that the frames have no object, which nobody knows; what is found there is not wrong either."""
    metrics = DetectionMetrics(CLASSES)
    metrics.add("0", *tensors([], [(A, 0, 0.9)]), labelled=False)
    result = metrics.compute()
    assert (result.map50, result.n_frames, result.n_detections) == (None, 1, 1)
    assert result.reason == "there is no ground truth"
    metrics.add("1", *tensors([(A, 0)], [(A, 0, 0.5)]))
    again = DetectionMetrics(CLASSES)
    again.add_records(metrics.records())
    assert again.compute().map50 == pytest.approx(100)
    assert again.only(lambda name: name == "0").compute().reason == result.reason


def test_crowds_alone_are_nothing_to_find() -> None:
    metrics = DetectionMetrics(CLASSES)
    metrics.add("0", *tensors([(A, 0)], [(A, 0, 0.9)]), target_crowd=torch.tensor([True]))
    assert metrics.compute().map50 is None
    assert metrics.compute().reason == "no frame has an object but in crowds, which need not be found"


def test_numbers_equal_pycocotools_used_in_the_plain_way() -> None:
    """Class by class must give what one COCOeval over all images and classes gives."""
    metrics = random_metrics(40)
    part = metrics._merged()
    images = [{"id": i} for i in range(40)]

    def annotations(
        counts: np.ndarray, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray
    ) -> list[dict]:
        corners, image_ids = boxes.astype(float), np.arange(40).repeat(counts)
        return [
            {
                "id": i + 1,
                "image_id": int(image_ids[i]),
                "category_id": int(labels[i]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
                "score": float(scores[i]),
            }
            for i, (x0, y0, x1, y1) in enumerate(corners.tolist())
        ]

    truth, detected = COCO(), COCO()
    categories = [{"id": k} for k in range(3)]
    truth.dataset = {"images": images, "categories": categories}
    detected.dataset = {"images": images, "categories": categories}
    truth.dataset["annotations"] = annotations(
        part.n_boxes, part.boxes, part.labels, np.zeros(len(part.boxes))
    )
    detected.dataset["annotations"] = annotations(
        part.n_detections, part.detected_boxes, part.detected_labels, part.scores
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        detected.createIndex()
        plain = COCOeval(truth, detected, "bbox")
        plain.evaluate()
        plain.accumulate()
        plain.summarize()
    ours = metrics.compute()
    assert [-1 if x is None else x / 100 for x in ours.summary.values()] == pytest.approx(
        plain.stats, abs=1e-12
    )
    assert 0 < plain.stats[0] < 1


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 12), max_size=3), order=st.randoms(use_true_random=False))
def test_records_give_identical_numbers_however_they_are_split(cuts: list[int], order: object) -> None:
    """A run that was killed and resumed, or ran in shards, must end in the same table."""
    whole = random_metrics(12, seed=3)
    part = whole._merged()
    boxes, found = np.cumsum(part.n_boxes), np.cumsum(part.n_detections)
    pieces = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 12], strict=True):
        piece = DetectionMetrics(CLASSES)
        for i in range(start, end):
            b = slice(boxes[i] - part.n_boxes[i], boxes[i])
            d = slice(found[i] - part.n_detections[i], found[i])
            arrays = (
                part.boxes[b],
                part.labels[b],
                part.detected_boxes[d],
                part.scores[d],
                part.detected_labels[d],
            )
            piece.add(part.frames[i], *map(torch.from_numpy, arrays))
        pieces.append(json.loads(json.dumps(piece.records())))
    order.shuffle(pieces)  # type: ignore[attr-defined]
    resumed = DetectionMetrics(CLASSES)
    for piece_records in pieces:
        resumed.add_records(piece_records)
    assert resumed.compute() == whole.compute()


def test_records_keep_every_bit() -> None:
    values = torch.tensor([[0.1, 1 / 3, 1e-7 + 5, 16777217.0]])
    metrics = DetectionMetrics(CLASSES)
    metrics.add("0", values, torch.tensor([2]), values * 1.1, torch.tensor([0.3]), torch.tensor([1]))
    again = DetectionMetrics(CLASSES)
    again.add_records(json.loads(json.dumps(metrics.records())))
    assert again.records() == metrics.records()
    part = again._merged()
    assert part.boxes.tobytes() == values.numpy().tobytes()
    assert part.detected_boxes.tobytes() == (values * 1.1).numpy().tobytes()


def test_adding_goes_on_after_records() -> None:
    """What a run resumes with is a part, to which the rest is added."""
    whole, resumed = random_metrics(6, 1, "a"), DetectionMetrics(CLASSES)
    resumed.add_records(whole.records())
    for metrics in (whole, resumed):
        metrics.add("b", *tensors([(A, 0)], [(A, 0, 0.9)]))
    assert resumed.compute() == whole.compute()
    assert resumed.compute().n_frames == 7


def test_half_precision_is_taken() -> None:
    metrics = DetectionMetrics(CLASSES)
    boxes = torch.tensor([A], dtype=torch.bfloat16)
    metrics.add("0", boxes.float(), torch.tensor([0]), boxes, torch.tensor([0.5]).half(), torch.tensor([0]))
    assert metrics.compute().map50 == pytest.approx(100)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    random_metrics(2).compute()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("objects", "detections", "message"),
    [
        ([(A, 3)], [], r"frame 7: labels go from 3 to 3; they must lie in 0 to 2"),
        ([], [(A, -1, 0.5)], r"frame 7: labels go from -1"),
        ([], [(A, 0, float("nan"))], "frame 7: scores has a number that is not finite"),
        ([], [([0, 0, float("inf"), 1], 0, 0.5)], "frame 7: detected_boxes has a number that is not finite"),
    ],
)
def test_bad_numbers_are_refused(objects: list[Row], detections: list[Scored], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectionMetrics(CLASSES).add("7", *tensors(objects, detections))


def test_wrong_shapes_and_repeated_frames_are_refused() -> None:
    metrics = DetectionMetrics(CLASSES)
    good = tensors([(A, 0)], [(A, 0, 0.9)])
    metrics.add("7", *good)
    with pytest.raises(ValueError, match="frame 7 is added twice"):
        metrics.add("7", *good)
    with pytest.raises(ValueError, match="frame 7 is added twice"):
        metrics.add_records(metrics.records())
    with pytest.raises(ValueError, match=r"frame 8: scores has shape \(2,\); it must be \(1,\)"):
        metrics.add("8", good[0], good[1], good[2], torch.tensor([0.1, 0.2]), good[4])
