"""Filling a table: what is measured is kept as soon as it is, and a run that was killed goes on after it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

import evt
from evt.build import build, code_of
from evt.errors import ConfigError
from evt.evaluate.ledger import Ledger
from evt.evaluate.pool import in_batches, n_workers
from evt.settings import config_of, job_of
from evt.tables.filled import FilledTable


class Work(Protocol):
    """A table at work; of its parts, each is measured apart.

    parts: what is handed to `measure`; can be written as JSON.
    read: all that figures depend on beside the settings: the sha256 of trained weights, files of policies, and data.
    """

    parts: Sequence[Any]
    read: Sequence[str | None]

    def measure(self, part: Any, /) -> Any:
        """The figures of a part; can be written as JSON."""

    def tables(self, found: Sequence[Any], /) -> list[FilledTable]:
        """The tables, from the figures of all parts."""


class Table(Protocol):
    """What a config of a table builds.

    batch: how many parts are measured together, in one of several processes with one thread each; None measures one
        after another, with all threads.
    """

    batch: int | None

    def work(self, cfg: DictConfig, folder: Path, /) -> Work:
        """The table at work, with a command's settings and a folder for what it leaves.

        Raises:
            ConfigError: a row cannot be; all that can is found out now rather than after hours.
        """


def fill(cfg: DictConfig, folder: Path) -> tuple[list[FilledTable], Ledger]:
    """Fill the table that `cfg.table` says; goes on after what the folder holds.

    Returns:
        The tables, and the ledger, to be finished once they are written.
    """
    workers = n_workers(cfg.workers)
    if cfg.quick:
        cfg = OmegaConf.merge(cfg, quick_form(cfg))  # type: ignore[assignment]
    job = job_of(cfg)
    table, work = _opened(job, folder)
    key = json.dumps([evt.__version__, code_of(cfg), work.read, job])
    ledger = Ledger(folder / "parts.jsonl")
    if table.batch is not None:
        bar = tqdm(total=len(work.parts), desc=cfg.table.name, unit="sample")
        run = partial(_measure, job, folder)
        found = in_batches(run, len(work.parts), table.batch, ledger, key, workers, bar)
    else:
        with tqdm(work.parts, desc=cfg.table.name, unit="row", leave=False) as rows:
            found = [_kept(ledger, f"{json.dumps(part)} {key}", partial(work.measure, part)) for part in rows]
    return work.tables(found), ledger


def quick_form(cfg: DictConfig) -> dict[str, Any]:
    """What a table's quick form changes: of the data what `quick.data` says, and it fills `quick.tables` alone."""
    quick = cfg.table.quick
    left_out = set(cfg.table.get("tables", ())) - set(quick.get("tables", cfg.table.get("tables", ())))
    return {"data": quick.get("data", {}), "table": {"tables": dict.fromkeys(left_out)}}


def _kept(ledger: Ledger, key: str, measure: Any) -> Any:
    if key not in ledger:
        ledger.put(key, measure())
    return ledger[key]


def _measure(job: str, folder: Path, batch: range) -> Any:
    return _opened(job, folder)[1].measure(batch)


@cache
def _opened(job: str, folder: Path) -> tuple[Table, Work]:
    """A table at work; in a process that measures, too."""
    cfg = config_of(job)
    table: Table = build(cfg.table, "table")
    return table, table.work(cfg, folder)


def said(cfg: DictConfig, notes: Mapping[str, str], **facts: Any) -> list[str]:
    """The notes of a table with facts in the place of their names in braces; the config, `cfg`, is one.

    Raises:
        ConfigError: a note has something else in braces.
    """
    found = []
    for name, note in notes.items():
        try:
            text = note.format(cfg=cfg, **facts)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the note {name} of {cfg.table.name} is {note!r}; in braces it may have "
                f"{', '.join(['cfg', *facts])}, and what these have"
            ) from error
        found.append(re.sub(r"(?<![\d.])1 ((?:\w+ )?(?:video|clip|frame|view|segment))s\b", r"1 \1", text))
    return found
