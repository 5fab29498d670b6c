"""What a run measures: objects or saliency in videos, labelled clips, or one clip without a label."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from evt.data.actions import ActionData, UnlabelledClip
from evt.data.reading import OnError
from evt.evaluate.chosen import Chosen
from evt.evaluate.classes import class_names, in_model_order
from evt.evaluate.clip import look_at
from evt.evaluate.detection import detect
from evt.evaluate.ledger import Ledger
from evt.evaluate.recognition import recognise
from evt.evaluate.saliency import compare_saliency
from evt.evaluate.trace import Subject, dense_rival

log = logging.getLogger(__name__)

Found = tuple[dict[str, Any], dict[str, str]]
"""The figures of a run, and what else it leaves in its folder: the text of each file."""


def measure(
    chosen: Chosen, ledger: Ledger, key: str, on_error: OnError = "fail", compare: bool = False
) -> Found:
    """Measure what was chosen on its data.

    Args:
        chosen: model, variant, policy and data.
        ledger: keeps finished videos and clips; those that it has already are not run again.
        key: names all that results depend on, but for the video or clip, and for the names of the classes.
        on_error: what becomes of labelled clips that cannot be read.
        compare: run the dense model beside, except on labelled clips.
    """
    model, data, weights = chosen.model, chosen.data, chosen.weights
    key = f"{key} {json.dumps(weights.classes)}"
    dense = model.stream(dense_rival(chosen.variant)) if compare else None
    subject = Subject(model, model.stream(chosen.variant, chosen.policy), dense)
    if model.sees == "frames":
        # Without trained weights nothing is predicted, and any data will do.
        look = IN_FRAMES[model.predicts] if weights.trained else find_objects
        return look(replace(subject, decode=weights.trained), chosen, ledger, key)
    if chosen.labelled:
        data = in_model_order(model, weights, data)
        alone = replace(subject, dense=None)
        return classify(alone, data, model.views.reach, ledger, key, on_error, chosen.label)
    return classify_one(subject, data[0], model.views.reach, weights.classes, chosen.label)


def find_objects(subject: Subject, chosen: Chosen, ledger: Ledger, key: str) -> Found:
    """A detector, frame by frame of videos; see `detect`."""
    data, weights = chosen.data, chosen.weights
    classes = class_names(data if subject.decode else [], chosen.model.n_classes, weights.classes)
    cost, detection = detect(subject, data, classes, ledger, key, chosen.label)
    metrics, files = cost.compute(), {}
    if subject.decode:
        for part, ms in detection.milliseconds().items():
            metrics[part]["detector_ms"] = ms
        metrics["detection"] = asdict(detection.compute())
        files["detections.jsonl"] = detection.lines()
    return metrics, files


def find_saliency(subject: Subject, chosen: Chosen, ledger: Ledger, key: str) -> Found:
    """A model of saliency, frame by frame of videos; see `compare_saliency`."""
    return compare_saliency(subject, chosen.data, ledger, key, chosen.label), {}


IN_FRAMES: dict[str, Callable[[Subject, Chosen, Ledger, str], Found]] = {
    "objects": find_objects,
    "saliency": find_saliency,
}
"""What is measured of a model of frames, by what it `predicts`."""


def classify(
    subject: Subject, data: ActionData, reach: int, ledger: Ledger, key: str, on_error: OnError, label: str
) -> Found:
    """A model of clips, clip by clip of a data set; see `recognise`."""
    found = recognise(subject, reach, data, ledger, key, on_error, label)
    left_out = found.left_out()
    files = {"left_out.txt": "\n".join(left_out) + "\n"} if left_out else {}
    return {"recognition": found.summary()}, files


def classify_one(
    subject: Subject, clip: UnlabelledClip, reach: int, classes: Sequence[str] | None, label: str
) -> Found:
    """A model of clips on a single one: what it costs beside the dense model, and its likeliest classes.

    Args:
        subject: what runs.
        clip: its frames.
        reach: frames that a view spans.
        classes: their names; None where they have none.
        label: beside the progress bar.
    """
    if len(clip.frames) < reach:
        log.warning(
            "the clip has %d frames and a view spans %d: its last frame is repeated, which makes tokens that repeat",
            len(clip.frames),
            reach,
        )
    metrics, probabilities = look_at(subject, clip, label)
    best = probabilities.topk(min(5, len(probabilities)))
    names = [classes[i] if classes else str(i) for i in best.indices.tolist()]
    return {**metrics, "top5": dict(zip(names, best.values.tolist(), strict=True))}, {}


def without_accuracy(metrics: dict[str, Any]) -> dict[str, Any]:
    """The same figures, less those that mean nothing where the weights are not trained."""
    kept = {name: x for name, x in metrics.items() if name not in {"top1", "top5"}}
    return {name: without_accuracy(x) if name == "recognition" else x for name, x in kept.items()}
