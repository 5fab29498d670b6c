"""Token Merging, against values worked out by hand."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from evt.conformance.case import weights_of
from evt.models.checkpoints import load_tensors
from evt.models.videomae import VideoMAE, published
from evt.tokens import Merge, RunLength
from evt.tokens.merging import merge
from tests.common import CONFORMANCE


def test_the_most_similar_pair_becomes_its_weighted_mean() -> None:
    # Tokens 0 and 2 are the first set, 1 and 3 the second; 2 and 1 point the same way.
    keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [-1.0, 0.1]]])
    x = torch.tensor([[[1.0], [2.0], [5.0], [9.0]]])
    size = torch.tensor([[1.0, 1.0, 2.0, 1.0]])
    merged, sizes, became = merge(x, size, keys, 1)
    assert merged.flatten().tolist() == [1, 4, 9]  # (2 + 2 * 5) / 3
    assert sizes.flatten().tolist() == [1, 3, 1]
    assert became.flatten().tolist() == [0, 1, 1, 2]


def test_several_tokens_may_merge_into_one() -> None:
    keys = torch.tensor([[[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]])
    x = torch.tensor([[[3.0], [6.0], [9.0], [1.0]]])
    merged, sizes, became = merge(x, torch.ones(1, 4), keys, 2)
    assert merged.flatten().tolist() == [6, 1]
    assert sizes.flatten().tolist() == [3, 1]
    assert became.flatten().tolist() == [0, 0, 0, 1]


def test_what_tokens_stand_for_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    x, keys = torch.randn(2, 15, 4, generator=generator), torch.randn(2, 15, 3, generator=generator)
    size = torch.ones(2, 15)
    total = x.sum(1)
    for r in (0, 3, 100):
        was = x
        x, size, became = merge(x, size, keys[:, : x.shape[1]], r)
        assert all(torch.equal(row.unique(), torch.arange(x.shape[1])) for row in became)
        assert was.shape[1] == became.shape[1]
        torch.testing.assert_close((x * size.unsqueeze(-1)).sum(1), total)
        assert (size.sum(1) == 15).all()
    assert x.shape[1] == 6  # 15, 12, and at most half of them at once


def test_tokens_stay_in_the_order_of_their_matches() -> None:
    """As published; in any other the next block would deal them out to other sets."""
    # Of the first set tokens 0, 2 and 4 have cosines of 0.6, 1 and 0.8 with token 1.
    keys = torch.tensor([[[0.6, 0.8], [1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [0.8, -0.6], [-1.0, 0.0]]])
    x = torch.arange(6.0).reshape(1, 6, 1)
    merged, sizes, became = merge(x, torch.ones(1, 6), keys, 1)
    assert merged.flatten().tolist() == [4, 0, 1.5, 3, 5]
    assert sizes.flatten().tolist() == [1, 1, 2, 1, 1]
    assert became.flatten().tolist() == [1, 2, 2, 3, 0, 4]


def test_a_class_token_is_neither_merged_nor_moved() -> None:
    keys = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [-1.0, 0.0], [0.8, -0.6]]])
    x = torch.arange(5.0).reshape(1, 5, 1)
    merged, sizes, became = merge(x, torch.ones(1, 5), keys, 1, class_token=True)
    assert merged.flatten().tolist() == [0, 2, 2.5, 3]
    assert sizes.flatten().tolist() == [1, 1, 2, 1]
    assert became.flatten().tolist() == [0, 2, 1, 3, 2]
    assert merge(x, torch.ones(1, 5), keys, 9, class_token=True)[0][0, 0, 0] == 0


def test_r_may_change_from_block_to_block() -> None:
    assert Merge(10).per_block(4) == [10] * 4
    assert Merge(10, inflect=-1).per_block(4) == [20, 13, 6, 0]
    assert Merge(10, inflect=0.5).per_block(3) == [5, 10, 15]
    assert Merge((5, 3)).per_block(4) == [5, 3, 0, 0]
    assert Merge(4, inflect=1).per_block(1) == [0]


def test_what_became_one_is_traced_through_all_blocks() -> None:
    """Of the recorded case, how many patches each of the published tokens stands for, block after block."""
    folder = CONFORMANCE / "tome-r9-noprop"
    case, tensors = json.loads((folder / "case.json").read_text()), load_file(folder / "tensors.safetensors")
    names = ("size", "classes", "tubelet", "dim", "depth", "mlp_ratio")
    settings = {name: case[name] for name in names}
    model = VideoMAE(**settings, view_frames=case["frames"], num_heads=case["heads"]).eval()
    load_tensors(published(model), weights_of(tensors), "the case", only=True)
    merging, views = Merge(case["r"], proportional=False), tensors["input/views"]
    with torch.no_grad():
        traced = model.trace(views, merging)
        tokens, _ = model.encode(views, merging)
    assert len(traced) == case["depth"]
    for block, places in enumerate(traced):
        sizes = torch.stack([row.bincount() for row in places])
        assert torch.equal(sizes.float(), tensors[f"output/{block}/sizes"])
    starts = tokens.lengths[0] * torch.arange(len(views)).unsqueeze(1)
    assert torch.equal(tokens.sources(), (traced[-1] + starts).flatten())


def test_what_was_dropped_before_the_blocks_is_stood_for_by_none() -> None:
    torch.manual_seed(0)
    model = VideoMAE(16, 5, 1, 4, tubelet=(2, 8, 8), dim=12, depth=1, num_heads=3).eval()
    still = torch.randn(1, 1, 3, 16, 16).expand(2, 4, 3, 16, 16).clone()
    still[1, 2:, :, :8, 8:] += 1
    with torch.no_grad():
        (places,) = model.trace(still, RunLength(0.1))
    assert places.tolist() == [[0, 1, 2, 3, -1, -1, -1, -1], [0, 1, 2, 3, -1, 4, -1, -1]]


def test_a_schedule_of_more_than_half_is_refused_by_the_model_itself() -> None:
    """Else a user of Python would be given other merges than were asked for, without a word."""
    model = VideoMAE(16, 5, 1, 4, tubelet=(2, 8, 8), dim=12, depth=2, num_heads=3).eval()
    for merging, said in (
        (Merge([3, 3]), "policy.r is 3, .* block 2 of 2 is given 5; it must be at most 2"),
        (
            Merge(4, inflect=0.5),
            "policy.r is 4 and policy.inflect 0.5, so that block 2 is to merge 6, .* is given 6; r must be smaller",
        ),
    ):
        with pytest.raises(ValueError, match=said), torch.no_grad():
            model(torch.randn(1, 4, 3, 16, 16), merging)
