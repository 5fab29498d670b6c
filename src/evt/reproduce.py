"""python -m evt.reproduce table=table_c: a table of the paper, beside what this code gives.

python -m evt.reproduce table=table_c model.checkpoint=vitdet_b_vid.pth data=vid data.root=ILSVRC2015
python -m evt.reproduce table=table_d model.checkpoint=vivit_b_epic.pth data=epic data.root=EPIC fine_tuned=FOLDER
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from evt.harness.cli import run_command
from evt.harness.detection_table import fill_detection_table
from evt.harness.recognition_table import fill_recognition_table
from evt.harness.report import write_table
from evt.harness.setup import ConfigError


def reproduce(cfg: DictConfig) -> None:
    """Fill a table and write it; a run that was killed goes on after its last finished row, video or clip."""
    chosen, its_own = HydraConfig.get().runtime.choices["model"], cfg.table.model
    if chosen != its_own:
        raise ConfigError(f"model is {chosen}, but {cfg.table.name} is of {its_own}; leave model as it is")
    if not isinstance(cfg.out, str):
        raise ConfigError(f"out is {cfg.out!r}; it must be a folder")
    Path(cfg.out).mkdir(parents=True, exist_ok=True)  # found out now rather than after hours
    fill = fill_recognition_table if cfg.model.name == "vivit" else fill_detection_table
    table = fill(cfg, Path(HydraConfig.get().runtime.output_dir))
    cost = "tflops" if cfg.model.name == "vivit" else "gflops"
    path = write_table(
        Path(cfg.out) / f"{cfg.table.name}.csv",
        cfg.table.title,
        table.records,
        table.notes,
        digits={"gflops": 1, "map50": 2, "tflops": 3, "top1": 2},
    )
    table.ledger.finish()
    printed = [record for record in table.records if record[f"{cost}_paper"]]
    measured = [record for record in printed if record[cost] != ""]
    equal = sum(record[f"{cost}_equal"] == "yes" for record in measured)
    rest = f"; {len(printed) - len(measured)} are not measured" if len(measured) < len(printed) else ""
    print(f"{equal} of {len(measured)} rows equal the paper's {cost} to the printed digit{rest}")
    print("\n".join([*table.missing, f"written to {path} and {path.with_suffix('.md')}"]))


if __name__ == "__main__":
    run_command("reproduce", reproduce)
