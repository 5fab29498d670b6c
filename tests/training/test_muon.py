"""The optimizer of the small models. A wrong one still learns, only worse, so it is held against the formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evt.training.muon import Muon


def made_orthogonal(x: Tensor) -> Tensor:
    """Jordan's quintic, five times, on the singular values alone."""
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ s.diag() @ v


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 48)])
def test_steps_are_those_of_the_formula(shape: tuple[int, int]) -> None:
    """Nesterov's momentum of 0.95, decoupled weight decay, updates as large as AdamW's; closer than bfloat16 is."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(shape, generator=generator))
    expected, momentum = weight.detach().double(), torch.zeros(shape, dtype=torch.float64)
    optimizer = Muon([weight], lr=0.02, weight_decay=0.1)
    for _ in range(4):
        gradient = torch.randn(shape, generator=generator)
        weight.grad = gradient.clone()
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        direction = made_orthogonal(0.05 * gradient + 0.95 * momentum)
        expected = (1 - 0.02 * 0.1) * expected - 0.02 * 0.2 * max(shape) ** 0.5 * direction
        torch.testing.assert_close(weight.detach().double(), expected, rtol=0, atol=1e-5)
        assert torch.equal(weight.grad, gradient)
