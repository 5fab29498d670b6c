"""ViViT: views of a video, counts of the paper's tables A and D, and weights under the published names."""

from __future__ import annotations

import itertools
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evt.errors import CheckpointError
from evt.eventful import VARIANTS, Policy, Threshold, TopR
from evt.models.checkpoints import read_checkpoint
from evt.models.views import Views
from evt.models.vivit import ViViT
from evt.models.vivit_weights import (
    fine_tuned_weights,
    load_fine_tuned,
    load_published,
    published,
)
from tests.vivit import small_vivit

TEMPORAL = VARIANTS["temporal"]
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


@cache
def full_size(dataset: str) -> ViViT:
    with torch.device("meta"):
        return ViViT(320, 97, 1) if dataset == "epic" else ViViT(224, 400, 2)


def test_the_views_of_a_long_video_span_it() -> None:
    """Worked by hand: 100 frames less a span of 64 leave 36 to spread four starts over."""
    positions = Views(32, 224, 2, 4, 3).positions(100)
    assert [view[0] for view in positions] == [0, 12, 24, 36]
    assert [view[-1] for view in positions] == [62, 74, 86, 98]
    assert {b - a for view in positions for a, b in itertools.pairwise(view)} == {2}


def test_uneven_starts_are_rounded_down_and_a_single_view_is_central() -> None:
    assert [view[0] for view in Views(8, 64, 1, 4, 1).positions(19)] == [0, 3, 7, 11]
    assert [view[0] for view in Views(8, 64, 1, 1, 1).positions(19)] == [5]


@pytest.mark.parametrize(
    ("length", "first", "second"),
    [
        (
            37,  # int(2.3125 x) and int(1.15625 + 2.3125 x), by hand
            [0, 2, 4, 6, 9, 11, 13, 16, 18, 20, 23, 25, 27, 30, 32, 34],
            [1, 3, 5, 8, 10, 12, 15, 17, 19, 21, 24, 26, 28, 31, 33, 35],
        ),
        (
            10,
            [0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 6, 7, 8, 8, 9],
            [0, 0, 1, 2, 2, 3, 4, 4, 5, 5, 6, 7, 7, 8, 9, 9],
        ),
        (32, list(range(0, 32, 2)), list(range(1, 32, 2))),
        (1, [0] * 16, [0] * 16),
    ],
)
def test_without_a_stride_views_are_those_of_videomaes_evaluation(
    length: int, first: list[int], second: list[int]
) -> None:
    """SSVideoClsDataset in test mode: int(tick * x) and int(tick / 2 + tick * x), sorted, every second of them."""
    assert Views(16, 224, None, 2, 3).positions(length) == [first, second]


def test_a_single_view_without_a_stride_has_the_middle_of_each_part() -> None:
    assert Views(4, 64, None, 1, 1).positions(40) == [[5, 15, 25, 35]]


@given(st.integers(1, 80), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_positions_are_frames_of_the_video(length: int, stride: int, frames: int, temporal: int) -> None:
    """Else a view would ask for a frame that is not there; a short video repeats its last frame."""
    positions = Views(8 * frames, 64, stride, temporal, 1).positions(length)
    assert len(positions) == temporal
    for view in positions:
        assert len(view) == 8 * frames
        assert view == sorted(view)
        assert view[0] >= 0
        assert view[-1] <= length - 1
    if length <= 8 * frames * stride:
        assert positions[0] == [min(i * stride, length - 1) for i in range(8 * frames)]


class Recorder:
    """A clip that remembers what was read."""

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, positions: list[int]) -> Tensor:
        self.read += positions
        return self.frames[positions]


def test_only_frames_of_a_view_are_read_each_once_and_in_order() -> None:
    """Else a minute of video is decoded for a few frames of it."""
    clip = Recorder(torch.randint(0, 256, (200, 3, 40, 64), dtype=torch.uint8))
    sampling = Views(8, 32, 2, 3, 3)
    views = sampling.cut(clip)
    assert clip.read == sorted({i for view in sampling.positions(200) for i in view})
    assert len(clip.read) == 24
    assert torch.equal(views, sampling.cut(clip.frames))
    assert views.shape == (9, 8, 3, 32, 32)


def test_views_are_cut_along_the_longer_edge_all_times_of_a_place_first() -> None:
    """Frame i is i everywhere but for its column (or row), so that each view says when and where it was cut."""
    sampling = Views(2, 64, 1, 2, 3)
    ramp = torch.arange(104, dtype=torch.uint8)
    wide = ramp.expand(6, 3, 64, 104).clone()
    wide[:, 1] = torch.arange(6, dtype=torch.uint8).view(6, 1, 1)
    for video in (wide, wide.transpose(-1, -2)):
        views = sampling.cut(video) * 255
        corners = views[:, 0, 0, 0, 0].round().int().tolist()
        times = views[:, 0, 1, 0, 0].round().int().tolist()
        assert corners == [0, 0, 20, 20, 40, 40]
        assert times == [0, 4] * 3


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (torch.zeros(0, 3, 64, 64), "without frames"),
        (torch.zeros(4, 64, 64, 3), r"shape \(4, 64, 64, 3\)"),
        (torch.full((4, 3, 64, 64), torch.nan), "NaN or infinite pixels"),
    ],
)
def test_a_clip_that_is_none_is_refused(clip: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Views(4, 64, 1, 2, 1).cut(clip)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 100}, "multiple of the tubelet's 16 by 16"),
        ({"view_frames": 31}, "multiple of the tubelet's 2 frames"),
        ({"tubelet": (2, 0, 16)}, r"tubelet is \[2, 0, 16\]; it must be three whole numbers"),
        ({"tubelet": (2, 16)}, r"tubelet is \[2, 16\]; it must be three whole numbers"),
        ({"temporal_stride": 0}, r"model\.temporal_stride is 0"),
        ({"classes": 0}, "model.classes is 0"),
        ({"num_heads": 0}, "model.num_heads is 0; it must be a whole number of at least 1"),
        ({"temporal_depth": -1}, "model.temporal_depth is -1"),
        ({"dim": 0}, "model.dim is 0"),
        ({"mlp_ratio": -1}, "model.mlp_ratio is -1; it must be a finite number above 0"),
        ({"num_heads": 7}, "multiple of num_heads"),
    ],
)
def test_a_model_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        ViViT(**settings)


def test_r_of_all_tokens_is_the_dense_model_and_more_is_refused() -> None:
    """At r = 17 of 17 tokens nothing is reused; the paper's limits are 401 at 320 pixels and 197 at 224."""
    model = small_vivit()
    video = torch.randint(0, 256, (9, 3, 32, 48), dtype=torch.uint8)
    views = model.preprocess(video)
    dense = model.predict_views(views, VARIANTS["base"])
    torch.testing.assert_close(model.predict_views(views, TEMPORAL, TopR(17)), dense, rtol=0, atol=1e-5)
    assert not torch.allclose(model.predict_views(views, TEMPORAL, TopR(2)), dense, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="it must be at most 17"):
        model.predict_views(views, TEMPORAL, TopR(18))
    assert [full_size(dataset).n_tokens for dataset in ("epic", "k400")] == [401, 197]


@pytest.mark.parametrize("policy", [TopR(5), Threshold(2.0)], ids=str)
def test_views_in_one_batch_are_as_each_alone(policy: Policy) -> None:
    """Else views of a video influence one another; also where they select different numbers of tokens."""
    model = small_vivit()
    views = torch.randn(6, 4, 3, 32, 32)
    together = model.run_spatial(views, TEMPORAL, policy)
    alone = torch.cat([model.run_spatial(view, TEMPORAL, policy) for view in views.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_a_still_video_gives_the_dense_model_at_any_r() -> None:
    """Where nothing changes there is nothing to recompute."""
    model = small_vivit()
    video = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    views = model.preprocess(video)
    dense = model.predict_views(views, VARIANTS["base"])
    torch.testing.assert_close(model.predict_views(views, TEMPORAL, TopR(0)), dense, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vivit_b_epic_kitchens", "vivit_b_kinetics400"])
def test_parameters_have_the_published_names_and_shapes(name: str) -> None:
    """Else no published checkpoint would load."""
    lines = (CHECKPOINTS / f"{name}.txt").read_text().splitlines()
    epic = "epic" in name
    ours = published(full_size("epic"), "head.linear1.") if epic else published(full_size("k400"))
    shapes = {key: "x".join(map(str, x.shape)) for key, x in ours.items()}
    assert shapes == dict(line.split("\t") for line in lines)


def published_weights(model: ViViT, head: str) -> dict[str, Tensor]:
    return {name: torch.randn_like(x) for name, x in published(model, head).items()}


def test_published_weights_load_and_the_nouns_are_left_out_in_words() -> None:
    model = small_vivit()
    weights = published_weights(model, "head.linear1.")
    nouns = {"head.linear2.weight": torch.zeros(300, 24), "head.linear2.bias": torch.zeros(300)}
    notes = load_published(model, {**weights, **nouns}, "a.pth")
    assert notes == [
        "head.linear2.bias and head.linear2.weight left out: they classify nouns, and the task is verbs"
    ]
    assert torch.equal(model.head.weight, weights["head.linear1.weight"])
    block = model.get_parameter("temporal.blocks.0.mlp.fc2.bias")
    assert torch.equal(block, weights["backbone.layers_temporal.0.ffn.net.3.bias"])
    assert load_published(model, published_weights(model, "head.linear."), "a.pth") == []


@pytest.mark.parametrize("suffix", [".pth", ".pyth"])
def test_a_published_file_loads(tmp_path: Path, suffix: str) -> None:
    """As it is published: parameters under model_state, beside what else training left."""
    model = small_vivit()
    weights = published_weights(model, "head.linear1.")
    torch.save({"epoch": 30, "model_state": weights, "optimizer_state": {}}, tmp_path / f"vivit{suffix}")
    path = tmp_path / f"vivit{suffix}"
    assert load_published(model, read_checkpoint(path), path) == []
    assert torch.equal(model.temporal.pos_embed, weights["backbone.temp_embd"])


@pytest.mark.parametrize(
    ("name", "x", "fault"),
    [
        ("backbone.temp_embd", None, "is missing, which must be of shape 1x3x24"),
        ("backbone.pos_embd", torch.zeros(1, 197, 24), "is of shape 1x197x24, and must be of shape 1x17x24"),
        ("backbone.layers.2.norm.weight", torch.zeros(24), "is not a parameter of this model"),
        (
            "backbone.norm.bias",
            torch.full((24,), torch.nan),
            "has NaN or infinite values; all must be finite",
        ),
        (
            "backbone.norm.bias",
            torch.zeros(24, dtype=torch.int64),
            "is of int64; it must be of floating-point",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_and_leave_the_model_as_it_was(
    name: str, x: Tensor | None, fault: str
) -> None:
    model = small_vivit()
    before = {key: y.clone() for key, y in model.state_dict().items()}
    weights = published_weights(model, "head.linear.")
    weights.pop(name, None)
    if x is not None:
        weights[name] = x
    with pytest.raises(CheckpointError, match=re.escape(f"a.pth: {name} {fault}")):
        load_published(model, weights, "a.pth")
    del weights["backbone.layers.1.norm.weight"]
    with pytest.raises(CheckpointError, match=r"\(and 1 more parameters do not fit\)$"):
        load_published(model, weights, "a.pth")
    assert all(torch.equal(before[key], y) for key, y in model.state_dict().items())


def test_fine_tuned_weights_replace_the_temporal_part_only() -> None:
    model, tuned = small_vivit(), small_vivit()
    for parameter in tuned.parameters():
        torch.nn.init.normal_(parameter)
    weights = fine_tuned_weights(tuned)
    load_fine_tuned(model, weights, "r.pth")
    for name, x in model.state_dict().items():
        assert torch.equal(x, tuned.state_dict()[name]) == name.startswith(("temporal.", "head.")), name
    with pytest.raises(CheckpointError, match=r"r\.pth: head\.bias is missing"):
        load_fine_tuned(model, {name: x for name, x in weights.items() if name != "head.bias"}, "r.pth")
    with pytest.raises(CheckpointError, match=r"r\.pth: spatial\.norm\.bias is not a parameter"):
        load_fine_tuned(model, {**weights, "spatial.norm.bias": torch.zeros(24)}, "r.pth")


def test_gradients_reach_the_temporal_part_through_given_outputs() -> None:
    """Else fine-tuning would leave parts of it untrained."""
    model = small_vivit()
    model.classify(torch.randn(6, 2, 24)).square().sum().backward()
    for name, parameter in model.named_parameters():
        trained = name.startswith(("temporal.", "head."))
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == trained, name
