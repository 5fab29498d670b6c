"""python -m evt.reproduce table=table_c: a table of the paper, beside what this code gives.

python -m evt.reproduce table=table_c model.checkpoint=vitdet_b_vid.pth data=vid data.root=ILSVRC2015
python -m evt.reproduce table=table_d model.checkpoint=vivit_b_epic.pth data=epic data.root=EPIC fine_tuned=FOLDER
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from evt.cli import run_command
from evt.errors import ConfigError
from evt.files import check_writable
from evt.report import write_table
from evt.tables.detection import fill_detection_table
from evt.tables.mini import fill_mini_tables
from evt.tables.mini_clips import fill_mini_clip_table
from evt.tables.recognition import fill_recognition_table
from evt.tables.rlt import fill_rlt_table
from evt.tables.rlt_tokens import fill_rlt_tokens
from evt.tables.speed import fill_speed_table

DIGITS = {"gflops": 1, "map50": 2, "tflops": 3, "top1": 2}
"""Of numbers in the Markdown tables; the CSV tables have all."""

SMALL = {
    "vitdet_mini": fill_mini_tables,
    "vivit_mini": fill_mini_clip_table,
    "videomae_mini": fill_rlt_table,
}
LARGE = {"vivit": fill_recognition_table, "vitdet": fill_detection_table, "videomae": fill_rlt_tokens}
"""How tables are filled: small ones by the choice of model, the paper's own by its kind."""


def reproduce(cfg: DictConfig) -> None:
    """Fill a table and write it; a run that was killed goes on after its last finished row, video or clip."""
    chosen, its_own = HydraConfig.get().runtime.choices["model"], cfg.table.model
    if chosen != its_own:
        raise ConfigError(f"model is {chosen}, but {cfg.table.name} is of {its_own}; leave model as it is")
    if cfg.quick and chosen not in SMALL:
        raise ConfigError(
            f"quick is {cfg.quick!r}; it must be true or false, and only small tables have a quick form"
        )
    if cfg.quick:
        given = {override.partition("=")[0] for override in HydraConfig.get().overrides.task}
        for name, value in cfg.table.quick.data.items():
            if f"data.{name}" in given:
                raise ConfigError(f"quick=true makes data.{name} {value}; leave one of the two out")
    if not isinstance(cfg.out, str):
        raise ConfigError(f"out is {cfg.out!r}; it must be a folder")
    check_writable(Path(cfg.out) / f"{cfg.table.name}.csv")
    fill = fill_speed_table if "dtypes" in cfg.table else SMALL.get(chosen) or LARGE[cfg.model.name]
    tables = fill(cfg, Path(HydraConfig.get().runtime.output_dir))
    digits = DIGITS | dict(cfg.table.get("digits", {}))
    written = [
        write_table(Path(cfg.out) / f"{table.name}{'_quick' if cfg.quick else ''}.csv", table, digits=digits)
        for table in tables
    ]
    for table, path in zip(tables, written, strict=True):
        table.ledger.finish()
        print_agreement(table.records, "tflops" if cfg.model.name == "vivit" else "gflops")
        print("\n".join([*table.missing, f"written to {path} and {path.with_suffix('.md')}"]))


def print_agreement(records: Sequence[dict[str, Any]], cost: str) -> None:
    """Print how many of a table's rows cost what the paper prints, if it prints them."""
    printed = [record for record in records if record.get(f"{cost}_paper")]
    if not printed:
        return
    measured = [record for record in printed if record[cost] != ""]
    equal = sum(record[f"{cost}_equal"] == "yes" for record in measured)
    rest = f"; {len(printed) - len(measured)} are not measured" if len(measured) < len(printed) else ""
    print(f"{equal} of {len(measured)} rows equal the paper's {cost} to the printed digit{rest}")


if __name__ == "__main__":
    run_command("reproduce", reproduce)
