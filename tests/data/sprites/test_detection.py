"""Wrong boxes would make every mAP50 of the generated benchmark wrong without a sign of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from evt.data.sprites import CLASSES, DISTURBANCES, MIXED, SpriteVideos, detection
from evt.data.sprites.rendering import Pose, paste
from evt.data.sprites.shapes import Sprite
from evt.data.video import Frame
from evt.errors import DataError

SIZE = (128, 160)


def same(a: Frame, b: Frame) -> bool:
    assert a.target is not None
    assert b.target is not None
    return (
        torch.equal(a.image, b.image)
        and torch.equal(a.target.boxes, b.target.boxes)
        and torch.equal(a.target.labels, b.target.labels)
        and (a.name, a.first) == (b.name, b.first)
    )


def in_colour(sprite: Sprite, colour: int) -> Sprite:
    """The sprite, all of it in one grey."""
    pixels = np.array(sprite.master)
    pixels[..., :3] = colour
    return replace(sprite, master=Image.frombytes("RGBX", sprite.master.size, pixels.tobytes()))


@pytest.mark.parametrize("setting", [*DISTURBANCES, MIXED])
def test_frames_depend_on_the_seed_alone(setting: str) -> None:
    first = list(SpriteVideos(2, 30, SIZE, 5, "val", setting)[1])
    detection._scene.cache_clear()
    again = SpriteVideos(3, 30, SIZE, 5, "val", setting)[1]
    for i in (29, 3, 17, 0, 29):  # in any order
        assert same(again[i], first[i])


@pytest.mark.parametrize("other", [{"seed": 6}, {"split": "train"}, {"split": "test"}])
def test_other_seeds_and_splits_are_other_videos(other: dict[str, int | str]) -> None:
    settings: dict[str, int | str] = {"seed": 5, "split": "val", **other}
    image = SpriteVideos(1, 1, SIZE, 5, "val")[0][0].image
    other_image = SpriteVideos(1, 1, SIZE, int(settings["seed"]), str(settings["split"]))[0][0].image
    assert (image != other_image).float().mean() > 0.9


def test_a_box_bounds_exactly_the_visible_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What of the picture changes when an object alone changes its colour is what is visible of it."""
    drawn = detection._scene
    n_boxes = hidden = clipped = 0
    for video in SpriteVideos(6, 60, SIZE, 3, "val", "pan"):
        for i in (0, 31, 59):
            monkeypatch.setattr(detection, "_scene", drawn)
            _, ids, target = video.render(i)
            scene = drawn(video._script, 0, video._filming.camera.margin)
            expected_boxes, expected_labels = [], []
            for number, (sprite, way) in enumerate(scene.sprites):
                pictures = []
                for colour in (0, 255):
                    sprites = list(scene.sprites)
                    sprites[number] = (in_colour(sprite, colour), way)
                    other = replace(scene, sprites=sprites)
                    monkeypatch.setattr(detection, "_scene", lambda *_, other=other: other)
                    pictures.append(video.render(i)[0])
                visible = (pictures[0] != pictures[1]).any(-1)
                assert np.array_equal(visible, ids == number)
                if sprite.label < 0:
                    continue
                # All of the object, drawn alone in a frame that holds it.
                pose = way.pose(i, video._filming.camera.place(i), SIZE, sprite.radius)
                alone = np.full((256, 256), -1, np.int16)
                centred = Pose(pose.x % 1 + 128, pose.y % 1 + 128, pose.scale, pose.angle)
                paste(np.zeros((256, 256, 3), np.uint8), alone, 0, sprite, centred)
                fraction = visible.sum() / (alone == 0).sum()
                if visible.sum() < 96 or fraction < 0.32:
                    hidden += bool(visible.any())
                    continue
                rows, columns = np.nonzero(visible)
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                # So near to a third, the rounding of edges decides.
                if fraction > 0.35 or box in target.boxes.tolist():
                    clipped += bool(fraction < 0.95)
                    expected_boxes.append(box)
                    expected_labels.append(sprite.label)
            assert target.boxes.tolist() == expected_boxes
            assert target.labels.tolist() == expected_labels
            n_boxes += len(expected_boxes)
    assert n_boxes >= 40
    assert hidden >= 5
    assert clipped >= 5


def test_what_is_shown_is_what_is_promised() -> None:
    frames = [video[i] for video in SpriteVideos(40, 60, seed=1) for i in (0, 45)]
    targets = [frame.target for frame in frames if frame.target is not None]
    labels = torch.cat([target.labels for target in targets])
    share = torch.bincount(labels, minlength=len(CLASSES)) / len(labels)
    assert share.min() > 0.06  # of 1/8
    counts = torch.tensor([len(target.labels) for target in targets])
    assert 2.5 < counts.float().mean() < 5.5
    assert ((counts >= 2) & (counts <= 6)).float().mean() > 0.8
    boxes = torch.cat([target.boxes for target in targets])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sides.max() <= 122
    assert 0.15 < (sides.amax(-1) < 36).float().mean() < 0.5  # small objects
    assert frames[0].image.shape == (3, 320, 320)
    assert frames[0].image.dtype == torch.uint8


def test_objects_move_as_fast_as_promised() -> None:
    speeds = [
        float(np.hypot(*way.speed))
        for video in SpriteVideos(30, 1, SIZE, 2)
        for _, way in detection._scene(video._script, 0, video._filming.camera.margin).sprites
    ]
    moving = [speed for speed in speeds if speed]
    assert 0.15 < 1 - len(moving) / len(speeds) < 0.35
    assert min(moving) >= 0.5
    assert max(moving) <= 3


def test_only_the_first_frame_begins_a_sequence() -> None:
    """A cut is part of the stream: a flush there would spare the method what it has to stand."""
    assert [frame.first for frame in SpriteVideos(1, 40, SIZE, 0, "val", "cuts")[0]] == [True] + [False] * 39


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_videos": 0}, "data.n_videos is 0; it must be a whole number of at least 1"),
        ({"n_frames": 2.5}, "data.n_frames is 2.5; it must be a whole number of at least 1"),
        ({"size": (63, 320)}, "data.size is 63; it must be a whole number of at least 64"),
        ({"size": 320}, "data.size is 320; it must be (height, width) in pixels"),
        ({"seed": -1}, "data.seed is -1; it must be a whole number of at least 0"),
        ({"split": "validation"}, "data.split is 'validation'; allowed are train, val, test"),
        (
            {"setting": "rain"},
            "data.setting is 'rain'; allowed are static, pan, jitter, noise, light, cuts, mixed",
        ),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as error:
        SpriteVideos(**settings)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_frames_end() -> None:
    video = SpriteVideos(1, 4, SIZE)[0]
    with pytest.raises(IndexError, match="has no frame 4; it has 4"):
        video[4]


@pytest.mark.parametrize("setting", ["static", "cuts"])
def test_the_class_map_shows_each_object_where_its_box_is(setting: str) -> None:
    """Its class touches all four edges of its box; and background and distractors are of none."""
    video = SpriteVideos(3, 30, SIZE, 5, "val", setting)[2]
    for i in (0, 29):
        image, classes = video.class_map(i)
        frame = video[i]
        assert torch.equal(image, frame.image)
        assert frame.target is not None
        assert len(frame.target.labels)
        for (x0, y0, x1, y1), label in zip(frame.target.boxes.long(), frame.target.labels, strict=True):
            shows = classes[y0:y1, x0:x1] == label
            assert all(edge.any() for edge in (shows[0], shows[-1], shows[:, 0], shows[:, -1]))
        in_a_box = torch.zeros_like(classes, dtype=torch.bool)
        _, ids, _ = video.render(i)
        scene = detection._scene(video._script, video._filming.scene(i)[0], video._filming.camera.margin)
        for number, (sprite, _) in enumerate(scene.sprites):
            in_a_box |= torch.from_numpy(ids == number) & (sprite.label >= 0)
        assert torch.equal(classes < len(CLASSES), in_a_box)
