"""The headline figures of Run-Length Tokenization's page, beside what came out here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from evt.data.sprites import SpriteClips
from evt.device import build_device
from evt.evaluate.trace import timed
from evt.models.loading import build_model
from evt.models.videomae import VideoMAE
from evt.settings import CONFIG_DIR, changed
from evt.tokens import RunLength
from evt.training.objectives.motion import MotionLearner, MotionSamples, motion_losses
from evt.training.recipe import build_optimizers, build_recipe

STEPS = 8
"""Training steps that are timed, on all tokens and on those that are kept by turns, after one of each that is not."""


def training_seconds(cfg: DictConfig, data: SpriteClips) -> dict[str, float]:
    """Median seconds of a training step on all tokens ("dense") and with run-length tokenization ("rlt").

    A step is forward, backward and optimizer, on batches that are made before.
    """
    device = build_device(cfg)
    task = OmegaConf.load(CONFIG_DIR / "task/videomae_mini.yaml")
    recipe = build_recipe(task.train)
    contestants = {}
    for name, reduction in (("dense", None), ("rlt", RunLength(cfg.table.rivals_at))):
        model, _ = build_model(changed(cfg.model, checkpoint=None), device, VideoMAE)
        learner = MotionLearner(model, reduction=reduction).to(device)
        contestants[name] = learner, build_optimizers(learner, recipe)
    samples, size = MotionSamples(data, model), min(recipe.batch_size, len(data))
    generator = torch.Generator()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for step in tqdm(range(STEPS + 1), desc="training, dense and rlt by turns", unit="step"):
        batch = [samples.sample((step * size + i) % len(samples), generator) for i in range(size)]

        def descend(
            learner: MotionLearner,
            optimizers: dict[str, torch.optim.Optimizer],
            batch: list[Any] = batch,
        ) -> None:
            loss = torch.stack(list(motion_losses(learner, batch).values())).sum()
            learner.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in optimizers.values():
                optimizer.step()

        for name, contestant in contestants.items():
            _, taken = timed(descend, *contestant)
            if step:
                seconds[name].append(taken)
    return {name: statistics.median(times) for name, times in seconds.items()}


def headline(
    records: Sequence[dict[str, Any]], seconds: dict[str, float], cfg: DictConfig, tokens: Path
) -> list[dict[str, Any]]:
    """The page's figures and ours, a row each.

    Args:
        records: of the table on generated clips.
        seconds: see `training_seconds`.
        cfg: the table's.
        tokens: the csv on real clips; its row stays empty where it is not there.
    """

    def row_of(trained: str, variant: str, setting: str = "") -> dict[str, Any]:
        wanted = {"model": "videomae", "trained": trained, "variant": variant, "setting": setting}
        return next(x for x in records if wanted.items() <= x.items())

    at = f"threshold={cfg.table.rivals_at:g}"
    dense, untrained = row_of("dense", "base"), row_of("dense", "rlt", at)
    trained = row_of("rlt", "rlt", at)
    most: Any = ""
    if tokens.exists():
        real = pd.read_csv(tokens)
        fastest = real[(real["fps"] == real["fps"].max()) & (real["threshold"] == cfg.table.rivals_at)]
        most = 100 * float(1 - fastest["kept"].min())
    here = "a small VideoMAE on generated clips, CPU; the page: Kinetics-400, ViT-B and larger, GPU"
    figures: list[tuple[str, str, Any, str]] = [
        ("throughput gained without training, %", "40", 100 * (untrained["time_ratio"] - 1), here),
        ("top-1 lost without training, points", "0.1", dense["top1"] - untrained["top1"], here),
        ("top-1 lost after training with it, points", "0", dense["top1"] - trained["top1"], here),
        ("time of training saved, %", "40", 100 * (1 - seconds["rlt"] / seconds["dense"]), here),
        ("tokens dropped, %", "30", 100 * (1 - untrained["kept"]), "generated clips of 16 frames"),
        ("tokens dropped at high frame rates, up to %", "80", most, f"real clips, see {tokens.name}"),
    ]
    return [
        {"figure": what, "page": page, "ours": ours, "differs": differs}
        for what, page, ours, differs in figures
    ]
