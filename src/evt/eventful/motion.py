"""Kept outputs, moved along with what the picture shows: where each patch was in the picture that they are of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.eventful.counting import record
from evt.eventful.layout import Grid
from evt.eventful.policy import Selection

CELLS = 4
"""Cells on a side of a token's patch: a picture is compared as so many means of its brightness."""

REACH = 8
"""Cells, up, down, left and right, that a patch is looked for from its place: two tokens."""

PENALTY = 0.003
"""What a squared cell of distance counts, in variances of the picture: where all looks alike nothing moves."""


def cells(picture: Tensor, grid: Grid) -> Tensor:
    """What is kept of a picture, (B, C, H, W) to (B, CELLS rows, CELLS columns)."""
    grey = picture.float().mean(1, keepdim=True)
    return F.interpolate(grey, [CELLS * side for side in grid], mode="area")[:, 0]


def replaced(kept: Tensor, now: Tensor, tokens: Selection, grid: Grid) -> Tensor:
    """Take the cells of some tokens from the present picture; tokens before those of the grid have none."""
    passed = torch.zeros(len(tokens.counts) * tokens.n_tokens, dtype=torch.bool, device=kept.device)
    passed = passed.index_fill_(0, tokens.index, True).unflatten(0, (-1, tokens.n_tokens))
    passed = passed[:, -grid[0] * grid[1] :].unflatten(1, grid)
    return torch.where(passed.repeat_interleave(CELLS, 1).repeat_interleave(CELLS, 2), now, kept)


def shifts(kept: Tensor, now: Tensor, grid: Grid) -> Tensor:
    """From where in the kept picture each patch has come: rows and columns to add to its own, (B, 2, *grid)."""
    height, width = now.shape[1:]
    around = F.pad(kept[:, None], (REACH,) * 4, mode="replicate")[:, 0]
    around = around.unfold(2, width, 1)  # (B, H + 2 REACH, side, W)
    side = torch.arange(-REACH, REACH + 1, device=now.device)
    penalty = PENALTY * now.var((1, 2)).clamp(min=1e-9)[:, None, None, None]
    costs = []
    for i in range(len(side)):
        error = (around[:, i : i + height] - now[:, :, None]).square_()
        error = error.unflatten(3, (grid[1], CELLS)).unflatten(1, (grid[0], CELLS)).mean((2, 5))
        costs.append(error + penalty * (side**2 + (i - REACH) ** 2)[:, None])  # (B, rows, side, columns)
    record("gate", len(side) ** 2 * now.numel())
    best = torch.stack(costs, 1).permute(0, 1, 3, 2, 4).flatten(1, 2).argmin(1)
    return (torch.stack((best // len(side), best % len(side)), 1) - REACH) / CELLS


def moved(x: Tensor, shift: Tensor) -> Tensor:
    """Take each token of the grid from where `shifts` says, between four others where that is between them.

    x: (B, N, D); the first, which stand for no place in the picture, stay.
    """
    rows, columns = shift.shape[2:]
    prefix, places = x.split((x.shape[1] - rows * columns, rows * columns), 1)
    row, column = (torch.arange(n, device=x.device) for n in (rows, columns))
    y = (shift[:, 0] + row[:, None]).clamp(0, rows - 1).flatten(1)[..., None]  # (B, n, 1)
    x_ = (shift[:, 1] + column).clamp(0, columns - 1).flatten(1)[..., None]
    above, left = y.floor().long(), x_.floor().long()
    below, right = (above + 1).clamp(max=rows - 1), (left + 1).clamp(max=columns - 1)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return places.gather(1, (row * columns + column).expand(-1, -1, x.shape[2]))

    down, across = (y - above).to(x.dtype), (x_ - left).to(x.dtype)
    upper = torch.lerp(at(above, left), at(above, right), across)
    record("gate", 3 * places.numel())
    return torch.cat((prefix, upper.lerp(torch.lerp(at(below, left), at(below, right), across), down)), 1)
