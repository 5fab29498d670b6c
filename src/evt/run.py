"""python -m evt.run: measure one variant of a model on frames.

python -m evt.run model=vitdet policy.r=768
python -m evt.run -m policy.r=256,512,768
python -m evt.run variant=stgt data=video data.path=clip.mp4 model.size=672 policy.r=384
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from evt.harness import setup
from evt.harness.cli import run_command
from evt.harness.measure import measure
from evt.harness.report import summary_table


def run(cfg: DictConfig) -> None:
    """Measure what the config names, print a table, and leave metrics.json in the run folder."""
    device = setup.build_device(cfg)
    variant = setup.build_variant(cfg.variant)
    model = setup.build_model(cfg.model, device)
    policy = setup.build_policy(cfg.policy, variant, model.n_tokens)
    videos = setup.build_data(cfg.data)
    label = f"{cfg.variant.name} {policy or ''}".strip()
    metrics: dict[str, Any] = {
        **measure(model, variant, policy, videos, label).summary(),
        "data": [video.name for video in videos],
        "weights": f"seeded initialisation (seed {cfg.model.seed})",
    }

    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"\n{cfg.model.name} {model.size}, {label}, {', '.join(metrics['data'])}")
    print(summary_table(metrics))
    print(f"weights: {metrics['weights']}, so no accuracy is measured\nwritten to {folder}/metrics.json")


if __name__ == "__main__":
    run_command("run", run)
