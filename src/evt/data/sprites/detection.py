"""Videos of moving sprites with exact boxes: the small counterpart of ImageNet VID."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch

from evt.data.actions import UnlabelledClip
from evt.data.clips import PicturesAt
from evt.data.sprites.filming import Filming
from evt.data.sprites.rendering import Pose, paste
from evt.data.sprites.settings import SCENE, Script, scripts
from evt.data.sprites.shapes import CLASSES, Sprite, draw_background, draw_sprite
from evt.data.video import Boxes, Frame

DIAMETERS = (24.0, 120.0)
"""Of objects, in pixels; the larger ones are drawn smaller in frames whose shorter edge is below 300."""

MIN_VISIBLE = 1 / 3
"""An object of which less than this fraction is visible carries no box: its outline could be another's."""
MIN_PIXELS = 96
"""An object that shows fewer pixels than this carries no box."""


@dataclass(frozen=True)
class Way:
    """How an object moves: across the frame on a wavy line, out at one side and in again at the other.

    start, speed: of its middle (x, y), in pixels and pixels a frame.
    sway, sway_turn, sway_phase: amplitude in pixels, radians a frame and radians, of the wave on each axis.
    angle, spin: in radians and radians a frame.
    scale, growth, growth_turn, growth_phase: the largest scale and how far below it falls, as a fraction.
    """

    start: np.ndarray
    speed: np.ndarray
    sway: float
    sway_turn: float
    sway_phase: np.ndarray
    angle: float
    spin: float
    growth: float
    growth_turn: float
    growth_phase: float

    def pose(self, t: int, camera: np.ndarray, size: tuple[int, int], radius: float) -> Pose:
        """The pose in frame t; camera is the frame's place (x, y) and radius that of the object at scale 1."""
        at = self.start + self.speed * t + self.sway * np.sin(self.sway_turn * t + self.sway_phase) - camera
        # Wrapped around where nothing of the object is in the frame.
        room = radius + 2
        x, y = (at + room) % (np.array(size[::-1]) + 2 * room) - room
        wave = 0.5 + 0.5 * np.sin(self.growth_turn * t + self.growth_phase)
        return Pose(float(x), float(y), float(1 - self.growth * wave), self.angle + self.spin * t)


@dataclass(frozen=True)
class Scene:
    """What is seen between two cuts: a background and sprites on their ways, from back to front."""

    background: np.ndarray
    sprites: list[tuple[Sprite, Way]]


@functools.lru_cache(maxsize=4)
def _scene(script: Script, number: int, margin: int) -> Scene:
    """Scene `number` of a video, whose background goes on for `margin` pixels outside the frame."""
    height, width = script.size
    rng = script.rng(SCENE, number)
    labels = [int(label) for label in rng.integers(len(CLASSES), size=rng.integers(4, 9))]
    labels += [-1] * int(rng.integers(1, 4))  # distractors
    rng.shuffle(labels)
    largest = min(DIAMETERS[1], 0.4 * min(height, width))
    sprites = []
    for label in labels:
        radius = DIAMETERS[0] / 2 * (largest / DIAMETERS[0]) ** rng.uniform()
        sprites.append((draw_sprite(rng, label, radius), _draw_way(rng, radius, script.size)))
    background = draw_background(rng, height + 2 * margin, width + 2 * margin)
    for _ in range(rng.integers(3, 8)):  # things that belong to the background: shapeless, and at rest
        pose = Pose(
            rng.uniform(0, width) + margin, rng.uniform(0, height) + margin, 1, rng.uniform(0, 2 * np.pi)
        )
        paste(background, None, 0, draw_sprite(rng, -1, rng.uniform(8, largest / 3)), pose)
    return Scene(background, sprites)


def _draw_way(rng: np.random.Generator, radius: float, size: tuple[int, int]) -> Way:
    # A quarter of the objects rests: what does not change is what a temporal method saves.
    moves = rng.random() < 0.75
    direction, speed = rng.uniform(0, 2 * np.pi), 0.5 * 6 ** rng.uniform() * moves
    # Half a turn or more in two seconds of video, for half of those that move.
    spin = rng.uniform(0.01, 0.06) * rng.choice((-1, 1)) * (rng.random() < 0.5) * moves
    return Way(
        start=rng.uniform(0, 1, 2) * (np.array(size[::-1]) + 2 * radius + 4),
        speed=speed * np.array([np.cos(direction), np.sin(direction)]),
        sway=rng.uniform(0, 12) * moves,
        sway_turn=rng.uniform(0.03, 0.08),  # with the amplitude, less than 1 pixel a frame
        sway_phase=rng.uniform(0, 2 * np.pi, 2),
        angle=rng.uniform(0, 2 * np.pi),
        spin=float(spin),
        growth=rng.uniform(0, 0.4) * moves * (radius * 0.6 > DIAMETERS[0] / 2),
        growth_turn=rng.uniform(0.03, 0.08),
        growth_phase=rng.uniform(0, 2 * np.pi),
    )


class SpriteVideo:
    """A video whose frames are made when they are asked for, in any order.

    Args:
        name: of the video.
        script: what it is made from.
    """

    def __init__(self, name: str, script: Script) -> None:
        self.name = name
        self._script = script
        self._filming = Filming(script)
        self.fingerprint = script.fingerprint

    def __len__(self) -> int:
        return self._script.n_frames

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Frame:
        if not 0 <= i < len(self):
            raise IndexError(f"{self.name} has no frame {i}; it has {len(self)}")
        image, _, boxes = self.render(i)
        return Frame(torch.from_numpy(image).permute(2, 0, 1).contiguous(), f"{self.name}:{i}", i == 0, boxes)

    def image(self, i: int) -> torch.Tensor:
        """The picture of frame i, (3, H, W) uint8."""
        return self[i].image

    def cuts(self) -> list[int]:
        """The frames that begin another scene."""
        return [i for i in range(1, len(self)) if self._filming.scene(i)[1].start == i]

    def render(self, i: int) -> tuple[np.ndarray, np.ndarray, Boxes]:
        """Make a frame.

        Returns:
            The image (H, W, 3) uint8; for each pixel the number of the sprite that it shows, (H, W) int16, -1 for
            the background; and the boxes, from back to front. Distractors are sprites too, but have no box.
        """
        script, filming = self._script, self._filming
        scene = _scene(script, filming.scene(i)[0], filming.camera.margin)
        camera = filming.camera.place(i)
        image = filming.frame(scene.background, i)
        ids = np.full(script.size, -1, np.int16)
        poses = [way.pose(i, camera, script.size, sprite.radius) for sprite, way in scene.sprites]
        for number, ((sprite, _), pose) in enumerate(zip(scene.sprites, poses, strict=True)):
            paste(image, ids, number, sprite, pose)
        boxes, labels = [], []
        for number, ((sprite, _), pose) in enumerate(zip(scene.sprites, poses, strict=True)):
            box = None if sprite.label < 0 else _box(ids, number, sprite, pose)
            if box is not None:
                boxes.append(box)
                labels.append(sprite.label)
        target = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(labels).long())
        return filming.expose(image, i), ids, target

    def class_map(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A frame (3, H, W) uint8, and the class that each of its pixels shows, (H, W) int64.

        Background and distractors are of class len(CLASSES).
        """
        image, ids, _ = self.render(i)
        sprites = _scene(self._script, self._filming.scene(i)[0], self._filming.camera.margin).sprites
        nothing = len(CLASSES)
        labels = np.array(
            [sprite.label if sprite.label >= 0 else nothing for sprite, _ in sprites] + [nothing]
        )
        # The background's number, -1, is the last of them.
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(labels[ids])


def _box(ids: np.ndarray, number: int, sprite: Sprite, pose: Pose) -> tuple[int, int, int, int] | None:
    """What bounds an object's visible pixels, x0 y0 x1 y1 with the far edges exclusive; None if too few are."""
    reach = sprite.radius * pose.scale + 1
    left, top = max(int(pose.x - reach), 0), max(int(pose.y - reach), 0)
    visible = ids[top : max(int(pose.y + reach) + 1, 0), left : max(int(pose.x + reach) + 1, 0)] == number
    pixels = np.count_nonzero(visible)
    if pixels < max(MIN_PIXELS, MIN_VISIBLE * sprite.area * pose.scale**2):
        return None
    columns, rows = np.flatnonzero(visible.any(0)), np.flatnonzero(visible.any(1))
    return (
        left + int(columns[0]),
        top + int(rows[0]),
        left + int(columns[-1]) + 1,
        top + int(rows[-1]) + 1,
    )


class SpriteVideos(Sequence[SpriteVideo]):
    """Generated videos for detection; CLASSES are the names of their labels.

    Two to six objects are in most frames, 24 to 120 pixels large, among distractors of no class. Three quarters
    move, at 0.5 to 4 pixels a frame; they turn, grow, cover one another and leave the frame. A box bounds exactly
    the visible pixels of its object. Objects of which less than a third is visible, or less than 96 pixels, carry
    no box.

    Args:
        n_videos: how many videos.
        n_frames: of each.
        size: (height, width) of a frame in pixels, at least 64.
        seed: of everything.
        split: train, val or test; no video of one is in another.
        setting: static, pan, jitter, noise, light or cuts, each with that disturbance alone (`DISTURBANCES`), or
            mixed. Video i shows the same objects under each, until the first cut.

    Raises:
        DataError: a setting is of the wrong kind or out of range.
    """

    classes: Sequence[str] = CLASSES
    generated = True

    def __init__(
        self,
        n_videos: int = 60,
        n_frames: int = 60,
        size: tuple[int, int] = (320, 320),
        seed: int = 0,
        split: str = "val",
        setting: str = "mixed",
    ) -> None:
        self._videos = [
            SpriteVideo(f"sprites_{split}_{i:06d}", script)
            for i, script in enumerate(scripts(("n_videos", n_videos), n_frames, size, seed, split, setting))
        ]

    @property
    def name(self) -> str:
        """That of the video where there is one, else how many there are."""
        return self[0].name if len(self) == 1 else f"sprites, {len(self)} videos"

    def videos(self) -> SpriteVideos:
        """Itself."""
        return self

    def clips(self) -> list[UnlabelledClip]:
        """Each of them, without a label: a video shows objects, and no action."""
        return [UnlabelledClip("sprites", PicturesAt(video)) for video in self]

    def __len__(self) -> int:
        return len(self._videos)

    @overload
    def __getitem__(self, i: int) -> SpriteVideo: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[SpriteVideo]: ...
    def __getitem__(self, i: int | slice) -> SpriteVideo | Sequence[SpriteVideo]:
        return self._videos[i]
