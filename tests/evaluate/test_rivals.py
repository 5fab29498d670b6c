"""The dense model in other runtimes: a rival must compute the same model, and one that cannot run must say why."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import nn

from evt.errors import ConfigError
from evt.evaluate.rivals import RIVALS, UnavailableError, build_rival, check_rivals


@pytest.fixture
def network() -> nn.Module:
    """With products and something between them."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 16)).eval()


@pytest.fixture
def inputs() -> list[torch.Tensor]:
    """Frames."""
    return list(torch.randn(4, 1, 10, 16))


LARGEST = {"openvino_bf16": 2e-2, "openvino_int8": 0.3}  # calibrated on four frames


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_computes_the_same(name: str, network: nn.Module, inputs: list[torch.Tensor]) -> None:
    """Else its time is that of something else."""
    try:
        rival = build_rival(name, network, inputs, torch.float32)
    except UnavailableError as why:
        pytest.skip(f"{name} does not run here: {why}")
    with torch.no_grad():
        for x in inputs:
            error = (rival(x) - network(x)).norm() / network(x).norm()
            assert error < LARGEST.get(name, 1e-5)
    assert rival.error == pytest.approx(float(error), rel=1e-3, abs=1e-7)


def test_one_that_rounds_says_by_how_much(
    monkeypatch: pytest.MonkeyPatch, network: nn.Module, inputs: list[torch.Tensor]
) -> None:
    monkeypatch.setitem(RIVALS, "openvino", lambda network, inputs, dtype: lambda x: 0.75 * network(x))
    assert build_rival("openvino", network, inputs, torch.float32).error == pytest.approx(0.25)


def test_one_whose_library_is_not_there_or_fails_says_so(
    monkeypatch: pytest.MonkeyPatch, network: nn.Module, inputs: list[torch.Tensor]
) -> None:
    """A race must go on without it, and a reader know why it is not there."""

    def nothing(name: str, *rest: Any) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("no such operator\nat line 1")

    monkeypatch.setattr(importlib, "import_module", nothing)
    monkeypatch.setitem(RIVALS, "onnxruntime", broken)
    with pytest.raises(UnavailableError, match=r"openvino is not installed \(pip install 'evt\[rivals\]'\)"):
        build_rival("openvino", network, inputs, torch.float32)
    with pytest.raises(UnavailableError, match=r"^RuntimeError: no such operator$"):
        build_rival("onnxruntime", network, inputs, torch.float32)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["tensorrt"], "rivals has 'tensorrt'; allowed are torch_compile, onnxruntime, openvino"),
        (["openvino", "openvino"], "rivals has 'openvino'; allowed are .*, each once"),
        ("openvino", "rivals is 'openvino'; it must be a list"),
    ],
)
def test_what_is_no_rival_is_refused(names: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_rivals(names, "rivals")
