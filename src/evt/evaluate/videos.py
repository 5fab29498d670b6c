"""A model of frames over videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from evt.data.video import Video
from evt.evaluate.cost import Cost
from evt.evaluate.kept import Kept
from evt.evaluate.ledger import Ledger
from evt.evaluate.loop import Evaluator, Unit, evaluate
from evt.evaluate.skipping import Skipping
from evt.evaluate.trace import Subject


def run_videos(
    subject: Subject,
    videos: Sequence[Video],
    kinds: Mapping[str, Callable[[], Evaluator]],
    ledger: Ledger,
    key: str,
    describe: str,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Kept]]:
    """Run over videos, with a progress bar.

    The streams flush at the first frame of each video and wherever a new sequence begins in it. For the arguments,
    see `evaluate`, whose units are the videos; `describe` stands beside the progress bar.

    Returns:
        What it costs, for metrics.json, and beside a dense model what frame skipping would have given; the
        evaluators; and what is kept of each video.

    Raises:
        DataError: a frame cannot be read or used; the message names it.
    """
    own: dict[str, Any] = {"cost": Cost, **kinds, **subject.also}
    if subject.dense is not None and subject.decode:
        own["skipping"] = Skipping
    units = (Unit(video.name, video.fingerprint, video) for video in videos)
    with tqdm(total=sum(map(len, videos)), desc=describe, unit="frame") as bar:
        found, _, kept = evaluate(subject, units, own, ledger, key, bar)
    metrics = found["cost"].compute()
    if "skipping" in found and (skipping := found["skipping"].compute()):
        metrics["skipping"] = skipping
    return metrics, found, kept
