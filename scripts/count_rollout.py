"""Operations of RGTP's selection (`policy=rollout`) at the settings of its README, beside the figures printed there.

python scripts/count_rollout.py ../shared/paper/rivals.csv

From shapes alone, by the rules of `evt.eventful.counting`. A test holds the formula to what a stream counts.
"""

from __future__ import annotations

from evt.interrupt import imports_are_done, leave_at_once

if __name__ == "__main__":
    leave_at_once()

import argparse
import csv
import re
from pathlib import Path

import torch

from evt.eventful import VARIANTS, Variant, count_ops
from evt.files import sentence
from evt.models.vit import ViT

PERIOD = 8
"""Frames of which one is whole."""


def main() -> None:
    """Count, and print a line for each row of the file."""
    imports_are_done()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rivals", type=Path, help="with columns method, size, setting (keep=...) and gflops")
    rivals = parser.parse_args().rivals
    try:
        with rivals.open() as file:
            rows = [row for row in csv.DictReader(file) if row["method"] == "RGTP"]
        settings = [
            (int(row["size"]), int(re.sub(r"\D", "", row["setting"])), float(row["gflops"])) for row in rows
        ]
    except OSError as error:
        parser.exit(2, f"error: {sentence(error)}\n")
    except (LookupError, TypeError, ValueError) as error:
        parser.exit(
            2, f"error: {rivals}: no table with method, size, setting (keep=...) and gflops: {error}\n"
        )
    print("size  keep  theirs    ours  as theirs")
    for size, keep, printed in settings:
        with torch.device("meta"):
            network = ViT((size // 16, size // 16))
        ours = (
            whole_frame(network, VARIANTS["frame"])
            + after_whole(network)
            + (PERIOD - 1) * later_frame(network, keep)
        )
        theirs = whole_frame(network) + (PERIOD - 1) * (later_frame(network, keep) + besides(network, keep))
        print(f"{size:4}  {keep:4}  {printed:6.1f}  {ours / PERIOD / 1e9:6.1f}  {theirs / PERIOD / 1e9:9.1f}")


@torch.no_grad()
def whole_frame(network: ViT, variant: Variant = VARIANTS["base"]) -> int:
    """Operations of a first frame; the reference path of the dense model computes what pads windows, too."""
    with count_ops() as ops:
        network(torch.empty(network.frame_shape, device=network.pos_embed.device), network.states(variant))
    return ops.total()


def later_frame(network: ViT, keep: int) -> int:
    """Operations of a frame in which `keep` tokens pass: gate, positions, rollout, and the blocks on these tokens."""
    n, dim = network.grid[0] * network.grid[1], network.dim
    n_global = sum(block.attn.window_size is None for block in network.blocks)  # type: ignore[union-attr]
    return 2 * n * dim + n_global * n * n + keep * sum(token(network, block) for block in network.blocks)


def token(network: ViT, block: object) -> int:
    """Operations of a token in a block: layers, biases, residual additions, and its query."""
    return 12 * network.dim**2 + 11 * network.dim + query(network, block)


def query(network: ViT, block: object) -> int:
    """Operations of a query that attends to all keys of its window or of the grid."""
    rows, columns, _ = _keys(network, block)
    return 2 * network.dim * rows * columns + _positions(network, block)


def _positions(network: ViT, block: object) -> int:
    """Operations of the relative positions of a query."""
    rows, columns, heads = _keys(network, block)
    return network.dim * (rows + columns) + 2 * heads * rows * columns


def _keys(network: ViT, block: object) -> tuple[int, int, int]:
    """Rows and columns of the keys of a query, and heads."""
    attn = block.attn  # type: ignore[attr-defined]
    side = attn.window_size
    return (*(network.grid if side is None else (side, side)), attn.num_heads)


def after_whole(network: ViT) -> int:
    """Operations of making, once more, the attention of a whole frame: what is computed fast leaves none behind."""
    n, found = network.grid[0] * network.grid[1], 0
    for block in network.blocks:
        if block.attn.window_size is None:  # type: ignore[union-attr]
            found += n * (network.dim * n + _positions(network, block))
    return found


def besides(network: ViT, keep: int) -> int:
    """What a later frame of the published code does on top of ours.

    The first block drops tokens before its MLP, so that the rest of it is of all tokens; windows attend densely in
    all blocks, what pads them as well; relative positions are added for all queries in global blocks, too; and the
    importance of each token is that of the most similar of 9 around it.
    """
    (rows, columns), dim = network.grid, network.dim
    n, found = rows * columns, 0
    for number, block in enumerate(network.blocks):
        side: int | None = block.attn.window_size  # type: ignore[union-attr, assignment]
        if side is None:
            found += (n - keep) * _positions(network, block)
        else:
            found += ((rows + -rows % side) * (columns + -columns % side) - keep) * query(network, block)
        if number == 0:
            found += (n - keep) * (4 * dim**2 + 5 * dim)
    return found + 9 * n * dim


if __name__ == "__main__":
    main()
