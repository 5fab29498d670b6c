"""Action recognition: the class of each clip, and what it costs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from evt.data.actions import ActionData
from evt.data.reading import OnError, check_missing, left_out
from evt.errors import DataError
from evt.evaluate.ledger import Ledger
from evt.evaluate.loop import Unit, evaluate
from evt.evaluate.trace import Seen, Subject
from evt.metrics.accuracy import Prediction, accuracy

log = logging.getLogger(__name__)


@dataclass
class Recognition:
    """An evaluator: top-1 and top-5, operations and seconds of a clip.

    reach: frames that a view spans.
    predictions: of every clip, in the order in which they were seen.
    ops, seconds: of the model on each of them, all views; reading and resizing are not in it.
    kept: share of its tokens, where the variant drops some before the model runs.
    short: how many have fewer frames than a view spans, so that frames are repeated.
    """

    reach: int
    predictions: list[Prediction] = field(default_factory=list)
    ops: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    short: int = 0

    def fresh(self) -> Recognition:
        """See `Evaluator`."""
        return Recognition(self.reach)

    def update(self, seen: Seen) -> None:
        """See `Evaluator`; the sample is a labelled clip.

        Raises:
            DataError: a probability is not finite.
        """
        clip = seen.sample
        try:
            self.predictions.append(Prediction.of(clip.name, clip.label, seen.prediction))
        except ValueError as error:
            raise DataError(str(error)) from error
        self.ops.append(seen.ops)
        self.seconds.append(round(seen.seconds, 6))
        if seen.kept is not None:
            self.kept.append(seen.kept)
        self.short += len(clip.frames) < self.reach

    def record(self) -> dict[str, Any]:
        """See `Evaluator`."""
        return {**vars(self), "predictions": [[x.name, x.label, x.top] for x in self.predictions]}

    def add(self, record: dict[str, Any]) -> None:
        """See `Evaluator`."""
        self.predictions += [
            Prediction(name, label, tuple(top)) for name, label, top in record["predictions"]
        ]
        self.ops += record["ops"]
        self.seconds += record["seconds"]
        self.kept += record["kept"]
        self.short += record["short"]

    def compute(self) -> dict[str, Any]:
        """All figures, for metrics.json; no accuracy where there was no clip."""
        n = len(self.predictions)
        figures: dict[str, Any] = {"clips": n}
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


@dataclass(frozen=True)
class Recognised:
    """A data set's clips, classified.

    seen: of every clip that could be read, in the data set's order.
    skipped: the clips that could not be read, with why.
    missing: the clips whose video is not on disk.
    """

    seen: Recognition
    skipped: dict[str, str]
    missing: Sequence[str]

    def summary(self) -> dict[str, Any]:
        """All figures, for metrics.json."""
        return {**self.seen.compute(), "skipped": len(self.skipped), "missing": len(self.missing)}

    def left_out(self) -> list[str]:
        """A line for each clip that is in no average, to be written into the run folder."""
        return left_out(self.missing, self.skipped)


def recognise(
    subject: Subject,
    reach: int,
    data: ActionData,
    ledger: Ledger,
    key: str,
    on_error: OnError = "skip",
    describe: str = "clips",
) -> Recognised:
    """Classify every clip of a data set, with a progress bar.

    Args:
        subject: what runs.
        reach: frames that a view of it spans.
        data: the clips.
        ledger: where each clip is recorded when it is done, and looked up before it is begun.
        key: names all that a prediction depends on beside the clip: weights, variant, policy, views.
        on_error: what to do with a clip that cannot be read: leave it out, or stop.
        describe: beside the progress bar.

    Raises:
        DataError: a clip cannot be read, and `on_error` is "fail"; or none can be.
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
    seen = Recognition(reach)
    units = (Unit(clip.name, clip.fingerprint, [clip]) for clip in data)
    with tqdm(total=len(data), desc=describe, unit="clip") as bar:
        skipped = evaluate(subject, units, {"clip": seen}, ledger, key, bar, skip=on_error == "skip")
    if not seen.predictions:
        name, reason = next(iter(skipped.items()))
        raise DataError(
            f"{data.name}: none of its {len(data)} clips could be read; the first, {name}: {reason}"
        )
    if seen.short:
        log.warning(
            "%s: %d of %d clips have fewer than the %d frames that a view spans: they repeat frames, which makes "
            "tokens that repeat",
            data.name,
            seen.short,
            len(seen.predictions),
            reach,
        )
    return Recognised(seen, skipped, data.missing)
