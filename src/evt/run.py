"""python -m evt.run: measure one variant of a model on frames.

python -m evt.run model=vitdet policy.r=768
python -m evt.run -m policy.r=256,512,768
python -m evt.run variant=stgt data=video data.path=clip.mp4 model.size=672 policy.r=384
python -m evt.run model.checkpoint=vitdet_b_vid.pth data=vid data.root=ILSVRC2015 compare=false
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import evt
from evt.harness import setup
from evt.harness.cli import run_command
from evt.harness.ledger import Ledger
from evt.harness.measure import Run, measure, peak_memory
from evt.harness.report import summary_table, write_detections


def run(cfg: DictConfig) -> None:
    """Measure what the config names, print a table, and leave metrics.json in the run folder.

    A run that was killed and is started again with the same `hydra.run.dir` goes on after its last finished video.
    """
    device = setup.build_device(cfg)
    if not isinstance(cfg.compare, bool):
        raise setup.ConfigError(f"compare is {cfg.compare!r}; it must be true or false")
    variant = setup.build_variant(cfg.variant)
    videos = setup.build_data(cfg.data)
    model, weights = setup.build_model(cfg.model, device)
    policy = setup.build_policy(cfg.policy, variant, model.n_tokens)
    classes = setup.class_names(videos, model.n_classes)
    what = Run(model, variant, policy, cfg.compare, detect=weights.trained)
    label = f"{cfg.variant.name} {policy or ''}".strip()
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    ledger = Ledger(folder / "videos.jsonl")
    settings = {part: OmegaConf.to_container(cfg[part]) for part in ("model", "variant", "policy", "data")}
    key = json.dumps([evt.__version__, settings, cfg.compare, weights.sha256], sort_keys=True)

    measurement, detections = measure(what, videos, classes, ledger, key, label)
    data = f"{len(videos)} videos" if len(videos) > 1 else videos[0].name
    metrics: dict[str, Any] = {
        **measurement.summary(),
        "peak_memory_bytes": peak_memory(),
        "data": [video.name for video in videos],
        "weights": str(weights),
    }
    if weights.trained:
        metrics["detection"] = asdict(detections.compute())
        write_detections(folder / "detections.jsonl", detections, classes)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    ledger.finish()
    print(f"\n{cfg.model.name} {model.size}, {label}, {data}")
    print(summary_table(metrics))
    print(f"weights: {weights}" + ("" if weights.trained else ", so no accuracy is measured"))
    print(f"written to {folder}/metrics.json")


if __name__ == "__main__":
    run_command("run", run)
