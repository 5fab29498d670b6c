"""python -m tests.soak: 16 streams of 2,000 frames in one batch, that come, go, pause, are copied and saved.

Each must give what it gives alone, and memory must not grow. `--streams`, `--frames` and `--variant` change that.
"""

from __future__ import annotations

import argparse
import gc
import random
from collections.abc import Iterator

import torch
from safetensors.torch import load, save
from torch import Tensor

from evt.eventful import VARIANTS, Batch, Stream, TopR
from evt.models.vit import ViT
from tests.common import small_vit

R = 5


def video(seed: int) -> Iterator[Tensor]:
    """Frames without end, of which a few patches change from one to the next."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.randn(1, 3, 24, 24, generator=generator)
    while True:
        yield frame
        frame = frame.clone()
        for _ in range(4):
            top, left = (4 * int(x) for x in torch.randint(6, (2,), generator=generator))
            frame[..., top : top + 4, left : left + 4] = torch.randn(3, 4, 4, generator=generator)


def tensor_bytes() -> int:
    """Of all tensors that there are."""
    gc.collect()
    found = {
        x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
        for x in gc.get_objects()
        if type(x) is Tensor
    }
    return sum(found.values())


def soak(n_streams: int, n_frames: int, name: str = "rows", times: int = 10) -> tuple[float, list[int]]:
    """Run streams in a batch beside the same streams alone.

    Returns:
        The largest relative error of an output, and the bytes of all tensors, so many times at equal distances.
    """
    net, variant, chance = small_vit(), VARIANTS[name], random.Random(0)
    streams, alone = ([net.stream(variant, TopR(R)) for _ in range(n_streams)] for _ in range(2))
    videos = [video(seed) for seed in range(n_streams)]
    batch, worst, sizes = Batch(), 0.0, []
    for number in range(n_frames):
        if number % 10 == 0:
            _change(batch, streams, net, chance)
        frames = [next(own) for own in videos]
        places = [next(i for i, x in enumerate(streams) if x is stream) for stream in batch.streams]
        for i, out in zip(places, batch([frames[i] for i in places]), strict=True):
            expected = alone[i](frames[i])
            worst = max(worst, float((out - expected).norm() / expected.norm()))
        if (number + 1) % (n_frames // times) == 0:
            del frames
            sizes.append(tensor_bytes())
    return worst, sizes


def _change(batch: Batch, streams: list[Stream], net: ViT, chance: random.Random) -> None:
    """Let one leave, and one come that paused; now and then it is a copy of itself, or was saved and loaded."""
    inside = list(batch.streams)
    if inside and chance.random() < 0.5:
        batch.remove(chance.choice(inside))
    outside = [i for i, x in enumerate(streams) if not any(x is member for member in batch.streams)]
    for i in chance.sample(outside, min(len(outside), 3)):
        way = chance.randrange(3)
        if way == 1:
            streams[i] = streams[i].copy()
        elif way == 2 and streams[i].flushed:
            saved = save(streams[i].state_dict())
            streams[i] = net.stream(streams[i].variant, TopR(R))
            streams[i].load_state_dict(load(saved))
        batch.add(streams[i])


def main() -> None:
    """Soak, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument(
        "--variant", choices=("temporal", "rows", "tokenwise", "stgt", "frame"), default="rows"
    )
    given = parser.parse_args()
    worst, sizes = soak(given.streams, given.frames, given.variant)
    print(
        f"{given.variant}, {given.streams} streams, {given.frames} frames: largest relative error {worst:.1e}"
    )
    print(f"MB of tensors: {', '.join(f'{size / 1e6:.2f}' for size in sizes)}")


if __name__ == "__main__":
    main()
