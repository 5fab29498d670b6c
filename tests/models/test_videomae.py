"""VideoMAE: its parameters and positions are the published ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evt.errors import CheckpointError
from evt.models.checkpoints import load_tensors
from evt.models.videomae import VideoMAE, published, sine_cosine
from evt.tokens import Merge

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


def test_parameters_have_the_published_names_and_shapes() -> None:
    """Else no official checkpoint would load."""
    lines = (CHECKPOINTS / "videomae_b_kinetics400.txt").read_text().splitlines()
    with torch.device("meta"):
        ours = {name: "x".join(map(str, x.shape)) for name, x in published(VideoMAE()).items()}
    assert ours == dict(line.split("\t") for line in lines)


def small() -> VideoMAE:
    torch.manual_seed(0)
    return VideoMAE(size=16, view_frames=4, classes=5, tubelet=(2, 8, 8), dim=12, depth=2, num_heads=3)


def by_hand(weights: dict[str, Tensor], views: Tensor) -> Tensor:
    """VideoMAE as its authors wrote it: biases of queries and values, and of keys one that is zero."""
    x = F.conv3d(views.transpose(1, 2), weights["patch_embed.proj.weight"], stride=(2, 8, 8))
    x = x.flatten(2).transpose(1, 2) + weights["patch_embed.proj.bias"] + sine_cosine(8, 12)
    for i in range(2):
        w = {name: weights[f"blocks.{i}.{name}"] for name in
             ("attn.qkv.weight", "attn.q_bias", "attn.v_bias", "attn.proj.weight", "attn.proj.bias", "norm1.weight",
              "norm1.bias", "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight",
              "mlp.fc2.bias")}  # fmt: skip
        y = F.layer_norm(x, (12,), w["norm1.weight"], w["norm1.bias"], 1e-6)
        bias = torch.cat([w["attn.q_bias"], torch.zeros(12), w["attn.v_bias"]])
        q, k, v = F.linear(y, w["attn.qkv.weight"], bias).view(-1, 8, 3, 3, 4).permute(2, 0, 3, 1, 4)
        y = ((q / 2 @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, w["attn.proj.weight"], w["attn.proj.bias"])
        y = F.layer_norm(x, (12,), w["norm2.weight"], w["norm2.bias"], 1e-6)
        y = F.gelu(F.linear(y, w["mlp.fc1.weight"], w["mlp.fc1.bias"]))
        x = x + F.linear(y, w["mlp.fc2.weight"], w["mlp.fc2.bias"])
    x = F.layer_norm(x.mean(1), (12,), weights["fc_norm.weight"], weights["fc_norm.bias"], 1e-6)
    return F.linear(x, weights["head.weight"], weights["head.bias"])


def test_published_weights_give_what_the_authors_model_gives() -> None:
    generator = torch.Generator().manual_seed(1)
    model = small().eval()
    weights = {name: torch.randn(x.shape, generator=generator) / 3 for name, x in published(model).items()}
    assert load_tensors(published(model), weights, "a.pth") == []
    assert all(torch.equal(x, weights[name]) for name, x in published(model).items())
    views = torch.randn(3, 4, 3, 16, 16, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(model(views), by_hand(weights, views), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(views, Merge(0)), by_hand(weights, views), rtol=1e-5, atol=1e-5)


def test_weights_that_do_not_fit_are_named_as_they_are_published() -> None:
    model = small()
    weights = {name: x.clone() + 1 for name, x in published(model).items()}
    weights["blocks.1.attn.v_bias"] = torch.zeros(11)
    with pytest.raises(
        CheckpointError, match=r"a.pth: blocks.1.attn.v_bias is of shape 11, and must be of shape 12"
    ):
        load_tensors(published(model), weights, "a.pth")
    assert not any(torch.equal(x, weights[name]) for name, x in published(model).items())  # as it was


@pytest.mark.parametrize("name", ["classes", "dim", "depth", "num_heads", "mlp_ratio"])
def test_a_model_of_nothing_is_refused(name: str) -> None:
    settings: dict[str, Any] = {name: 0}
    with torch.device("meta"), pytest.raises(ValueError, match=rf"model\.{name} is 0; it must be a "):
        VideoMAE(**settings)


def test_keys_get_no_bias_in_training() -> None:
    """Checkpoints have no place for one. Its gradient is rounding, of which AdamW makes whole steps."""
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for seed in range(3):
        optimizer.zero_grad()
        views = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        F.cross_entropy(model(views), torch.tensor([0, 3])).backward()
        optimizer.step()
    for name, x in model.state_dict().items():
        if name.endswith("qkv.bias"):
            q, k, v = x.chunk(3)
            assert not k.any()
            assert q.all()
            assert v.all()


def test_positions_by_hand() -> None:
    """Pairs of a sine and a cosine, slower from pair to pair; no checkpoint holds them."""
    table = sine_cosine(5, 4)
    expected = [math.sin(3), math.cos(3), math.sin(3 / 100), math.cos(3 / 100)]
    torch.testing.assert_close(table[3], torch.tensor(expected))
    assert table[0].tolist() == [0, 1, 0, 1]
