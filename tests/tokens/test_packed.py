"""Attention over packed clips: whichever way is taken, a token sees its own clip and nothing else."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evt.tokens import Packed
from evt.tokens.packed import attend_by_clip, attend_masked, attend_nested, attend_packed

Way = Callable[[Tensor, Tensor, Tensor, list[int]], Tensor]


@pytest.mark.parametrize("attend", [attend_packed, attend_by_clip, attend_masked, attend_nested])
@pytest.mark.parametrize("lengths", [[5, 1, 9], [4, 4], [7]])
def test_each_clip_is_attended_to_by_itself(attend: Way, lengths: list[int]) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, sum(lengths), 2, 8)
    out = attend(q, k, v, lengths)
    for ours, *clip in zip(*(x.split(lengths) for x in (out, q, k, v)), strict=True):
        expected = F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in clip)).transpose(0, 1)
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("lengths", [[3, 1, 4], [4, 4]])
def test_a_token_that_stands_for_several_is_attended_to_as_several(lengths: list[int]) -> None:
    """As if its key and value were there so many times."""
    torch.manual_seed(0)
    size = torch.randint(1, 4, (sum(lengths),))
    q, k, v = torch.randn(3, sum(lengths), 2, 8)
    out = attend_packed(q, k, v, lengths, size.float())
    for ours, times, a, b, c in zip(*(x.split(lengths) for x in (out, size, q, k, v)), strict=True):
        b, c = (x.repeat_interleave(times, 0) for x in (b, c))
        expected = F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in (a, b, c))).transpose(0, 1)
        torch.testing.assert_close(ours, expected)


def test_means_are_of_each_clip_and_of_what_its_tokens_stand_for() -> None:
    x = torch.tensor([[1.0], [3.0], [8.0], [2.0]])
    assert Packed(x, [3, 1]).means().tolist() == [[4], [2]]
    assert Packed(x, [3, 1], torch.tensor([2.0, 1, 5, 3])).means().flatten().tolist() == [5.625, 2]
