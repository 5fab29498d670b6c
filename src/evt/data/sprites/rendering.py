"""How a frame is made: a stretch of background, sprites from back to front, then light and noise.

Sprites have hard edges: a pixel shows one sprite or the background, never a blend, so what is visible of an object
is a set of pixels, and a box can bound it exactly.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image

from evt.data.sprites.shapes import Sprite
from evt.data.video import DataError

LIGHT_PERIOD = 240
"""Frames from brightest to brightest: at the strongest, 1% a frame."""


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
MIXED = "mixed"
"""The setting in which each video draws its own: one camera of three, and each of the others or not."""


def disturbance_of(setting: str, rng: np.random.Generator) -> Disturbance:
    """The disturbance of a video under a setting; under `mixed`, drawn."""
    if setting != MIXED:
        return DISTURBANCES[setting]
    camera = str(rng.choice(["static", "pan", "jitter"]))
    noise, light, cuts = rng.random(3) < (0.5, 0.5, 0.25)
    return Disturbance(
        pan=DISTURBANCES[camera].pan,
        jitter=DISTURBANCES[camera].jitter,
        noise=DISTURBANCES["noise"].noise * noise,
        light=DISTURBANCES["light"].light * light,
        cut_every=DISTURBANCES["cuts"].cut_every * int(cuts),
    )


def check_settings(n: tuple[str, int], n_frames: int, size: tuple[int, int], seed: int, setting: str) -> None:
    """Check what all generated data sets are made from.

    Args:
        n: what is counted and how many there are.
        n_frames, size, seed, setting: see `SpriteVideos`.

    Raises:
        DataError: the first that cannot be used.
    """
    whole = [(*n, 1), ("n_frames", n_frames, 1), ("seed", seed, 0)]
    if len(size) != 2:
        raise DataError(f"data.size is {size!r}; it must be (height, width) in pixels")
    for name, value, least in [*whole, ("size", size[0], 64), ("size", size[1], 64)]:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise DataError(f"data.{name} is {value!r}; it must be a whole number of at least {least}")
    if setting not in (*DISTURBANCES, MIXED):
        raise DataError(f"data.setting is {setting!r}; allowed are {', '.join((*DISTURBANCES, MIXED))}")


@dataclass(frozen=True)
class Pose:
    """Where a sprite is in a frame.

    x, y: its middle, in pixels of the frame; pixel (0, 0) has its middle at (0.5, 0.5).
    scale: pixels of the frame for each of the master.
    angle: clockwise, in radians.
    """

    x: float
    y: float
    scale: float
    angle: float


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


def cut_out(background: np.ndarray, x: float, y: float, size: tuple[int, int]) -> np.ndarray:
    """The frame (H, W, 3) uint8 of a background whose upper left corner is at (x, y), between pixels bilinear."""
    left, top = int(np.floor(x)), int(np.floor(y))
    # Sixteenths of a pixel, so that 255 x 16 x 16 fits in 16 bits.
    right, down = round((x - left) * 16), round((y - top) * 16)
    height, width = size
    if not right and not down:
        return background[top : top + height, left : left + width].copy()
    rows = background[top : top + height + 1, left : left + width + 1].astype(np.uint16)
    rows = rows[:-1] * np.uint16(16 - down) + rows[1:] * np.uint16(down)
    blend = rows[:, :-1] * np.uint16(16 - right) + rows[:, 1:] * np.uint16(right)
    blend += np.uint16(128)
    blend >>= np.uint16(8)
    return blend.astype(np.uint8)


def paste(image: np.ndarray, ids: np.ndarray | None, number: int, sprite: Sprite, pose: Pose) -> None:
    """Draw a sprite over an image.

    Args:
        image: (H, W, 3) uint8, drawn on.
        ids: (H, W) int16, set to `number` where the sprite shows; None to leave that out.
        number: of the sprite.
        sprite, pose: what is drawn where.
    """
    height, width = image.shape[:2]
    reach = sprite.radius * pose.scale + 1
    x0, x1 = max(int(pose.x - reach), 0), min(int(pose.x + reach) + 1, width)
    y0, y1 = max(int(pose.y - reach), 0), min(int(pose.y + reach) + 1, height)
    if x0 >= x1 or y0 >= y1:
        return
    # From a pixel of the window to a point of the master: back by the pose, then to the master's middle.
    cos, sin = np.cos(pose.angle) / pose.scale, np.sin(pose.angle) / pose.scale
    dx, dy, middle = x0 - pose.x, y0 - pose.y, sprite.master.width / 2
    matrix = (
        float(cos),
        float(sin),
        float(cos * dx + sin * dy + middle),
        float(-sin),
        float(cos),
        float(-sin * dx + cos * dy + middle),
    )
    drawn = np.asarray(
        sprite.master.transform((x1 - x0, y1 - y0), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    )
    mask = drawn[..., 3] >= 128
    np.copyto(image[y0:y1, x0:x1], drawn[..., :3], where=mask[..., None])
    if ids is not None:
        ids[y0:y1, x0:x1][mask] = number


def expose(
    image: np.ndarray, disturbance: Disturbance, light_phase: float, t: int, rng: np.random.Generator
) -> np.ndarray:
    """Light and sensor noise of frame t, (H, W, 3) uint8.

    Args:
        image: (H, W, 3) uint8, what would be seen in even light without noise.
        disturbance: light and noise of it.
        light_phase: where in its swing the light starts, in radians.
        t: the frame.
        rng: of this frame.
    """
    if disturbance.light:
        gain = 1 + disturbance.light * np.sin(2 * np.pi * t / LIGHT_PERIOD + light_phase)
        image = np.clip(np.arange(256) * gain + 0.5, 0, 255).astype(np.uint8)[image]
    if disturbance.noise:
        # Drawing each value takes longer than all the rest of a frame; a random stretch of a long table does not.
        table = _noise_table(disturbance.noise, image.size)
        start = rng.integers(table.size - image.size)
        noisy = image + table[start : start + image.size].reshape(image.shape)
        image = np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)
    return image


@functools.lru_cache(maxsize=2)
def _noise_table(sigma: float, values: int) -> np.ndarray:
    """Normal noise in whole grey levels, int16, with a million places at which a frame's `values` can start."""
    normal = np.random.default_rng(0).standard_normal(values + 2**20, np.float32)
    return np.rint(normal * np.float32(sigma)).astype(np.int16)
