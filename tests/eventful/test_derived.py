"""What is kept of weights follows them: a stale table would give wrong results without a word."""

import copy

import torch
from torch import Tensor, nn

from evt.eventful.derived import Derived


def twice(x: Tensor, times: int = 2) -> Tensor:
    return x * times


def test_it_computes_once_for_every_argument() -> None:
    calls = []

    def counted(x: Tensor, times: int) -> Tensor:
        calls.append(times)
        return x * times

    derived, weight = Derived(counted), nn.Parameter(torch.ones(2))
    with torch.no_grad():
        for times in (2, 3, 2, 3):
            assert derived(weight, times).tolist() == [times, times]
    assert calls == [2, 3]


def test_it_follows_every_usual_change_of_a_parameter() -> None:
    """An optimizer, a checkpoint, another type and another parameter; also a copy of the model."""
    model, derived = nn.Linear(1, 1, bias=False), Derived(twice)

    def value() -> float:
        with torch.no_grad():
            return derived(model.weight).item()

    nn.init.ones_(model.weight)
    assert value() == 2
    model.weight.grad = torch.ones(1, 1)
    torch.optim.SGD(model.parameters(), lr=3).step()
    assert value() == -4
    model.load_state_dict({"weight": torch.full((1, 1), 5.0)})
    assert value() == 10
    model.double()
    with torch.no_grad():
        assert derived(model.weight).dtype == torch.float64
    model.weight = nn.Parameter(torch.full((1, 1), 6.0))
    assert value() == 12
    model.weight.data = torch.full((1, 1), 7.0)
    assert value() == 14
    with torch.no_grad():
        assert copy.deepcopy(derived)(nn.Parameter(torch.ones(1))).item() == 2


def test_gradients_reach_the_parameter() -> None:
    """Fine-tuning would otherwise leave the weight as it is."""
    weight, derived = nn.Parameter(torch.ones(1)), Derived(twice)
    with torch.no_grad():
        derived(weight)
    derived(weight).backward()
    assert weight.grad is not None
    assert weight.grad.item() == 2
