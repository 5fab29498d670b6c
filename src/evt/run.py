"""python -m evt.run: measure one variant of a model on frames.

python -m evt.run model=vitdet policy.r=768
python -m evt.run -m policy.r=256,512,768
python -m evt.run variant=stgt data=video data.path=clip.mp4 model.size=672 policy.r=384
python -m evt.run model.checkpoint=vitdet_b_vid.pth data=vid data.root=ILSVRC2015 compare=false
python -m evt.run model=vivit_epic model.checkpoint=vivit_b_epic.pth data=epic data.root=EPIC policy.r=100
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import evt
from evt import setup
from evt.cli import run_command
from evt.data.actions import ActionData
from evt.data.clips import Pictures, PicturesAt
from evt.data.vid import VID
from evt.data.video import Video
from evt.errors import ConfigError
from evt.evaluate.ledger import Ledger
from evt.evaluate.measure import Run, measure, peak_memory
from evt.evaluate.measure_clip import measure_clip
from evt.evaluate.measure_tokens import measure_tokens
from evt.evaluate.recognise import recognise
from evt.eventful import Policy, Variant
from evt.files import write_together
from evt.models.videomae import VideoMAE
from evt.models.vitdet import ViTDet
from evt.models.vivit import ViViT
from evt.report import detection_lines, main_figures, summary_table
from evt.tokens import Reduction

log = logging.getLogger(__name__)

Found = tuple[dict[str, Any], dict[str, str]]
"""The figures of a run, and what else it leaves in its folder: the text of each file."""


@dataclass(frozen=True)
class Job:
    """What a run is told, beside model and data.

    label: variant and policy, for the user.
    ledger: keeps the videos or clips that are finished, until metrics.json is written.
    """

    cfg: DictConfig
    variant: Variant | Reduction | None
    policy: Policy | None
    weights: setup.Weights
    label: str
    ledger: Ledger

    @property
    def key(self) -> str:
        """Everything that the results on a video depend on: a run that goes on takes up no others."""
        settings = {
            part: OmegaConf.to_container(self.cfg[part], resolve=True)
            for part in ("model", "variant", "policy", "data")
        }
        return json.dumps(
            [evt.__version__, settings, self.cfg.compare, self.weights.sha256, self.weights.classes],
            sort_keys=True,
        )


def run(cfg: DictConfig) -> dict[str, Any]:
    """Measure what the config names, print a table, and leave metrics.json in the run folder; its main figures.

    A run that was killed and is started again with the same `hydra.run.dir` goes on after its last finished video.
    """
    device = setup.build_device(cfg)
    setup.check_flags(cfg, "compare", "fast")
    data = setup.build_data(cfg.data) if cfg.model.name == "vitdet" else setup.build_clips(cfg.data)
    model: ViTDet | ViViT | VideoMAE
    variant: Variant | Reduction | None
    policy = None
    if cfg.model.name == "videomae":
        if cfg.fast:
            raise ConfigError("fast is true, but videomae has one path alone; leave fast false")
        variant = setup.build_reduction(cfg)
        model, weights = setup.build_videomae(cfg.model, device)
        label = f"{cfg.variant.name} {variant or ''}".strip()
    else:
        variant = setup.build_variant(cfg.variant, cfg.model.name)
        model, weights = setup.build_model(cfg.model, device)
        policy = setup.build_policy(cfg.policy, variant, model.n_tokens)
        label = f"{cfg.variant.name} {policy or ''}".strip()
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    setup.check_fits(variant, model)
    setup.warn_of_generated(weights, cfg.data.name, data)
    ledger = Ledger(folder / ("videos.jsonl" if isinstance(model, ViTDet) else "clips.jsonl"))
    job = Job(cfg, variant, policy, weights, label, ledger)
    if isinstance(model, ViTDet):
        metrics, files = detect(job, model, data)  # type: ignore[arg-type]  # build_data gave it
    elif isinstance(data, setup.LABELLED):
        metrics, files = classify(job, model, data)
    else:
        metrics, files = classify_one(job, model, data), {}  # type: ignore[arg-type]  # build_clips gave it
    metrics |= {"peak_memory_bytes": peak_memory(), "weights": str(weights)}
    # Only now do the results of an earlier run in this folder go.
    files = {"metrics.json": json.dumps(metrics, indent=2) + "\n", **files}
    write_together({folder / name: text for name, text in files.items()})
    for name in {"detections.jsonl", "left_out.txt"} - files.keys():
        (folder / name).unlink(missing_ok=True)
    job.ledger.finish()
    if "left_out.txt" in files:
        n_left_out = files["left_out.txt"].count("\n")
        print(f"{n_left_out} clips are in no average; {folder}/left_out.txt lists them", file=sys.stderr)
    print(f"\n{cfg.model.name} {model.size}, {label}, {metrics['data']}")
    print(summary_table(metrics))
    print(f"weights: {weights}" + ("" if weights.trained else ", so no accuracy is measured"))
    print(f"written to {folder}/metrics.json")
    return main_figures(metrics)


def detect(job: Job, model: ViTDet, videos: Sequence[Video]) -> Found:
    """ViTDet, frame by frame."""
    # Without trained weights nothing is detected, and any data will do.
    classes = setup.class_names(videos if job.weights.trained else [], model.n_classes, job.weights.classes)
    assert isinstance(job.variant, Variant)
    what = Run(model, job.variant, job.policy, job.cfg.compare, detect=job.weights.trained)
    measurement, detections = measure(what, videos, classes, job.ledger, job.key, job.label)
    metrics, files = measurement.summary(), {}
    if job.weights.trained:
        metrics["detection"] = asdict(detections.compute())
        files["detections.jsonl"] = detection_lines(detections, classes)
    metrics["data"] = videos[0].name
    if isinstance(videos, VID):
        metrics["data"] = videos.description
    elif len(videos) > 1:
        metrics["data"] = f"{job.cfg.data.name}, {len(videos)} videos"
    return metrics, files


def classify(job: Job, model: ViViT | VideoMAE, data: ActionData) -> Found:
    """A model of clips, clip by clip of a data set."""
    data = setup.in_model_order(model, job.weights, data)
    found = recognise(
        model, job.variant, job.policy, data, job.ledger, job.key, job.cfg.data.on_error, job.label
    )
    metrics = {"recognition": found.summary(), "data": data.name}
    if not job.weights.trained:
        metrics["recognition"] = {k: v for k, v in found.summary().items() if k not in {"top1", "top5"}}
    left_out = found.left_out()
    return metrics, {"left_out.txt": "\n".join(left_out) + "\n"} if left_out else {}


def classify_one(job: Job, model: ViViT | VideoMAE, pictures: Pictures) -> dict[str, Any]:
    """A single clip without a label: what it costs beside the dense model, and its best classes."""
    clip = PicturesAt(pictures)
    if len(clip) < model.views.reach:
        log.warning(
            "the clip has %d frames and a view spans %d: its last frame is repeated, which makes tokens that repeat",
            len(clip),
            model.views.reach,
        )
    metrics: dict[str, Any] = {"data": job.cfg.data.get("path", job.cfg.data.name)}
    if isinstance(model, VideoMAE):
        assert not isinstance(job.variant, Variant)
        metrics["tokens"], probabilities = measure_tokens(model, job.variant, clip, job.cfg.compare)
    else:
        assert isinstance(job.variant, Variant)
        found = measure_clip(model, job.variant, job.policy, clip, job.cfg.compare, job.label)
        probabilities = found.probabilities
        metrics |= {**found.spatial.summary(), "tflops": found.ops / 1e12}
        if found.dense_ops is not None:
            own, dense = (sum(part) for part in found.spatial.all_seconds())
            metrics |= {"dense_tflops": found.dense_ops / 1e12, "op_ratio": found.dense_ops / found.ops}
            metrics["time_ratio"] = dense / own
    if job.weights.trained:
        best = probabilities.topk(5)
        names = job.weights.classes or [str(i) for i in range(len(probabilities))]
        best_names = [names[i] for i in best.indices.tolist()]
        metrics["top5"] = dict(zip(best_names, best.values.tolist(), strict=True))
    return metrics


if __name__ == "__main__":
    run_command("run", run)
