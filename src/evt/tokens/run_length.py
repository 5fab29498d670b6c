"""Run-Length Tokenization (Choudhury et al. 2024): tokens that repeat over time are dropped before the model runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.eventful.counting import add
from evt.tokens.reduction import ClipModel, Reduction


@dataclass(frozen=True)
class RunLength(Reduction):
    """Run-length tokenization: tokens that repeat are dropped before the model runs.

    threshold: of the mean absolute difference, in normalised pixel units.
    lengths: the model adds its learned embedding of each token's run length; it must have been trained with one.

    Raises:
        ValueError: the threshold is not a finite number of at least 0.
    """

    threshold: float = 0.1
    lengths: bool = False

    def __post_init__(self) -> None:
        check_threshold(self.threshold, "policy.threshold")

    def check(self, model: ClipModel) -> None:
        """Refuse a model without an embedding of run lengths where it is to be added."""
        if self.lengths and model.length_embed is None:
            raise ValueError(
                "policy.lengths is true, but the model has no embedding of run lengths; model.length_embedding must "
                "be true"
            )

    def keep(self, views: Tensor, tubelet: tuple[int, int, int]) -> Tensor:
        """The tokens that do not repeat, (V, N) bool. See `keep_mask` for what is raised."""
        return keep_mask(views, tubelet, self.threshold)

    def embed(self, x: Tensor, keep: Tensor, model: ClipModel) -> Tensor:
        """Add the embeddings of the run lengths, if they are to be: to each token that of its own.

        RLT's published code lists the lengths place by place and the tokens step by step, and adds the one list to
        the other.
        """
        self.check(model)
        if not self.lengths:
            return x
        assert model.length_embed is not None
        return add(x, model.length_embed[0, run_lengths(keep, model.steps)[keep] - 1])


def keep_mask(clips: Tensor, tubelet: Sequence[int], threshold: float) -> Tensor:
    """Which tokens differ from the one before them at the same place, (B, N) bool, in the order t, h, w.

    A token is kept where the mean absolute difference, over channels and pixels, between the last frame of its
    tubelet and the first frame of the tubelet before exceeds the threshold. The first tubelets are always kept. Each
    clip is judged by itself.

    Args:
        clips: (B, T, C, H, W), normalised pixels.
        tubelet: frames, rows and columns of pixels that make a token.
        threshold: in normalised pixel units.

    Raises:
        ValueError: no clips, a size that is not a multiple of the tubelet's, a tubelet that is not three whole
            numbers of at least 1, or a threshold that is not a finite number of at least 0.
    """
    frames, rows, columns = checked_tubelet(tubelet)
    if clips.ndim != 5 or len(clips) == 0:
        raise ValueError(
            f"clips have shape {tuple(clips.shape)}; it must be (B, T, C, H, W), with B at least 1"
        )
    sizes = (clips.shape[1], *clips.shape[3:])
    for name, length, part in zip(("frames", "height", "width"), sizes, tubelet, strict=True):
        if length % part or length == 0:
            raise ValueError(f"{name} of a clip: {length}; it must be a multiple of the tubelet's {part}")
    check_threshold(threshold)
    first, last = clips[:, ::frames], clips[:, frames - 1 :: frames]
    change = (last[:, 1:] - first[:, :-1]).abs().mean(2)  # (B, t - 1, H, W)
    change = F.avg_pool2d(change, (rows, columns))  # (B, t - 1, h, w)
    first_step = torch.ones(len(clips), 1, *change.shape[2:], dtype=torch.bool, device=clips.device)
    return torch.cat([first_step, change > threshold], 1).flatten(1)


def checked_tubelet(tubelet: Sequence[int]) -> tuple[int, int, int]:
    """Frames, rows and columns of a token.

    Raises:
        ValueError: they are not three whole numbers of at least 1.
    """
    if len(tubelet) != 3 or not all(isinstance(x, int) and x >= 1 for x in tubelet):
        raise ValueError(
            f"tubelet is {list(tubelet)}; it must be three whole numbers of at least 1: frames, rows and columns"
        )
    frames, rows, columns = tubelet
    return frames, rows, columns


def check_threshold(threshold: float, name: str = "threshold") -> None:
    """Refuse what is no threshold, by its name.

    Raises:
        ValueError: it is not a finite number of at least 0.
    """
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not 0 <= threshold < math.inf:
        raise ValueError(f"{name} is {threshold!r}; it must be a finite number, 0 or more")


def run_lengths(keep: Tensor, steps: int) -> Tensor:
    """How many tubelets each kept token stands for, itself and the dropped ones after it; 0 for dropped ones, (B, N).

    Args:
        keep: (B, N) bool, as `keep_mask` gives it.
        steps: tubelets in time.

    Raises:
        ValueError: the tokens are not so many steps of as many each.
    """
    if steps < 1 or keep.shape[1] % steps:
        raise ValueError(f"steps is {steps}; it must be a divisor of the {keep.shape[1]} tokens")
    mask = keep.unflatten(1, (steps, -1))  # (B, t, h w)
    lengths = torch.zeros(mask.shape, dtype=torch.int64, device=keep.device)
    run = torch.zeros_like(lengths[:, 0])
    for t in reversed(range(steps)):
        run = run + 1
        lengths[:, t] = torch.where(mask[:, t], run, 0)
        run = torch.where(mask[:, t], 0, run)
    return lengths.flatten(1)
