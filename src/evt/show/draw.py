"""Drawing on frames: boxes, maps of what is salient, tokens that were computed anew, and a strip of text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff")
"""Of classes, in turn: those of Okabe and Ito (2008), which the colour-blind tell apart."""

ANEW = (255, 0, 255)
"""Of tokens that were computed anew: magenta, which hardly any picture has."""

DARK, LIGHT, BORDER = (24, 24, 24), (240, 240, 240), (128, 128, 128)

LINE = 18
"""Height in pixels of a line of text."""


def picture_of(image: Tensor, size: tuple[int, int]) -> Image.Image:
    """A frame, (3, H, W) uint8, resized to (height, width)."""
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy(), "RGB")
    return picture if size == image.shape[-2:] else picture.resize(size[::-1], Image.Resampling.BILINEAR)


def add_tokens(picture: Image.Image, share: Tensor) -> Image.Image:
    """Tint what was computed anew.

    Args:
        picture: of the frame.
        share: of each pixel of the picture as it came to the model, (h, w) from 0 to 1: not at all, to wholly anew.
    """
    width, height = picture.size
    shown = F.interpolate(share[None, None].float(), (height, width), mode="nearest-exact")[0, 0]
    # Where nothing was computed it is grey and dark, so that it is told in black and white, too.
    grey = picture.convert("L").convert("RGB")
    faded = Image.blend(grey, Image.new("RGB", picture.size, DARK), 0.35)
    mask = Image.fromarray((255 * shown).round().to(torch.uint8).numpy(), "L")
    tinted = Image.blend(picture, Image.new("RGB", picture.size, ANEW), 0.25)
    return Image.composite(tinted, faded, mask)


def add_boxes(picture: Image.Image, boxes: Tensor, names: Sequence[str], labels: Sequence[int]) -> None:
    """Draw boxes (n, 4), in pixels of the picture, each with its name, in the colour of its class."""
    draw = ImageDraw.Draw(picture)
    for box, name, label in zip(boxes.tolist(), names, labels, strict=True):
        colour = COLOURS[label % len(COLOURS)]
        x0, y0, x1, y1 = box
        draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=2)
        at = (x0 + 2, max(0.0, y0 - LINE + 4))
        draw.rectangle(draw.textbbox(at, name, font=font()), fill=DARK)
        draw.text(at, name, fill=colour, font=font())


def add_map(picture: Image.Image, salient: Tensor) -> Image.Image:
    """Darken a picture where a map, (h, w) from 0 to 1, is low."""
    width, height = picture.size
    shown = F.interpolate(salient[None, None].float(), (height, width), mode="bilinear")[0, 0]
    mask = Image.fromarray((255 * shown.clamp(0, 1)).round().to(torch.uint8).cpu().numpy(), "L")
    return Image.composite(picture, Image.blend(picture, Image.new("RGB", picture.size, DARK), 0.75), mask)


def grey(values: Tensor, size: tuple[int, int]) -> Image.Image:
    """Values (h, w) of at least 0 as a picture of (height, width), from black, 0, to white, the largest."""
    shown = F.interpolate(values[None, None].float(), size, mode="nearest-exact")[0, 0]
    shown = shown / shown.max().clamp(min=1e-12)
    return Image.fromarray((255 * shown).round().to(torch.uint8).cpu().numpy(), "L").convert("RGB")


def sheet(columns: Sequence[Sequence[Image.Image]], heads: Sequence[str], rows: Sequence[str]) -> Image.Image:
    """Pictures of one size in columns, with a head above each column and a name before each row.

    Each has a border, since what passes a gate is white, as the sheet is.
    """
    width, height = columns[0][0].size
    place = max(width, *(int(font().getlength(head)) for head in heads))
    left = 8 + max(int(font().getlength(row)) for row in rows)
    whole = Image.new(
        "RGB", (left + (place + 4) * len(columns) + 4, LINE + (height + 4) * len(rows)), "white"
    )
    draw = ImageDraw.Draw(whole)
    for i, row in enumerate(rows):
        draw.text((4, LINE + (height + 4) * i + height // 2 - LINE // 2), row, fill=DARK, font=font())
    for k, (head, column) in enumerate(zip(heads, columns, strict=True)):
        x = left + (place + 4) * k
        draw.text((x, 1), head, fill=DARK, font=font())
        for i, picture in enumerate(column):
            y = LINE + (height + 4) * i
            whole.paste(picture, (x, y))
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=BORDER)
    return whole


def add_strip(picture: Image.Image, lines: Sequence[str], least_width: int = 0) -> Image.Image:
    """A picture with lines of text below it, above the middle of which it stands where they need more width."""
    width, height = picture.size
    whole = Image.new("RGB", (max(width, least_width), height + strip_height(len(lines))), DARK)
    whole.paste(picture, ((whole.width - width) // 2, 0))
    draw = ImageDraw.Draw(whole)
    for i, line in enumerate(lines):
        draw.text((6, height + 4 + LINE * i), line, fill=LIGHT, font=font())
    return whole


def strip_height(n_lines: int) -> int:
    """Height in pixels of a strip; it is even, as H.264 wants it."""
    return 2 * ((LINE * n_lines + 9) // 2)


def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """What text is drawn in; Pillow brings it along."""
    return ImageFont.load_default(13)
