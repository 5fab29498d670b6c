"""The headline figures of Run-Length Tokenization's page, beside what came out here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from pydantic import PositiveInt
from tqdm import tqdm

from evt.build import build
from evt.data.loading import build_clips
from evt.device import build_device
from evt.errors import DataError
from evt.evaluate.trace import timed
from evt.models.loading import build_model
from evt.settings import changed
from evt.tables.fill import said
from evt.tables.filled import FilledTable
from evt.tokens import RunLength
from evt.training.objectives.motion import MotionLearner, MotionSamples, motion_losses
from evt.training.recipe import Recipe, build_optimizers

HERE = "a small VideoMAE on generated clips, CPU; the page: Kinetics-400, ViT-B and larger, GPU"


@dataclass(frozen=True)
class PageTable:
    """The page's figures and ours.

    clips: the CSV of the table on generated clips, see table_rlt.yaml.
    tokens: that of the table on real clips; its row stays empty where there is none.
    threshold: of run-length tokenization.
    train: the recipe whose steps are timed.
    epoch: clips of a whole training.
    steps: that are timed, on all tokens and on those that are kept by turns, after one of each that is not.
    notes: below the table; may have {cfg}, {batch_size}, {n_clips}, {dense} and {rlt} in them, the seconds of a step,
        and {dense_minutes} and {rlt_minutes} of an epoch.
    digits: of numbers in the Markdown table.
    """

    title: str
    model: str
    clips: Path | str
    tokens: Path | str
    threshold: float
    train: dict[str, Any]
    epoch: PositiveInt
    notes: dict[str, str]
    steps: PositiveInt = 8
    digits: dict[str, int] = field(default_factory=dict)
    batch: None = None

    def work(self, cfg: DictConfig, folder: Path) -> PageWork:
        """See `evt.tables.fill.Table`.

        Raises:
            DataError: there is no table on generated clips.
        """
        return PageWork(self, cfg)


class PageWork:
    """See `evt.tables.fill.Work`; the one part is the time of a training step."""

    parts = ("training",)
    read = ()

    def __init__(self, table: PageTable, cfg: DictConfig) -> None:
        self._table, self._cfg = table, cfg
        self._recipe: Recipe = build(cfg.table.train, "table.train")
        if not Path(table.clips).exists():
            raise DataError(
                f"{table.clips}: there is no such table; `evt.reproduce table=table_rlt` writes it"
            )
        self._filled({"dense": 1.0, "rlt": 1.0})  # what is not there, and what cannot be said, is told now

    def measure(self, part: str) -> dict[str, float]:
        """Median seconds of a training step on all tokens, `dense`, and with run-length tokenization, `rlt`.

        A step is forward, backward and optimizer, on batches that are made before.
        """
        device = build_device(self._cfg)
        data: Any = build_clips(self._cfg.data)
        contestants = {}
        for name, reduction in (("dense", None), ("rlt", RunLength(self._table.threshold))):
            model, _ = build_model(changed(self._cfg.model, checkpoint=None), device)
            learner = MotionLearner(model, reduction=reduction).to(device)
            contestants[name] = learner, build_optimizers(learner, self._recipe)
        samples, size = MotionSamples(data, model), min(self._recipe.batch_size, len(data))
        generator = torch.Generator()
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        with tqdm(range(self._table.steps + 1), "training, dense and rlt by turns", unit="step") as steps:
            for step in steps:
                batch = [samples.sample((step * size + i) % len(samples), generator) for i in range(size)]
                for name, contestant in contestants.items():
                    _, taken = timed(_descend, *contestant, batch)
                    if step:
                        seconds[name].append(taken)
        return {name: statistics.median(times) for name, times in seconds.items()}

    def tables(self, found: Sequence[dict[str, float]]) -> list[FilledTable]:
        """See `evt.tables.fill.Work`."""
        return [self._filled(*found)]

    def _filled(self, seconds: dict[str, float]) -> FilledTable:
        """The table, from the seconds of a training step.

        Raises:
            ConfigError: a note names what there is not.
            DataError: a table that it is made of lacks a row or a column.
        """
        table, batch_size = self._table, self._recipe.batch_size
        minutes = {f"{name}_minutes": table.epoch / batch_size * x / 60 for name, x in seconds.items()}
        try:
            clips = pd.read_csv(table.clips)
            n_clips = clips.clips.max()
            records = headline(clips, seconds, table.threshold, Path(table.tokens))
        except (AttributeError, LookupError, ValueError) as error:
            raise DataError(
                f"{table.clips} or {Path(table.tokens).name} lacks columns, or rows of threshold {table.threshold}, "
                "that the page's figures need; they must be as `make reproduce-rlt` writes them"
            ) from error
        facts = {"batch_size": batch_size, "n_clips": n_clips, **seconds, **minutes}
        notes = said(self._cfg, table.notes, **facts)
        if not Path(table.tokens).exists():
            notes.append(
                f"Real clips: `make reproduce-rlt` where there are some writes {Path(table.tokens).name}."
            )
        return FilledTable(self._cfg.table.name, table.title, records, notes)


def _descend(learner: MotionLearner, optimizers: dict[str, torch.optim.Optimizer], batch: list[Any]) -> None:
    loss = torch.stack(list(motion_losses(learner, batch).values())).sum()
    learner.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in optimizers.values():
        optimizer.step()


def headline(
    clips: pd.DataFrame, seconds: dict[str, float], threshold: float, tokens: Path
) -> list[dict[str, Any]]:
    """The page's figures and ours, a row each.

    Args:
        clips: the table on generated clips.
        seconds: of a training step, see `PageWork.measure`.
        threshold: of run-length tokenization.
        tokens: the CSV on real clips.

    Raises:
        AttributeError, LookupError, ValueError: one of them lacks a column or a row.
    """

    def row_of(trained: str, variant: str) -> Any:
        own = clips[(clips.model == "videomae") & (clips.trained == trained) & (clips.variant == variant)]
        return own.iloc[0] if variant == "base" else own[own.setting == f"threshold={threshold}"].iloc[0]

    dense, untrained, trained = row_of("dense", "base"), row_of("dense", "rlt"), row_of("rlt", "rlt")
    most: Any = ""
    if tokens.exists():
        real = pd.read_csv(tokens)
        fastest = real[(real.fps == real.fps.max()) & (real.threshold == threshold)]
        most = 100 * (1 - min(fastest.kept))
    figures: list[tuple[str, str, Any, str]] = [
        ("throughput gained without training, %", "40", 100 * (untrained.time_ratio - 1), HERE),
        ("top-1 lost without training, points", "0.1", dense.top1 - untrained.top1, HERE),
        ("top-1 lost after training with it, points", "0", dense.top1 - trained.top1, HERE),
        ("time of training saved, %", "40", 100 * (1 - seconds["rlt"] / seconds["dense"]), HERE),
        ("tokens dropped, %", "30", 100 * (1 - untrained.kept), "generated clips of 16 frames"),
        ("tokens dropped at high frame rates, up to %", "80", most, f"real clips, see {tokens.name}"),
    ]
    return [
        {"figure": what, "page": page, "ours": ours, "differs": differs}
        for what, page, ours, differs in figures
    ]
