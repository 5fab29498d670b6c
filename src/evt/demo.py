"""python -m evt.demo: what a model finds in a video, and what of each frame it computed anew.

python -m evt.demo
python -m evt.demo source=clip.mp4 model=dinov2_saliency variant=rows policy.r=32 out=annotated.mp4
python -m evt.demo source=camera:0 model=vitdet_mini compare=true out=window
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pydantic import Field, NonNegativeInt
from tqdm import tqdm

from evt.checked import wrong
from evt.cli import run_command
from evt.device import build_device
from evt.errors import ConfigError
from evt.evaluate.trace import Subject, observe
from evt.evaluate.variants import build_policy, build_variant, check_told
from evt.evaluate.watched import Watched
from evt.files import check_writable, replacing
from evt.models.loading import build_model, sees_of
from evt.settings import as_python
from evt.show.annotate import Annotator
from evt.show.draw import sheet
from evt.show.sources import open_source
from evt.show.window import Window
from evt.show.writer import VideoWriter


@dataclass(frozen=True)
class Sheet:
    """The settings below `sheet`."""

    out: str | None
    frames: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    gate: NonNegativeInt


def demo(cfg: DictConfig) -> dict[str, Any]:
    """Show what the config names; how many frames there were.

    Raises:
        ConfigError: a setting cannot be, or not with the others.
        CheckpointError, DataError: weights or the source cannot be used.
    """
    if said := wrong("sheet", as_python(cfg.sheet), Sheet).values:
        raise ConfigError(". ".join(said))
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
    watched = None if policy is None or variant.hold else Watched(policy)
    _check_gates(cfg, 0 if watched is None else len(model.net.states(variant).gates))
    if motion and not Path(cfg.source).is_file():
        raise ConfigError(
            f"policy is {cfg.policy.name} and source is {cfg.source}; it must be a video file for this"
        )
    source = open_source(cfg.source, cfg.n_frames, motion)
    dense = model.stream(variant.dense) if cfg.compare else None
    subject = Subject(model, model.stream(variant, watched or policy), dense, decode=weights.trained)
    label = f"{cfg.variant.name} {policy or ''}".strip()
    annotate = Annotator(model, weights.classes or (), label, watched, cfg.gate, cfg.confidence, cfg.width)
    if cfg.sheet.out is not None:
        if Path(cfg.sheet.out).suffix.lower() != ".png":
            raise ConfigError(f"sheet.out is {cfg.sheet.out}; it must end in .png")
        check_writable(Path(cfg.sheet.out))
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    out = folder / "demo.mp4" if cfg.out is None else Path(str(cfg.out))
    window = cfg.out == "window"
    if not window and out.exists() and Path(cfg.source).exists() and out.samefile(cfg.source):
        raise ConfigError(f"out is {out}, which is source as well; it must be another file")
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
    elif cfg.sheet.out is not None:
        print(
            f"sheet.frames are {list(cfg.sheet.frames)}, and there were {target.n_frames}: no {cfg.sheet.out}"
        )
    if not weights.trained:
        print(f"weights: {weights}, so nothing that they find is drawn")
    print(f"{target.n_frames} frame{'s' * (target.n_frames != 1)}, {label}: {annotate.summary()}")
    if not window:
        print(f"written to {out}")
    return {"frames": target.n_frames}


def _check_gates(cfg: DictConfig, n_gates: int) -> None:
    """Refuse to show the tokens of a gate that a variant has not.

    Raises:
        ConfigError: it has not.
    """
    asked = {"gate": cfg.gate, "sheet.gate": None if cfg.sheet.out is None else cfg.sheet.gate}
    for name, gate in asked.items():
        if gate is not None and gate >= n_gates:
            allowed = (
                f"it must be from 0 to {n_gates - 1}" if n_gates else "there must be a variant with gates"
            )
            raise ConfigError(
                f"{name} is {gate}, and variant {cfg.variant.name} has {n_gates or 'no'} gates; {allowed}"
            )


if __name__ == "__main__":
    run_command("demo", demo)
