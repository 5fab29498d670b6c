"""Small tables: a trained model on data with ground truth, all rows on the same videos or clips."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor
from tqdm import tqdm

from evt.build import build
from evt.data.loading import WANTED, build_data
from evt.device import build_device
from evt.errors import ConfigError, DataError
from evt.evaluate.classes import class_names
from evt.evaluate.side_by_side import SideBySide
from evt.evaluate.trace import Seen
from evt.eventful import VARIANTS, Variant
from evt.eventful.policy import tokens_of
from evt.metrics.bootstrap import Estimate
from evt.models.loading import Weights, build_model
from evt.settings import changed
from evt.tables.fill import said
from evt.tables.filled import FilledTable
from evt.tables.metrics import Metric
from evt.tables.paired import Row, compared, compared_names, covariance
from evt.tables.points import (
    Point,
    check_columns,
    checked_run,
    data_read,
    files_read,
    points_of,
    policy_columns,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleTable:
    """Small tables that are measured together: a row that several share is measured once.

    tables: by name, each a title and its points, see `points_of`; and `columns`, where it shows these and no others.
        Columns of a point are `variant` and its setting, those of `weights`, and `model` where there are several.
    metrics: by any name, see `evt.tables.metrics`.
    columns: the first ones, in their order: those of points and metrics, `share`, which is r over the tokens, and
        what comes of comparing rows on the same videos or clips, see `compared`. Other columns of the metrics follow.
    notes: below the tables; may have {cfg}, {model} and {weights} in them, and what these have.
    model, data: the choices that the tables are of; of models there may be several to choose from.
    trained: refuse weights that are drawn from a seed.
    labelled: whether the data must tell classes apart.
    models: others than `model`, by their names in the points.
    weights: by column and value: settings of the model that it stands for.
    batch: videos or clips that run as one batch of streams.
    detect_from, detect_every: which frames are decoded, counted from the flush, which is frame 0: the first one, and
        every so many later; null decodes none. Of a clip that is the only sample.
    digits: of numbers in the Markdown table.
    quick: what the quick form changes, see `evt.tables.fill.quick_form`.
    """

    tables: dict[str, Any]
    metrics: dict[str, Any]
    columns: tuple[str, ...]
    notes: dict[str, str]
    model: str | tuple[str, ...]
    data: str
    batch: PositiveInt
    detect_from: NonNegativeInt | None = 0
    detect_every: PositiveInt = 1
    labelled: bool = True
    trained: bool = False
    models: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, dict[Any, dict[str, Any]]] = field(default_factory=dict)
    digits: dict[str, int] = field(default_factory=dict)
    quick: dict[str, Any] = field(default_factory=dict)

    def work(self, cfg: DictConfig, folder: Path) -> SampleWork:
        """See `evt.tables.fill.Table`."""
        return SampleWork(self, cfg)


class SampleWork:
    """See `evt.tables.fill.Work`; a part is a batch of samples, and its figures are by point, metric and sample."""

    def __init__(self, table: SampleTable, cfg: DictConfig) -> None:
        self._table, self._cfg = table, cfg
        self._device = build_device(cfg)
        self._metrics: list[Metric] = [
            build(cfg.table.metrics[name], f"table.metrics.{name}")
            for name, metric in table.metrics.items()
            if metric is not None
        ]
        if not self._metrics:
            raise ConfigError("table.metrics has no metric; it must have one at least")
        self._models: dict[str, tuple[Any, Weights]] = {}
        points = [point for chosen in self._shown.values() for point in points_of(chosen["points"])]
        check_columns(points, "model", "path", *table.weights)
        # What is measured: a row of frame skipping is the mean of several.
        self._points = list(dict.fromkeys(phase for point in points for phase in point.phases()))
        wanted = WANTED[self._model(self._points[0])[0].sees]
        offers = [wanted, *(["classes"] if table.labelled else [])]
        self.parts = getattr(build_data(cfg.data, "data", *offers), wanted)()
        n_frames = self._checked_length(wanted == "videos")
        for point in self._points:
            model, weights = self._model(point)
            if table.trained and not weights.trained:
                raise ConfigError(
                    f"the weights are a {weights}, and agreement is of trained ones; give them as model.checkpoint"
                )
            variant, policy = checked_run(point, model)
            if variant.hold and policy.every >= (n_frames or model.steps):
                raise ConfigError(
                    f"the point {point.label} runs the first of {n_frames or model.steps} frames and no other; every "
                    "must be less"
                )
            class_names(self.parts, model.n_classes, weights.classes)
        self._check_names(points)
        model, weights = self._model(self._points[0])
        self._notes = said(cfg, table.notes, model=model, weights=weights)
        loaded = (weights.sha256 for _, weights in self._models.values())
        self.read = [data_read(self.parts), *loaded, *files_read(self._points)]

    def _check_names(self, points: Sequence[Point]) -> None:
        """Refuse two things of one name, and points that could not be told apart.

        Raises:
            ConfigError: two metrics make a column, or one that points have; or what points differ in is not shown.
        """
        figures = [name for metric in self._metrics for name in metric.names]
        made = ["setting", "share", *figures, *compared_names(figures)]
        if twice := [name for name in made if made.count(name) > 1]:
            raise ConfigError(f"table.metrics: column {twice[0]} is made twice; each needs a name of its own")
        given = dict.fromkeys(name for point in points for name in point.given)
        if taken := [name for name in given if name in made]:
            raise ConfigError(f"a point has {taken[0]}, a column that the table makes; name it otherwise")
        settings = policy_columns()
        known = ["variant", "path", "model", *self._table.weights, *settings, *made]
        for name, chosen in self._shown.items():
            where = f"table.tables.{name}.columns" if "columns" in chosen else "table.columns"
            columns = chosen.get("columns", self._table.columns)
            own = [x for point in points_of(chosen["points"]) for x in point.given]
            hidden = [x for x in own if not (x in columns or ("setting" in columns and x in settings))]
            if hidden:
                raise ConfigError(
                    f"points have {hidden[0]}, but {where} does not; without it rows look alike"
                )
            if empty := [x for x in columns if x not in known]:
                log.warning("nothing makes %s of %s", ", ".join(empty), where)

    def _checked_length(self, videos: bool) -> int:
        """How many frames each video has; 0 for clips.

        Raises:
            ConfigError: they are too few, or not as many in all videos of a batch.
        """
        lengths = {len(video) for video in self.parts} if videos else {0}
        n_frames, first = min(lengths), self._table.detect_from or 0
        if n_frames == 1:
            raise ConfigError("a video has 1 frame; tables need at least one later frame, after the flush")
        if first >= (n_frames or 1):
            has = f"a video has {n_frames} frames" if videos else "a clip is one sample"
            raise ConfigError(
                f"table.detect_from is {first}, but {has}; it must be less, or null to detect in none"
            )
        if len(lengths) > 1 and self._table.batch > 1:
            raise ConfigError(
                f"the videos have from {n_frames} to {max(lengths)} frames, and those of a batch run side by side; "
                "table.batch must be 1"
            )
        return n_frames

    @property
    def _shown(self) -> Mapping[str, Mapping[str, Any]]:
        shown = {name: chosen for name, chosen in self._table.tables.items() if chosen is not None}
        for name, chosen in shown.items():
            has = f"has {', '.join(map(str, chosen))}" if isinstance(chosen, Mapping) else f"is {chosen!r}"
            if not isinstance(chosen, Mapping) or set(chosen) - {"columns"} != {"title", "points"}:
                raise ConfigError(
                    f"table.tables.{name} {has}; it must have a title and points, may have columns, and no more"
                )
            if not isinstance(chosen["title"], str):
                raise ConfigError(f"table.tables.{name}.title is {chosen['title']!r}; it must be a text")
        if not shown:
            raise ConfigError("table.tables has no table; it must have one at least")
        return shown

    def _settings(self, point: Point) -> DictConfig:
        """The settings of a point's model."""
        allowed = ["", self._cfg.model.name, *self._table.models]
        if point["model"] not in allowed:
            raise ConfigError(
                f"a point has model {point['model']}; it must be {' or '.join(filter(None, allowed))}"
            )
        own = point["model"] in self._table.models
        cfg = self._cfg.table.models[point["model"]] if own else self._cfg.model
        for column, by_value in self._table.weights.items():
            value = str(point[column])  # as the keys are, which came through JSON
            if value and value not in by_value:
                raise ConfigError(
                    f"a point of {self._cfg.table.name} has {column} {value}; table.weights.{column} has "
                    f"{', '.join(by_value)}"
                )
            cfg = changed(cfg, **by_value.get(value, {}))
        return cfg

    def _model(self, point: Point) -> tuple[Any, Weights]:
        cfg = self._settings(point)
        key = str(cfg)
        if key not in self._models:
            self._models[key] = build_model(cfg, self._device)
        return self._models[key]

    @cached_property
    def _streams(self) -> list[list[Point]]:
        """The points in groups with one stream: fine-tuned models differ in what they make of its outputs alone."""
        groups: dict[Any, list[Point]] = {}
        for point in self._points:
            settings = {name: x for name, x in self._settings(point).items() if name != "fine_tuned"}
            run = (str(settings), point["variant"], point["path"], point.setting, point["phase"])
            groups.setdefault(run, []).append(point)
        return list(groups.values())

    @property
    def _dense(self) -> Variant:
        """The dense model, on the path of its own row."""
        rows = (point.run()[0] for point in self._points if point["variant"] == "base")
        return next(rows, VARIANTS["base"])

    @torch.no_grad()
    def measure(self, batch: Sequence[int]) -> list[list[list[Any]]]:
        """For each point and metric a record of each sample.

        Raises:
            DataError: a video has no later frame.
        """
        model = self._model(self._points[0])[0]
        units = [self.parts[i] for i in batch]
        moments = list(zip(*(unit if model.sees == "frames" else [unit] for unit in units), strict=True))
        for unit, frames in zip(units, zip(*moments, strict=True), strict=True):
            if model.sees == "frames" and all(frame.first for frame in frames):
                raise DataError(
                    f"{unit.name}: each of its {len(frames)} frames begins a sequence of its own, being of another "
                    "size than the one before; tables need later frames"
                )
        first, every = self._table.detect_from, self._table.detect_every
        detected = [] if first is None else range(first, len(moments), every)
        beside = any(metric.beside for metric in self._metrics)
        inputs: dict[str, list[list[Tensor]]] = {}
        runs: dict[str, SideBySide] = {}
        found = {}
        for points in self._streams:
            models = [self._model(point)[0] for point in points]
            kind, settings = points[0]["model"], str(self._settings(points[0]))
            if kind not in inputs:
                inputs[kind] = [list(_side_by_side(models[0], now)) for now in moments]
            if settings not in runs:
                runs[settings] = SideBySide(models[0], moments, inputs[kind], self._dense)
            seen: dict[Point, list[list[Seen]]] = {point: [] for point in points}
            decoders = [models if i in detected else [] for i in range(len(moments))]
            for shares in runs[settings].run(*points[0].run(), decoders, beside):
                for k, point in enumerate(points):
                    seen[point].append(shares[k % len(shares)])
            for point in points:
                found[point] = [
                    [metric.record(own, self.parts) for own in zip(*seen[point], strict=True)]
                    for metric in self._metrics
                ]
        return [found[point] for point in self._points]

    def tables(self, found: Sequence[Sequence[Sequence[Sequence[Any]]]]) -> list[FilledTable]:
        """See `evt.tables.fill.Work`."""
        measured: dict[Point, tuple[dict[str, Any], dict[str, Estimate]]] = {}
        for i, point in enumerate(tqdm(self._points, "bootstrap", unit="row")):
            cells, estimates = measured[point] = ({}, {})
            for k, metric in enumerate(self._metrics):
                records = [record for batch in found for record in batch[i][k]]
                cells |= metric.columns(records, self.parts)
                estimates |= metric.estimates(records, self.parts)
        tables = []
        for name, chosen in self._shown.items():
            points = points_of(chosen["points"])
            rows = [Row.of(point, [measured[phase] for phase in point.phases()]) for point in points]
            records = [self._record(row, rows, chosen.get("columns")) for row in rows]
            tables.append(
                FilledTable(name, chosen["title"], records, self._notes, covariance=covariance(rows))
            )
        return tables

    def _record(self, row: Row, rows: Sequence[Row], columns: Sequence[str] | None) -> dict[str, Any]:
        r, n_tokens = row.point["r"], self._model(row.point)[0].n_tokens
        known = {
            **dict(row.point.cells),
            "setting": row.point.setting,
            "share": "" if r == "" else tokens_of(r, n_tokens) / n_tokens,
            **compared(row, rows, self._table.weights),
            **row.figures,
        }
        columns = columns or list(dict.fromkeys([*self._table.columns, *row.figures]))
        return {name: known.get(name, "") for name in columns}


def _side_by_side(model: Any, samples: Sequence[Any]) -> Iterator[Tensor]:
    """What a stream takes of samples of the same length, as one batch."""
    for inputs in zip(*map(model.inputs, samples), strict=True):
        yield torch.cat(inputs)
