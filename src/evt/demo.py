"""python -m evt.demo: what a model finds in a video, and what of each frame it computed anew.

python -m evt.demo
python -m evt.demo source=clip.mp4 model=dinov2_saliency variant=rows policy.r=32 out=annotated.mp4
python -m evt.demo source=camera:0 model=vitdet_mini compare=true out=window
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from evt.cli import run_command
from evt.device import build_device
from evt.errors import ConfigError
from evt.evaluate.trace import Subject, observe
from evt.evaluate.variants import build_policy, build_variant, check_told
from evt.evaluate.watched import Watched
from evt.files import check_writable, replacing
from evt.models.loading import build_model, sees_of
from evt.show.annotate import Annotator
from evt.show.draw import sheet
from evt.show.sources import open_source
from evt.show.window import Window
from evt.show.writer import VideoWriter


def demo(cfg: DictConfig) -> dict[str, Any]:
    """Show what the config names; how many frames there were.

    Raises:
        ConfigError: a setting cannot be, or not with the others.
        CheckpointError, DataError: weights or the source cannot be used.
    """
    if sees_of(cfg.model) != "frames":
        raise ConfigError(
            f"model is {cfg.model.name}, which sees clips; one that sees frames is needed, as vitdet_mini"
        )
    variant = build_variant(cfg.variant, cfg.model.name)
    model, weights = build_model(cfg.model, build_device(cfg))
    model.check(variant)
    policy = build_policy(cfg.policy, variant, model)
    motion = bool(getattr(policy, "looks_at_motion", False))
    check_told(policy, weights.trained, motion)
    source = open_source(str(cfg.source), cfg.n_frames, motion)
    watched = None if policy is None or variant.hold else Watched(policy)
    dense = model.stream(variant.dense) if cfg.compare else None
    subject = Subject(model, model.stream(variant, watched or policy), dense, decode=weights.trained)
    label = f"{cfg.variant.name} {policy or ''}".strip()
    annotate = Annotator(model, weights.classes or (), label, watched, cfg.gate, cfg.confidence, cfg.width)
    if cfg.sheet.out is not None:
        check_writable(Path(cfg.sheet.out))
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    out = folder / "demo.mp4" if cfg.out is None else Path(str(cfg.out))
    window = cfg.out == "window"
    target = Window(source.name) if window else VideoWriter(out, source.fps)
    columns, heads = [], []
    with target:
        try:
            for frame in tqdm(source.frames, source.name, source.length, unit="frame"):
                if watched is not None:
                    watched.begin()
                seen = observe(subject, frame)
                target.add(annotate(seen))
                if target.n_frames - 1 in cfg.sheet.frames and cfg.sheet.out is not None:
                    columns.append(annotate.column(seen, cfg.sheet.gate))
                    heads.append(f"frame {target.n_frames - 1}")
                if target.closed:
                    break
        except KeyboardInterrupt:
            print(f"{target.n_frames} frames are {'shown' if window else f'in {out}'}", file=sys.stderr)
            raise
    if columns:
        names = ("found", f"error at gate {cfg.sheet.gate}", "tokens that pass")
        with replacing(Path(cfg.sheet.out)) as part:
            sheet(columns, heads, names).save(part, "PNG")
        print(f"written to {cfg.sheet.out}")
    if not weights.trained:
        print(f"weights: {weights}, so nothing that they find is drawn")
    print(f"{target.n_frames} frames, {label}: {annotate.summary()}")
    if not window:
        print(f"written to {out}")
    return {"frames": target.n_frames}


if __name__ == "__main__":
    run_command("demo", demo)
