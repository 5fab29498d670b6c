"""What a run measures: objects or features in videos, labelled clips, or one clip without a label."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from evt.data.reading import OnError
from evt.errors import ConfigError
from evt.evaluate.budget import BudgetLog
from evt.evaluate.chosen import Chosen
from evt.evaluate.classes import class_names, in_model_order
from evt.evaluate.clip import look_at
from evt.evaluate.detection import detect
from evt.evaluate.kept import files_of
from evt.evaluate.ledger import Ledger
from evt.evaluate.loop import Found
from evt.evaluate.recognition import recognise
from evt.evaluate.saliency import compare_saliency
from evt.evaluate.trace import Subject
from evt.evaluate.traces import Traces
from evt.evaluate.watched import Watched
from evt.eventful.following import Following


def measure(
    chosen: Chosen,
    ledger: Ledger,
    key: str,
    on_error: OnError = "fail",
    compare: bool = False,
    traces: Path | None = None,
    whole: bool = True,
) -> Found:
    """Measure what was chosen on its data.

    Args:
        chosen: model, variant, policy and data.
        ledger: keeps finished videos and clips; those that it has already are not run again.
        key: names all that results depend on, but for the video or clip, and for the names of the classes.
        on_error: what becomes of labelled clips that cannot be read.
        compare: run the dense model beside, except on labelled clips.
        traces: a folder for traces of what passes the gates (see `evt.evaluate.traces`); None writes none.
        whole: the data are all that the run is of, and not the share of a process.

    Raises:
        ConfigError: traces are asked for, and there are no frames, or no gates in them.
    """
    model, data, weights, variant = chosen.model, chosen.data, chosen.weights, chosen.variant
    key = f"{key} {json.dumps(weights.classes)}"
    # On the fast path where the variant is; a model of clips without a reduction is the dense model itself.
    dense = model.stream(None if variant is None else variant.dense) if compare else None
    policy, also = chosen.policy, dict[str, Any]()
    if isinstance(policy, Following):
        also["budget"] = partial(BudgetLog, policy)
    if traces is not None:
        if model.sees != "frames" or policy is None or policy.selects == "frames":
            raise ConfigError(
                "trace is true, but here no tokens pass gates; it must be a model of frames, and a variant with gates"
            )
        policy = watched = Watched(policy)
        also |= {"trace": partial(Traces, watched, traces, model)}
    subject = Subject(model, model.stream(variant, policy), dense, also=also)
    if model.sees == "frames":
        # Without trained weights nothing is predicted, and any data will do.
        subject = replace(subject, decode=weights.trained)
        if weights.trained and model.predicts == "features":
            return compare_saliency(subject, data, ledger, key, chosen.label)
        classes = class_names(data if weights.trained else [], model.n_classes, weights.classes)
        return detect(subject, data, classes, ledger, key, chosen.label)
    reach = model.views.reach
    if not hasattr(data, "classes"):  # no labels
        return look_at(subject, data[0], reach, weights.classes, chosen.label)
    data = in_model_order(model, weights, data)
    seen = recognise(
        replace(subject, dense=None), reach, data, ledger, key, on_error, chosen.label, whole=whole
    )
    lines = seen.left_out()
    left_out = {"left_out.txt": "\n".join(lines) + "\n"} if lines else {}
    return {"recognition": seen.compute()}, {**files_of(seen.kept), **left_out}


def without_accuracy(metrics: dict[str, Any]) -> dict[str, Any]:
    """The same figures, less those that mean nothing where the weights are not trained.

    Tokens of such weights hardly influence each other, so that errors come out several times too small.
    """
    nothing = {"top1", "top5", "relative_l2_error", "skipping"}
    return {
        name: without_accuracy(x) if isinstance(x, dict) else x
        for name, x in metrics.items()
        if name not in nothing
    }
