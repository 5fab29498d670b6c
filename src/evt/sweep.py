"""Sweeps: points that differ in their settings, by whatever launcher, and one table and one plot of all of them."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from hydra._internal.core_plugins.basic_launcher import BasicLauncherConf
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import ConfigCompositionException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError

import evt
from evt.build import code_of, plain
from evt.errors import ConfigError
from evt.evaluate.ledger import Ledger
from evt.files import write_together
from evt.lock import locked
from evt.report import columns
from evt.settings import places, unknown_setting
from evt.sweep_plot import plot


@dataclass(frozen=True)
class Failed:
    """What a point that could not be run returns in the place of its figures: why, in a sentence."""

    sentence: str


DONE = "point.jsonl"
"""In a point's folder, what it gave, until its sweep is whole."""


def once(cfg: DictConfig, folder: Path, task: Callable[[DictConfig], object]) -> object:
    """What a point gives; where a killed sweep was started again in its folder, points that were done give the same.

    A point whose files are not all in its own folder, which a setting `out` says, is done again, and so is one whose
    code, settings or files that they name have changed.
    """
    if cfg.get("out") is not None:
        return task(cfg)
    settings = OmegaConf.to_container(cfg, resolve=True)
    key = json.dumps([evt.__version__, code_of(cfg), settings, list(_files(cfg))])
    ledger = Ledger(folder / DONE)
    if key in ledger:
        print(f"{folder} was done before")
        return ledger[key]
    found = task(cfg)
    ledger.put(key, found)
    return found


def _files(cfg: DictConfig) -> Iterator[tuple[str, int, int]]:
    """Of each file and folder that a setting names, its path, its size, and when it was changed."""
    for where, written in places(cfg):
        path = OmegaConf.select(cfg, where) if isinstance(written, str) else None
        if isinstance(path, str) and os.path.exists(path):
            found = os.stat(path)
            yield path, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Point:
    """A point of a sweep.

    given: its settings, as on the command line.
    config: what they compose to.
    left_out: those that were given and that it has no use for.
    folder: of its own, where that does not follow from its number.
    """

    given: list[Override]
    config: DictConfig
    left_out: list[str]
    folder: str | None

    @property
    def values(self) -> dict[str, str]:
        """The values of its settings by their names, as texts."""
        return {override.get_key_element(): str(override.value()) for override in self.given}


class PointByPoint(Sweeper):
    """Runs all combinations of what the command line gives, as Hydra's basic sweeper does.

    But what a point has no use for is left out of it, and a table of all points is kept.

    Args:
        max_batch_size: how many points another launcher than Hydra's own is given at once; None is all of them.
            Hydra's own, which runs them in turn, is given one by one.
        params: `hydra.sweeper.params`: settings of the sweep besides those of the command line.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None) -> None:
        self.params = [f"{name}={values}" for name, values in (params or {}).items()]
        self.at_once = max_batch_size

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands to its sweepers."""
        self.context, self.whole = hydra_context, config
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if config.hydra.launcher._target_ == BasicLauncherConf._target_:
            self.at_once = 1
            self.launch = launcher.launch
            return
        self.launch = partial(_launched, launcher.launch, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run all points of the command line; sweep.csv, in the sweep's folder, is whole after each batch of them.

        It takes the place of an earlier sweep's, and multirun.yaml with it, once a point could be run. At the end
        sweep.svg is drawn, where there is something to draw and matplotlib is installed. Of a sweep that was killed
        and is started again in its folder, points that were done are not run again (see `once`).

        Raises:
            ConfigError: a setting is of use to no point, points share a folder, some could not be run, the launcher
                failed, or another sweep has the folder.
            OSError: the folder cannot be written to.
        """
        points = self._points(arguments)
        _refuse_shared_folders(points)
        folder = Path(self.whole.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        table: list[dict[str, Any]] = []
        jobs: list[JobReturn] = []
        broken = None
        with locked(folder, "hydra.sweep.dir"):
            while len(jobs) < len(points):
                batch = [_lines(point.given) for point in points[len(jobs) :][: self.at_once]]
                jobs += self.launch(batch, initial_job_idx=len(jobs))
                for point, job in zip(points[len(table) :], jobs[len(table) :], strict=False):
                    try:
                        found = job.return_value
                    except Exception as error:  # of the program's: the other points may still be run
                        broken = broken or error
                        found = Failed(f"{type(error).__name__}: {error}")
                    figures = {"error": found.sentence} if isinstance(found, Failed) else found or {}
                    table.append({"point": len(table), **point.values, **figures})
                if not all("error" in row for row in table):
                    frame, whole = _frame(table, points), OmegaConf.to_yaml(self.whole)
                    write_together(
                        {folder / "multirun.yaml": whole, folder / "sweep.csv": frame.to_csv(index=False)}
                    )
            failed = sum("error" in row for row in table)
            self._end(folder, _frame(table, points), points, failed < len(table))
            if not failed:
                for job in jobs:
                    assert job.hydra_cfg is not None
                    (Path(job.hydra_cfg.hydra.runtime.output_dir) / DONE).unlink(missing_ok=True)
        if broken is not None:
            raise broken
        if failed:
            raise ConfigError(
                f"{failed} of the sweep's {len(table)} points could not be run; the table says why"
            )

    @staticmethod
    def _end(folder: Path, frame: pd.DataFrame, points: Sequence[Point], written: bool) -> None:
        """Print the table, and draw it."""
        print(f"\n{_text(frame, points)}")
        if written:
            drawn = plot(frame, _varying(points), folder / "sweep.svg")
            print(f"written to {folder}/sweep.csv{' and sweep.svg' if drawn else ''}")

    def _points(self, arguments: Sequence[str]) -> list[Point]:
        """All points, without those that are the same as one before once what they have no use for is left out."""
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        given = parser.parse_overrides([*self.params, *arguments])
        (batch,) = BasicSweeper.split_arguments(given, None)
        points = [self._point(parser.parse_overrides(lines)) for lines in batch]
        # Variants without gates bring a policy of their own, and one that was given is for the others.
        suits = [self._suits(point) for point in points]
        if any(suits):
            points = [
                point if suit else self._point(point.given, [*point.left_out, "policy"])
                for point, suit in zip(points, suits, strict=True)
            ]
        for override in given:
            name = override.key_or_group
            if all(name in point.left_out for point in points):
                example = next((point for point in points if _has_gates(point.config)), points[0])
                raise ConfigError(unknown_setting(name, example.config))
        distinct: list[Point] = []
        for point in points:
            if not point.left_out or point.config not in [other.config for other in distinct]:
                distinct.append(point)
        _say_what_is_left_out(distinct)
        return distinct

    def _point(self, given: Sequence[Override], left_out: Sequence[str] = ()) -> Point:
        """The point that some settings make, without those to leave out and those that it has no use for."""
        left_out = list(left_out)
        while True:
            kept = [override for override in given if override.key_or_group not in left_out]
            try:
                config = self.context.config_loader.load_sweep_config(self.whole, _lines(kept))
            except ConfigCompositionException as error:
                unknown = re.match(r"Could not override '([^']+)'", str(error))
                if unknown is None or unknown[1] in left_out:
                    raise
                left_out.append(unknown[1])
            else:
                own = OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
                folder = None
                with suppress(InterpolationToMissingValueError):  # its number
                    folder = str(config.hydra.sweep.subdir)
                return Point(kept, own, left_out, folder)

    def _suits(self, point: Point) -> bool:
        """Whether a policy that was given may be meant for this point: it has gates, or has this policy anyway."""
        if _has_gates(point.config) or all(override.key_or_group != "policy" for override in point.given):
            return True
        own = self._point(point.given, [*point.left_out, "policy"]).config.policy.name
        return bool(own == point.config.policy.name)


def take_hydras_place() -> None:
    """Let `-m` run points by this sweeper: Hydra takes others by name from the package hydra_plugins alone."""
    name = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"
    Plugins.instance().class_name_to_class[name] = PointByPoint


def _launched(
    launch: Callable[..., Sequence[JobReturn]],
    config: DictConfig,
    batch: Sequence[Sequence[str]],
    initial_job_idx: int,
) -> Sequence[JobReturn]:
    """What another launcher than Hydra's own makes of some points.

    Raises:
        ConfigError: it could not run them.
    """
    try:
        return launch(batch, initial_job_idx=initial_job_idx)
    except Exception as error:  # whatever it raises where a worker is killed, or there is no cluster
        reason = re.split(r"\.\s", f"{error}\n")[0].strip()
        raise ConfigError(
            f"hydra/launcher={_launcher(config)} could not run the points: {reason}; those that are done are kept "
            f"for the same sweep with hydra.sweep.dir={config.hydra.sweep.dir}"
        ) from error


def _launcher(config: DictConfig) -> str:
    return str(config.hydra.runtime.choices["hydra/launcher"])


def _has_gates(config: DictConfig) -> bool:
    return "variant" in config and plain(config.variant).get("gate") is not None


def _lines(given: Sequence[Override]) -> list[str]:
    """Settings as Hydra takes them."""
    return [override.input_line for override in given if override.input_line is not None]


def _varying(points: Sequence[Point]) -> list[str]:
    """The settings that are not the same in all points."""
    values = pd.DataFrame([point.values for point in points])
    return [str(name) for name in values if values[name].nunique(dropna=False) > 1]


def _refuse_shared_folders(points: Sequence[Point]) -> None:
    """Refuse points whose results would take each other's place.

    Raises:
        ConfigError: there are some.
    """
    folders = [point.folder for point in points if point.folder is not None]
    if shared := [folder for folder, n in Counter(folders).items() if n > 1]:
        raise ConfigError(
            f"several points of this sweep would leave their results under one name, {shared[0]}; give each in a "
            "command of its own, with another `out` and another hydra.run.dir"
        )


def _say_what_is_left_out(points: Sequence[Point]) -> None:
    """A line for each setting that some points have no use for."""
    left_out = dict.fromkeys(name for point in points for name in point.left_out)
    varying = [name for name in _varying(points) if name not in left_out]
    for name in left_out:
        where = [
            " ".join(f"{key}={value}" for key, value in point.values.items() if key in varying)
            for point in points
            if name in point.left_out
        ]
        print(f"{name} is left out where it has no use: {', '.join(dict.fromkeys(where))}")


def _frame(table: Sequence[dict[str, Any]], points: Sequence[Point]) -> pd.DataFrame:
    """The table: point, settings, figures, and the error where a point could not be run."""
    settings = [name for point in points for name in point.values]
    figures = [name for row in table for name in row if name not in {"point", "error", *settings}]
    columns = dict.fromkeys(["point", *settings, *figures, "error"])
    return pd.DataFrame(table, columns=list(columns), dtype=object)


def _text(frame: pd.DataFrame, points: Sequence[Point]) -> str:
    """The table for a terminal: of the settings those that vary, errors last."""
    settings = {name for point in points for name in point.values}
    same = [name for name in settings if name not in _varying(points)]
    frame = frame.drop(columns=same).dropna(axis="columns", how="all")
    failed = "error" in frame
    if failed:
        frame["error"] = frame["error"].fillna("")
    rows = [[_cell(x) for x in row] for row in frame.itertuples(index=False, name=None)]
    return columns([list(frame.columns), *rows], last="left" if failed else "right")


def _cell(x: object) -> str:
    if isinstance(x, float):
        return "-" if pd.isna(x) else f"{x:.4g}"
    return str(x)
