"""python -m evt.calibrate: find a threshold for each gate, for policy=calibrated.

python -m evt.calibrate model=vitdet_mini policy.r=64 data.split=train out=r64.json
python -m evt.run model=vitdet_mini policy=calibrated policy.file=r64.json
python -m evt.calibrate model=dinov2_saliency variant=rows policy.r=32 data=video data.path=clip.mp4 data.n_frames=64
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from evt.build import choices
from evt.cli import run_command
from evt.device import build_device
from evt.errors import ConfigError, DataError
from evt.evaluate.calibrated import Calibration, switched
from evt.evaluate.calibration import calibrate, farthest
from evt.evaluate.chosen import Chosen, build_run
from evt.evaluate.sealed import check_sealed
from evt.eventful import VARIANTS, TopR, Variant
from evt.models.checkpoints import hash_of
from evt.report import columns

log = logging.getLogger(__name__)


def calibrate_task(cfg: DictConfig) -> dict[str, Any]:
    """Find thresholds on the videos that the config names, write them, and print how many tokens pass; these figures.

    Raises:
        ConfigError: there are no gates, the weights are not trained, or the policy is not top-r.
        DataError: the videos cannot be used, or nothing changes in them.
    """
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    path = folder / "calibration.json" if cfg.out is None else Path(str(cfg.out))
    check_sealed(path, Calibration, "evt.calibrate")
    chosen = build_run(cfg, build_device(cfg))
    variant, r = _checked(cfg, chosen)
    model, of_frames = chosen.model, chosen.model.sees == "frames"
    videos = chosen.data if of_frames else [chosen.data]
    n_samples = (1 + cfg.passes) * sum(map(len, videos))
    with tqdm(total=n_samples, desc=chosen.label, unit="frame" if of_frames else "clip") as bar:
        h, passed = calibrate(model, variant, r, videos, cfg.passes, cfg.within, bar)
    if not any(passed):
        why = "nothing changes" if passed else "no frame comes after another one"
        raise DataError(f"{chosen.data_name}: {why}, so that no threshold can be found")
    names = [x.name for x in chosen.data]
    weights = hash_of(model.stream(variant, chosen.policy).network.state_dict())
    Calibration(cfg.model.name, model.n_tokens, switched(variant), weights, names, r, passed, h).write(path)
    if (off := farthest(passed, r)) > cfg.within:
        log.warning(
            "after %d passes the tokens that pass a gate are up to %.0f%% from %d in the mean; more passes or more "
            "frames may bring them nearer",
            cfg.passes,
            100 * off,
            r,
        )
    figures = {"mean": fmean(passed), "least": min(passed), "most": max(passed)}
    print(f"\n{cfg.model.name} {model.size}, {cfg.variant.name}, {len(h)} gates, {chosen.data_name}")
    rows = [[name, f"{x:.1f}", f"{x / model.n_tokens:.3f}"] for name, x in {"asked": r, **figures}.items()]
    print(columns([["tokens of a later frame that pass a gate", "", "share"], *rows]))
    print(f"written to {path}")
    return figures


def _checked(cfg: DictConfig, chosen: Chosen) -> tuple[Variant, int]:
    """The variant, and how many tokens are to pass each gate.

    Raises:
        ConfigError: there are no gates, the weights are not trained, or the policy is not top-r of some tokens.
    """
    variant, policy, n_tokens = chosen.variant, chosen.policy, chosen.model.n_tokens
    if not isinstance(variant, Variant) or variant.gate is None:
        gated = [name for name, x in VARIANTS.items() if x.gate is not None]
        raise ConfigError(
            f"variant is {cfg.variant.name}, which has no gates to find thresholds for; it must be one of "
            f"{', '.join(gated)}, of a model that sees frame after frame"
        )
    if type(policy) is not TopR:
        allowed = " or ".join(choices("policy", lambda cls: cls is TopR))
        raise ConfigError(
            f"policy is {cfg.policy.name}; it must be {allowed}, as many tokens of which are to pass in the mean"
        )
    r = policy.tokens(n_tokens)
    if not 0 < r < n_tokens:
        raise ConfigError(
            f"policy.r is {policy.r}; thresholds let from 1 to {n_tokens - 1} of a frame's {n_tokens} tokens pass"
        )
    if not chosen.weights.trained:
        raise ConfigError(
            f"the weights are a {chosen.weights}, of which thresholds mean nothing; trained ones are needed, as "
            "model.checkpoint=FILE"
        )
    return variant, r


if __name__ == "__main__":
    run_command("calibrate", calibrate_task)
