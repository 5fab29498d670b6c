"""Token Merging, against values worked out by hand."""

from __future__ import annotations

import torch

from evt.tokens.merging import Merge, merge


def test_the_most_similar_pair_becomes_its_weighted_mean() -> None:
    # Tokens 0 and 2 are the first set, 1 and 3 the second; 2 and 1 point the same way.
    keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [-1.0, 0.1]]])
    x = torch.tensor([[[1.0], [2.0], [5.0], [9.0]]])
    size = torch.tensor([[1.0, 1.0, 2.0, 1.0]])
    merged, sizes = merge(x, size, keys, 1)
    assert merged.flatten().tolist() == [1, 4, 9]  # (2 + 2 * 5) / 3
    assert sizes.flatten().tolist() == [1, 3, 1]


def test_several_tokens_may_merge_into_one() -> None:
    keys = torch.tensor([[[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]])
    x = torch.tensor([[[3.0], [6.0], [9.0], [1.0]]])
    merged, sizes = merge(x, torch.ones(1, 4), keys, 2)
    assert merged.flatten().tolist() == [6, 1]
    assert sizes.flatten().tolist() == [3, 1]


def test_what_tokens_stand_for_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    x, keys = torch.randn(2, 15, 4, generator=generator), torch.randn(2, 15, 3, generator=generator)
    size = torch.ones(2, 15)
    total = x.sum(1)
    for r in (0, 3, 100):
        x, size = merge(x, size, keys[:, : x.shape[1]], r)
        torch.testing.assert_close((x * size.unsqueeze(-1)).sum(1), total)
        assert (size.sum(1) == 15).all()
    assert x.shape[1] == 6  # 15, 12, and at most half of them at once


def test_tokens_stay_in_the_order_of_their_matches() -> None:
    """As published; in any other the next block would deal them out to other sets."""
    # Of the first set tokens 0, 2 and 4 have cosines of 0.6, 1 and 0.8 with token 1.
    keys = torch.tensor([[[0.6, 0.8], [1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [0.8, -0.6], [-1.0, 0.0]]])
    x = torch.arange(6.0).reshape(1, 6, 1)
    merged, sizes = merge(x, torch.ones(1, 6), keys, 1)
    assert merged.flatten().tolist() == [4, 0, 1.5, 3, 5]
    assert sizes.flatten().tolist() == [1, 1, 2, 1, 1]


def test_a_class_token_is_neither_merged_nor_moved() -> None:
    keys = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [-1.0, 0.0], [0.8, -0.6]]])
    x = torch.arange(5.0).reshape(1, 5, 1)
    merged, sizes = merge(x, torch.ones(1, 5), keys, 1, class_token=True)
    assert merged.flatten().tolist() == [0, 2, 2.5, 3]
    assert sizes.flatten().tolist() == [1, 1, 2, 1]
    assert merge(x, torch.ones(1, 5), keys, 9, class_token=True)[0][0, 0, 0] == 0


def test_r_may_change_from_block_to_block() -> None:
    assert Merge(10).per_block(4) == [10] * 4
    assert Merge(10, inflect=-1).per_block(4) == [20, 13, 6, 0]
    assert Merge(10, inflect=0.5).per_block(3) == [5, 10, 15]
    assert Merge((5, 3)).per_block(4) == [5, 3, 0, 0]
    assert Merge(4, inflect=1).per_block(1) == [0]
