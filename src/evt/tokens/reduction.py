"""What makes the tokens of a clip fewer. Each way to it is a file of this package, and overrides what it changes."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from evt.tokens.packed import Packed


class ClipModel(Protocol):
    """What a reduction may ask of its model.

    tubelet: frames, rows and columns of pixels that make a token.
    steps: tubelets of a view in time.
    length_embed: of run lengths from 1 on, learned, (1, steps, D); None where the model has none.
    """

    tubelet: tuple[int, int, int]
    steps: int
    length_embed: nn.Parameter | None

    @property
    def n_tokens(self) -> int:
        """Tokens of a view, all of them."""

    @property
    def depth(self) -> int:
        """Number of blocks."""


class Reduction:
    """Nothing is reduced: the dense model."""

    dense: None = None
    """What it is compared with, as `Variant.dense`: all tokens."""
    proportional = True
    """Whether attention takes a token as so many keys as it stands for."""
    hold = move = False
    """As of a `Variant`: nothing is kept from clip to clip."""
    selects = "tokens of a clip"
    """As of a `Policy`, which it is not: no variant of streams takes it."""

    def check(self, model: ClipModel) -> None:
        """Refuse a model with which this cannot be done.

        Raises:
            ValueError: the message names the settings.
        """

    def keep(self, views: Tensor, tubelet: tuple[int, int, int]) -> Tensor | None:
        """Which tokens the blocks see at all, of views (V, T, 3, H, W), (V, N) bool; None for all."""
        return None

    def embed(self, x: Tensor, keep: Tensor, model: ClipModel) -> Tensor:
        """What the first block gets of the tokens that `keep` keeps, (K, D) to (K, D)."""
        return x

    def between(self, tokens: Packed, qkv: Tensor, block: int, depth: int) -> Packed:
        """What goes on between attention and MLP of a block, the first being 0 of so many.

        qkv: queries, keys and values there, (K, 3, H, d).
        """
        return tokens


def check_not_negative(name: str, value: int) -> None:
    """Refuse what is no whole number of at least 0.

    Raises:
        ValueError: it is not; the message names it.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, 0 or more")
