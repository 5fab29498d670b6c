"""Draw which patches of a video Token Merging makes one: the frames, and below them each group in its mean color.

python scripts/draw_merging.py VIDEO OUT.png
python scripts/draw_merging.py VIDEO OUT.png --model videomae --checkpoint OFFICIAL.pth --r 65 --blocks 4 8 12
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from evt.data.actions import AnyClip
from evt.data.clips import Clip
from evt.errors import ConfigError
from evt.files import check_writable, replacing, sentence
from evt.models.loading import build_model
from evt.models.videomae import VideoMAE
from evt.settings import CONFIG_DIR, changed
from evt.tokens import Merge
from evt.tokens.picture import draw_groups

MODELS = ("videomae_mini", "videomae")
SCALE = {"videomae_mini": 3, "videomae": 1}
"""Pixels a pixel of the model's input, so that borders are thin beside its patches."""


def draw(model: VideoMAE, clip: AnyClip, merging: Merge, blocks: Sequence[int], scale: int) -> Image.Image:
    """One column a step and, below the frames, one row for each of the blocks.

    Raises:
        ConfigError: the model cannot merge so, or has no such block.
        DataError: the video cannot be read.
    """
    model.check(merging)
    for block in blocks:
        if not 1 <= block <= model.depth:
            raise ConfigError(f"--blocks has {block}; the blocks are 1 to {model.depth}")
    views = model.views.of(clip)[:1]  # (1, T, 3, H, W)
    with torch.inference_mode():
        traced = model.trace(model.normalise(views.clone()), merging)
    frames = views[0].repeat_interleave(scale, -2).repeat_interleave(scale, -1)
    rows = [frames[:: model.tubelet[0]]]
    for block in blocks or [model.depth]:
        groups = traced[block - 1][0].unflatten(0, (model.steps, *model.grid))
        rows.append(draw_groups(frames, groups))
    return _sheet(rows)


def _sheet(rows: Sequence[Tensor]) -> Image.Image:
    """Pictures side by side, rows of (columns, 3, H, W) each in [0, 1]."""
    pixels = torch.cat([torch.cat(list(row), -1) for row in rows], -2)  # (3, rows * H, columns * W)
    return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy())


def main() -> None:
    """Draw one video; exit status 2 and one sentence where that cannot be done."""
    imports_are_done()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--checkpoint", help="instead of the model's own")
    parser.add_argument(
        "--r", type=int, nargs="+", default=[65], help="pairs in each block; several are of one after another"
    )
    parser.add_argument(
        "--blocks", type=int, nargs="+", default=[], help="drawn; the last where none is given"
    )
    args = parser.parse_args()
    cfg = DictConfig(OmegaConf.load(CONFIG_DIR / f"model/{args.model}.yaml"))
    if args.checkpoint is not None:
        cfg = changed(cfg, checkpoint=args.checkpoint)
    try:
        check_writable(args.out)
        merging = Merge(args.r if len(args.r) > 1 else args.r[0])
        model, weights = build_model(cfg, torch.device("cpu"), VideoMAE)
        picture = draw(model, Clip(args.video).clips()[0], merging, args.blocks, SCALE[args.model])
        with replacing(args.out) as part:
            picture.save(part, format="PNG", optimize=True)
    except (OSError, ValueError) as error:
        parser.exit(2, f"error: {sentence(error)}\n")
    print(f"weights: {weights}\nwritten to {args.out}")


if __name__ == "__main__":
    main()
