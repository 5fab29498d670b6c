"""What a policy that selects once a frame may look at beside the errors: the network, and notes of each video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from evt.eventful.layout import Grid


class Note:
    """What was noted of one video, for policies that ask for it; each is None until then.

    boxes: (n, 5), where the model last said that objects are: x0 y0 x1 y1 in tokens of the grid, from its upper left
        corner on, and the score of each. See `evt.eventful.Stream.saw`.
    motion: (rows, columns), how far the codec moved what each token shows in the next frame, in pixels of the video;
        None once that frame was seen. See `evt.eventful.Stream.moves`.
    moved: (rows, columns), the same in all frames since each token last passed.
    attention: (L, N, N), of the L blocks whose attention is global, in the last frame that was run whole; from
        queries (rows) to keys, and as `evt.eventful.selectors.rollout.with_skips` has it.
    """

    def __init__(self) -> None:
        self.boxes: Tensor | None = None
        self.motion: Tensor | None = None
        self.moved: Tensor | None = None
        self.attention: Tensor | None = None


class Inside:
    """The inside of a network, for some videos of a batch, before a frame of them goes through it.

    Args:
        x: the tokens of the frame as they come to the first block, (B, N, D).
        blocks, states: of the network, and what each keeps of the whole batch.
        rotary: of the first block.
        grid: rows and columns of the last tokens, where they are known to form one.
        notes: of the videos.
        first: their place in the batch.
    """

    def __init__(
        self,
        x: Tensor,
        blocks: Sequence[Any],
        states: Sequence[Any],
        rotary: Any,
        grid: Grid | None,
        notes: Sequence[Note],
        first: int = 0,
    ) -> None:
        self.x, self.blocks, self.states, self.rotary = x, blocks, states, rotary
        self.grid, self.notes, self.first = grid, notes, first

    def split(self, sizes: Sequence[int]) -> list[Inside]:
        """Of so many videos, of so many after these, and so on."""
        starts = accumulate(sizes, initial=0)
        return [
            Inside(
                self.x[start : start + size],
                self.blocks,
                self.states,
                self.rotary,
                self.grid,
                self.notes[start : start + size],
                self.first + start,
            )
            for start, size in zip(starts, sizes, strict=False)
        ]

    def differences(self, of: Literal["keys", "values"]) -> Tensor:
        """1 - the cosine of each token's keys or values in the first block and those that are kept of it, (B, N).

        The first layer runs on all tokens for that, which is counted.
        """
        block, place = self.blocks[0], ("queries", "keys", "values").index(of)
        qkv = block.attn.qkv(block.norm1(self.x)).unflatten(-1, (3, block.attn.num_heads, -1))
        if self.rotary is not None:
            qkv = self.rotary(qkv, None)
        new = qkv[..., place, :, :].flatten(-2)  # (B, N, D)
        streams = slice(self.first, self.first + len(self.x))
        kept = block.attn.kept(self.states[0].attn, of, streams, self.x.shape[1])
        return 1 - F.cosine_similarity(new.float(), kept.float(), dim=-1)

    def attention(self) -> Iterator[Tensor]:
        """Of each video, how tokens attended to one another in the last frame, in the L global blocks, (L, N, N).

        See `evt.eventful.fast.FastState.attention`.
        """
        for stream in range(self.first, self.first + len(self.x)):
            maps = [
                block.attn.attention(state.attn, stream, self.x.shape[1])
                for block, state in zip(self.blocks, self.states, strict=True)
                if block.attn.window_size is None
            ]
            yield torch.stack(maps) if maps else self.x.new_empty(0, *[self.x.shape[1]] * 2)
