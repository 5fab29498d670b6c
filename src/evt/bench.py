"""python -m evt.bench: time a variant of a model against the dense model, and say where the time goes.

python -m evt.bench policy.r=512 data=frames data.path=FOLDER
python -m evt.bench model.size=672 policy.r=256 dtype=bfloat16 variant=spatiotemporal
python -m evt.bench model=vivit_epic model.size=320 policy.r=50 data=video data.path=clip.mp4
python -m evt.bench model.size=672 policy.r=256 rivals=[torch_compile,openvino,openvino_int8]
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from evt.build import choice
from evt.cli import run_command
from evt.device import build_device
from evt.errors import ConfigError
from evt.evaluate.race import machine, milliseconds_of_parts, race
from evt.evaluate.rivals import build_rivals, check_rivals
from evt.evaluate.speed import DTYPES, Contestant, check_races, inputs_of, records_of
from evt.evaluate.variants import build_policy, build_variant, check_told
from evt.eventful import VARIANTS
from evt.files import check_writable, write
from evt.models.loading import build_model, sees_of
from evt.report import columns

FRAMES = 8
"""That ViTDet is timed on where `data.n_frames` gives no number: a flush and later ones."""


def bench(cfg: DictConfig) -> dict[str, Any]:
    """Race what the config names against the dense model, print the figures, and leave bench.json in the folder.

    Returns:
        What was measured of it.
    """
    path = Path(os.path.relpath(HydraConfig.get().runtime.output_dir), "bench.json")
    check_writable(path)
    device = build_device(cfg)
    dtype = choice(DTYPES, "dtype", cfg.dtype)
    sees = sees_of(cfg.model)
    if sees == "clips":
        raise ConfigError(
            f"model is {cfg.model.name}, which has no later frames to race; it must be a ViTDet or a ViViT "
            f"(`python -m evt.run model={cfg.model.name} variant=rlt data=video data.path=FILE` times a clip)"
        )
    variant = build_variant(cfg.variant, cfg.model.name)
    check_races(variant)
    if variant.rows and not cfg.fast:
        raise ConfigError("fast is false, but the variant rows is of the fast path alone; leave fast true")
    model, weights = build_model(cfg.model, device)
    model.check(variant)
    policy = build_policy(cfg.policy, variant, model)
    check_told(policy, detects=False, moves=False)
    n_frames = cfg.data.get("n_frames")
    # Of a model of clips the frames are cut into views, all of whose steps are run.
    n_inputs = None if sees == "steps" else FRAMES if n_frames is None else n_frames
    check_rivals(cfg.rivals, "rivals")
    inputs = inputs_of(model, cfg.data, n_inputs, torch.float32)
    rivals, absent = build_rivals(cfg.rivals, model, inputs, dtype)
    inputs = [x.to(dtype) for x in inputs]
    model = model.to(dtype)
    runs = {"dense": Contestant(VARIANTS["base"]), "this": Contestant(variant, policy)}
    streams = {name: x.on(model, cfg.fast) for name, x in runs.items()}
    laps = race({**streams, **rivals}, inputs, cfg.repeats)
    own = records_of(list(runs.values()), [laps[name] for name in runs], model, cfg.model, inputs)
    records = dict(zip(runs, own, strict=True))
    records |= {name: rival.record(laps[name], laps["dense"]) for name, rival in rivals.items()}
    parts = {}
    if cfg.parts:
        # The profiler slows all of it down, which is nothing that a policy is to follow.
        parts = {
            name: milliseconds_of_parts(x.held().on(model, cfg.fast), inputs) for name, x in runs.items()
        }

    this, rows = records["this"], [["", *records]]
    for title, key, form in (
        ("first frame, ms", "first_ms", ".1f"),
        ("later frame, ms (median)", "later_ms", ".1f"),
        ("a quarter is below", "later_ms_25", ".1f"),
        ("a quarter is above", "later_ms_75", ".1f"),
        ("state, MB", "state_mb", ".1f"),
        ("times as fast as dense", "speed_up", ".2f"),
    ):
        rows.append([title, *(format(record[key], form) for record in records.values())])
    if rivals:
        errors = (f"{record['error']:.1e}" if "error" in record else "" for record in records.values())
        rows.append(["error against float32", *errors])
    rows += [
        [f"{part}, ms with profiler", *(f"{x[part]:.1f}" for x in parts.values()), *[""] * len(rivals)]
        for part in parts.get("this", ())
    ]
    label = f"{cfg.variant.name} {policy or ''}".strip()
    print(
        f"{cfg.model.name} {cfg.model.size}, {label}, {cfg.dtype}, {'fast' if cfg.fast else 'reference'} path"
    )
    print(f"{machine(device)}; {len(inputs)} frames, {cfg.repeats} times")
    print(columns(rows))
    for name, why in absent.items():
        print(f"{name} does not run here: {why}")
    ratios = {
        "speed-up": "speed_up",
        "fewer operations": "op_ratio",
        "as run": "ops_run_ratio",
        "efficiency": "efficiency",
    }
    print(", ".join(f"{title} {this[key]:.2f}" for title, key in ratios.items()))
    if not runs["this"].steady:
        print(
            "tokens differ from frame to frame: all of these are of the sum of the later frames, as they were run"
        )
    print(f"weights: {weights}")
    figures = {"machine": machine(device), "records": records, "parts": parts, "absent": absent}
    write(path, json.dumps(figures, indent=1) + "\n")
    print(f"written to {path}")
    return {"dense_ms": records["dense"]["later_ms"], **this}


if __name__ == "__main__":
    run_command("bench", bench)
