"""The small counterparts of the paper's ViTDet tables: generated videos, a small trained model, measured accuracy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

import evt
from evt.data.loading import build_videos
from evt.data.sprites import SpriteVideos
from evt.device import build_device
from evt.errors import ConfigError
from evt.evaluate.classes import class_names
from evt.evaluate.detection import add_frame
from evt.evaluate.ledger import Ledger
from evt.evaluate.pool import in_batches, n_workers
from evt.evaluate.trace import trace
from evt.evaluate.variants import build_policy
from evt.eventful import VARIANTS
from evt.metrics.bootstrap import half_width
from evt.metrics.detection import FORMAT, DetectionMetrics
from evt.models.loading import Weights, build_model
from evt.models.vitdet import ViTDet
from evt.report import FilledTable
from evt.settings import config_of, job_of


@dataclass(frozen=True)
class MiniRow:
    """A row: a variant under a policy's setting.

    setting: "r" or "h"; empty for variants without gates.
    value: of that parameter.
    """

    variant: str
    setting: str = ""
    value: float = 0

    @property
    def label(self) -> str:
        """A short name."""
        return f"{self.variant} {self.setting}={self.value:g}" if self.setting else self.variant

    def policy(self) -> DictConfig:
        """The policy's settings, as the command line would give them."""
        if not self.setting:
            return DictConfig({"name": "none"})
        name, kind = ("top_r", "TopR") if self.setting == "r" else ("threshold", "Threshold")
        return DictConfig({"_target_": f"evt.eventful.{kind}", "name": name, self.setting: self.value})


class Measured(TypedDict):
    """What a row did on some videos.

    first_ops, later_ops: operations in the videos' first frames, which are flushes, and in all others.
    detections: for each video, as `DetectionMetrics.records` gives them.
    """

    first_ops: int
    later_ops: int
    detections: list[dict[str, Any]]


def rows_of(table: DictConfig) -> Iterator[MiniRow]:
    """The rows of a table: those without gates, then each gated variant at each of its policies.

    Raises:
        ConfigError: a variant does not exist.
    """
    for variant in (*table.dense, *table.gated):
        if variant not in VARIANTS:
            raise ConfigError(f"variant {variant} is unknown; allowed are {', '.join(VARIANTS)}")
    for variant in table.dense:
        yield MiniRow(variant)
    for variant in table.gated:
        for setting in ("r", "h"):
            for value in table.get(setting) or ():
                yield MiniRow(variant, setting, value)


def fill_mini_tables(cfg: DictConfig, folder: Path) -> list[FilledTable]:
    """Measure all rows of `cfg.table.tables` on the same videos; goes on after the videos that the folder holds.

    A batch of videos goes through every row before the next batch does, so that each is generated once and a row that
    several tables share is measured once. Batches are measured in as many processes as `cfg.workers` says.
    """
    workers = n_workers(cfg.workers)
    tables = dict(cfg.table.tables)
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, {"data": cfg.table.quick.data})  # type: ignore[assignment]
        tables = {name: tables[name] for name in cfg.table.quick.tables}
    rows = list(dict.fromkeys(row for table in tables.values() for row in rows_of(table)))
    job = job_of(cfg)
    _, model, weights, videos = _opened(job)
    for row in rows:  # what cannot be is found out now rather than after half an hour
        model.check(VARIANTS[row.variant])
        build_policy(row.policy(), VARIANTS[row.variant], model.n_tokens)
    class_names(videos, model.n_classes, weights.classes)

    ledger = Ledger(folder / "videos.jsonl")
    settings = json.dumps([evt.__version__, FORMAT, weights.sha256, job, [row.label for row in rows]])
    progress = tqdm(total=len(videos), desc=cfg.table.name, unit="video")
    run = partial(measure_videos, job, rows)
    results = in_batches(run, len(videos), cfg.table.batch, ledger, settings, workers, progress)
    measured_rows = zip(rows, zip(*results, strict=True), strict=True)
    cells = {
        row: _cells(cfg, videos, found)
        for row, found in tqdm(measured_rows, "bootstrap", len(rows), unit="row")
    }
    return [
        FilledTable(name, table.title, _records(rows_of(table), cells, model.n_tokens), notes, [], ledger)
        for notes in [_notes(cfg, weights, videos)]
        for name, table in tables.items()
    ]


def measure_videos(job: str, rows: Sequence[MiniRow], batch: Sequence[int]) -> list[Measured]:
    """Run a batch of videos, as one batch of streams, through each row.

    Args:
        job: the config, as JSON.
        rows: what runs.
        batch: the positions of the videos in the data.
    """
    cfg, model, _, videos = _opened(job)
    frames = list(zip(*(videos[i] for i in batch), strict=True))  # by time, then by video
    inputs = [torch.cat([model.preprocess(frame.image) for frame in now]) for now in frames]
    measured = []
    for row in rows:
        variant = VARIANTS[row.variant]
        stream = model.stream(variant, build_policy(row.policy(), variant, model.n_tokens))
        ops = []
        found = [DetectionMetrics(videos.classes) for _ in batch]
        for i, (step, now) in enumerate(zip(trace(stream, inputs), frames, strict=True), 1):
            ops.append(step.ops.total())
            if i % cfg.table.detect_every == 0:
                for frame, own, detections in zip(now, step.output.split(1), found, strict=True):
                    add_frame(detections, frame, model.decode([own], frame))
        records = [detections.records() for detections in found]
        measured.append(Measured(first_ops=ops[0], later_ops=sum(ops[1:]), detections=records))
    return measured


@cache
def _opened(job: str) -> tuple[DictConfig, ViTDet, Weights, SpriteVideos]:
    cfg = config_of(job)
    if cfg.data.name != "sprites":
        raise ConfigError(f"data is {cfg.data.name}; the small tables are of generated videos: sprites")
    videos = build_videos(cfg.data)
    assert isinstance(videos, SpriteVideos)
    return cfg, *build_model(cfg.model, build_device(cfg), ViTDet), videos


def _cells(cfg: DictConfig, videos: SpriteVideos, measured: Sequence[Measured]) -> dict[str, Any]:
    """The figures of a row, from what it did on each batch of videos."""
    n_videos, n_frames = len(videos), len(videos[0])
    detections = DetectionMetrics(videos.classes)
    for part in measured:
        for records in part["detections"]:
            detections.add_records(records)
    first = sum(part["first_ops"] for part in measured) / n_videos
    later = sum(part["later_ops"] for part in measured) / n_videos / (n_frames - 1)
    cells = {
        "gflops": (cfg.flush_rate * first + (1 - cfg.flush_rate) * later) / 1e9,
        "map50": detections.compute().map50,
        "interval": half_width(detections.map50_of_resamples()),
        "videos": n_videos,
        "frames": n_videos * n_frames,
    }
    if cfg.table.parts > 1:
        for k in range(cfg.table.parts):
            shown = detections.only(partial(_is_in_part, k, cfg.table.parts, n_frames))
            cells[f"map50_part{k + 1}"] = shown.compute().map50
    return cells


def _is_in_part(part: int, parts: int, n_frames: int, frame: str) -> bool:
    """Whether a frame is in a part of its video, by its number."""
    return int(frame.rpartition(":")[2]) * parts // n_frames == part


def _records(
    rows: Iterator[MiniRow], cells: dict[MiniRow, dict[str, Any]], n_tokens: int
) -> list[dict[str, Any]]:
    base = cells.get(MiniRow("base"))
    return [
        {
            "variant": row.variant,
            "r": int(row.value) if row.setting == "r" else "",
            "h": row.value if row.setting == "h" else "",
            "share": row.value / n_tokens if row.setting == "r" else "",
            "op_ratio": base["gflops"] / cells[row]["gflops"] if base else "",
            **cells[row],
        }
        for row in rows
    ]


def _notes(cfg: DictConfig, weights: Weights, videos: SpriteVideos) -> list[str]:
    notes = [
        f"{cfg.model.name} at {cfg.model.size} pixels, weights {weights}; GFlops are of its Transformer.",
        f"As in the paper's tables, GFlops are a mean over all frames of long videos: {cfg.flush_rate} of them are "
        "flushes. mAP50 is of later frames alone: of every "
        f"{cfg.table.detect_every} frames the last.",
        "`share` is r over the tokens of a frame; `op_ratio` the operations of base over those of the row.",
        "`interval`: 95% of 1000 resamples of the videos lie within this of mAP50 on either side (half the width).",
        f"Data: {len(videos)} generated videos of {len(videos[0])} frames, split {cfg.data.split}, setting "
        f"{cfg.data.setting}, seed {cfg.data.seed}.",
    ]
    if cfg.table.parts > 1:
        notes.append(
            f"`map50_part1` to `{cfg.table.parts}`: mAP50 in each part of the videos, first to last."
        )
    return notes
