"""The small counterparts of the paper's ViTDet tables: generated videos, a small trained model, measured accuracy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

import evt
from evt.data.sprites import SpriteVideos
from evt.data.video import Video
from evt.eventful import VARIANTS
from evt.harness import setup
from evt.harness.ledger import Ledger
from evt.harness.measure import Run, measure
from evt.harness.pool import in_processes, n_workers
from evt.harness.report import FilledTable
from evt.metrics.bootstrap import half_width
from evt.models.vitdet import ViTDet


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
        """A short name, which is also that of a file."""
        return f"{self.variant} {self.setting}={self.value:g}" if self.setting else self.variant

    def policy(self) -> DictConfig:
        """The policy's settings, as the command line would give them."""
        if not self.setting:
            return DictConfig({"name": "none"})
        name = "top_r" if self.setting == "r" else "threshold"
        return DictConfig({"name": name, self.setting: self.value})


def rows_of(table: DictConfig) -> Iterator[MiniRow]:
    """The rows of a table: those without gates, then each gated variant at each of its policies.

    Raises:
        ConfigError: a variant does not exist.
    """
    for variant in (*table.dense, *table.gated):
        if variant not in VARIANTS:
            raise setup.ConfigError(f"variant {variant} is unknown; allowed are {', '.join(VARIANTS)}")
    for variant in table.dense:
        yield MiniRow(variant)
    for variant in table.gated:
        for setting in ("r", "h"):
            for value in table.get(setting) or ():
                yield MiniRow(variant, setting, value)


def fill_mini_table(cfg: DictConfig, folder: Path) -> FilledTable:
    """Measure the rows of the table that `cfg.table` names; goes on after the last row that the folder holds.

    Rows are measured in as many processes as `cfg.workers` says, one thread each.
    """
    workers = n_workers(cfg.workers)
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, {"data": cfg.table.quick})  # type: ignore[assignment]
    device = setup.build_device(cfg)
    model, weights = setup.build_vitdet(cfg.model, device)
    rows = list(rows_of(cfg.table))
    for row in rows:  # what cannot be is found out now rather than after half an hour
        setup.build_policy(row.policy(), VARIANTS[row.variant], model.n_tokens)
    videos = setup.build_data(cfg.data)
    setup.class_names(videos, model.n_classes)

    ledger = Ledger(folder / "rows.jsonl")
    job = json.dumps(OmegaConf.to_container(cfg, resolve=True), sort_keys=True)
    settings = f"{evt.__version__} {weights.sha256} {job}"
    keys = {row: f"{row.label} {settings}" for row in rows}
    todo = [row for row in rows if keys[row] not in ledger]
    with tqdm(total=len(rows), initial=len(rows) - len(todo), desc=cfg.table.name, unit="row") as bar:
        for row, cells in in_processes(partial(measure_row, job, folder), todo, workers):
            ledger.put(keys[row], cells)
            bar.update()
    records = [_record(row, ledger[keys[row]], model.n_tokens) for row in rows]
    base = next((x["gflops"] for x in records if x["variant"] == "base"), None)
    for record in records:
        record["op_ratio"] = base / record["gflops"] if base else ""
    return FilledTable(records, _notes(cfg, weights, videos), [], ledger)


def measure_row(job: str, folder: Path, row: MiniRow) -> dict[str, Any]:
    """The cells of one row, for the ledger; goes on after the last video that the folder holds.

    Args:
        job: the config, as JSON.
        folder: of the run.
        row: what is measured.
    """
    cfg, model, weights, videos = _opened(job)
    variant = VARIANTS[row.variant]
    policy = setup.build_policy(row.policy(), variant, model.n_tokens)
    run = Run(model, variant, policy, compare=False, detect=cfg.table.detect_every)
    ledger = Ledger(folder / f"{row.label}.jsonl")
    names = setup.class_names(videos, model.n_classes)
    key = json.dumps([weights, job])
    measurement, detections = measure(run, videos, names, ledger, key, None)
    ops = measurement.first.ops.total() + measurement.later.ops.total()
    frames = len(measurement.first.seconds) + len(measurement.later.seconds)
    cells: dict[str, Any] = {
        "gflops": ops / frames / 1e9,
        "map50": detections.compute().map50,
        "interval": half_width(detections.map50_of_resamples()),
        "videos": len(videos),
        "frames": frames,
    }
    if cfg.table.parts > 1:
        for part in range(cfg.table.parts):
            shown = detections.only(partial(_is_in_part, part, cfg.table.parts, len(videos[0])))
            cells[f"map50_part{part + 1}"] = shown.compute().map50
    ledger.finish()
    return cells


@cache
def _opened(job: str) -> tuple[DictConfig, ViTDet, str | None, Sequence[Video]]:
    cfg = DictConfig(json.loads(job))
    model, weights = setup.build_vitdet(cfg.model, setup.build_device(cfg))
    return cfg, model, weights.sha256, setup.build_data(cfg.data)


def _is_in_part(part: int, parts: int, n_frames: int, frame: str) -> bool:
    """Whether a frame is in a part of its video, by its number."""
    return int(frame.rpartition(":")[2]) * parts // n_frames == part


def _record(row: MiniRow, cells: dict[str, Any], n_tokens: int) -> dict[str, Any]:
    share = row.value / n_tokens if row.setting == "r" else ""
    return {
        "variant": row.variant,
        "r": int(row.value) if row.setting == "r" else "",
        "h": row.value if row.setting == "h" else "",
        "share": share,
        "op_ratio": "",
        **cells,
    }


def _notes(cfg: DictConfig, weights: setup.Weights, videos: Sequence[Video]) -> list[str]:
    every = cfg.table.detect_every
    what = "each frame" if every == 1 else f"every {every}th frame"
    notes = [
        f"{cfg.model.name} at {cfg.model.size} pixels, weights {weights}; GFlops are of its Transformer, a mean over "
        "all frames with the flush of each video's first, mAP50 is of "
        f"{what}.",
        "`share` is r over the tokens of a frame; `op_ratio` the operations of base over those of the row.",
        "`interval`: 95% of 1000 resamples of the videos lie within this of mAP50 on either side (half the width).",
    ]
    if isinstance(videos, SpriteVideos):
        notes.append(
            f"Data: {len(videos)} generated videos of {len(videos[0])} frames, split {cfg.data.split}, setting "
            f"{cfg.data.setting}, seed {cfg.data.seed}."
        )
    if cfg.table.parts > 1:
        notes.append(
            f"`map50_part1` to `{cfg.table.parts}`: mAP50 in each part of the videos, first to last."
        )
    return notes
