"""What a config's data may be asked for, and what is said of those that do not have it."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from evt.data.loading import build_annotated, build_clips, build_data, first_samples
from evt.data.sprites import CLASSES, SpriteClips
from evt.errors import ConfigError
from tests.common import ROOT


def settings(name: str, **changed: object) -> Any:
    return OmegaConf.merge(OmegaConf.load(ROOT / f"configs/data/{name}.yaml"), changed)


def test_generated_videos_are_annotated_and_as_clips_unlabelled() -> None:
    cfg = settings("sprites", n_videos=2, n_frames=3)
    assert build_annotated(cfg).classes == CLASSES  # type: ignore[attr-defined]
    assert [len(video) for video in build_data(cfg, "data", "videos").videos()] == [3, 3]
    clips = build_clips(cfg)
    assert not hasattr(clips, "classes")
    assert clips[0].frames[[0, 2]].shape == (2, 3, 192, 192)
    (clip,) = first_samples(cfg, "steps")
    assert len(clip.frames) == 3
    assert [frame.first for frame in first_samples(cfg, "frames")] == [True, False, False]


def test_labelled_clips_are_themselves() -> None:
    clips = build_clips(settings("sprite_clips", n_clips=2))
    assert isinstance(clips, SpriteClips)


def test_a_refusal_names_all_data_that_would_do() -> None:
    """Nothing is opened for it."""
    with pytest.raises(
        ConfigError, match=r"^data is epic; allowed are davis, frames, real, sprites, vid, video$"
    ):
        build_data(settings("epic", root="x"), "data", "videos")
    with pytest.raises(ConfigError, match=r"^data\.det is video; allowed are sprites, vid$"):
        build_annotated(settings("video", path="x"), "data.det")
    allowed = "epic, frames, kinetics, something, sprite_clips, sprites, video"
    with pytest.raises(ConfigError, match=f"^data is vid; allowed are {allowed}$"):
        build_clips(settings("vid", root="x"))
