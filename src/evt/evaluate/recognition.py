"""Action recognition: the class of each clip, and what it costs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tqdm import tqdm

from evt.data.actions import ActionData
from evt.data.reading import OnError, check_missing, left_out
from evt.errors import DataError
from evt.evaluate.kept import Kept
from evt.evaluate.ledger import Ledger
from evt.evaluate.loop import Unit, evaluate
from evt.evaluate.trace import Seen, Subject
from evt.metrics.accuracy import Prediction, accuracy

log = logging.getLogger(__name__)


@dataclass
class Recognition:
    """An evaluator: top-1 and top-5, operations and seconds of a clip.

    reach: frames that a view spans.
    clips: what was measured on each, in the order in which they were seen: its prediction; operations and seconds of
        the model, all views, without reading and resizing; the share of its tokens that the model saw, where the
        variant drops some; whether it has fewer frames than a view spans, so that frames are repeated.
    skipped: the clips that could not be read, with why.
    missing: the clips whose video is not on disk.
    kept: what is kept of each clip, by name.
    """

    reach: int
    clips: list[dict[str, Any]] = field(default_factory=list)
    skipped: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()
    kept: Mapping[str, Kept] = field(default_factory=dict)

    def update(self, seen: Seen) -> None:
        """See `Evaluator`; the sample is a labelled clip.

        Raises:
            DataError: a probability is not finite.
        """
        clip = seen.sample
        try:
            prediction = Prediction.of(clip.name, clip.label, seen.prediction)
        except ValueError as error:
            raise DataError(str(error)) from error
        self.clips.append(
            {
                "prediction": prediction,
                "ops": seen.ops,
                "seconds": round(seen.seconds, 6),
                "kept": seen.kept,
                "short": len(clip.frames) < self.reach,
            }
        )

    def record(self) -> list[dict[str, Any]]:
        """See `Evaluator`."""
        return self.clips

    def add(self, record: list[dict[str, Any]]) -> None:
        """See `Evaluator`."""
        self.clips += record

    def total(self, name: str) -> Any:
        """A figure of each clip, summed."""
        return sum(clip[name] for clip in self.clips)

    @property
    def predictions(self) -> list[Prediction]:
        """Of every clip."""
        return [Prediction(*clip["prediction"]) for clip in self.clips]

    def compute(self) -> dict[str, Any]:
        """All figures, for metrics.json; no accuracy where there was no clip."""
        n = len(self.clips)
        figures: dict[str, Any] = {"clips": n}
        if n:
            figures |= {
                "top1": 100 * accuracy(self.predictions, 1),
                "top5": 100 * accuracy(self.predictions, 5),
                "short": self.total("short"),
                "tflops": self.total("ops") / n / 1e12,
                "seconds": self.total("seconds") / n,
            }
            if self.clips[0]["kept"] is not None:
                figures["kept"] = self.total("kept") / n
        return {**figures, "skipped": len(self.skipped), "missing": len(self.missing)}

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
    *,
    whole: bool = True,
) -> Recognition:
    """Classify every clip of a data set, with a progress bar. For the arguments, see `evaluate`.

    Args:
        reach: frames that a view spans.
        key: names all that a prediction depends on beside the clip: weights, variant, policy, views.
        on_error: what to do with a clip that cannot be read: leave it out, or stop.
        whole: it is all of the data set, of which some clip must be read.

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
    units = (Unit(clip.name, clip.fingerprint, [clip]) for clip in data)
    with tqdm(total=len(data), desc=describe, unit="clip") as bar:
        kinds: dict[str, Any] = {"clip": partial(Recognition, reach), **subject.also}
        found, skipped, kept = evaluate(subject, units, kinds, ledger, key, bar, skip=on_error == "skip")
    seen = replace(found["clip"], skipped=skipped, missing=data.missing, kept=kept)
    if not whole:
        return seen  # who puts all together says what is wrong with them
    if not seen.clips:
        name, reason = next(iter(skipped.items()))
        raise DataError(
            f"{data.name}: none of its {len(data)} clips could be read; the first, {name}: {reason}"
        )
    if short := seen.total("short"):
        log.warning(
            "%s: %d of %d clips have fewer than the %d frames that a view spans: they repeat frames, which makes "
            "tokens that repeat",
            data.name,
            short,
            len(seen.clips),
            reach,
        )
    return seen
