"""python -m evt.reproduce table=table_c: a table of the paper, beside what this code gives.

python -m evt.reproduce table=table_c model.checkpoint=vitdet_b_vid.pth data=vid data.root=ILSVRC2015
python -m evt.reproduce table=table_d model.checkpoint=vivit_b_epic.pth data=epic data.root=EPIC fine_tuned=FOLDER
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from evt import settings
from evt.cli import run_command
from evt.errors import ConfigError
from evt.files import check_writable
from evt.tables.fill import fill
from evt.tables.filled import write_table

DIGITS = {"gflops": 1, "map50": 2, "tflops": 3, "top1": 2}
"""Of numbers in the Markdown tables; the CSV tables have all."""


def reproduce(cfg: DictConfig) -> None:
    """Fill a table and write it; a run that was killed goes on after its last finished row, video or clip."""
    chosen, its_own = HydraConfig.get().runtime.choices["model"], settings.as_python(cfg.table.model)
    if chosen not in (allowed := [its_own] if isinstance(its_own, str) else its_own):
        raise ConfigError(
            f"model is {chosen}, but {cfg.table.name} is of {' or '.join(allowed)}; leave model as it is"
        )
    if cfg.table.get("data", cfg.data.name) != cfg.data.name:
        raise ConfigError(
            f"data is {cfg.data.name}, but {cfg.table.name} is of {cfg.table.data}; leave data as it is"
        )
    _check_names(cfg)
    if cfg.quick:
        _check_quick(cfg)
    check_writable(Path(cfg.out) / f"{cfg.table.name}.csv")
    tables, ledger = fill(cfg, Path(HydraConfig.get().runtime.output_dir))
    digits = DIGITS | dict(cfg.table.digits)
    for table in tables:
        path = Path(cfg.out) / f"{table.name}{'_quick' if cfg.quick else ''}.csv"
        write_table(path, table, digits)
        print_agreement(table.records)
        print("\n".join([*table.missing, f"written to {path} and {path.with_suffix('.md')}"]))
    ledger.finish()


def _check_names(cfg: DictConfig) -> None:
    """Refuse tables under names that are no names of files, or those of another config's tables.

    Raises:
        ConfigError: the message names one.
    """

    def names(table: DictConfig) -> list[str]:
        return [
            str(name) for name, one in (table.get("tables") or {table.name: ""}).items() if one is not None
        ]

    own, chosen = names(cfg.table), HydraConfig.get().runtime.choices["table"]
    if wrong := [name for name in [cfg.table.name, *own] if not re.fullmatch(r"\w[\w.-]*", str(name))]:
        raise ConfigError(
            f"a table's name is {wrong[0]}; it must be of letters, digits and _ . -, for its file"
        )
    for path in sorted((settings.CONFIG_DIR / "table").glob("*.yaml")):
        other: Any = OmegaConf.load(path)
        if path.stem != chosen and (both := set(own) & set(names(other.get("table", other)))):
            raise ConfigError(
                f"table={chosen} and table={path.stem} both write {min(both)}; one of them needs another name"
            )


def _check_quick(cfg: DictConfig) -> None:
    """Refuse the quick form of a table that has none, and settings that it would change.

    Raises:
        ConfigError: the message names them.
    """
    quick, tables = cfg.table.get("quick"), cfg.table.get("tables", {})
    if not quick:
        raise ConfigError(f"quick is true, but {cfg.table.name} has no quick form; leave quick false")
    filled, data = quick.get("tables", list(tables)), quick.get("data", OmegaConf.create())
    known = set(quick) <= {"data", "tables"} and set(filled) <= set(tables)
    if not known or not filled or not OmegaConf.is_dict(data):
        raise ConfigError(
            f"table.quick is {quick}; it must have `data`, settings by name, or `tables`, a list of some of "
            f"{', '.join(tables)}"
        )
    given = {override.partition("=")[0] for override in HydraConfig.get().overrides.task}
    for name, value in data.items():
        if f"data.{name}" in given:
            raise ConfigError(f"quick=true makes data.{name} {value}; leave one of the two out")
    for name in tables.keys() - set(filled):
        if any(x.startswith(f"table.tables.{name}.") for x in given):
            raise ConfigError(f"quick=true leaves out {name}, of which something is given; leave quick false")


def print_agreement(records: Sequence[dict[str, Any]]) -> None:
    """Print how many of a table's rows cost what the paper prints, if it prints them."""
    for cost in ("gflops", "tflops"):
        printed = [record for record in records if record.get(f"{cost}_paper")]
        if not printed:
            continue
        measured = [record for record in printed if record[cost] != ""]
        equal = sum(record[f"{cost}_equal"] == "yes" for record in measured)
        rest = f"; {len(printed) - len(measured)} are not measured" if len(measured) < len(printed) else ""
        print(f"{equal} of {len(measured)} rows equal the paper's {cost} to the printed digit{rest}")


if __name__ == "__main__":
    run_command("reproduce", reproduce)
