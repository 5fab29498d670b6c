"""Were a class to show in a single frame, a model could score without its temporal part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from evt.data.sprites import ACTIONS, DISTURBANCES, SpriteClip, SpriteClips, action
from evt.data.sprites.action import Act, act_out
from evt.data.sprites.rendering import Pose
from evt.data.sprites.shapes import Sprite
from evt.errors import DataError

SIZE = (128, 128)
ACT = Act(speed=2, turn=np.pi, sense=1, growth=np.log(2), height=20, phase=0)


def with_label(clip: SpriteClip, label: int) -> SpriteClip:
    return SpriteClip(clip.name, label, clip._script)


@pytest.mark.parametrize("setting", ["mixed", "cuts"])
def test_frames_depend_on_the_seed_alone(setting: str) -> None:
    clip = SpriteClips(3, 32, SIZE, 5, "val", setting)[2]
    frames = clip[list(range(32))]
    assert frames.shape == (32, 3, 128, 128)
    assert frames.dtype == torch.uint8
    action._scene.cache_clear()
    again = SpriteClips(3, 32, SIZE, 5, "val", setting)[2]
    assert again.label == clip.label
    assert torch.equal(again[[31, 2, 15, 31]], frames[[31, 2, 15, 31]])
    assert not torch.equal(SpriteClips(3, 32, SIZE, 6, "val", setting)[2][[0]], frames[:1])
    assert not torch.equal(SpriteClips(3, 32, SIZE, 5, "train", setting)[2][[0]], frames[:1])


def test_labels_are_balanced_and_shuffled() -> None:
    labels = torch.tensor([clip.label for clip in SpriteClips(125)])
    counts = torch.bincount(labels, minlength=12)
    assert (counts.min(), counts.max()) == (10, 11)
    assert not torch.equal(labels, torch.arange(125) % 12)


@pytest.mark.parametrize("setting", ["static", "mixed"])
def test_the_middle_frame_is_the_same_whatever_the_class(setting: str) -> None:
    """The label is not asked for the appearance, nor for the camera, light and noise."""
    clip = next(
        clip
        for clip in SpriteClips(60, 20, SIZE, 1, "val", setting)
        if setting == "static" or (clip._filming.disturbance.noise and clip._filming.disturbance.light)
    )
    shown = clip._filming.scene(19)[1]
    middle = shown[len(shown) // 2]
    clips = [with_label(clip, label) for label in range(len(ACTIONS))]
    middles = torch.cat([clip[[middle]] for clip in clips])
    assert (middles == middles[:1]).all()
    ends = torch.cat([clip[[19]] for clip in clips])
    for a in range(len(ACTIONS)):
        for b in range(a):
            assert not torch.equal(ends[a], ends[b]), (ACTIONS[a], ACTIONS[b])


def test_places_tell_no_class_in_any_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uniform on the frame (its circular mean vanishes) and at equal distances, at the start, for each class."""
    blank = Sprite(Image.new("RGBX", (4, 4)), 1, 1, 0)
    monkeypatch.setattr(action, "draw_sprite", lambda *_: blank)
    monkeypatch.setattr(action, "draw_background", lambda *_: np.zeros((1, 1, 3), np.uint8))
    scenes = [action._scene.__wrapped__(clip._script, 0, 32, 1) for clip in SpriteClips(500, 32, SIZE, 2)]
    for name in ACTIONS:
        ends = [act_out(name, scene.act, scene.poses[0], scene.poses[1], -16, 32) for scene in scenes]
        for actor in range(2):
            for axis in ("x", "y"):
                turns = 2 * np.pi * np.array([getattr(poses[actor], axis) for poses in ends]) / 128
                assert abs(np.exp(1j * turns).mean()) < 0.13, (name, actor, axis)
            angles = np.array([poses[actor].angle for poses in ends])
            assert abs(np.exp(1j * angles).mean()) < 0.13, (name, actor)
        apart = [np.hypot(a.x - b.x, a.y - b.y) for a, b in ends]
        drawn = [np.hypot(s.poses[0].x - s.poses[1].x, s.poses[0].y - s.poses[1].y) for s in scenes]
        assert apart == pytest.approx(drawn)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("moving left", (50 - 8, 60, 1, 0), (70 - 8, 60, 1, 0)),
        ("moving right", (50 + 8, 60, 1, 0), (70 + 8, 60, 1, 0)),
        ("moving up", (50, 60 - 8, 1, 0), (70, 60 - 8, 1, 0)),
        ("moving down", (50, 60 + 8, 1, 0), (70, 60 + 8, 1, 0)),
        ("turning clockwise", (50, 60, 1, np.pi / 2), (70, 60, 1, np.pi / 2)),
        ("turning counterclockwise", (50, 60, 1, -np.pi / 2), (70, 60, 1, -np.pi / 2)),
        ("approaching", (50, 60, 2**0.5, 0), (70, 60, 2**0.5, 0)),
        ("receding", (50, 60, 0.5**0.5, 0), (70, 60, 0.5**0.5, 0)),
        # 0.625 pi = 112.5 degrees clockwise (y points down) around (60, 60), from the left of it
        ("exchanging places", (60 + 3.826834, 60 - 9.238795, 1, 0), (60 - 3.826834, 60 + 9.238795, 1, 0)),
        # 0.35 pi = 63 degrees around the second
        ("orbiting", (70 - 9.079810, 60 - 17.820130, 1, 0), (70, 60, 1, 0)),
        ("bouncing", (50, 60, 1, 0), (70, 60, 1, 0)),  # after one whole bounce
        ("shaking", (50 + 20 / 3, 60, 1, 0), (70 + 20 / 3, 60, 1, 0)),  # sin(5/2 pi) = 1
    ],
)
def test_actions_are_what_their_names_say(
    name: str, first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    """After half of a scene of 8 frames, computed by hand."""
    a, b = act_out(name, ACT, Pose(50, 60, 1, 0), Pose(70, 60, 1, 0), 4, 8)
    assert (a.x, a.y, a.scale, a.angle) == pytest.approx(first, abs=1e-5)
    assert (b.x, b.y, b.scale, b.angle) == pytest.approx(second, abs=1e-5)


def test_a_bounce_goes_up_first() -> None:
    a, _ = act_out("bouncing", ACT, Pose(50, 60, 1, 0), Pose(70, 60, 1, 0), 2, 8)
    assert (a.x, a.y) == pytest.approx((50, 60 - 20))


def test_pictures_show_the_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what goes out on one side comes in on the other, whole."""
    clip = SpriteClips(1, 32, SIZE, 3, "val", "static")[0]
    scene = action._scene(clip._script, 0, 32, clip._filming.camera.margin)
    disc = np.zeros((40, 40, 4), np.uint8)
    y, x = np.mgrid[:40, :40] - 19.5
    disc[..., 3] = 255 * (np.hypot(x, y) < 18)

    def shown(label: str, start: tuple[float, float], i: int) -> np.ndarray:
        pictures = []
        for colour in (0, 255):
            disc[..., :3] = colour
            sprite = Sprite(Image.frombytes("RGBX", (40, 40), disc.tobytes()), 18, 1, 0)
            poses = [Pose(*start, 0.7, 0), *scene.poses[1:]]
            other = replace(scene, sprites=[sprite, *scene.sprites[1:]], poses=poses)
            monkeypatch.setattr(action, "_scene", lambda *_, other=other: other)
            pictures.append(with_label(clip, ACTIONS.index(label))[[i]][0])
        return (pictures[0] != pictures[1]).any(0).numpy()

    speed, middle = scene.act.speed, (64.0, 64.0)
    for label, direction in (("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1))):
        visible = shown(f"moving {label}", middle, 26)
        rows, columns = np.nonzero(visible)
        expected = 64 + 10 * speed * np.array(direction)
        assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx(tuple(expected), abs=0.5)
    sizes = [int(shown("approaching", middle, i).sum()) for i in (0, 16, 31)]
    assert sizes == sorted(sizes)
    assert sizes[2] > 1.8 * sizes[0]  # in area
    # Halfway over a corner, in four parts.
    corner = shown("moving left", (0.0, 0.0), 16)
    assert corner[0, 0]
    assert corner[-1, -1]
    assert corner[0, -1]
    assert corner.sum() == pytest.approx(sizes[1], rel=0.02)


def test_a_resting_scene_does_not_change() -> None:
    clip = next(
        c for c in SpriteClips(24, 32, SIZE, 4, "val", "static") if ACTIONS[c.label] == "turning clockwise"
    )
    before, after = clip[[8, 9]]
    assert (before == after).all(0).float().mean() > 0.6


@pytest.mark.parametrize("setting", list(DISTURBANCES))
def test_disturbances_are_those_of_detection(setting: str) -> None:
    assert SpriteClips(1, 32, SIZE, 0, "val", setting)[0]._filming.disturbance == DISTURBANCES[setting]


def test_bad_settings_and_positions_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.n_clips is 0; it must be a whole number of at least 1"):
        SpriteClips(0)
    with pytest.raises(IndexError, match="has no frame 32; it has 32"):
        SpriteClips(1)[0][[0, 32]]


GROWING = ("approaching", "receding")


@pytest.mark.parametrize("label", [i for i, name in enumerate(ACTIONS) if name not in GROWING])
def test_pixels_are_found_where_motion_says_they_went(label: int) -> None:
    """What an actor's pixel shows is in the next frame at its new place; at its old one it is something else."""
    clip = with_label(SpriteClips(8, 32, (224, 224), 5, "val", "static")[3], label)
    before, after = clip[[20, 21]].float()
    motion, actors = clip.motion(20)
    y, x = torch.meshgrid(torch.arange(224) + 0.5, torch.arange(224) + 0.5, indexing="ij")
    grid = torch.stack([(x + motion[0]) / 112 - 1, (y + motion[1]) / 112 - 1], -1)
    found = torch.nn.functional.grid_sample(after[None], grid[None], align_corners=False)[0]
    # Away from the outline, where another sprite or the background comes into view.
    inner = -torch.nn.functional.max_pool2d(-actors[None].float(), 7, 1, 3)[0] > 0
    inside = inner & (grid.abs() < 0.95).all(-1)
    assert inside.sum() > 200
    assert (found - before).abs().mean(0)[inside].mean() < 0.5 * (after - before).abs().mean(0)[inside].mean()
    assert (motion[:, ~actors] == 0).all()


@pytest.mark.parametrize(("name", "sign"), list(zip(GROWING, (1, -1), strict=True)))
def test_what_grows_moves_away_from_its_middle(name: str, sign: int) -> None:
    """By the same factor everywhere: from a pixel to its neighbour, motion changes by the growth of a frame."""
    clip = with_label(SpriteClips(4, 32, SIZE, 5, "val", "static")[1], ACTIONS.index(name))
    motion, actors = clip.motion(10)
    growth = np.exp(sign * clip._scene(10).act.growth / 32) - 1
    both = actors[:, 1:] & actors[:, :-1]
    assert (motion[0, :, 1:] - motion[0, :, :-1])[both].median() == pytest.approx(growth, rel=1e-3)


def test_motion_by_hand() -> None:
    clip = with_label(SpriteClips(4, 32, SIZE, 5, "val", "pan")[1], ACTIONS.index("moving left"))
    pan = torch.tensor(clip._filming.camera.place(11) - clip._filming.camera.place(10)).float()
    motion, actors = clip.motion(10)
    assert torch.allclose(motion[:, ~actors], -pan[:, None], atol=1e-5)
    speed = clip._scene(10).act.speed
    assert torch.allclose(motion[:, actors], torch.tensor([[-speed], [0.0]]) - pan[:, None], atol=1e-4)


def test_nothing_is_said_of_motion_over_a_cut() -> None:
    clip = SpriteClips(4, 60, SIZE, 5, "val", "cuts")[1]
    cut = next(i for i in range(59) if i + 1 not in clip._filming.scene(i)[1])
    motion, actors = clip.motion(cut)
    assert motion.isnan().all()
    assert not actors.any()
    assert clip.motion(cut + 1)[0].isfinite().all()
