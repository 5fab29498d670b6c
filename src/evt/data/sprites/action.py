"""Clips whose class is a motion: the small counterpart of EPIC-Kitchens and Kinetics.

Each scene has two actors, a few things at rest and a background, all drawn without knowledge of the class. In its
middle frame they are where they were drawn, whatever the class; the class says only how the actors get there and
go on. So that frame tells nothing, and all others little: an actor that moves left is as likely to be anywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor

from evt.data.sprites.filming import Filming
from evt.data.sprites.rendering import Pose, paste
from evt.data.sprites.settings import SCENE, SPLITS, Recipe, recipes
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
ACTOR_SCALE = 0.57
"""Actors are drawn larger than they appear in the middle, so that they can approach: 0.57 = exp(-1.12 / 2)."""


@dataclass(frozen=True)
class Act:
    """How an action is done; every scene has one for every action.

    speed: of moving, in pixels a frame.
    turn: of turning and orbiting, in radians a scene.
    sense: of orbiting and exchanging, clockwise (1) or counterclockwise (-1).
    growth: of approaching and receding, the logarithm of the size's factor over a scene.
    height: of bouncing, and four times the amplitude of shaking, in pixels.
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
    scale, angle = first.scale, first.angle
    match action:
        case "moving left" | "moving right" | "moving up" | "moving down":
            direction = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[action.split()[1]]
            a = a + act.speed * when * np.array(direction)
        case "turning clockwise":
            angle += act.turn * when / n
        case "turning counterclockwise":
            angle -= act.turn * when / n
        case "approaching":
            scale *= np.exp(act.growth * when / n)
        case "receding":
            scale *= np.exp(-act.growth * when / n)
        case "exchanging places":
            # On a narrow ellipse around the point between them, three quarters of a turn in all.
            middle, half = (a + b) / 2, (a - b) / 2
            turn = 1.5 * np.pi * when / n
            aside = act.sense * 0.4 * np.array([-half[1], half[0]])
            half = half * np.cos(turn) + aside * np.sin(turn)
            a, b = middle + half, middle - half
        case "orbiting":
            turn, (x, y) = act.sense * act.turn * when / n, a - b
            a = b + np.array([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)])
        case "bouncing":
            # Two bounces; a ball's height is not a sine's, but has the same sharp turn at the floor.
            phase = 2 * np.pi * when / n + act.phase
            a = a - np.array([0, act.height * (abs(np.sin(phase)) - abs(np.sin(act.phase)))])
        case "shaking":
            phase = 5 * np.pi * when / n + act.phase
            a = a + np.array([act.height / 4 * (np.sin(phase) - np.sin(act.phase)), 0])
    return Pose(float(a[0]), float(a[1]), float(scale), angle), Pose(
        float(b[0]), float(b[1]), second.scale, second.angle
    )


@functools.lru_cache(maxsize=4)
def _scene(recipe: Recipe, number: int, n: int, margin: int) -> Scene:
    """Scene `number` of a clip, of n frames; its background goes on for `margin` pixels outside the frame."""
    height, width = recipe.size
    side = min(height, width)
    rng = recipe.rng(SCENE, number)

    def sprite(diameter: float) -> Sprite:
        return draw_sprite(rng, int(rng.integers(len(CLASSES))), diameter / 2)

    # The actors are apart by a quarter to a third of the frame, around a point near its middle.
    middle = np.array([width, height]) * rng.uniform(0.35, 0.65, 2)
    direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.26, 0.36) * side
    half = distance / 2 * np.array([np.cos(direction), np.sin(direction)])
    sprites = [sprite(rng.uniform(0.2, 0.3) * side / ACTOR_SCALE) for _ in range(2)]
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
        growth=rng.uniform(0.7, 1.1),
        height=rng.uniform(0.14, 0.22) * side,
        phase=rng.uniform(0, 2 * np.pi),
    )
    return Scene(draw_background(rng, height + 2 * margin, width + 2 * margin), sprites, poses, act)


class SpriteClip:
    """A clip whose frames are made when they are asked for, in any order.

    Args:
        name: of the clip.
        label: its class, an index in ACTIONS.
        recipe: what it is made from, which says nothing of its class.
    """

    def __init__(self, name: str, label: int, recipe: Recipe) -> None:
        self.name, self.label = name, label
        self._recipe = recipe
        self._filming = Filming(recipe)

    def __len__(self) -> int:
        return self._recipe.n_frames

    def __getitem__(self, positions: Sequence[int]) -> Tensor:
        """Frames by position, (n, 3, H, W) uint8 RGB."""
        for i in positions:
            if not 0 <= i < len(self):
                raise IndexError(f"{self.name} has no frame {i}; it has {len(self)}")
        height, width = self._recipe.size
        frames = np.empty((len(positions), height, width, 3), np.uint8)
        for frame, i in zip(frames, positions, strict=True):
            frame[:] = self._render(i)
        return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()

    def _render(self, i: int) -> np.ndarray:
        filming = self._filming
        number, shown = filming.scene(i)
        scene = _scene(self._recipe, number, len(shown), filming.camera.margin)
        image = filming.frame(scene.background, i)
        camera_x, camera_y = filming.camera.place(i)
        action, when = ACTIONS[self.label], i - shown[len(shown) // 2]
        first, second, *others = scene.poses
        poses = [*act_out(action, scene.act, first, second, when, len(shown)), *others]
        # From back to front: what rests, then the second actor, then the first.
        for sprite, pose in reversed(list(zip(scene.sprites, poses, strict=True))):
            paste(image, None, 0, sprite, Pose(pose.x - camera_x, pose.y - camera_y, pose.scale, pose.angle))
        return filming.expose(image, i)


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

    def __init__(
        self,
        n_clips: int = 240,
        n_frames: int = 32,
        size: tuple[int, int] = (224, 224),
        seed: int = 0,
        split: str = "val",
        setting: str = "mixed",
    ) -> None:
        made_from = recipes(("n_clips", n_clips), n_frames, size, seed, split, setting)
        labels = np.random.default_rng((seed, SPLITS.index(split))).permutation(n_clips) % len(ACTIONS)
        self._clips = [
            SpriteClip(f"sprites_{split}_{i:06d}", label, recipe)
            for i, (label, recipe) in enumerate(zip(labels.tolist(), made_from, strict=True))
        ]

    def __len__(self) -> int:
        return len(self._clips)

    @overload
    def __getitem__(self, i: int) -> SpriteClip: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[SpriteClip]: ...
    def __getitem__(self, i: int | slice) -> SpriteClip | Sequence[SpriteClip]:
        return self._clips[i]
