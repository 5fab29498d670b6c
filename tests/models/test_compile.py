"""The dense models under torch.compile and torch.export, held to what they compute without."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evt.models.vit import ViT
from evt.models.vivit import SubModel

Made = Callable[[Tensor], Tensor]


def vitdet(depth: int = 2) -> tuple[nn.Module, Tensor]:
    """ViTDet's backbone: a windowed block, padded, and global ones; positions and global tables are interpolated."""
    net = ViT(
        (5, 7),
        4,
        dim=24,
        depth=depth,
        num_heads=3,
        window_size=4,
        window_blocks=(0,),
        pretrain_grid=5,
        rel_pos_grid=6,
    )
    return with_weights(net), torch.randn(2, 3, 20, 28)


def vivit(depth: int = 2) -> tuple[nn.Module, Tensor]:
    """ViViT's spatial sub-model."""
    return with_weights(SubModel(16, 24, depth, 3, 4)), torch.randn(2, 16, 24)


def with_weights(net: nn.Module) -> nn.Module:
    """Large enough that tokens influence each other."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.eval()


def compiled(net: nn.Module, x: Tensor) -> Made:
    made: Made = torch.compile(net, backend="aot_eager", fullgraph=True)
    return made


def exported(net: nn.Module, x: Tensor) -> Made:
    """For batches of any size."""
    batch = {0: torch.export.Dim("batch", max=8)}
    return torch.export.export(net, (x,), dynamic_shapes=(batch,), strict=False).module()


@pytest.fixture(autouse=True)
def _forget_graphs() -> Any:
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("make", [compiled, exported])
@pytest.mark.parametrize("model", [vitdet, vivit])
@torch.no_grad()
def test_a_dense_model_becomes_one_graph(
    model: Callable[[], tuple[nn.Module, Tensor]], make: Callable[[nn.Module, Tensor], Made]
) -> None:
    """Also after its weights changed, in a way that no counter tells of: no table may be left of the old ones."""
    net, x = model()
    net(x)  # now it keeps tables
    made = make(net, x)
    torch.testing.assert_close(made(x), net(x), atol=1e-5, rtol=1e-5)
    for parameter in net.parameters():
        parameter.data.mul_(0.5)
    if make is exported:
        made.load_state_dict(net.state_dict())  # type: ignore[attr-defined]
        x = torch.cat([x, x[:1] + 1])
    torch.testing.assert_close(made(x), net(x), atol=1e-5, rtol=1e-5)


def test_a_compiled_model_trains() -> None:
    """Its tables pass gradients on to the weights that they follow from."""
    net, x = vitdet(depth=1)
    net(x).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in net.named_parameters()}
    net.zero_grad()
    compiled(net, x)(x).square().sum().backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler, and g++ is not here")
@torch.no_grad()
def test_compiled_kernels_compute_the_dense_model() -> None:
    """As `torch.compile(net)` makes them; one block, since a C++ compiler takes seconds for each kernel."""
    net, x = vivit(depth=1)
    torch.testing.assert_close(torch.compile(net, fullgraph=True)(x), net(x), atol=1e-5, rtol=1e-5)
