"""The optimizer of the small models. A wrong one still learns, only worse, so it is held against others' results."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evt.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 48, 16), (2, 16, 48)])
def test_directions_keep_singular_vectors_and_lose_singular_values(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    out = orthogonal(x)
    in_their_basis = u.transpose(1, 2) @ out @ v.transpose(1, 2)
    values = torch.diagonal(in_their_basis, dim1=1, dim2=2)
    assert (values > 0.3).all()
    assert (values < 1.25).all()
    assert torch.allclose(in_their_basis, torch.diag_embed(values), atol=1e-9)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_steps_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(12, 20, bias=False), nn.Linear(12, 20, bias=False)
    theirs.load_state_dict(ours.state_dict())
    start = ours.weight.detach().clone()
    a = Muon([{"params": [ours.weight], "muon": True, "weight_decay": 0.1}], lr=0.02)
    b = torch.optim.Muon([theirs.weight], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        x = torch.randn(32, 12)
        for layer, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    moved = (theirs.weight - start).norm()
    assert (ours.weight - theirs.weight).norm() < 0.02 * moved  # theirs computes in bfloat16


def test_other_parameters_step_as_with_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    a = Muon(
        [
            {"params": [ours.weight], "muon": True, "weight_decay": 0.1},
            {"params": [ours.bias], "muon": False, "weight_decay": 0.1},
        ],
        lr=0.02,
    )
    b = torch.optim.AdamW([theirs.bias], lr=0.02, weight_decay=0.1)
    x = torch.randn(8, 4)
    for layer, optimizer in ((ours, a), (theirs, b)):
        layer(x).square().sum().backward()
        optimizer.step()
    assert torch.equal(ours.bias, theirs.bias)
