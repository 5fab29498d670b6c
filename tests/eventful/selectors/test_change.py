"""What changed most, and what lies around it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evt.eventful import Change
from evt.eventful.inside import Inside
from evt.eventful.policy import Past


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    n_prefix=st.integers(0, 2),
    reach=st.integers(0, 2),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_no_token_is_left_out_beside_more_change_than_around_one_that_passes(
    rows: int, columns: int, n_prefix: int, reach: int, share: float, seed: int
) -> None:
    """By hand for each token: else an object's edges would be old. Prefix tokens pass before any other."""
    generator, n = torch.Generator().manual_seed(seed), n_prefix + rows * columns
    error = torch.rand(2, n, 3, generator=generator)
    error[:, :n_prefix] = torch.inf
    keep, past = int(share * n), Past()
    past.inside = Inside(error, [], [], None, (rows, columns), [])
    past.begin(2)
    selection = Change(keep, None, reach)(error, past)
    assert selection.counts == (keep, keep)
    for own, tokens in zip(error, selection.per_stream(), strict=True):
        assert len(set(tokens.tolist())) == keep

        def around(token: int, own: torch.Tensor = own) -> float:
            if token < n_prefix:
                return float("inf")
            y, x = divmod(token - n_prefix, columns)
            near = [
                own[n_prefix + i * columns + j].norm().item()
                for i in range(max(0, y - reach), min(rows, y + reach + 1))
                for j in range(max(0, x - reach), min(columns, x + reach + 1))
            ]
            return max(near)

        left_out = set(range(n)) - set(tokens.tolist())
        if keep and left_out:
            assert min(map(around, tokens.tolist())) >= max(map(around, left_out)) - 1e-6


def test_between_equals_the_change_of_each_decides() -> None:
    """Around one token that changed, those that changed a little pass before those that did not."""
    error = torch.zeros(1, 9, 1)
    error[0, [4, 5, 1]] = torch.tensor([[1.0], [0.2], [0.1]])
    past = Past()
    past.inside = Inside(error, [], [], None, (3, 3), [])
    past.begin(1)
    assert sorted(Change(3, None)(error, past).index.tolist()) == [1, 4, 5]
