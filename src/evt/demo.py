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
from PIL import Image
from pydantic import Field, NonNegativeInt
from tqdm import tqdm

from evt.checked import wrong
from evt.cli import run_command
from evt.device import build_device
from evt.errors import ConfigError, DataError
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
    out, sheet_out = _outputs(cfg)
    source = open_source(cfg.source, cfg.n_frames, motion)
    dense = model.stream(variant.dense) if cfg.compare else None
    subject = Subject(model, model.stream(variant, watched or policy), dense, decode=weights.trained)
    label = f"{cfg.variant.name} {policy or ''}".strip()
    annotate = Annotator(model, weights.classes or (), label, watched, cfg.gate, cfg.confidence, cfg.width)
    target = Window(source.name) if out is None else VideoWriter(out, source.fps)
    columns: dict[int, list[Image.Image]] = {}
    shown = "shown" if out is None else f"in {out}"
    try:
        with target:
            for i, frame in enumerate(tqdm(source.frames, source.name, source.length, unit="frame")):
                if watched is not None:
                    watched.begin()
                seen = observe(subject, frame)
                target.add(annotate(seen))
                if sheet_out is not None and i in cfg.sheet.frames:
                    columns[i] = annotate.column(seen, cfg.sheet.gate)
                if target.closed:
                    break
    except (KeyboardInterrupt, DataError):
        if target.n_frames:
            frames = "1 frame is" if target.n_frames == 1 else f"{target.n_frames} frames are"
            print(f"{frames} {shown}", file=sys.stderr)
        raise
    if not weights.trained:
        print(f"weights: {weights}, so nothing that they find is drawn")
    print(f"{target.n_frames} frame{'s' * (target.n_frames != 1)}, {label}: {annotate.summary()}")
    if out is not None:
        print(f"written to {out}")
    if sheet_out is not None:
        if not columns:
            raise ConfigError(
                f"sheet.frames are {list(cfg.sheet.frames)}, and there were {target.n_frames}: no {sheet_out} is made"
            )
        names = ("found", f"error at gate {cfg.sheet.gate}", "tokens that pass")
        with replacing(sheet_out) as part:
            sheet(list(columns.values()), [f"frame {i}" for i in columns], names).save(part, "PNG")
        print(f"written to {sheet_out}")
    return {"frames": target.n_frames}


def _outputs(cfg: DictConfig) -> tuple[Path | None, Path | None]:
    """The file of the video, None for a window; and that of the sheet, None for none.

    Raises:
        ConfigError: one would take the place of what is to be shown, or the sheet is no PNG.
        OSError: the sheet cannot be written.
    """
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    out = None if cfg.out == "window" else folder / "demo.mp4" if cfg.out is None else Path(str(cfg.out))
    sheet_out = None if cfg.sheet.out is None else Path(cfg.sheet.out)
    source = Path(cfg.source)
    for name, path in (("out", out), ("sheet.out", sheet_out)):
        if path is not None and path.exists() and source.exists() and path.samefile(source):
            raise ConfigError(f"{name} is {path}, which is source as well; it must be another file")
    if sheet_out is not None:
        if sheet_out.suffix.lower() != ".png":
            raise ConfigError(f"sheet.out is {sheet_out}; it must end in .png")
        if source.is_dir() and sheet_out.resolve().parent == source.resolve():
            raise ConfigError(
                f"sheet.out is {sheet_out}, among the pictures of source; it must lie elsewhere"
            )
        check_writable(sheet_out)
    return out, sheet_out


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
