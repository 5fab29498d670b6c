"""Classifies the clips of an action recognition data set, and resumes where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor
from tqdm import tqdm

from evt.data.actions import ActionData, Frames
from evt.errors import DataError
from evt.evaluate.ledger import Ledger
from evt.evaluate.measure import timed
from evt.eventful import Policy, Variant, count_ops
from evt.metrics.accuracy import Prediction, accuracy
from evt.models.videomae import VideoMAE
from evt.models.views import Views
from evt.tokens import Reduction

log = logging.getLogger(__name__)

OnError = Literal["skip", "fail"]


@dataclass(frozen=True)
class Recognition:
    """A data set's predictions.

    predictions: of every clip that could be read, in the data set's order.
    ops, seconds: of the model on each of them, all views; reading and resizing are not in it.
    kept: share of its tokens, where the variant drops some before the model runs.
    skipped: the clips that could not be read, with why.
    missing: the clips whose video is not on disk.
    short: of the predicted clips, how many have fewer frames than a view spans, so that frames are repeated.
    """

    predictions: Sequence[Prediction]
    ops: Sequence[int]
    seconds: Sequence[float]
    kept: Sequence[float]
    skipped: dict[str, str]
    missing: Sequence[str]
    short: int = 0

    def summary(self) -> dict[str, Any]:
        """All figures, for metrics.json; no accuracy where there was no clip."""
        n = len(self.predictions)
        figures: dict[str, Any] = {"clips": n, "skipped": len(self.skipped), "missing": len(self.missing)}
        if n:
            figures |= {
                "top1": 100 * accuracy(self.predictions, 1),
                "top5": 100 * accuracy(self.predictions, 5),
                "short": self.short,
                "tflops": sum(self.ops) / n / 1e12,
                "seconds": sum(self.seconds) / n,
            }
            if self.kept:
                figures["kept"] = sum(self.kept) / n
        return figures

    def left_out(self) -> list[str]:
        """A line for each clip that is in no average, to be written into the run folder."""
        return [
            *(f"{name}: not on disk" for name in self.missing),
            *(f"{name}: {reason.removeprefix(f'{name}: ')}" for name, reason in self.skipped.items()),
        ]


class Recogniser(Protocol):
    """A model of clips: ViViT, or VideoMAE."""

    views: Views

    def preprocess(self, clip: Frames, /) -> Tensor:
        """Cut a video into views."""

    def predict_views(self, views: Tensor, variant: Any, policy: Any, /) -> Tensor:
        """The probabilities of the classes from all views of a video."""


def check_missing(data: ActionData, on_error: OnError) -> None:
    """Refuse a data set of which videos are missing, where errors are to end the run.

    Raises:
        DataError: the message names the first.
    """
    if data.missing and on_error == "fail":
        raise DataError(
            f"{data.name}: the videos of {len(data.missing)} clips are not on disk, the first {data.missing[0]}; all "
            "are needed where on_error is fail"
        )


def recognise(
    model: Recogniser,
    variant: Variant | Reduction | None,
    policy: Policy | None,
    data: ActionData,
    ledger: Ledger,
    key: str,
    on_error: OnError = "skip",
    describe: str = "clips",
) -> Recognition:
    """Classify every clip of a data set.

    Args:
        ledger: where each clip is recorded when it is done, and looked up before it is begun.
        key: names all that a prediction depends on beside the clip: weights, variant, policy, views.
        on_error: what to do with a clip that cannot be read: leave it out, or stop.
        describe: beside the progress bar.

    Raises:
        DataError: a clip cannot be read, and `on_error` is "fail".
    """
    check_missing(data, on_error)
    if data.missing:
        log.warning(
            "%s: %d of %d clips are not on disk and in no average, the first %s",
            data.name,
            len(data.missing),
            len(data.missing) + len(data),
            data.missing[0],
        )
    predictions, ops, seconds, kept, skipped = [], [], [], [], {}
    short = 0
    for clip in tqdm(data, total=len(data), desc=describe, unit="clip"):
        entry = f"{key} {clip.name} {clip.fingerprint}"
        if entry not in ledger:
            try:
                views = model.preprocess(clip.frames)
                length = len(clip.frames)
            except DataError as error:
                if on_error == "fail":
                    raise
                log.warning("left out: %s", error)
                skipped[clip.name] = str(error)
                continue
            with count_ops() as counted:
                probabilities, taken = timed(lambda x: model.predict_views(x, variant, policy), views)
            try:
                prediction = Prediction.of(clip.name, clip.label, probabilities)
            except ValueError as error:
                raise DataError(str(error)) from error
            figures: dict[str, Any] = {
                "label": clip.label,
                "frames": length,
                "top": prediction.top,
                "ops": counted.total(),
                "seconds": round(taken, 6),
            }
            if isinstance(model, VideoMAE) and not isinstance(variant, Variant):
                figures["kept"] = model.share_kept(views, variant)
            ledger.put(entry, figures)
        done = ledger[entry]
        predictions.append(Prediction(clip.name, done["label"], tuple(done["top"])))
        ops.append(done["ops"])
        seconds.append(done["seconds"])
        short += done["frames"] < model.views.reach
        if done.get("kept") is not None:
            kept.append(done["kept"])
    if not predictions:
        name, reason = next(iter(skipped.items()))
        raise DataError(
            f"{data.name}: none of its {len(data)} clips could be read; the first, {name}: {reason}"
        )
    if short:
        log.warning(
            "%s: %d of %d clips have fewer than the %d frames that a view spans: they repeat frames, which makes "
            "tokens that repeat",
            data.name,
            short,
            len(predictions),
            model.views.reach,
        )
    return Recognition(predictions, ops, seconds, kept, skipped, data.missing, short)
