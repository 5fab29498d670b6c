"""From the settings below `data` to what a model can run on.

A data set offers `videos()`, on which a model of frames runs, or `clips()`, on which a model of clips does, or both.
What has ground truth has `classes`, the names of its classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from omegaconf import DictConfig

from evt.build import build, choices, class_of
from evt.data.actions import ActionData, UnlabelledClip
from evt.data.samples import IndexedVideo
from evt.errors import ConfigError

WANTED = {"frames": "videos", "steps": "clips", "clips": "clips"}
"""What data must offer to a model, by what its streams see; see `evt.models.loading.Model`."""


def build_data(cfg: DictConfig, where: str, *offers: str) -> Any:
    """The data set that a config names.

    Args:
        cfg: its settings.
        where: they are in the command's.
        offers: what its class must have.

    Raises:
        ConfigError: it lacks one of these, and the message names the data that do not; or a setting cannot be.
        DataError: the data cannot be used.
    """

    def suits(cls: type) -> bool:
        return all(hasattr(cls, name) for name in offers)

    if not suits(class_of(cfg, where)):
        raise ConfigError(f"{where} is {cfg.name}; allowed are {', '.join(choices('data', suits))}")
    return build(cfg, where)


def build_annotated(cfg: DictConfig, where: str = "data") -> Sequence[IndexedVideo]:
    """The videos that a config names, with ground truth, to train on; see `build_data` for what is raised."""
    videos: Sequence[IndexedVideo] = build_data(cfg, where, "videos", "classes").videos()
    return videos


def build_clips(cfg: DictConfig, where: str = "data") -> ActionData | Sequence[UnlabelledClip]:
    """The clips that a config names, which have `classes` where they are labelled; see `build_data`."""
    clips: ActionData | Sequence[UnlabelledClip] = build_data(cfg, where, "clips").clips()
    return clips


def first_samples(cfg: DictConfig, sees: str) -> Iterable[Any]:
    """What a model looks at first of the data: the frames of the first video, or the first clip alone.

    Args:
        cfg: the settings below `data`.
        sees: by the model's streams.
    """
    first = getattr(build_data(cfg, "data", WANTED[sees]), WANTED[sees])()[0]
    return first if sees == "frames" else [first]
