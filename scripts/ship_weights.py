"""Put trained weights into the package: in half precision, with their sha256, a model card and the training's curve.

python scripts/ship_weights.py vitdet_mini runs/vitdet_mini_cells runs/vitdet_mini
python scripts/ship_weights.py vivit_mini runs/vivit_mini
python scripts/ship_weights.py vivit_mini_r25 runs/vivit_temporal_mini/r25
python scripts/ship_weights.py vivit_mini

The last folder holds the weights; those before it are earlier stages, for the card and the curves.
Without folders, what is shipped gets the names of its classes; its parameters stay as they are.
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from evt.data.sprites import ACTIONS, CLASSES
from evt.files import write
from evt.models.checkpoints import save_checkpoint
from evt.models.shipped import FOLDER, shipped_sums

CURVES = Path("results/training")
MEAN_OVER = 20  # steps
RECIPE = ("configs/task", "configs/model", "src/evt/data/sprites", "src/evt/training/objectives")


def ship(name: str, runs: Sequence[Path]) -> None:
    """Write weights, card and curves of one model, and list its sha256.

    Args:
        name: of the model.
        runs: the folders of its stages, the last with the weights.
    """
    made = [runs[-1] / file for file in ("weights.safetensors", "temporal.safetensors")]
    weights = next(path for path in made if path.exists())
    half = {key: x.to(torch.float16) for key, x in load_file(weights).items()}
    path = FOLDER / f"{name}.safetensors"
    save_checkpoint(half, path, classes_of(name))
    sums = shipped_sums() | {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    write(FOLDER / "SHA256SUMS", "".join(f"{sums[file]}  {file}\n" for file in sorted(sums)))

    CURVES.mkdir(parents=True, exist_ok=True)
    stages = []
    for run in runs:
        log = pd.DataFrame(map(json.loads, (run / "log.jsonl").read_text().splitlines()))
        stage = run.name if len(runs) > 1 else name
        curve = log.groupby(log.index // MEAN_OVER).mean().round(6)
        write(CURVES / f"{stage}.csv", curve.to_csv(index=False))
        stages.append(_stage(run, log))
    commit = subprocess.check_output(["git", "log", "-1", "--format=%h", "--", *RECIPE], text=True).strip()
    parameters = sum(x.numel() for x in half.values())
    tables = "reproduce-rlt" if name.startswith("videomae") else "reproduce-mini"
    card = [
        f"# {name}",
        "",
        f"{parameters:,} parameters in half precision, {path.stat().st_size / 1e6:.1f} MB; `{sums[path.name]}`.",
        "",
        "Trained on generated videos alone (`evt.data.sprites`), from seeds; nothing was downloaded. "
        f"Recipe and data as of commit {commit}.",
        "",
        f"Classes, in order: {', '.join(classes_of(name))}.",
        "",
        *stages,
        "",
        f"Metrics: {_metrics(name, weights)} On more data: the small tables in results/ (`make {tables}`).",
        "",
        "Curves: results/training.",
    ]
    write(FOLDER / f"{name}.md", "\n".join(card) + "\n")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def classes_of(name: str) -> Sequence[str]:
    """The names of a model's classes, in order."""
    return CLASSES if name.startswith("vitdet") else ACTIONS


def name_classes(name: str) -> None:
    """Write the names of the classes into weights that are shipped, and into their card."""
    path, card = FOLDER / f"{name}.safetensors", FOLDER / f"{name}.md"
    sums = shipped_sums()
    before = sums[path.name]
    save_checkpoint(load_file(path), path, classes_of(name))
    sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    write(FOLDER / "SHA256SUMS", "".join(f"{sums[file]}  {file}\n" for file in sorted(sums)))
    text = card.read_text().replace(before, sums[path.name])
    line = f"Classes, in order: {', '.join(classes_of(name))}."
    if line not in text:
        text = text.replace("\n\n- `", f"\n\n{line}\n\n- `", 1)
    write(card, text)
    print(f"{path}: {len(classes_of(name))} classes named")


def _metrics(name: str, weights: Path) -> str:
    """What a model reaches in half precision, as shipped, and as it was trained; with the command."""
    model, _, tuned = name.removesuffix("_rlt").partition("_r")
    command = f"model={model} compare=false"
    if model == "vitdet_mini":
        command += " variant=base policy=none data.n_videos=60 data.n_frames=4"
    elif tuned:
        command += f" policy.r={tuned} data.n_clips=480"
    else:
        variant = "rlt" if name.endswith("_rlt") else "base policy=none"
        command += f" variant={variant} data.n_clips=480"
    setting = "model.fine_tuned" if tuned else "model.checkpoint"
    figures = []
    for checkpoint in (f"shipped:{name}", str(weights)):
        with tempfile.TemporaryDirectory() as folder:
            arguments = [*command.split(), f"{setting}='{checkpoint}'", f"hydra.run.dir={folder}"]
            subprocess.run([sys.executable, "-m", "evt.run", *arguments], check=True)
            metrics = json.loads((Path(folder) / "metrics.json").read_text())
        figures.append(
            metrics["detection"]["map50"] if "detection" in metrics else metrics["recognition"]["top1"]
        )
    measure = "mAP50" if model == "vitdet_mini" else "top-1"
    shipped = f" {setting}=shipped:{name}" if name != model else ""
    return (
        f"{measure} {figures[0]:.2f} as shipped and {figures[1]:.2f} in single precision, as trained: "
        f"`python -m evt.run {command}{shipped}`."
    )


def _stage(run: Path, log: pd.DataFrame) -> str:
    """A line on one stage: its task, settings, and the losses that it ended with."""
    cfg = OmegaConf.load(run / ".hydra" / "config.yaml")
    overrides = OmegaConf.load(run / ".hydra" / "overrides.yaml")
    given = [str(x) for x in overrides if not str(x).startswith(("threads", "device", "hydra"))]
    recipe = ", ".join(f"{key} {x}" for key, x in cfg.train.items() if key not in {"workers", "save_every"})
    last = log.tail(100).drop(columns=["step", "lr"]).mean()
    losses = ", ".join(f"{key} {x:.3f}" for key, x in last.items())
    return f"- `python -m evt.train {' '.join(given)}`: {len(log)} steps; {recipe}. Last 100 steps: {losses}."


if __name__ == "__main__":
    imports_are_done()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("runs", type=Path, nargs="*")
    arguments = parser.parse_args()
    if arguments.runs:
        ship(arguments.name, arguments.runs)
    else:
        name_classes(arguments.name)
