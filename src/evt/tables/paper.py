"""The paper's tables of accuracy and operations, beside what this code gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

import evt
from evt.build import code_of
from evt.data.loading import WANTED, build_data
from evt.device import build_device
from evt.errors import ConfigError, DataError
from evt.evaluate.chosen import Chosen
from evt.evaluate.classes import class_names, in_model_order
from evt.evaluate.experiments import measure
from evt.evaluate.ledger import Ledger
from evt.evaluate.shapes import mean_operations
from evt.files import write
from evt.models.loading import Weights, build_model
from evt.settings import changed
from evt.tables.fill import said
from evt.tables.filled import FilledTable
from evt.tables.points import (
    Point,
    agreement,
    check_columns,
    checked_run,
    data_read,
    files_read,
    paper_table,
    points_of,
)

SCALE = {"gflops": 1e9, "tflops": 1e12}
"""Operations in one unit of a column."""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    model: the choice that it is of.
    accuracy_on: the data that accuracy is measured on; on others operations alone are.
    paper: its name there.
    points: its rows, see `points_of`; None is those of the paper.
    naive: of these values of r a row more, whose temporal sub-model was not tuned at it.
    cost, accuracy: the columns that hold them, as in the paper's table.
    columns: those between the figures and where they come from.
    notes: below the table where operations alone are measured; may have {cfg} and {weights} in them.
    accuracy_notes: the same where accuracy is.
    missing: what to say where the `data` of accuracy_on are not chosen, or the `weights` are not trained, or `tuned`
        ones of a row are not there.
    digits: of numbers in the Markdown table.
    """

    title: str
    model: str
    accuracy_on: tuple[str, ...]
    paper: str
    cost: str
    accuracy: str
    columns: tuple[str, ...]
    notes: dict[str, str]
    accuracy_notes: dict[str, str]
    missing: dict[str, str]
    points: tuple[dict[str, Any], ...] | None = None
    naive: tuple[int, ...] = ()
    digits: dict[str, int] = field(default_factory=dict)
    batch: None = None

    def work(self, cfg: DictConfig, folder: Path) -> PaperWork:
        """See `evt.tables.fill.Table`."""
        return PaperWork(self, cfg, folder)


class PaperWork:
    """See `evt.tables.fill.Work`; a part is the position of a row, and its figures are by column."""

    def __init__(self, table: PaperTable, cfg: DictConfig, folder: Path) -> None:
        self._table, self._cfg, self._folder = table, cfg, folder
        device, meta = build_device(cfg), torch.device("meta")
        self._built = cache(lambda size, file: build_model(self._settings(size, file), device))
        self._blank = cache(lambda size: build_model(changed(cfg.model, size=size, checkpoint=None), meta)[0])
        self._paper = paper_table(table.paper, table.cost, table.accuracy)
        if table.points is None:
            naive = [{"variant": "temporal", "tuned_r": "", "r": r} for r in table.naive]
            self._points = self._paper.points() + [Point(tuple(row.items())) for row in naive]
        else:
            size = {"size": cfg.model.size} if "size" in self._paper.keys else {}
            self._points = list(dict.fromkeys(point.filled(**size) for point in points_of(table.points)))
        check_columns(self._points, *self._paper.keys)
        for point in self._points:
            variant, _ = checked_run(point, self._shapes(point))
            if variant.hold:
                raise ConfigError(
                    f"the point {point.label} does nothing in most frames, and these tables count what one of them "
                    "takes; evt.run measures frame skipping"
                )
            if point["tuned_r"] != "" and not isinstance(point["tuned_r"], int):
                raise ConfigError(
                    f"a point has tuned_r {point['tuned_r']}; it must be a whole number, as in a folder r100 of "
                    "fine_tuned"
                )
        if (tuned := cfg.fine_tuned) is not None and not Path(tuned).is_dir():
            raise ConfigError(
                f"fine_tuned is {tuned}, which is not a folder; one with r100/temporal.safetensors and so on is "
                "needed"
            )
        self._trained = cfg.model.checkpoint is not None
        self._on_data = cfg.data.name in table.accuracy_on
        self._accuracy = self._trained and self._on_data
        wanted = WANTED[self._shapes(self._points[0]).sees]
        # Of data of clips nothing but accuracy is measured.
        self._data: Any = None
        if self._accuracy or wanted == "videos":
            self._data = getattr(build_data(cfg.data, "data", wanted), wanted)()
        if self._accuracy:
            for point in filter(self._is_there, self._points):
                self._in_model_order(point)
        self.parts = range(len(self._points))
        weights = "trained weights" if self._trained else f"seeded weights (seed {cfg.model.seed})"
        self._notes = said(cfg, table.accuracy_notes if self._accuracy else table.notes, weights=weights)
        loaded = filter(self._is_there, self._points) if self._trained else []
        weights_read = (self._model(point)[1].sha256 for point in loaded)
        self.read = [data_read(self._data or ()), *weights_read, *files_read(self._points)]

    def _settings(self, size: Any, fine_tuned: Path | None) -> DictConfig:
        """The settings of a model."""
        tuned = {"fine_tuned": fine_tuned and str(fine_tuned)} if "fine_tuned" in self._cfg.model else {}
        return changed(self._cfg.model, size=size, **tuned)

    def _model(self, point: Point) -> tuple[Any, Weights]:
        return self._built(self._size(point), self._tuned(point))

    def _shapes(self, point: Point) -> Any:
        """A point's model on torch's meta device."""
        return self._blank(self._size(point))

    def _size(self, point: Point) -> Any:
        return point.filled(size=self._cfg.model.size)["size"]

    def _tuned(self, point: Point) -> Path | None:
        """The file of a point's fine-tuned weights; None where it has none."""
        if point["tuned_r"] == "":
            return None
        return Path(self._cfg.fine_tuned or "") / f"r{point['tuned_r']}" / "temporal.safetensors"

    def _is_there(self, point: Point) -> bool:
        """Whether all weights of a point are there."""
        file = self._tuned(point)
        return file is None or (self._cfg.fine_tuned is not None and file.is_file())

    def measure(self, part: int) -> dict[str, Any]:
        """See `evt.tables.fill.Work`."""
        point = self._points[part]
        variant, policy = point.run()
        shapes, rate = self._shapes(point), self._cfg.flush_rate
        # A threshold selects as many tokens as exceed it, and a pooled key is new where any of its tokens is.
        of_scale = policy is not None and not policy.counts_tokens
        on_frames = of_scale or (variant.pool > 1 and variant.sparse_qk)
        figures = {} if on_frames else {self._table.cost: mean_operations(shapes, variant, policy, rate)}
        if not self._is_there(point) or not (
            self._accuracy or (on_frames and (self._trained or not of_scale))
        ):
            return figures
        model, weights = self._model(point)
        data = self._data
        if not self._accuracy:
            # One video is enough for a count, and all of a data set would take days.
            data, weights = [next((v for v in data if len(v) > 1), data[0])], Weights("")
        chosen = Chosen(model, weights, variant, policy, data, point.label)
        ledger = Ledger(self._folder / f"{WANTED[model.sees]}.jsonl")
        key = f"{evt.__version__} {code_of(self._cfg)} {part} {self.read} {self._cfg}"
        metrics, files = measure(chosen, ledger, key, self._cfg.data.get("on_error", "fail"))
        for name in files.keys() & {"left_out.txt"}:
            write(self._folder / name, files[name])
        ledger.finish()
        own = {"data": chosen.data_name, **_cells(metrics, self._table.accuracy)}
        if "first" not in metrics:
            return figures | own
        if not metrics["later"]["frames"]:
            raise DataError(
                f"{data[0].name} has no second frame; a table's rows need at least one later frame"
            )
        first, later, whole = (_operations(metrics[part]) for part in ("first", "later", "all"))
        return {self._table.cost: whole if self._accuracy else later + rate * (first - later), **own}

    def tables(self, found: Sequence[dict[str, Any]]) -> list[FilledTable]:
        """See `evt.tables.fill.Work`."""
        table, cfg = self._table, self._cfg
        records = [self._record(*row) for row in zip(self._points, found, strict=True)]
        missing = [] if self._on_data else [table.missing["data"]]
        missing += [] if self._trained else [table.missing["weights"]]
        if not missing and not all(map(self._is_there, self._points)):
            missing.append(table.missing["tuned"])
        notes = self._notes + missing
        if short := max(figures.get("short", 0) for figures in found):
            reach = self._shapes(self._points[0]).views.reach
            notes.append(
                f"{short} of the clips have fewer than the {reach} frames that a view spans: their last frame is "
                "repeated."
            )
        return [FilledTable(cfg.table.name, table.title, records, notes, missing)]

    def _record(self, point: Point, figures: dict[str, Any]) -> dict[str, Any]:
        table, of_points = self._table, (name for point in self._points for name, _ in point.cells)
        cost = figures[table.cost] / SCALE[table.cost] if table.cost in figures else ""
        printed = self._paper.beside(point, table.cost)
        return {
            "size": self._cfg.model.size,
            **{column: point[column] for column in dict.fromkeys([*self._paper.keys, *of_points])},
            table.cost: cost,
            f"{table.cost}_paper": printed,
            table.accuracy: figures.get(table.accuracy, ""),
            f"{table.accuracy}_paper": self._paper.beside(point, table.accuracy),
            **{column: figures.get(column, "") for column in table.columns},
            "data": figures.get("data", ""),
            "checkpoint": Path(self._cfg.model.checkpoint).name
            if self._trained and "data" in figures
            else "",
            "interval": "",
            f"{table.cost}_equal": agreement(cost, printed),
        }

    def _in_model_order(self, point: Point) -> None:
        """Refuse data whose classes are not the model's."""
        model, weights = self._model(point)
        if model.sees == "frames":
            class_names(self._data, model.n_classes, weights.classes)
        else:
            in_model_order(model, weights, self._data)


def _operations(part: dict[str, Any]) -> float:
    """Operations of a mean frame; what all frames take is a whole number, so that none is lost to rounding."""
    n: int = part["frames"]
    return round(1e9 * part["gflops"] * n) / n


def _cells(metrics: dict[str, Any], accuracy: str) -> dict[str, Any]:
    """What a table has of the figures of a run."""
    if "recognition" in metrics:
        found = metrics["recognition"]
        return {**found, "left_out": found["skipped"] + found["missing"]}
    cells = {"frames": metrics["all"]["frames"]}
    return {**cells, accuracy: metrics["detection"][accuracy]} if "detection" in metrics else cells
