"""What generated videos are made from: seeds, and what disturbs them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evt.errors import DataError


@dataclass(frozen=True)
class Disturbance:
    """What changes in a video besides its objects; 0 is none.

    pan: speed of the camera in pixels a frame; it turns back at the edges of the scene.
    jitter: standard deviation of a hand-held camera's place on each axis, in pixels.
    noise: standard deviation of the sensor's noise in grey levels, drawn anew for each value of each frame.
    light: how far the scene's brightness swings to either side, as a fraction.
    cut_every: frames from cut to cut; a cut shows another scene and begins no new sequence.

    Raises:
        DataError: a value is negative, or light is 1 or more.
    """

    pan: float = 0
    jitter: float = 0
    noise: float = 0
    light: float = 0
    cut_every: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise DataError(f"{name} of a disturbance is {value!r}; it must be 0 (none) or more")
        if self.light >= 1:
            raise DataError(
                f"light of a disturbance is {self.light!r}; it must be below 1, which is darkness"
            )


DISTURBANCES = {
    "static": Disturbance(),
    "pan": Disturbance(pan=1.0),
    "jitter": Disturbance(jitter=2.0),
    "noise": Disturbance(noise=6.0),
    "light": Disturbance(light=0.35),
    "cuts": Disturbance(cut_every=24),
}
MOST = 1_000_000
"""Videos of a data set, frames of a video, and pixels of a side, beyond which nothing can be held."""

MIXED = "mixed"
"""The setting in which each video draws its own: one camera of three, and each of the others or not."""

SPLITS = ("train", "val", "test")
# What random numbers are for; each purpose has its own.
SCENE, FILMING, SETTING, NOISE = range(4)


@dataclass(frozen=True)
class Script:
    """All that a generated video is made from: videos of equal scripts are equal.

    key: seed, split and number; under another setting, the same key shows the same objects on the same ways.
    n_frames, size, setting: see `SpriteVideos`.
    """

    key: tuple[int, int, int]
    n_frames: int
    size: tuple[int, int]
    setting: str

    @property
    def fingerprint(self) -> str:
        """A hash of all of it."""
        return hashlib.sha1(repr(self).encode()).hexdigest()

    def rng(self, *purpose: int) -> np.random.Generator:
        """Random numbers for one purpose, independent of all others."""
        return np.random.default_rng((*self.key, *purpose))


def disturbance_of(setting: str, rng: np.random.Generator) -> Disturbance:
    """The disturbance of a video under a setting; under `mixed`, drawn."""
    if setting != MIXED:
        return DISTURBANCES[setting]
    camera = str(rng.choice(["static", "pan", "jitter"]))
    noise, light, cuts = (rng.random(3) < (0.5, 0.5, 0.25)).tolist()
    return Disturbance(
        pan=DISTURBANCES[camera].pan,
        jitter=DISTURBANCES[camera].jitter,
        noise=DISTURBANCES["noise"].noise * noise,
        light=DISTURBANCES["light"].light * light,
        cut_every=DISTURBANCES["cuts"].cut_every * cuts,
    )


def scripts(
    n: tuple[str, int], n_frames: int, size: tuple[int, int], seed: int, split: str, setting: str
) -> list[Script]:
    """The scripts of a data set's videos.

    Args:
        n: how many, after the name of that setting.
        n_frames, size, seed, split, setting: see `SpriteVideos`.

    Raises:
        DataError: the first setting that cannot be used.
    """
    if not isinstance(size, Sequence) or len(size) != 2:
        raise DataError(f"data.size is {size!r}; it must be (height, width) in pixels")
    least_of = [(*n, 1), ("n_frames", n_frames, 1), ("seed", seed, 0), *(("size", side, 64) for side in size)]
    for name, value, least in least_of:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise DataError(f"data.{name} is {value!r}; it must be a whole number of at least {least}")
    for name, value, _ in least_of:
        if name != "seed" and value > MOST:
            raise DataError(f"data.{name} is {value}; it must be at most {MOST}")
    for name, choice, allowed in (("split", split, SPLITS), ("setting", setting, (*DISTURBANCES, MIXED))):
        if choice not in allowed:
            raise DataError(f"data.{name} is {choice!r}; allowed are {', '.join(allowed)}")
    height, width = size
    return [Script((seed, SPLITS.index(split), i), n_frames, (height, width), setting) for i in range(n[1])]
