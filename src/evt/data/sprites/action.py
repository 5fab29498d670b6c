"""Clips whose class is a motion: the small counterpart of EPIC-Kitchens and Kinetics.

Each scene has two actors, a few things at rest and a background, all drawn without knowledge of the class. In its
middle frame the actors are where they were drawn, whatever the class; the class says how they get there and go on.

No other frame may tell the class either (an actor that moves left must not end at the left more often), so actors
that leave the frame on one side enter it on the other, and the two keep their distance. Their places are then
equally likely in every frame of every class. Size alone cannot be made so: at its ends a clip of "approaching"
shows smaller or larger actors than others on average.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from torch import Tensor

from evt.data.sprites.filming import Filming
from evt.data.sprites.rendering import Pose, paste
from evt.data.sprites.settings import SCENE, SPLITS, Script, scripts
from evt.data.sprites.shapes import CLASSES, Sprite, draw_background, draw_sprite

ACTIONS = (
    "moving left",
    "moving right",
    "moving up",
    "moving down",
    "turning clockwise",
    "turning counterclockwise",
    "approaching",
    "receding",
    "exchanging places",
    "orbiting",
    "bouncing",
    "shaking",
)
GROWTH = (0.5, 0.7)
"""Of approaching and receding: the logarithm of the factor of the size over a scene."""
ACTOR_SCALE = float(np.exp(-GROWTH[1] / 2))
"""Of actors in the middle of the scene; they are drawn as large as they can become."""


@dataclass(frozen=True)
class Act:
    """How an action is done; every scene has one for every action.

    speed: of moving, in pixels a frame.
    turn: of turning, in radians a scene. Exchanging turns by 1.25 times as much, orbiting by 0.7 times.
    sense: of exchanging and orbiting, clockwise (1) or counterclockwise (-1).
    growth: see GROWTH.
    height: of bouncing, and three times the amplitude of shaking, in pixels.
    phase: of bouncing and shaking, in radians.
    """

    speed: float
    turn: float
    sense: int
    growth: float
    height: float
    phase: float


@dataclass(frozen=True)
class Scene:
    """What a clip shows between two cuts.

    background, sprites, poses: as in the middle of the scene, without a camera's motion. The first two are the
        actors.
    act: how they act.
    """

    background: np.ndarray
    sprites: list[Sprite]
    poses: list[Pose]
    act: Act


def act_out(action: str, act: Act, first: Pose, second: Pose, when: float, n: int) -> tuple[Pose, Pose]:
    """The poses of both actors.

    Args:
        action: one of ACTIONS.
        act: how it is done.
        first, second: their poses in the middle of the scene.
        when: frames after the middle; negative before it.
        n: frames of the scene.
    """
    a, b = np.array([first.x, first.y]), np.array([second.x, second.y])
    shift, scale, angle = (0.0, 0.0), 1.0, 0.0
    match action:
        case "moving left":
            shift = (-act.speed * when, 0)
        case "moving right":
            shift = (act.speed * when, 0)
        case "moving up":
            shift = (0, -act.speed * when)
        case "moving down":
            shift = (0, act.speed * when)
        case "turning clockwise":
            angle = act.turn * when / n
        case "turning counterclockwise":
            angle = -act.turn * when / n
        case "approaching":
            scale = np.exp(act.growth * when / n)
        case "receding":
            scale = np.exp(-act.growth * when / n)
        case "exchanging places":
            middle, half = (a + b) / 2, _turned((a - b) / 2, 1.25 * act.sense * act.turn * when / n)
            a, b = middle + half, middle - half
        case "orbiting":
            a = b + _turned(a - b, 0.7 * act.sense * act.turn * when / n)
        case "bouncing":
            # Two bounces; a ball's height is not a sine's, but turns as sharply at the floor.
            height = act.height * (abs(np.sin(2 * np.pi * when / n + act.phase)) - abs(np.sin(act.phase)))
            shift = (0, -height)
        case "shaking":
            aside = act.height / 3 * (np.sin(5 * np.pi * when / n + act.phase) - np.sin(act.phase))
            shift = (aside, 0)
    a, b = a + np.array(shift), b + np.array(shift)
    return (
        Pose(float(a[0]), float(a[1]), float(first.scale * scale), first.angle + angle),
        Pose(float(b[0]), float(b[1]), float(second.scale * scale), second.angle + angle),
    )


def _turned(vector: np.ndarray, angle: float) -> np.ndarray:
    """A vector (x, y) turned clockwise."""
    (x, y), cos, sin = vector, np.cos(angle), np.sin(angle)
    return np.array([x * cos - y * sin, x * sin + y * cos])


@functools.lru_cache(maxsize=4)
def _scene(script: Script, number: int, n: int, margin: int) -> Scene:
    """Scene `number` of a clip, of n frames; its background goes on for `margin` pixels outside the frame."""
    height, width = script.size
    side = min(height, width)
    rng = script.rng(SCENE, number)

    def sprite(diameter: float) -> Sprite:
        return draw_sprite(rng, int(rng.integers(len(CLASSES))), diameter / 2)

    middle = rng.uniform(0, (width, height))
    direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.26, 0.36) * side
    half = distance / 2 * np.array([np.cos(direction), np.sin(direction)])
    # In the middle of the scene, actors are as large as 0.14 to 0.36 of the frame.
    sprites = [sprite(0.14 * (0.36 / 0.14) ** rng.uniform() * side / ACTOR_SCALE) for _ in range(2)]
    poses = [
        Pose(float(x), float(y), ACTOR_SCALE, rng.uniform(0, 2 * np.pi))
        for x, y in (middle + half, middle - half)
    ]
    for _ in range(rng.integers(0, 3)):  # things at rest
        sprites.append(sprite(rng.uniform(0.1, 0.3) * side))
        poses.append(Pose(rng.uniform(0, width), rng.uniform(0, height), 1, rng.uniform(0, 2 * np.pi)))
    act = Act(
        speed=float(np.clip(rng.uniform(0.3, 0.55) * side / n, 0.5, 4)),
        turn=rng.uniform(0.7, 1.2) * np.pi,
        sense=int(rng.choice((-1, 1))),
        growth=rng.uniform(*GROWTH),
        height=rng.uniform(0.12, 0.18) * side,
        phase=rng.uniform(0, 2 * np.pi),
    )
    return Scene(draw_background(rng, height + 2 * margin, width + 2 * margin), sprites, poses, act)


class SpriteClip:
    """A clip whose frames are made when they are asked for, in any order.

    Args:
        name: of the clip.
        label: its class, an index in ACTIONS.
        script: what it is made from, which says nothing of its class.
    """

    def __init__(self, name: str, label: int, script: Script) -> None:
        self.name, self.label = name, label
        self._script = script
        self._filming = Filming(script)
        self.fingerprint = script.fingerprint

    @property
    def frames(self) -> SpriteClip:
        """Itself."""
        return self

    def __len__(self) -> int:
        return self._script.n_frames

    def __getitem__(self, positions: Sequence[int]) -> Tensor:
        """Frames by position, (n, 3, H, W) uint8 RGB."""
        for i in positions:
            if not 0 <= i < len(self):
                raise IndexError(f"{self.name} has no frame {i}; it has {len(self)}")
        height, width = self._script.size
        frames = np.empty((len(positions), height, width, 3), np.uint8)
        for frame, i in zip(frames, positions, strict=True):
            frame[:] = self._render(i)
        return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()

    def motion(self, i: int) -> tuple[Tensor, Tensor]:
        """How far what each pixel of frame i shows has moved in the next frame.

        Returns:
            x and y in pixels, (2, H, W) float32, NaN where the next frame shows another scene; and whether a pixel
            shows an actor, (H, W) bool.
        """
        height, width = self._script.size
        if i + 1 not in self._filming.scene(i)[1]:
            return torch.full((2, height, width), torch.nan), torch.zeros(height, width, dtype=torch.bool)
        pan = self._filming.camera.place(i + 1) - self._filming.camera.place(i)
        moved = np.empty((2, height, width), np.float32)
        moved[:] = -pan[:, None, None]
        x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
        ids, canvas = np.full((height, width), -1, np.int16), np.empty((height, width, 3), np.uint8)
        after = [pose for _, pose, _ in self._placed(i + 1)]
        ways: list[tuple[Pose, Pose, Pose]] = []
        resting = 0
        for (sprite, pose, wraps), then in zip(self._placed(i), after, strict=True):
            for copy in self._copies(pose) if wraps else [pose]:
                paste(canvas, ids, len(ways), sprite, copy)
                ways.append((copy, pose, then))
            resting += not wraps
        for number, (copy, pose, then) in enumerate(ways):
            # From the sprite's middle to the pixel, before and after.
            dx, dy, turn, growth = x - copy.x, y - copy.y, then.angle - pose.angle, then.scale / pose.scale
            cos, sin = growth * np.cos(turn), growth * np.sin(turn)
            shows = ids == number
            moved[0][shows] = (then.x - pose.x + (cos - 1) * dx - sin * dy)[shows]
            moved[1][shows] = (then.y - pose.y + sin * dx + (cos - 1) * dy)[shows]
        return torch.from_numpy(moved), torch.from_numpy(ids >= resting)

    def _render(self, i: int) -> np.ndarray:
        image = self._filming.frame(self._scene(i).background, i)
        for sprite, pose, wraps in self._placed(i):
            for copy in self._copies(pose) if wraps else [pose]:
                paste(image, None, 0, sprite, copy)
        return self._filming.expose(image, i)

    def _scene(self, i: int) -> Scene:
        number, shown = self._filming.scene(i)
        return _scene(self._script, number, len(shown), self._filming.camera.margin)

    def _placed(self, i: int) -> list[tuple[Sprite, Pose, bool]]:
        """The sprites of frame i from back to front, their poses as the camera sees them, and whether they wrap."""
        scene, shown = self._scene(i), self._filming.scene(i)[1]
        camera = self._filming.camera.place(i)
        first, second, *resting = scene.poses
        when = i - shown[len(shown) // 2]
        first, second = act_out(ACTIONS[self.label], scene.act, first, second, when, len(shown))
        placed = [(sprite, pose, False) for sprite, pose in zip(scene.sprites[2:], resting, strict=True)]
        placed += [(scene.sprites[1], second, True), (scene.sprites[0], first, True)]
        return [(sprite, _seen(pose, camera), wraps) for sprite, pose, wraps in placed]

    def _copies(self, pose: Pose) -> list[Pose]:
        """An actor in the frame, and again on the other side: what sticks out on one comes in on the other."""
        height, width = self._script.size
        x, y = pose.x % width, pose.y % height
        return [
            replace(pose, x=x + shift_x, y=y + shift_y)
            for shift_x in (-width, 0, width)
            for shift_y in (-height, 0, height)
        ]


def _seen(pose: Pose, camera: np.ndarray) -> Pose:
    """A pose in the scene as a camera at (x, y) sees it."""
    return replace(pose, x=float(pose.x - camera[0]), y=float(pose.y - camera[1]))


class SpriteClips(Sequence[SpriteClip]):
    """Generated clips for action recognition; ACTIONS are the names of their labels.

    Each action is as frequent as any other, or once more.

    Args:
        n_clips: how many clips.
        n_frames: of each.
        size: (height, width) of a frame in pixels, at least 64.
        seed: of everything.
        split: train, val or test; no clip of one is in another.
        setting: as of `SpriteVideos`. A pan moves the scene; an action is a motion within it.

    Raises:
        DataError: a setting is of the wrong kind or out of range.
    """

    classes: Sequence[str] = ACTIONS
    n_classes = len(ACTIONS)
    missing: Sequence[str] = ()
    generated = True

    def __init__(
        self,
        n_clips: int = 240,
        n_frames: int = 32,
        size: tuple[int, int] = (224, 224),
        seed: int = 0,
        split: str = "val",
        setting: str = "mixed",
    ) -> None:
        self.name = f"{n_clips} generated clips ({split}, {setting}, seed {seed})"
        made_from = scripts(("n_clips", n_clips), n_frames, size, seed, split, setting)
        labels = np.random.default_rng((seed, SPLITS.index(split))).permutation(n_clips) % len(ACTIONS)
        self._clips = [
            SpriteClip(f"sprites_{split}_{i:06d}", label, script)
            for i, (label, script) in enumerate(zip(labels.tolist(), made_from, strict=True))
        ]

    def clips(self) -> SpriteClips:
        """Itself."""
        return self

    def __len__(self) -> int:
        return len(self._clips)

    @overload
    def __getitem__(self, i: int) -> SpriteClip: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[SpriteClip]: ...
    def __getitem__(self, i: int | slice) -> SpriteClip | Sequence[SpriteClip]:
        return self._clips[i]
