"""Run-length tokenization beside its rivals, on generated clips: accuracy, operations and throughput."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from tqdm import tqdm

import evt
from evt.data.loading import build_clips
from evt.data.sprites import SpriteClips
from evt.device import build_device
from evt.errors import ConfigError
from evt.evaluate.classes import check_classes
from evt.evaluate.ledger import Ledger
from evt.evaluate.pool import in_batches, n_workers
from evt.evaluate.trace import timed
from evt.eventful import VARIANTS, TopR, count_ops
from evt.metrics.bootstrap import half_width, mean_of, resample
from evt.models.loading import Weights, build_model
from evt.models.videomae import VideoMAE
from evt.models.vivit import ViViT
from evt.report import FilledTable
from evt.settings import CONFIG_DIR, changed, config_of, job_of
from evt.tables.checks import check_counts, check_thresholds
from evt.tables.rlt_headline import headline, training_seconds
from evt.tokens import Merge, RandomDrop, Reduction, RunLength

SAMPLE = 480
"""Clips from which the cost of run-length tokenization is estimated, for Token Merging to have the same."""


@dataclass(frozen=True)
class Entry:
    """A row.

    model: "videomae" or "vivit".
    trained: with what tokens the weights were trained; "dense", "rlt", or "r=25" and so on.
    variant: by its name on the command line.
    setting: of the variant, for the table.
    """

    model: str
    trained: str
    variant: str
    setting: str
    reduction: Reduction | TopR | None

    @property
    def label(self) -> str:
        """A name, unique in its table."""
        return f"{self.model} {self.trained} {self.variant} {self.setting}"


def entries(cfg: DictConfig, r: int) -> Iterator[Entry]:
    """The rows of the table; r is Token Merging's."""
    for trained in cfg.table.trained:
        yield Entry("videomae", trained, "base", "", None)
        for threshold in cfg.table.thresholds:
            yield Entry("videomae", trained, "rlt", f"threshold={threshold:g}", RunLength(threshold))
        at = cfg.table.rivals_at
        yield Entry("videomae", trained, "random_drop", f"threshold={at:g}", RandomDrop(at))
        yield Entry("videomae", trained, "token_merging", f"r={r}", Merge(r))
    yield Entry("vivit", "dense", "base", "", None)
    for r in cfg.table.vivit.r:
        yield Entry("vivit", "dense", "temporal", f"r={r}", TopR(r))
        yield Entry("vivit", f"r={r}", "temporal", f"r={r}", TopR(r))


def fill_rlt_table(cfg: DictConfig, folder: Path) -> list[FilledTable]:
    """Measure every row on the same clips; goes on after the clips that the folder holds.

    A batch of clips goes through all rows before the next one does, so that their times can be compared.

    Raises:
        ConfigError: a threshold or the size of batches is none, or rivals_at is not among the thresholds.
    """
    check_counts(cfg.table, "table.", "batch")
    check_thresholds(cfg.table, "rivals_at")
    workers = n_workers(cfg.workers)
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, {"data": cfg.table.quick.data})  # type: ignore[assignment]
    job = job_of(cfg)
    models, data = _opened(job)
    for model, weights_of in models.values():
        if list(weights_of.classes or data.classes) != list(data.classes):
            raise ConfigError(f"{weights_of}: the weights are not for the classes of {data.name}")
        check_classes(model, data)
    rows = list(entries(cfg, _matching_r(models["videomae", "dense"][0], cfg, data)))
    weights = [weights.sha256 for _, weights in models.values()]
    ledger = Ledger(folder / "clips.jsonl")
    settings = json.dumps([evt.__version__, weights, job])
    progress = tqdm(total=len(data), desc=cfg.table.name, unit="clip")
    found = in_batches(
        partial(measure_clips, job, rows), len(data), cfg.table.batch, ledger, settings, workers, progress
    )
    records = [_record(row, [batch[row.label] for batch in found]) for row in rows]
    base = {}
    for record in records:
        if record["variant"] == "base":  # the first row of its model
            base = record
        record["op_ratio"] = base["gflops"] / record["gflops"]
        if record["clips_per_second"]:
            record["time_ratio"] = record["clips_per_second"] / base["clips_per_second"]
    key = f"training {settings}"
    if key not in ledger:
        ledger.put(key, training_seconds(cfg, data))
    seconds = ledger[key]
    tokens = Path(cfg.out) / "table_rlt_tokens.csv"
    page = headline(records, seconds, cfg, tokens)
    return [
        FilledTable(cfg.table.name, cfg.table.title, records, _notes(cfg, data), [], ledger),
        FilledTable(
            f"{cfg.table.name}_page",
            cfg.table.page_title,
            page,
            _page_notes(cfg, data, seconds, tokens),
            [],
            ledger,
        ),
    ]


def measure_clips(job: str, rows: Sequence[Entry], batch: Sequence[int]) -> dict[str, dict[str, Any]]:
    """What each row makes of some clips, by its label: hits, operations, seconds and the share of tokens kept."""
    models, data = _opened(job)
    clips = [data[i] for i in batch]
    labels = torch.tensor([clip.label for clip in clips])
    views = {}
    for name in ("videomae", "vivit"):
        model = models[name, "dense"][0]
        views[name] = torch.cat([model.preprocess(clip) for clip in clips])
    found = {}
    for row in rows:
        model, x = models[row.model, row.trained][0], views[row.model]
        with torch.no_grad(), count_ops() as ops:
            logits, seconds = timed(_logits, model, x, row)
        kept = None
        if isinstance(model, VideoMAE) and not isinstance(row.reduction, TopR):
            kept = model.share_kept(x, row.reduction)
        found[row.label] = {
            "hits": (logits.argmax(-1) == labels).int().tolist(),
            "ops": ops.total(),
            "seconds": seconds,
            "kept": kept,
        }
    return found


def _logits(model: nn.Module, views: Tensor, row: Entry) -> Tensor:
    if isinstance(model, VideoMAE):
        return model(views, row.reduction)
    assert isinstance(model, ViViT)
    policy = row.reduction if isinstance(row.reduction, TopR) else None
    return model.classify(model.run_spatial(views, VARIANTS[row.variant], policy))


@torch.no_grad()
def _matching_r(model: VideoMAE | ViViT, cfg: DictConfig, data: SpriteClips) -> int:
    """The pairs that Token Merging must merge in each block to cost no more than run-length tokenization."""
    assert isinstance(model, VideoMAE)
    sample = range(min(SAMPLE, len(data)))
    with count_ops() as ops:
        for i in tqdm(sample, desc="what run-length tokenization costs", unit="clip"):
            model(model.preprocess(data[i]), RunLength(cfg.table.rivals_at))
    shapes = build_model(changed(cfg.model, checkpoint=None), torch.device("meta"), VideoMAE)[0]
    view = torch.zeros(1, model.view_frames, 3, model.size, model.size, device="meta")
    for r in range(model.n_tokens):
        with count_ops() as merging:
            shapes(view, Merge(r))
        if merging.total() * len(sample) <= ops.total():
            return r
    return model.n_tokens


@cache
def _opened(job: str) -> tuple[dict[tuple[str, str], tuple[VideoMAE | ViViT, Weights]], SpriteClips]:
    cfg = config_of(job)
    device = build_device(cfg)
    models: dict[tuple[str, str], tuple[VideoMAE | ViViT, Weights]] = {}
    for trained, checkpoint in cfg.table.trained.items():
        models["videomae", trained] = build_model(changed(cfg.model, checkpoint=checkpoint), device, VideoMAE)
    vivit = {**OmegaConf.load(CONFIG_DIR / "model/vivit_mini.yaml"), "checkpoint": cfg.table.vivit.checkpoint}
    models["vivit", "dense"] = build_model(DictConfig(vivit), device, ViViT)
    for r in cfg.table.vivit.r:
        tuned = {**vivit, "fine_tuned": cfg.table.vivit.fine_tuned.format(r=r)}
        models["vivit", f"r={r}"] = build_model(DictConfig(tuned), device, ViViT)
    data = build_clips(cfg.data)
    assert isinstance(data, SpriteClips)
    return models, data


def _record(row: Entry, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    hits = [hit for batch in found for hit in batch["hits"]]
    kept = [batch["kept"] for batch in found if batch["kept"] is not None]
    return {
        "model": row.model,
        "trained": row.trained,
        "variant": row.variant,
        "setting": row.setting,
        "kept": float(np.mean(kept)) if kept else "",
        "gflops": sum(batch["ops"] for batch in found) / len(hits) / 1e9,
        "op_ratio": 1.0,
        # ViViT runs on the reference path here; times of the fast path, at full size, are Table 2's.
        "clips_per_second": ""
        if row.model == "vivit"
        else len(hits) / sum(batch["seconds"] for batch in found),
        "time_ratio": "",
        "top1": 100 * float(np.mean(hits)),
        "interval": half_width(100 * mean_of(hits, resample(len(hits)))),
        "clips": len(hits),
    }


def _notes(cfg: DictConfig, data: SpriteClips) -> list[str]:
    return [
        "`trained`: with all tokens, with run-length tokenization, or (ViViT) the temporal sub-model on Eventful "
        "outputs at that r; `variant` is how they run, base on all tokens. `kept`: share of the tokens. `op_ratio` "
        "and `time_ratio`: over the base row above. Times are of one run, each batch through all rows before the "
        "next; those of Eventful ViViT are in table_2.md, on the fast path at full size, while it runs on the "
        "reference path here.",
        f"Data: {len(data)} generated clips of {cfg.data.n_frames} frames, split {cfg.data.split}, setting "
        f"{cfg.data.setting}, seed {cfg.data.seed}.",
    ]


def _page_notes(cfg: DictConfig, data: SpriteClips, seconds: dict[str, float], tokens: Path) -> list[str]:
    batch = OmegaConf.load(CONFIG_DIR / "task/videomae_mini.yaml")
    steps = batch.data.clips.n_clips / batch.train.batch_size
    minutes = {name: steps * x / 60 for name, x in seconds.items()}
    notes = [
        f"Training: a step of {batch.train.batch_size} clips takes {seconds['dense']:.2f} s on all tokens and "
        f"{seconds['rlt']:.2f} s with run-length tokenization (forward, backward and optimizer, medians, by turns), "
        f"so an epoch of {steps:.0f} steps {minutes['dense']:.0f} and {minutes['rlt']:.0f} minutes, without making "
        "the clips.",
        f"Threshold {cfg.table.rivals_at:g}, {len(data)} clips; {cfg.table.name}.md has the intervals of top-1. A "
        "CPU runs one clip after the other at the same speed, so that throughput follows the operations; a GPU needs "
        "full batches for that.",
    ]
    if not tokens.exists():
        notes.append(f"Real clips: `make reproduce-rlt` where there are some writes {tokens.name}.")
    return notes
