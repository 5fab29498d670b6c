"""The small counterpart of Table D: generated clips, a small trained ViViT, measured accuracy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

import evt
from evt.data.loading import build_clips
from evt.data.sprites import SpriteClips
from evt.device import build_device
from evt.errors import ConfigError
from evt.evaluate.ledger import Ledger
from evt.evaluate.pool import in_batches, n_workers
from evt.evaluate.shapes import operations_of_clip
from evt.evaluate.variants import build_policy
from evt.eventful import VARIANTS, Variant
from evt.metrics.bootstrap import half_width, mean_of, resample
from evt.models.loading import build_model
from evt.models.vivit import ViViT
from evt.report import FilledTable
from evt.settings import changed, config_of, job_of

Hits = dict[str, list[int]]
"""For each temporal sub-model, by the r it was tuned at ("" for none), 1 for each clip that it classifies rightly."""


def fill_mini_clip_table(cfg: DictConfig, folder: Path) -> list[FilledTable]:
    """Measure the rows of the table that `cfg.table` names; goes on after the clips that the folder holds.

    A batch of clips goes through the spatial sub-model once for each budget, and all temporal sub-models classify
    what comes of it. Batches are measured in as many processes as `cfg.workers` says, one thread each.
    """
    workers = n_workers(cfg.workers)
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, {"data": cfg.table.quick.data})  # type: ignore[assignment]
    tested = {r: [round(r * share) for share in cfg.table.tested_at] for r in cfg.table.tuned}
    budgets = sorted({r for near in tested.values() for r in near}, reverse=True)
    passes: list[int | None] = [None, *budgets]
    job = job_of(cfg)
    models, data = _opened(job)
    base = models[""]
    for r in budgets:  # what cannot be is found out now
        _run_of(r, base)
    weights = [build_model(_model_config(cfg, r), torch.device("cpu"), ViViT)[1].sha256 for r in models]

    ledger = Ledger(folder / "clips.jsonl")
    settings = json.dumps([evt.__version__, weights, job])
    progress = tqdm(total=len(data), desc=cfg.table.name, unit="clip")
    run = partial(classify_clips, job, passes)
    results = in_batches(run, len(data), cfg.table.batch, ledger, settings, workers, progress)

    # Counted on torch's meta device: operations follow from shapes alone.
    shapes = build_model(changed(cfg.model, checkpoint=None), torch.device("meta"), ViViT)[0]
    rows = [("", None), *(("", r) for r in budgets)]
    rows += [(str(tuned), r) for tuned, near in tested.items() for r in near]
    dense = operations_of_clip(shapes, VARIANTS["base"], None)
    records = []
    for tuned, r in rows:
        right = [hit for found in results for hit in found[passes.index(r)][tuned]]
        ops = operations_of_clip(shapes, *_run_of(r, base))
        interval = half_width(100 * mean_of(right, resample(len(right))))
        records.append(
            {
                "variant": "base" if r is None else "temporal",
                "tuned_r": tuned,
                "r": "" if r is None else r,
                "share": "" if r is None else r / base.n_tokens,
                "op_ratio": dense / ops,
                "gflops": ops / 1e9,
                "top1": 100 * float(np.mean(right)),
                "interval": interval,
                "clips": len(right),
            }
        )
    return [FilledTable(cfg.table.name, cfg.table.title, records, _notes(cfg, base, data), [], ledger)]


def classify_clips(job: str, passes: Sequence[int | None], batch: Sequence[int]) -> list[Hits]:
    """Classify some clips, as one batch of streams, with each budget of the spatial sub-model.

    Args:
        job: the config, as JSON.
        passes: the budgets, in tokens; None is the dense model.
        batch: the positions of the clips in the data.
    """
    models, data = _opened(job)
    base = models[""]
    clips = [data[i] for i in batch]
    views = torch.cat([base.preprocess(clip) for clip in clips])
    labels = torch.tensor([clip.label for clip in clips])
    found = []
    for r in passes:
        spatial = base.run_spatial(views, *_run_of(r, base))
        hits: Hits = {}
        with torch.no_grad():
            for tuned, model in models.items():
                logits = model.classify(spatial).unflatten(0, (len(clips), -1)).mean(1)
                hits[tuned] = (logits.argmax(-1).cpu() == labels).int().tolist()
        found.append(hits)
    return found


def _run_of(r: int | None, model: ViViT) -> tuple[Variant, Any]:
    variant = VARIANTS["base" if r is None else "temporal"]
    policy = {"name": "none"} if r is None else {"_target_": "evt.eventful.TopR", "name": "top_r", "r": r}
    return variant, build_policy(DictConfig(policy), variant, model.n_tokens)


def _model_config(cfg: DictConfig, tuned: str) -> DictConfig:
    """The model with the temporal sub-model that was tuned at an r; "" for that of its checkpoint."""
    fine_tuned = cfg.table.fine_tuned.format(r=tuned) if tuned else None
    return changed(cfg.model, fine_tuned=fine_tuned)


@cache
def _opened(job: str) -> tuple[dict[str, ViViT], SpriteClips]:
    """The models, by the r at which their temporal sub-model was tuned ("" for none), and the clips."""
    cfg = config_of(job)
    if cfg.data.name != "sprite_clips":
        raise ConfigError(f"data is {cfg.data.name}; the small tables are of generated clips: sprite_clips")
    data = build_clips(cfg.data)
    assert isinstance(data, SpriteClips)
    device = build_device(cfg)
    tuned = ["", *map(str, cfg.table.tuned)]
    return {r: build_model(_model_config(cfg, r), device, ViViT)[0] for r in tuned}, data


def _notes(cfg: DictConfig, model: ViViT, data: SpriteClips) -> Sequence[str]:
    return [
        f"vivit at {model.size} pixels, weights {cfg.model.checkpoint}; GFlops are of a whole clip: "
        f"{model.steps} steps of {model.n_tokens} tokens, the first a flush, and the temporal sub-model.",
        "Rows with an `r` and no `tuned_r` are naive: the dense model's temporal sub-model on Eventful outputs.",
        "`share` is r over the tokens of a step; `op_ratio` the operations of base over those of the row.",
        "`interval`: 95% of 1000 resamples of the clips lie within this of top-1 on either side (half the width).",
        f"Data: {len(data)} generated clips of {cfg.data.n_frames} frames, split {cfg.data.split}, setting "
        f"{cfg.data.setting}, seed {cfg.data.seed}.",
    ]
