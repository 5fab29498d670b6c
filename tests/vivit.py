"""A small ViViT, action recognition data in memory, and what its spatial sub-model makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from evt.data.actions import ActionData, LabelledClip
from evt.data.reading import OnError
from evt.errors import DataError
from evt.eventful import VARIANTS, TopR, init_weights
from evt.models.vivit import ViViT
from evt.training.spatial_cache import SpatialCache, fill_cache


def small_vivit(temporal_views: int = 2, spatial_views: int = 3, num_heads: int = 3) -> ViViT:
    """Views of 4 frames of 32x32 in steps of 2, with weights large enough that tokens influence each other."""
    torch.manual_seed(0)
    model = ViViT(
        32,
        5,
        1,
        4,
        temporal_views,
        spatial_views,
        (2, 8, 8),
        24,
        num_heads,
        spatial_depth=2,
        temporal_depth=1,
    )
    model.apply(init_weights)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


class Broken:
    """Frames that cannot be decoded."""

    def __len__(self) -> int:
        raise DataError("broken.mp4: ffmpeg cannot open this file as a video")

    def __getitem__(self, positions: list[int]) -> Tensor:
        raise AssertionError("read although it cannot be counted")


@dataclass
class Clips:
    """Clips of noise, brighter for a larger class, of which some are broken.

    read: the clips that were asked for, in order.
    """

    n: int = 6
    broken: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    name: str = "noise"
    classes: tuple[str, ...] = ()
    read: list[str] = field(default_factory=list)

    @property
    def n_classes(self) -> int:
        return 5

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> LabelledClip:
        if i in self.broken:
            return LabelledClip(f"clip_{i}", i % 5, Broken())
        self.read.append(f"clip_{i}")
        noise = torch.rand(6, 3, 32, 40, generator=torch.Generator().manual_seed(i))
        return LabelledClip(f"clip_{i}", i % 5, (noise * 50 + 40 * (i % 5)).byte())

    def __iter__(self) -> Iterator[LabelledClip]:
        return (self[i] for i in range(self.n))


def filled(
    folder: Path,
    model: ViViT,
    data: ActionData | None = None,
    r: int = 5,
    on_error: OnError = "skip",
    clips_per_shard: int = 4,
) -> SpatialCache:
    """A cache of the Eventful spatial sub-model's outputs for ten clips, or those of `data`, in shards of four."""
    variant, clips = VARIANTS["temporal"], data or Clips(10)
    return fill_cache(folder, model, variant, TopR(r), clips, on_error, clips_per_shard)
