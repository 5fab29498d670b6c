"""How a scene is filmed: the camera's way, cuts, light and sensor noise."""

from __future__ import annotations

import functools

import numpy as np

from evt.data.sprites.rendering import cut_out
from evt.data.sprites.settings import FILMING, NOISE, SETTING, Disturbance, Script, disturbance_of

LIGHT_PERIOD = 240
"""Frames from brightest to brightest: at the strongest, 1% a frame."""


class Filming:
    """What a script's disturbances do to each frame.

    Args:
        script: of the video.
    """

    def __init__(self, script: Script) -> None:
        self.disturbance = disturbance_of(script.setting, script.rng(SETTING))
        rng = script.rng(FILMING)
        self._script = script
        self._light_phase = rng.uniform(0, 2 * np.pi)
        self._cut_phase = rng.uniform()
        self.camera = Camera(rng, self.disturbance)

    def scene(self, i: int) -> tuple[int, range]:
        """The number of the scene that frame i shows, and all the frames that show it."""
        every, n_frames = self.disturbance.cut_every, self._script.n_frames
        if not every:
            return 0, range(n_frames)
        offset = int(every * self._cut_phase)
        number = (i + offset) // every
        start = number * every - offset
        return number, range(max(start, 0), min(start + every, n_frames))

    def frame(self, background: np.ndarray, i: int) -> np.ndarray:
        """The part of a background that frame i shows, (H, W, 3) uint8."""
        x, y = self.camera.place(i) + self.camera.margin
        return cut_out(background, x, y, self._script.size)

    def expose(self, image: np.ndarray, i: int) -> np.ndarray:
        """Add frame i's light and noise to what would be seen without, both (H, W, 3) uint8."""
        disturbance = self.disturbance
        if disturbance.light:
            gain = 1 + disturbance.light * np.sin(2 * np.pi * i / LIGHT_PERIOD + self._light_phase)
            image = np.clip(np.arange(256) * gain + 0.5, 0, 255).astype(np.uint8)[image]
        if disturbance.noise:
            # To draw each value takes longer than all else; a random stretch of a long table does not.
            table = _noise_table(disturbance.noise, image.size)
            start = self._script.rng(NOISE, i).integers(table.size - image.size)
            noisy = image + table[start : start + image.size].reshape(image.shape)
            image = np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)
        return image


class Camera:
    """Where the frame lies in a scene that is larger by `margin` pixels on each side.

    Args:
        rng: draws the direction of the pan and the shake of the hand.
        disturbance: pan and jitter of it.
    """

    PAN_ROOM = 64.0

    def __init__(self, rng: np.random.Generator, disturbance: Disturbance) -> None:
        direction = rng.uniform(0, 2 * np.pi)
        self._pan = disturbance.pan * np.array([np.cos(direction), np.sin(direction)])
        # A hand's shake is a sum of slow and quick waves, here of four periods (frames) on each axis.
        self._turns = 2 * np.pi / rng.uniform((5, 8, 14, 25), (8, 14, 25, 50), (2, 4))
        self._phases = rng.uniform(0, 2 * np.pi, (2, 4))
        self._amplitude = disturbance.jitter / np.sqrt(2)  # the variances of four waves, a²/2 each, add up
        self.margin = int(np.ceil((disturbance.pan > 0) * self.PAN_ROOM + 4 * self._amplitude)) + 1

    def place(self, t: int) -> np.ndarray:
        """The frame's upper left corner (x, y) relative to where it lies without pan and jitter."""
        # A pan is a way up and down a track; it starts in the middle.
        room = 2 * self.PAN_ROOM
        track = (self._pan * t + self.PAN_ROOM) % (2 * room)
        pan = np.minimum(track, 2 * room - track) - self.PAN_ROOM
        return pan + self._amplitude * np.sin(self._turns * t + self._phases).sum(-1)


@functools.lru_cache(maxsize=2)
def _noise_table(sigma: float, values: int) -> np.ndarray:
    """Normal noise in whole grey levels, int16, with a million places at which a frame's `values` can start."""
    normal = np.random.default_rng(0).standard_normal(values + 2**20, np.float32)
    return np.rint(normal * np.float32(sigma)).astype(np.int16)
