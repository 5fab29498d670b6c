"""What sprites look like: outlines that decide the class, textures, and backgrounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

CLASSES = (
    "striped_disc",
    "striped_triangle",
    "spotted_disc",
    "spotted_cross",
    "checked_square",
    "checked_ring",
    "clouded_star",
    "clouded_crescent",
)
"""Neither texture nor outline is enough: every texture is that of two classes and of distractors, and a disc is of
either of two textures."""

TEXTURES = {"striped": "stripes", "spotted": "spots", "checked": "checks", "clouded": "clouds"}
BLOB = "blob"
"""The outline of distractors, which are of no class: smooth, irregular, and another one each time."""


@dataclass(frozen=True)
class Sprite:
    """A textured outline, drawn once and placed in every frame by an affine map.

    master: Pillow's RGBX, square; the fourth channel is 255 within the outline and 0 outside. The texture goes on
        outside, so that no other colour bleeds in at the edge.
    radius: half a side of the master that the outline may fill, in pixels.
    area: pixels within the outline.
    label: index in CLASSES; -1 for a distractor.
    """

    master: Image.Image
    radius: float
    area: int
    label: int


def draw_sprite(rng: np.random.Generator, label: int, radius: float) -> Sprite:
    """Draw a sprite of a class, or a distractor for -1, that fits in a circle of `radius` pixels."""
    side = 2 * int(np.ceil(radius)) + 4
    axis = ((np.arange(side) + 0.5 - side / 2) / radius).astype(np.float32)
    look = CLASSES[label] if label >= 0 else f"{rng.choice(list(TEXTURES))}_{BLOB}"
    texture, outline = look.split("_")
    inside = _inside(rng, outline, axis[None, :], axis[:, None])
    pixels = np.empty((side, side, 4), np.uint8)
    pixels[..., :3] = _texture(rng, TEXTURES[texture], side)
    pixels[..., 3] = inside * np.uint8(255)
    # Pillow would multiply the colours of RGBA by alpha and back when it moves them; it leaves RGBX alone.
    master = Image.frombytes("RGBX", (side, side), pixels.tobytes())
    return Sprite(master, radius, int(inside.sum()), label)


def draw_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Clouds of random colours at three scales, (height, width, 3) uint8 from 64 to 191: paler than sprites."""
    total = np.zeros((height, width, 3), np.uint16)
    for cell, weight in ((96, 8), (24, 5), (6, 3)):  # pixels, sixteenths
        total += _clouds(rng, height, width, cell).astype(np.uint16) * np.uint16(weight)
    return (64 + total // 32).astype(np.uint8)


def _inside(rng: np.random.Generator, outline: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points (x, y) of the square from -1 to 1 lie within an outline; all outlines fit the unit circle."""
    distance = np.hypot(x, y)
    match outline:
        case "disc":
            return distance <= 0.9
        case "ring":
            return (distance <= 0.95) & (distance >= 0.55)
        case "square":
            return np.maximum(abs(x), abs(y)) <= 0.7
        case "triangle":
            return (y <= 0.5) & (abs(x) * np.sqrt(3) <= y + 1)
        case "cross":
            return (np.minimum(abs(x), abs(y)) <= 0.26) & (np.maximum(abs(x), abs(y)) <= 0.93)
        case "star":
            # Between a tip (angle 0) and a notch (36 degrees), a star's edge is a straight line.
            turn = np.pi / 5
            angle = abs((np.arctan2(x, -y) + turn) % (2 * turn) - turn)
            notch = 0.42
            # The line through (1, 0) and notch * (cos, sin)(36 degrees), as a polar curve.
            edge = (
                notch
                * np.sin(turn)
                / (notch * np.sin(turn) * np.cos(angle) + (1 - notch * np.cos(turn)) * np.sin(angle))
            )
            return distance <= edge
        case "crescent":
            return (distance <= 0.95) & (np.hypot(x - 0.45, y) >= 0.7)
        case _:
            angle = np.arctan2(y, x)
            edge = np.full_like(angle, 0.6)
            for waves, amplitude in ((2, 0.16), (3, 0.14), (5, 0.08)):
                edge += amplitude * np.sin(waves * angle + rng.uniform(0, 2 * np.pi))
            return distance <= edge


def _texture(rng: np.random.Generator, kind: str, side: int) -> np.ndarray:
    """Two colours in a pattern, or clouds, (side, side, 3) uint8."""
    if kind == "clouds":
        return _clouds(rng, side, side, max(side // 5, 3))
    dark = rng.integers(0, 110, 3)
    light = dark + rng.integers(100, 146, 3)
    period = side / rng.uniform(4.0, 5.5)
    # All patterns are thresholded waves along two axes at right angles.
    turn, at = rng.uniform(0, np.pi), np.arange(side, dtype=np.float32) * np.float32(2 * np.pi / period)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along = np.sin(cos * at[None, :] + sin * at[:, None])
    if kind == "stripes":
        chosen = along > 0
    else:
        across = np.sin(cos * at[:, None] - sin * at[None, :])
        chosen = along * across > 0 if kind == "checks" else along + across > 0.7
    swapped = kind != "spots" and rng.random() < 0.5
    return np.where((chosen ^ swapped)[..., None], light, dark).astype(np.uint8)


def _clouds(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Random colours, one a cell of `cell` pixels, smoothly interpolated."""
    colours = rng.integers(0, 256, (2 + height // cell, 2 + width // cell, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC))
