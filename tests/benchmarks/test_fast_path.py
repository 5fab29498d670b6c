"""The fast path over 300 frames of real video, held to the reference path. Takes a quarter of an hour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hydra
import pytest
import torch
from tqdm import tqdm

from evt.device import build_device
from evt.evaluate.speed import inputs_of
from evt.eventful import VARIANTS, TopR
from evt.eventful import fast as fast_module
from evt.metrics.agreement import relative_l2
from evt.models.loading import build_model
from evt.models.vitdet import ViTDet
from evt.settings import CONFIG_DIR
from tests.eventful.led import Follower, Leader
from tests.eventful.test_fast import REFERENCE

CLIP = Path("../shared/data/clips/flipping_a_pancake.mkv")
N_FRAMES = 300


@pytest.mark.skipif(not CLIP.exists(), reason=f"{CLIP} is not there")
@pytest.mark.parametrize("variant", ["temporal", "spatiotemporal"])
def test_300_frames_of_real_video_are_those_of_the_reference_path(
    monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """Both select by their own errors; ties that fall otherwise are counted, and the reference's hold."""
    monkeypatch.setattr(fast_module, "FEW_KEYS", 0)  # pooled keys are updated, too
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = hydra.compose("bench", ["model.size=448", "data=video", f"data.path={CLIP}"])
    model, _ = build_model(cfg.model, build_device(cfg))
    assert isinstance(model, ViTDet)
    leader = Leader(TopR(112))
    follower = Follower(leader)
    reference = model.net.stream(REFERENCE[variant], leader)
    fast = model.net.stream(replace(VARIANTS[variant], fast=True), follower)
    errors = []
    for x in tqdm(inputs_of(model, cfg.data, N_FRAMES, torch.float32), variant, unit="frame"):
        expected = reference(x)
        errors.append(relative_l2(fast(x), expected))
    print(
        f"{variant}: relative error at most {max(errors):.1e}, of the last frame {errors[-1]:.1e};", end=" "
    )
    print(f"{follower.differ} of {follower.all} tokens selected otherwise")
    assert len(errors) == N_FRAMES
    assert max(errors) <= 1e-4
    assert follower.differ <= 1e-4 * follower.all
