"""Table 2 of the paper: what saved operations are worth in time, on the machine at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import PositiveInt

from evt.build import choice
from evt.device import build_device
from evt.evaluate.race import machine, race
from evt.evaluate.speed import DTYPES, Contestant, check_races, inputs_of, operations, record_of
from evt.models.loading import build_model
from evt.settings import changed
from evt.tables.fill import said
from evt.tables.filled import FilledTable
from evt.tables.points import Point, checked_run, paper_table, points_of


@dataclass(frozen=True)
class SpeedTable:
    """Variants of each model at each size in one race, frame by frame, on the fast path.

    model: the choice that it is of.
    models: others, by their names in the points.
    steps: by the name of a model, frames that one of the paper's times is of; 1 where it is not there.
    paper: the table's name there.
    points: its rows, see `points_of`; None is those of the paper.
    dtypes: that are timed.
    frames, repeats: by dtype: frames of the data that are run, and how often.
    notes: below the table; may have {cfg}, {machine} and {data} in them.
    digits: of numbers in the Markdown table.
    """

    title: str
    model: str
    models: dict[str, Any]
    steps: dict[str, PositiveInt]
    paper: str
    dtypes: tuple[str, ...]
    frames: dict[str, int]
    repeats: dict[str, PositiveInt]
    notes: dict[str, str]
    points: tuple[dict[str, Any], ...] | None = None
    digits: dict[str, int] = field(default_factory=dict)
    batch: None = None

    def work(self, cfg: DictConfig, folder: Path) -> SpeedWork:
        """See `evt.tables.fill.Table`."""
        return SpeedWork(self, cfg)


class SpeedWork:
    """See `evt.tables.fill.Work`; a part is a race: the dtype, and the positions of its rows."""

    def __init__(self, table: SpeedTable, cfg: DictConfig) -> None:
        self._table, self._cfg = table, cfg
        self._device = build_device(cfg)
        self._paper = paper_table(table.paper, "gpu_ms", "cpu_ms")
        self._points = self._paper.points() if table.points is None else points_of(table.points)
        races = [
            [i for i, _ in rows]
            for _, rows in groupby(enumerate(self._points), lambda row: (row[1]["model"], row[1]["size"]))
        ]
        self.parts = [(dtype, rows) for dtype in table.dtypes for rows in races]
        self.weights = [machine(self._device)]  # of times, what they depend on

    def _settings(self, point: Point) -> DictConfig:
        models = {self._cfg.model.name: self._cfg.model, **self._cfg.table.models}
        return changed(choice(models, "the model of a point", point["model"]), size=point["size"])

    def measure(self, part: tuple[str, Sequence[int]]) -> list[dict[str, Any]]:
        """See `evt.tables.fill.Work`."""
        dtype, rows = part
        points = [self._points[i] for i in rows]
        settings = self._settings(points[0])
        model, _ = build_model(settings, self._device)
        runs = [Contestant(*checked_run(point, model)) for point in points]
        for run in runs:
            check_races(run.variant)
        n_frames, setting = self._table.frames[dtype], f"table.frames.{dtype}"
        inputs = inputs_of(model, self._cfg.data, n_frames, DTYPES[dtype], setting)
        model = model.to(DTYPES[dtype])
        streams = {point.label: run.on(model, fast=True) for point, run in zip(points, runs, strict=True)}
        laps = list(race(streams, inputs, self._table.repeats[dtype]).values())
        ops = [operations(run, model, settings, inputs) for run in runs]
        return [record_of(own, laps[0], ops[0] / n) for own, n in zip(laps, ops, strict=True)]

    def tables(self, found: Sequence[Sequence[dict[str, Any]]]) -> list[FilledTable]:
        """See `evt.tables.fill.Work`."""
        column = "gpu_ms" if self._device.type == "cuda" else "cpu_ms"
        records = []
        for (dtype, rows), figures in zip(self.parts, found, strict=True):
            base_ms = None
            for i, own in zip(rows, figures, strict=True):
                point = self._points[i]
                printed = self._paper.beside(point, column)
                # The paper's times of ViViT are of a clip, whose steps are as many frames.
                paper_ms = float(printed or "nan") / self._table.steps.get(point["model"], 1)
                base_ms = base_ms or paper_ms
                records.append(
                    {
                        **dict(point.cells),
                        "dtype": dtype,
                        **own,
                        "paper_ms": paper_ms,
                        "paper_speed_up": base_ms / paper_ms,
                    }
                )
        data = Path(str(self._cfg.data.get("path", self._cfg.data.name))).name
        notes = said(self._cfg, self._table.notes, machine=machine(self._device), data=data)
        return [FilledTable(self._cfg.table.name, self._table.title, records, notes)]
