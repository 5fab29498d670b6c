"""Table 2 of the paper: what saved operations are worth in time, on the machine at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from evt.build import choice
from evt.device import build_device
from evt.errors import ConfigError
from evt.evaluate.race import machine, race
from evt.evaluate.rivals import build_rivals, check_rivals
from evt.evaluate.speed import DTYPES, Contestant, check_races, inputs_of, records_of
from evt.models.loading import build_model
from evt.settings import changed
from evt.tables.fill import said
from evt.tables.filled import FilledTable
from evt.tables.points import Point, check_columns, checked_run, files_read, paper_table, points_of


@dataclass(frozen=True)
class SpeedTable:
    """Variants of each model at each size in one race, frame by frame, on the fast path.

    model: the choice that it is of.
    models: others, by their names in the points.
    steps: by the name of a model, frames that one of the paper's times is of; 1 where it is not there.
    paper: the table's name there.
    points: its rows, see `points_of`; None is those of the paper.
    rivals: the dense model in other runtimes, rows below those of each race, see `evt.evaluate.rivals`.
    dtypes: that are timed.
    frames, repeats: by dtype: frames of the data that are run, and how often.
    notes: below the table; may have {cfg}, {machine} and {data} in them.
    digits: of numbers in the Markdown table.

    Raises:
        ValueError: a dtype has no number of frames or repeats.
    """

    title: str
    model: str
    models: dict[str, Any]
    steps: dict[str, PositiveInt]
    paper: str
    dtypes: Annotated[tuple[Literal["float32", "bfloat16"], ...], Field(min_length=1)]
    frames: dict[str, Annotated[int, Field(ge=3)]]
    repeats: dict[str, PositiveInt]
    notes: dict[str, str]
    points: tuple[dict[str, Any], ...] | None = None
    rivals: tuple[str, ...] = ()
    digits: dict[str, int] = field(default_factory=dict)
    batch: None = None

    def __post_init__(self) -> None:
        for setting, by_dtype in (("frames", self.frames), ("repeats", self.repeats)):
            if lacking := [dtype for dtype in self.dtypes if dtype not in by_dtype]:
                raise ValueError(
                    f"table.{setting} is {by_dtype}; it must have all of table.dtypes, {lacking[0]} too"
                )

    def work(self, cfg: DictConfig, folder: Path) -> SpeedWork:
        """See `evt.tables.fill.Table`."""
        return SpeedWork(self, cfg)


class SpeedWork:
    """See `evt.tables.fill.Work`; a part is a race: the dtype, and the positions of its rows."""

    def __init__(self, table: SpeedTable, cfg: DictConfig) -> None:
        self._table, self._cfg = table, cfg
        check_rivals(table.rivals, "table.rivals")
        self._device = build_device(cfg)
        self._paper = paper_table(table.paper, "gpu_ms", "cpu_ms")
        points = self._paper.points() if table.points is None else points_of(table.points)
        check_columns(points, "model", "size")
        self._points = list(dict.fromkeys(map(self._whole, points)))
        races = [
            [i for i, _ in rows]
            for _, rows in groupby(enumerate(self._points), lambda row: (row[1]["model"], row[1]["size"]))
        ]
        for rows in races:
            first = self._points[rows[0]]
            if first["variant"] != "base":
                raise ConfigError(
                    f"the point {first.label} is the first of its model and size; that must be base"
                )
            settings = changed(self._settings(first), checkpoint=None)
            self._contestants(rows, build_model(settings, torch.device("meta"))[0])
        data = Path(str(cfg.data.get("path", cfg.data.name))).name
        self._notes = said(cfg, table.notes, machine=machine(self._device), data=data)
        self.parts = [(dtype, rows) for dtype in table.dtypes for rows in races]
        self.read = [machine(self._device), *files_read(self._points)]  # times depend on the machine

    def _settings(self, point: Point) -> DictConfig:
        models = {self._cfg.model.name: self._cfg.model, **self._cfg.table.models}
        settings = choice(models, "the model of a point", point["model"] or self._cfg.model.name)
        return changed(settings, size=settings.size if point["size"] == "" else point["size"])

    def _whole(self, point: Point) -> Point:
        """It with model and size, which are the table's where it has none."""
        settings = self._settings(point)
        return point.filled(model=point["model"] or self._cfg.model.name, size=settings.size)

    def _contestants(self, rows: Sequence[int], model: Any) -> list[Contestant]:
        """What a model runs in the race of some rows.

        Raises:
            ConfigError: it cannot.
        """
        runs = [Contestant(*checked_run(self._points[i], model)) for i in rows]
        for run in runs:
            check_races(run.variant)
        return runs

    def measure(self, part: tuple[str, Sequence[int]]) -> list[dict[str, Any]]:
        """See `evt.tables.fill.Work`."""
        dtype, rows = part
        points = [self._points[i] for i in rows]
        settings = self._settings(points[0])
        model, _ = build_model(settings, self._device)
        runs = self._contestants(rows, model)
        n_frames, setting = self._table.frames[dtype], f"table.frames.{dtype}"
        inputs = inputs_of(model, self._cfg.data, n_frames, torch.float32, setting)
        rivals, absent = build_rivals(self._table.rivals, model, inputs, DTYPES[dtype])
        inputs = [x.to(DTYPES[dtype]) for x in inputs]
        model = model.to(DTYPES[dtype])
        streams = {point.label: run.on(model, fast=True) for point, run in zip(points, runs, strict=True)}
        laps = race({**streams, **rivals}, inputs, self._table.repeats[dtype])
        own = [laps[point.label] for point in points]
        records = records_of(runs, own, model, settings, inputs)
        for name in self._table.rivals:
            figures = {"absent": absent[name]} if name in absent else rivals[name].record(laps[name], own[0])
            records.append({"variant": name, **figures})
        return records

    def tables(self, found: Sequence[Sequence[dict[str, Any]]]) -> list[FilledTable]:
        """See `evt.tables.fill.Work`."""
        column = "gpu_ms" if self._device.type == "cuda" else "cpu_ms"
        columns = dict.fromkeys(name for point in self._points for name in point.given)
        records = []
        for (dtype, rows), figures in zip(self.parts, found, strict=True):
            base_ms: Any = None
            for i, own in zip(rows, figures, strict=False):  # then come the rivals
                point = self._points[i]
                printed = self._paper.beside(point, column)
                # The paper's times of ViViT are of a clip, whose steps are as many frames.
                paper_ms = printed and float(printed) / self._table.steps.get(point["model"], 1)
                base_ms = paper_ms if base_ms is None else base_ms
                records.append(
                    {
                        **{name: point[name] for name in columns},
                        "dtype": dtype,
                        **own,
                        "paper_ms": paper_ms,
                        "paper_speed_up": base_ms / paper_ms if base_ms and paper_ms else "",
                    }
                )
            of_race = {name: self._points[rows[0]][name] for name in ("model", "size")}
            records += [{**of_race, "dtype": dtype, **own} for own in figures[len(rows) :]]
        names = dict.fromkeys(name for record in records for name in record)  # rivals have some of their own
        records = [{name: record.get(name, "") for name in names} for record in records]
        return [FilledTable(self._cfg.table.name, self._table.title, records, self._notes)]
