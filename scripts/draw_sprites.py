"""Draw the ground truth of generated videos over their frames, as one picture.

python scripts/draw_sprites.py results/sprites.png
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from evt.data.sprites import CLASSES, DISTURBANCES, SpriteVideos
from evt.files import check_writable, replacing, sentence


def draw(n_frames: int, size: tuple[int, int], seed: int) -> Image.Image:
    """One row a video and setting, with frames at even distances from the first to the last."""
    columns = 4
    height, width = size
    sheet = Image.new("RGB", (columns * width, len(DISTURBANCES) * height))
    for row, setting in enumerate(DISTURBANCES):
        # Under all settings video i shows the same objects; here, each shows another one.
        video = SpriteVideos(len(DISTURBANCES), n_frames, size, seed, "val", setting)[row]
        for column, i in enumerate(np.linspace(0, n_frames - 1, columns).round().astype(int).tolist()):
            frame = video[i]
            picture = Image.fromarray(frame.image.permute(1, 2, 0).numpy())
            pen = ImageDraw.Draw(picture)
            assert frame.target is not None
            for box, label in zip(frame.target.boxes.tolist(), frame.target.labels.tolist(), strict=True):
                x0, y0, x1, y1 = box
                pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline="white")  # Pillow's far edges are inclusive
                pen.text((x0 + 2, y0 + 1), CLASSES[label], "white", stroke_width=1, stroke_fill="black")
            pen.text(
                (4, height - 14), f"{setting}, {frame.name}", "white", stroke_width=1, stroke_fill="black"
            )
            sheet.paste(picture, (column * width, row * height))
    return sheet


if __name__ == "__main__":
    imports_are_done()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--n-frames", type=int, default=60)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        check_writable(arguments.out)
        picture = draw(arguments.n_frames, tuple(arguments.size), arguments.seed)
        with replacing(arguments.out) as part:
            # 256 colours, so that a picture of so much texture stays below 1.5 MB.
            picture.quantize(256, dither=Image.Dither.NONE).save(part, optimize=True)
    except OSError as error:
        parser.exit(2, f"error: {sentence(error)}\n")
    print(f"written to {arguments.out}")
