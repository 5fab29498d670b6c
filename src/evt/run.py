"""python -m evt.run: measure one variant of a model on frames.

python -m evt.run model=vitdet policy.r=768
python -m evt.run -m policy.r=256,512,768
python -m evt.run variant=stgt data=video data.path=clip.mp4 model.size=672 policy.r=384
python -m evt.run model.checkpoint=vitdet_b_vid.pth data=vid data.root=ILSVRC2015 compare=false
torchrun --nproc-per-node 4 -m evt.run model.checkpoint=vitdet_b_vid.pth data=vid data.root=ILSVRC2015 compare=false
python -m evt.run model=vivit_epic model.checkpoint=vivit_b_epic.pth data=epic data.root=EPIC policy.r=100
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import evt
from evt.build import code_of
from evt.cli import run_command
from evt.data.loading import WANTED
from evt.device import build_device, processes
from evt.evaluate.chosen import build_run
from evt.evaluate.experiments import measure, without_accuracy
from evt.evaluate.kept import BUDGET, RUN, SAMPLES, made
from evt.evaluate.shares import agreed, forget, ledger_of, share_of, wait_for_all
from evt.evaluate.trace import peak_memory
from evt.files import write_together
from evt.report import main_figures, summary_table
from evt.workers import quiet_unless_first

NOT_TRAINED = (
    ", so neither accuracy nor agreement with the dense model is measured: with trained weights errors are several "
    "times larger"
)


def run(cfg: DictConfig) -> dict[str, Any]:
    """Measure what the config names, print a table, and leave metrics.json in the run folder; its main figures.

    Several processes that torchrun started share the videos, and the first puts together what they found.
    A run that was killed and is started again with the same `hydra.run.dir` goes on after its last finished video.
    """
    rank, world = processes()
    device = build_device(cfg)
    with quiet_unless_first():
        chosen = build_run(cfg, device)
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    units = WANTED[chosen.model.sees]
    parts = ("model", "variant", "policy", "data")
    settings = {part: OmegaConf.to_container(cfg[part], resolve=True) for part in parts}
    # Everything that results depend on: a run that goes on takes up no others.
    read = [chosen.weights.sha256, getattr(chosen.policy, "sha256", None)]
    key = json.dumps([evt.__version__, code_of(cfg), settings, cfg.compare, cfg.trace, *read], sort_keys=True)
    on_error = cfg.data.get("on_error", "fail")
    folder = agreed(folder) if world > 1 else folder
    traces = folder / "trace" if cfg.trace else None
    if world > 1:
        share = share_of(chosen.data, rank, world)
        if len(share) and len(chosen.data) > 1:
            own = ledger_of(folder, units, rank)
            measure(replace(chosen, data=share), own, key, on_error, cfg.compare, traces, whole=False)
        wait_for_all()
        if rank:
            return {}
    # What other processes have done is known, and nothing of it is run again.
    ledger = ledger_of(folder, units)
    metrics, files = measure(chosen, ledger, key, on_error, cfg.compare, traces)
    if chosen.variant is not None and chosen.variant.hold and not chosen.variant.move:
        metrics.pop("skipping", None)  # with itself
    if not chosen.weights.trained:
        metrics = without_accuracy(metrics)
    metrics |= {"data": chosen.data_name, "peak_memory_bytes": peak_memory(), "weights": str(chosen.weights)}
    # Only now do the results of an earlier run in this folder go.
    files = {
        "metrics.json": json.dumps(metrics, indent=2) + "\n",
        RUN: made(cfg, chosen.weights.sha256, device),
        **files,
    }
    write_together({folder / name: text for name, text in files.items()})
    for name in {"detections.jsonl", "left_out.txt", BUDGET, SAMPLES} - files.keys():
        (folder / name).unlink(missing_ok=True)
    ledger.finish()
    forget(folder, units)
    if "left_out.txt" in files:
        n_left_out = files["left_out.txt"].count("\n")
        print(f"{n_left_out} clips are in no average; {folder}/left_out.txt lists them", file=sys.stderr)
    print(f"\n{cfg.model.name} {chosen.model.size}, {chosen.label}, {metrics['data']}")
    print(summary_table(metrics))
    print(f"weights: {chosen.weights}{'' if chosen.weights.trained else NOT_TRAINED}")
    print(f"written to {folder}/metrics.json")
    return main_figures(metrics)


if __name__ == "__main__":
    run_command("run", run, shared=True)
