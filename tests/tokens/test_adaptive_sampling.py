"""Adaptive token sampling, against values worked out by hand and the dense model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from evt.models.videomae import VideoMAE
from evt.tokens import AdaptiveSampling
from evt.tokens.adaptive_sampling import sample, significance


def tiny() -> VideoMAE:
    """8 tokens of which attention does not look at all alike."""
    torch.manual_seed(0)
    model = VideoMAE(16, 5, 1, 4, tubelet=(2, 8, 8), dim=12, depth=2, num_heads=3).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def test_draws_are_at_equal_distances_and_tokens_go_on_once() -> None:
    """At 1/8, 3/8, 5/8 and 7/8 of the sums 0.5, 0.6, 0.7 and 1."""
    assert sample(torch.tensor([0.5, 0.1, 0.1, 0.3]), 4).tolist() == [0, 2, 3]
    assert sample(torch.tensor([0.5, 0.1, 0.1, 0.3]), 1).tolist() == [0]
    assert sample(torch.tensor([0.0, 0.0, 1.0]), 3).tolist() == [2]
    assert sample(torch.full((7,), 1 / 7), 7).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_significance_by_hand() -> None:
    """Where all queries look at all keys alike, that of the values' norms: of 3 and 1, of 0 and 2, in two heads."""
    v = torch.tensor([[[3.0, 0.0], [0.0, 0.0]], [[0.0, -1.0], [0.0, 2.0]]])  # (n, H, d)
    zeros = torch.zeros_like(v)
    torch.testing.assert_close(significance(zeros, zeros, v), torch.tensor([0.375, 0.625]))


def test_significance_is_of_the_attention_that_torch_gives() -> None:
    q, k, v = torch.randn(3, 9, 2, 4, generator=torch.Generator().manual_seed(0))
    attention = F.scaled_dot_product_attention(
        q.transpose(0, 1), k.transpose(0, 1), torch.eye(9).expand(2, 9, 9)
    )
    per_head = [a.mean(0) * v[:, head].norm(dim=-1) for head, a in enumerate(attention)]
    expected = torch.stack([scores / scores.sum() for scores in per_head]).mean(0)
    torch.testing.assert_close(significance(q, k, v), expected)


def test_what_goes_on_is_as_in_the_dense_model() -> None:
    """In the last block, after whose attention nothing depends on other tokens; each clip keeps its own."""
    model, views = tiny(), torch.randn(3, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    ats = AdaptiveSampling(0.5, blocks=[1])
    with torch.no_grad():
        tokens, _ = model.encode(views, ats)
        dense, _ = model.encode(views)
        places = model.trace(views, ats)
        alone = torch.cat([model(view.unsqueeze(0), ats) for view in views])
        torch.testing.assert_close(model(views, ats), alone)
        _, of_patches, seen = model.features(views, ats)
    assert all(1 <= n <= 4 for n in tokens.lengths)
    assert (places[0] == torch.arange(8)).all()
    kept = places[1] >= 0
    assert kept.sum(1).tolist() == list(tokens.lengths)
    torch.testing.assert_close(tokens.x, dense.x[kept.flatten()])
    assert torch.equal(seen.flatten(1), kept)
    torch.testing.assert_close(of_patches, model.fc_norm(tokens.x))


def test_in_no_block_it_is_the_dense_model_and_in_all_fewer_and_fewer_tokens_stay() -> None:
    model, views = tiny(), torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(model(views, AdaptiveSampling(0.5, blocks=[])), model(views))
        first, second = ((x >= 0).sum(1) for x in model.trace(views, AdaptiveSampling(0.75)))
    assert (second <= first).all()
    assert (first <= 6).all()
    assert (second >= 1).all()


@pytest.mark.parametrize(
    ("fraction", "blocks", "said"),
    [
        (0.0, None, "policy.fraction is 0.0; it must be above 0 and at most 1"),
        (1.5, None, "policy.fraction is 1.5; it must be above 0 and at most 1"),
        (0.5, [-1], "policy.blocks is -1; it must be a whole number, 0 or more"),
        (0.5, [0, 2], "policy.blocks has 2, but the model has 2 blocks; they are 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused(fraction: Any, blocks: Sequence[int] | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny()(torch.randn(1, 4, 3, 16, 16), AdaptiveSampling(fraction, blocks))
