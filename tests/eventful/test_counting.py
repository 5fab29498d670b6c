"""Operation counts, against the published implementation's and torch's own counter."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evt.eventful import KINDS, VARIANTS, TopR, count_ops
from evt.models.vit import ViT
from tests.common import ROOT, policy_for, small_frames, small_vit

PUBLISHED = [
    row for row in json.loads((ROOT / "tests/paper/opcounts.json").read_text()) if row["model"] == "vitdet"
]


@cache
def meta_vitdet(size: int) -> ViT:
    with torch.device("meta"):
        return ViT((size // 16, size // 16))


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row['size']}-{row['variant']}-{row['r']}")
def test_full_scale_counts_equal_the_published_ones_of_every_kind(row: dict[str, Any]) -> None:
    """Else our tables could not stand beside the paper's."""
    policy = None if row["r"] is None else TopR(row["r"])
    stream = meta_vitdet(row["size"]).stream(VARIANTS[row["variant"]], policy)
    frame = torch.empty(1, 3, row["size"], row["size"], device="meta")
    for part in ("first", "incremental"):
        with count_ops() as ops:
            stream(frame)
        assert dict(ops) == row[part]


@pytest.mark.parametrize("name", ["base", "spatial"])
@pytest.mark.parametrize("grid", [(6, 6), (5, 7)])
def test_dense_linear_and_matmul_counts_agree_with_torch(name: str, grid: tuple[int, int]) -> None:
    """torch counts a multiply-accumulate as two, and the patch embedding, which the paper leaves out."""
    net, frame = small_vit(grid), small_frames(1, grid)[0]
    with count_ops() as ops:
        tokens = net.patch_embed(frame)
        net.forward_tokens(tokens, net.states(VARIANTS[name]))
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        net.forward_tokens(tokens, net.states(VARIANTS[name]))
    assert 2 * (ops["linear"] + ops["matmul"] + ops["einsum"]) == flops.get_total_flops()


@pytest.mark.parametrize(
    "name", sorted(x for x in VARIANTS if x != "spatiotemporal" and not VARIANTS[x].rows)
)
def test_counts_on_the_meta_device_are_those_of_a_run(name: str) -> None:
    """Else GFlops from shapes would not be those of the model that runs."""
    policy = policy_for(VARIANTS[name], 7)
    stream = small_vit().stream(VARIANTS[name], policy)
    meta = small_vit().to("meta").stream(VARIANTS[name], policy)
    for frame in small_frames(2):
        with count_ops() as real:
            stream(frame)
        with count_ops() as shapes:
            meta(frame.to("meta"))
        assert real == shapes
        assert set(real) <= set(KINDS)


def test_a_batch_counts_as_its_members() -> None:
    net = small_vit()
    one, two = net.stream(VARIANTS["temporal"], TopR(7)), net.stream(VARIANTS["temporal"], TopR(7))
    for single, double in zip(small_frames(2), small_frames(2, batch=2), strict=True):
        with count_ops() as ops:
            one(single)
        with count_ops() as twice:
            two(double)
        ops["bias"] -= 2 * 72  # the padding of the two windowed blocks is computed once for the whole batch
        twice["bias"] -= 2 * 72
        assert {kind: 2 * n for kind, n in ops.items()} == dict(twice)


def test_observers_nest_and_end() -> None:
    net, frame = small_vit(), small_frames(1)[0]
    with count_ops() as outer:
        net(frame)
        with count_ops() as inner:
            net(frame)
    net(frame)
    assert outer.total() == 2 * inner.total() > 0
