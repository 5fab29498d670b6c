"""Tables A and D of the paper (ViViT on Kinetics-400 and EPIC-Kitchens 100), beside what this code gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig

from evt.data.epic_kitchens import EpicKitchens
from evt.data.kinetics import Kinetics
from evt.data.loading import build_clips
from evt.device import build_device
from evt.errors import ConfigError
from evt.evaluate.classes import in_model_order
from evt.evaluate.ledger import Ledger
from evt.evaluate.recognition import recognise
from evt.evaluate.shapes import operations_of_clip
from evt.evaluate.trace import Subject
from evt.eventful import VARIANTS, TopR
from evt.files import write
from evt.models.loading import Weights, build_model
from evt.models.vivit import ViViT
from evt.report import FilledTable
from evt.settings import changed
from evt.tables.rows import equal_as_printed, row_key

NO_DATA = (
    "`top1` needs the data set. EPIC-Kitchens: `EPIC_ROOT=FOLDER` for make, `data=epic data.root=FOLDER` for this "
    "command, is the folder of EPIC_100_validation.csv and the videos. Kinetics: `KINETICS_CSV=FILE` and "
    "`KINETICS_VIDEOS=FOLDER`, or `data=kinetics data.annotations=FILE data.videos=FOLDER`."
)
NO_CHECKPOINT = (
    "`top1` needs trained weights: `WEIGHTS=FILE` for make, `model.checkpoint=FILE` for this command, is the "
    "published ViViT checkpoint."
)
NOT_TUNED = (
    "`top1` of a row with a `tuned_r` needs a temporal sub-model fine-tuned at that r: `TUNED=FOLDER` for make, "
    "`fine_tuned=FOLDER` for this command, holds r100/temporal.safetensors and so on, as `python -m evt.train "
    "task=vivit_temporal r=100` leaves them."
)


@dataclass(frozen=True)
class VideoRow:
    """A row of Table A or D; tflops and top1 as printed, empty for the naive rows, which are not printed.

    tuned_r: the r at which the temporal sub-model was fine-tuned; empty for the published one.
    r: the budget of the spatial sub-model; empty for the dense model.
    """

    size: int
    variant: str
    tuned_r: str
    r: str
    tflops: str
    top1: str

    @property
    def policy(self) -> TopR | None:
        """The policy of the row."""
        return TopR(int(self.r)) if self.r else None


@dataclass(frozen=True)
class VideoCells:
    """What was measured for a row; top1, in percent, is None and clips 0 where no clip was classified.

    short: how many of the clips have fewer frames than a view spans.
    """

    tflops: float
    top1: float | None = None
    clips: int = 0
    left_out: int = 0
    short: int = 0


def video_table(name: str, size: int) -> list[VideoRow]:
    """The rows of a table of the paper, in its order, and a naive row, without fine-tuning, for each tuned r."""
    with (resources.files("evt.tables") / "paper" / f"{name}.csv").open() as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    columns = table[["variant", "tuned_r", "r", "tflops", "top1"]]
    rows = [VideoRow(size, *row) for row in columns.itertuples(index=False)]
    tuned = dict.fromkeys(row.tuned_r for row in rows if row.tuned_r)
    return rows + [VideoRow(size, "temporal", "", r, "", "") for r in tuned]


def fill_recognition_table(cfg: DictConfig, folder: Path) -> list[FilledTable]:
    """Fill the table that `cfg.table` names; goes on after the last row and clip that the folder holds."""
    device = build_device(cfg)
    data = build_clips(cfg.data) if cfg.data.name in {"epic", "kinetics"} else None
    trained = cfg.model.checkpoint is not None
    shapes = build_model(changed(cfg.model, checkpoint=None), torch.device("meta"), ViViT)[0]

    @cache
    def model(tuned_r: str) -> tuple[ViViT, Weights] | None:
        fine_tuned = None
        if tuned_r:
            if cfg.fine_tuned is None or not (path := _tuned(cfg, tuned_r)).is_file():
                return None
            fine_tuned = str(path)
        return build_model(changed(cfg.model, fine_tuned=fine_tuned), device, ViViT)

    rows = video_table(cfg.table.name, cfg.model.size)
    _check(cfg, rows, shapes.n_tokens)
    if trained and isinstance(data, EpicKitchens | Kinetics):
        for row in rows:  # what cannot be loaded, or does not fit, is found out now rather than after hours
            if (loaded := model(row.tuned_r)) is not None:
                in_model_order(*loaded, data)

    ledger = Ledger(folder / "rows.jsonl")
    records = []
    short = 0
    for row in rows:
        found = model(row.tuned_r) if trained and data is not None else None
        key = row_key(cfg, row, found[1].sha256 if found else None)
        if key not in ledger:
            variant = VARIANTS[row.variant]
            cells = VideoCells(operations_of_clip(shapes, variant, row.policy) / 1e12)
            if found is not None:
                assert isinstance(data, EpicKitchens | Kinetics)
                clips = Ledger(folder / "clips.jsonl")
                label = f"{row.variant} r={row.r or '-'} tuned_r={row.tuned_r or '-'}"
                in_order = in_model_order(found[0], found[1], data)
                subject = Subject(found[0], found[0].stream(variant, row.policy))
                result = recognise(
                    subject, found[0].views.reach, in_order, clips, key, cfg.data.on_error, label
                )
                figures = result.summary()
                left_out = figures["skipped"] + figures["missing"]
                if left_out:
                    write(folder / "left_out.txt", "\n".join(result.left_out()) + "\n")
                cells = VideoCells(
                    cells.tflops, figures.get("top1"), figures["clips"], left_out, figures["short"]
                )
            ledger.put(key, asdict(cells))
            Ledger(folder / "clips.jsonl").finish()
        short = max(short, VideoCells(**ledger[key]).short)
        name = data.name if isinstance(data, EpicKitchens | Kinetics) else ""
        records.append(_record(cfg, row, VideoCells(**ledger[key]), name))

    missing = ([] if data else [NO_DATA]) + ([] if trained else [NO_CHECKPOINT])
    if not missing and any(record["tuned_r"] and not record["clips"] for record in records):
        missing.append(NOT_TUNED)
    notes = [
        "TFlops are of a whole video: 12 views of 16 steps, each view's first step a flush, the temporal sub-model "
        "and the classifier included. They follow from shapes alone and were counted on torch's meta device.",
        "Rows without `tuned_r` but with `r` are naive: the published temporal sub-model on Eventful outputs. The "
        "paper does not print them.",
        "`tflops_equal` compares at the paper's digits.",
        *missing,
    ]
    if short:
        notes.append(
            f"{short} of the clips have fewer than the {shapes.views.reach} frames that a view spans: their last "
            "frame is repeated."
        )
    return [FilledTable(cfg.table.name, cfg.table.title, records, notes, missing, ledger)]


def _check(cfg: DictConfig, rows: Sequence[VideoRow], n_tokens: int) -> None:
    for row in rows:
        if row.policy is not None and row.policy.r > n_tokens:
            raise ConfigError(
                f"{cfg.table.name} has a row with r = {row.r}, but a step of this model has {n_tokens} tokens; leave "
                "the model's settings as they are"
            )
    if cfg.fine_tuned is not None and not Path(cfg.fine_tuned).is_dir():
        raise ConfigError(
            f"fine_tuned is {cfg.fine_tuned}, which is not a folder; one with r100/temporal.safetensors and so on is "
            "needed"
        )


def _tuned(cfg: DictConfig, r: str) -> Path:
    return Path(cfg.fine_tuned) / f"r{r}" / "temporal.safetensors"


def _record(cfg: DictConfig, row: VideoRow, cells: VideoCells, data: str) -> dict[str, Any]:
    equal = ("yes" if equal_as_printed(cells.tflops, row.tflops) else "no") if row.tflops else ""
    return {
        "size": row.size,
        "variant": row.variant,
        "tuned_r": row.tuned_r,
        "r": row.r,
        "tflops": cells.tflops,
        "tflops_paper": row.tflops,
        "top1": "" if cells.top1 is None else cells.top1,
        "top1_paper": row.top1,
        "clips": cells.clips or "",
        "left_out": cells.left_out if cells.clips else "",
        "data": data if cells.clips else "",
        "checkpoint": Path(cfg.model.checkpoint).name if cells.clips else "",
        "interval": "",
        "tflops_equal": equal,
    }
