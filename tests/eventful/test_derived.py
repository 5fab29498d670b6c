"""What is kept of weights follows them: a stale table would give wrong results without a word."""

import copy

import torch
from torch import Tensor, nn

from evt.eventful.derived import Derived
from tests.common import small_frames, small_vit


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


def test_it_follows_every_change_of_a_parameter() -> None:
    """An optimizer, a checkpoint, another type and another parameter; also what no version counter tells of."""
    model, derived = nn.Linear(1, 1, bias=False), Derived(twice)

    def value() -> float:
        with torch.no_grad():
            return derived(model.weight).item()

    nn.init.ones_(model.weight)
    assert value() == 2
    for fused in (False, True):
        model.weight.grad = torch.ones(1, 1)
        torch.optim.SGD(model.parameters(), lr=3, fused=fused).step()
        assert value() == (-10 if fused else -4)
    model.load_state_dict({"weight": torch.full((1, 1), 5.0)})
    assert value() == 10
    model.load_state_dict({"weight": torch.full((1, 1), 4.0)}, assign=True)
    assert value() == 8
    model.double()
    with torch.no_grad():
        assert derived(model.weight).dtype == torch.float64
    model.weight = nn.Parameter(torch.full((1, 1), 6.0))
    assert value() == 12
    model.weight.data = torch.full((1, 1), 7.0)
    assert value() == 14
    version = model.weight._version
    model.weight.data.copy_(torch.full((1, 1), 8.0))
    model.weight.detach().numpy()[:] += 1
    assert model.weight._version == version
    assert value() == 18
    with torch.no_grad():
        assert copy.deepcopy(derived)(nn.Parameter(torch.ones(1))).item() == 2
    with torch.inference_mode():
        frozen = nn.Parameter(torch.ones(1))
        assert derived(frozen).item() == 2
        frozen.add_(1)
        assert derived(frozen).item() == 4
    assert value() == 18


def test_a_model_follows_its_weights() -> None:
    """All that a ViT keeps: against one that was never run before it had these weights."""
    net, other, frame = small_vit((5, 7)), small_vit((5, 7), seed=1), small_frames(1, (5, 7))[0]
    with torch.no_grad():
        before = net(frame)  # now it keeps tables
        for own, weight in zip(net.parameters(), other.parameters(), strict=True):
            own.data.copy_(weight)
        assert not torch.allclose(net(frame), before)
        assert torch.equal(net(frame), other(frame))
        assert torch.equal(copy.deepcopy(net)(frame), other(frame))
        fresh = small_vit((5, 7), seed=1).to(torch.bfloat16)
        assert torch.equal(net.to(torch.bfloat16)(frame.bfloat16()), fresh(frame.bfloat16()))


def test_what_was_computed_in_inference_mode_can_be_used_outside_of_it() -> None:
    """Else a model that served once could not be trained any more."""
    weight, derived = nn.Parameter(torch.ones(1)), Derived(twice)
    with torch.inference_mode():
        derived(weight)
    with torch.no_grad():
        kept = derived(weight)
    (nn.Parameter(torch.ones(1)) * kept).sum().backward()


def test_gradients_reach_the_parameter() -> None:
    """Fine-tuning would otherwise leave the weight as it is."""
    weight, derived = nn.Parameter(torch.ones(1)), Derived(twice)
    with torch.no_grad():
        derived(weight)
    derived(weight).backward()
    assert weight.grad is not None
    assert weight.grad.item() == 2
