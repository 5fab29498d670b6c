"""The names of a block's parts, as torch's profiler shows them."""

from __future__ import annotations

from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from evt.eventful import VARIANTS, Stream, TopR
from evt.eventful.profiling import PREFIX, named_parts
from tests.common import small_frames, small_vit


def parts_of(stream: Stream, frame: torch.Tensor) -> Counter[str]:
    """How often each part ran in a frame."""
    with profile(activities=[ProfilerActivity.CPU]) as run:
        stream(frame)
    names = (event.name for event in run.events() if event.name.startswith(PREFIX))
    return Counter(name.removeprefix(PREFIX) for name in names)


def test_a_block_runs_each_part_of_figure_4() -> None:
    """By hand, of four blocks, two of them windowed: three gates, and a buffer each."""
    net, frames = small_vit(), small_frames(2)
    stream = net.stream(VARIANTS["temporal"], TopR(5))
    stream(frames[0])
    tokenwise = {"norm": 8, "qkv": 4, "proj": 4, "mlp": 4}
    with named_parts(net):
        assert parts_of(stream, frames[1]) == {**tokenwise, "gate": 24, "attention": 4, "windows": 4}
        assert parts_of(net.stream(VARIANTS["base"]), frames[1]) == {
            **tokenwise,
            "attention": 4,
            "windows": 4,
        }
    assert not parts_of(stream, frames[0])
