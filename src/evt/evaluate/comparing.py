"""What runs differ in: settings, code, machine, and whether the difference in accuracy is more than chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from evt.errors import DataError
from evt.evaluate.kept import FORMAT, RUN, SAMPLES
from evt.metrics.bootstrap import Estimate, mean_of
from evt.metrics.detection import DetectionMetrics

Records = Sequence[Any]


@dataclass(frozen=True)
class Run:
    """What a run left in its folder.

    made: see `evt.evaluate.kept.made`.
    records: of each video or clip, by its name and that of the evaluator.
    content: a hash of what each shows, by its name.
    classes: the names of what is detected.
    """

    folder: Path
    made: Mapping[str, Any]
    records: Mapping[str, Mapping[str, Any]]
    classes: Sequence[str]
    content: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run's folder.

        Raises:
            DataError: it is none, or of another version of this program; or a file is damaged.
        """
        made = _json(folder, RUN, (_text(folder, RUN),))[0]
        first, *lines = _json(folder, SAMPLES, _text(folder, SAMPLES).splitlines())
        for name, own in ((RUN, made), (SAMPLES, first)):
            if own.get("format") != FORMAT:
                raise DataError(
                    f"{folder / name} is of format {own.get('format')}, of another version of evt; this one compares "
                    f"runs of format {FORMAT}: run it anew"
                )
        try:
            records, content = (
                {line["name"]: line[part] for line in lines} for part in ("records", "content")
            )
            return cls(folder, made, records, first["classes"], content)
        except (KeyError, TypeError) as error:
            raise DataError(f"{folder / SAMPLES} is damaged: a line lacks {error}") from error


def _text(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{folder} has no {name} that can be read, so it is no folder of a finished run of this version of evt; "
            "`python -m evt.run hydra.run.dir=FOLDER` makes one"
        ) from error


def _json(folder: Path, name: str, lines: Sequence[str]) -> list[dict[str, Any]]:
    try:
        found = [json.loads(line) for line in lines]
    except ValueError as error:
        raise DataError(f"{folder / name} is damaged: {error}") from error
    if not found or not all(isinstance(line, dict) for line in found):
        raise DataError(f"{folder / name} is damaged: it must hold objects of JSON")
    return found


def differences(runs: Sequence[Run]) -> Iterator[tuple[str, list[str]]]:
    """What runs were made of and by that is not the same in all, by name, and what it is in each."""
    flat = [dict(_flat(run.made)) for run in runs]
    for name in dict.fromkeys(name for own in flat for name in own):
        values = [json.dumps(own[name]) if name in own else "-" for own in flat]
        if len(set(values)) > 1 and not name.startswith("settings.folder"):
            yield name.removeprefix("settings."), values


def _flat(part: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _map50(records: Records, run: Run) -> Estimate:
    found = DetectionMetrics(run.classes)
    for record in records:
        found.add_records(record["detections"])
    return found.map50()


def _top1(records: Records, run: Run) -> Estimate:
    predictions = [clip["prediction"] for (clip,) in records]
    return mean_of([100.0 * (label == top[0]) for _, label, top in predictions])


def _of_later(steps: Sequence[Mapping[str, Any]], figure: Callable[[Any], float]) -> float:
    """The mean of a figure over later frames, or over all of them where each begins a sequence."""
    return fmean([figure(step) for step in steps if not step["first"]] or [figure(step) for step in steps])


def _gflops(records: Records, run: Run) -> Estimate:
    return mean_of([_of_later(steps, lambda step: sum(step["ops"].values()) / 1e9) for steps in records])


def _error(records: Records, run: Run) -> Estimate:
    return mean_of([_of_later(steps, lambda step: step["error"]) for steps in records])


FIGURES: dict[str, tuple[str, Callable[[Records, Run], Estimate], Callable[[Any], bool]]] = {
    "mAP50": ("detection", _map50, lambda record: True),
    "top-1": ("clip", _top1, lambda record: True),
    "relative L2 error of later frames": ("cost", _error, lambda steps: "error" in steps[0]),
    "GFlops of later frames": ("cost", _gflops, lambda steps: True),
}
"""By name: the evaluator whose records they are of, how they come of these, and whether a record has them."""


def unlike(runs: Sequence[Run]) -> list[str]:
    """The names of videos or clips that are in all runs, and do not show the same in all of them."""
    first, *rest = runs
    common = [name for name in first.content if all(name in run.content for run in rest)]
    return [name for name in common if len({run.content[name] for run in runs}) > 1]


@dataclass(frozen=True)
class Compared:
    """A figure of all runs on the same videos or clips.

    name: of it.
    estimates: of each run.
    n: videos or clips.
    """

    name: str
    estimates: Sequence[Estimate]
    n: int


def compared(runs: Sequence[Run]) -> list[Compared]:
    """All figures that all runs have, on the videos or clips that are in all of them.

    Raises:
        DataError: none is in all of them.
    """
    first, *others = runs
    common = [name for name in first.records if all(name in run.records for run in others)]
    if not common:
        raise DataError(
            f"{first.folder} and the others have no video or clip in common; runs are compared on the same ones"
        )
    found = []
    for figure, (kind, estimate, has) in FIGURES.items():
        records = [[run.records[name].get(kind) for name in common] for run in runs]
        if all(record and has(record) for own in records for record in own):
            estimates = [estimate(own, run) for own, run in zip(records, runs, strict=True)]
            found.append(Compared(figure, estimates, len(common)))
    return found
