"""Attention over packed clips: whichever way is taken, a token sees its own clip and nothing else."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

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
