"""Table 2 of the paper: what saved operations are worth in time, on the machine at hand."""

from __future__ import annotations

import csv
import json
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

import evt
from evt.device import build_device
from evt.evaluate.ledger import Ledger
from evt.evaluate.race import machine, race
from evt.evaluate.speed import DTYPES, Contestant, inputs_of, operations, record_of
from evt.evaluate.variants import check_budget
from evt.eventful import VARIANTS, TopR
from evt.models.loading import build_model
from evt.report import FilledTable
from evt.settings import CONFIG_DIR, changed


def fill_speed_table(cfg: DictConfig, folder: Path) -> list[FilledTable]:
    """Time every row of Table 2 in each of `cfg.table.dtypes`; goes on after the last race that the folder holds.

    The variants of one model at one size and in one type run in one race, frame by frame.
    """
    device = build_device(cfg)
    rows = _paper_rows()
    ledger = Ledger(folder / "races.jsonl")
    paper_ms = "gpu_ms" if device.type == "cuda" else "cpu_ms"
    records = []
    for dtype in cfg.table.dtypes:
        for (name, size), group in groupby(rows, lambda row: (row["model"], row["size"])):
            entries = list(group)
            key = _key(cfg, device, name, size, dtype)
            if key not in ledger:
                ledger.put(key, _race(cfg, device, name, int(size), dtype, entries))
            for row, figures in zip(entries, ledger[key], strict=True):
                per_frame = float(row[paper_ms])
                if name == "vivit":  # the paper's are of a clip of 16 steps
                    per_frame /= 16
                own = {"model": name, "size": size, "variant": row["variant"], "r": row["r"], "dtype": dtype}
                records.append({**own, **figures, "paper_ms": per_frame})
    for record in records:
        base = next(
            x
            for x in records
            if x["variant"] == "base" and x["model"] == record["model"] and x["size"] == record["size"]
        )
        record["paper_speed_up"] = base["paper_ms"] / record["paper_ms"]
    return [FilledTable(cfg.table.name, cfg.table.title, records, _notes(cfg, device), [], ledger)]


def _paper_rows() -> list[dict[str, str]]:
    with (resources.files("evt.tables") / "paper" / "table_2.csv").open() as file:
        return list(csv.DictReader(file))


def _race(
    cfg: DictConfig, device: torch.device, name: str, size: int, dtype: str, rows: list[dict[str, str]]
) -> list[dict[str, Any]]:
    model_cfg = _model_config(cfg, name, size)
    model, _ = build_model(model_cfg, device)
    runs = {
        row["variant"]: Contestant(VARIANTS[row["variant"]], TopR(int(row["r"])) if row["r"] else None)
        for row in rows
    }
    for run in runs.values():
        model.check(run.variant)
        check_budget(run.policy, model.n_tokens)
    inputs = inputs_of(model, cfg.data, cfg.table.frames[dtype], DTYPES[dtype], f"table.frames.{dtype}")
    model = model.to(DTYPES[dtype])
    laps = race(
        {name: run.on(model, fast=True) for name, run in runs.items()}, inputs, cfg.table.repeats[dtype]
    )
    ops = {name: operations(run, model, model_cfg, inputs) for name, run in runs.items()}
    return [record_of(laps[name], laps["base"], ops["base"] / ops[name]) for name in runs]


def _model_config(cfg: DictConfig, name: str, size: int) -> DictConfig:
    if name == cfg.model.name:
        return changed(cfg.model, size=size)
    return DictConfig({**OmegaConf.load(CONFIG_DIR / "model" / "vivit_epic.yaml"), "size": size})  # type: ignore[dict-item]


def _key(cfg: DictConfig, device: torch.device, name: str, size: str, dtype: str) -> str:
    settings = {part: OmegaConf.to_container(cfg[part], resolve=True) for part in ("model", "data", "table")}
    return json.dumps([evt.__version__, machine(device), name, size, dtype, settings], sort_keys=True)


def _notes(cfg: DictConfig, device: torch.device) -> list[str]:
    return [
        f"Machine: {machine(device)}. Data: {Path(str(cfg.data.get('path', cfg.data.name))).name}. Seeded weights.",
        "Times are medians in milliseconds, of first frames (flushes) and of later ones, with the values that a "
        "quarter of the later ones are below and above. Variants of a model run frame by frame in one race, on the "
        "fast path; ViTDet's Transformer alone, ViViT's spatial sub-model with 12 views as one batch.",
        "`speed_up` is over base in the same race; `op_ratio` the paper's count of operations, base over this; "
        "`ops_run_ratio` those that the fast path really runs; `efficiency` is speed_up / op_ratio.",
        "`paper_ms` are the paper's on its own machine; for ViViT a sixteenth of a clip's.",
    ]
