"""One selection a frame, and the policies that look back at what passed before."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evt.eventful import VARIANTS, Budget, Every, Refresh, Stream, Threshold, TopR, count_ops
from evt.eventful.policy import Past, Selection
from tests.common import WithClassToken, small_frames, small_vit

FRAME = VARIANTS["frame"]
N = 36


def frames_of(n: int, changed: int) -> list[torch.Tensor]:
    return small_frames(n, (6, 6), changed=changed)


def test_what_is_not_selected_keeps_its_output_and_what_is_sees_all_tokens() -> None:
    """In a network of one block the selected tokens are dense attention's over new and old keys."""
    torch.manual_seed(0)
    net = WithClassToken((2, 3), patch_size=2)
    before, after = torch.randn(2, 1, 3, 4, 6)
    stream = net.stream(FRAME, TopR(3))
    with torch.no_grad():
        first = stream(before)
        second = stream(after)
        changed = (second != first).any(-1)[0]
        assert changed.sum() == 3
        assert changed[0], "the class token always passes"
        # Pixels of the patches that passed are new, of the others old: a picture of which all is known.
        mixed = before.clone()
        for i in (changed[1:].nonzero().flatten()).tolist():
            rows, columns = slice(2 * (i // 3), 2 * (i // 3) + 2), slice(2 * (i % 3), 2 * (i % 3) + 2)
            mixed[..., rows, columns] = after[..., rows, columns]
        torch.testing.assert_close(second[0, changed], net(mixed)[0, changed], atol=1e-5, rtol=1e-4)


def test_operations_follow_the_selected_tokens() -> None:
    net = small_vit()
    stream, dense = net.stream(FRAME, TopR(0)), net.stream(FRAME.dense)
    first, second = frames_of(2, N)
    with count_ops() as flush:
        stream(first)
    with count_ops() as all_tokens:
        dense(first)
    assert flush.total() == all_tokens.total()
    with count_ops() as none:
        out = stream(second)
    assert none.total() < 0.05 * flush.total()
    torch.testing.assert_close(out, dense(first), atol=1e-5, rtol=1e-4)


def test_each_stream_of_a_batch_has_its_own_selection() -> None:
    """Else one camera would spend another's budget."""
    net = small_vit()
    first, second = frames_of(2, N)
    both = net.stream(FRAME, Threshold(0.01))
    both(torch.cat([first, first]))
    moved, still = both(torch.cat([second, first])).split(1)
    alone = net.stream(FRAME, Threshold(0.01))
    torch.testing.assert_close(alone(first), still, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone(second), moved, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", ["temporal", "rows", "frame", "tokenwise"])
@pytest.mark.parametrize("staggered", [False, True])
def test_refreshed_in_every_frame_is_the_dense_model(variant: str, staggered: bool) -> None:
    net = small_vit()
    stream = net.stream(VARIANTS[variant], Refresh(0, 1, staggered))
    dense = net.stream(VARIANTS["base"])
    for frame in frames_of(4, N):
        torch.testing.assert_close(stream(frame), dense(frame), atol=2e-5, rtol=1e-4)


def test_a_refresh_is_a_flush() -> None:
    """Frame 3 of `every=3` knows nothing of what was left out before; in between r tokens pass."""
    net = small_vit()
    stream, dense = net.stream(VARIANTS["temporal"], Refresh(4, 3)), net.stream(VARIANTS["base"])
    frames = frames_of(7, N)
    same = [torch.allclose(stream(frame), dense(frame), atol=2e-5, rtol=1e-4) for frame in frames]
    assert same == [True, False, False, True, False, False, True]


@settings(deadline=None)  # a machine may be busy
@given(every=st.integers(1, 7), r=st.integers(0, 10), n=st.integers(10, 20))
def test_staggered_every_token_passes_once_in_k_frames(every: int, r: int, n: int) -> None:
    """Else a token whose change stays small would be old for ever."""
    policy, past = Refresh(r, every, staggered=True), Past()
    error = torch.rand(2, n, 1) * torch.linspace(0, 1, n).view(1, n, 1)
    chosen: list[Selection] = []
    for _ in range(every):
        chosen.append(policy(error, past))
        past.add(chosen[-1])
    assert set(torch.cat([x.index for x in chosen]).tolist()) == set(range(2 * n))
    assert all(len(x.index) <= 2 * (r + -(-n // every)) for x in chosen)


@settings(deadline=None)  # a machine may be busy
@given(every=st.integers(1, 7), r=st.integers(0, 10), n=st.integers(10, 20), always=st.integers(1, 2))
def test_a_class_token_takes_no_place_of_one_that_is_due(every: int, r: int, n: int, always: int) -> None:
    """Tokens that pass in every frame, as a class token does, must not keep others out of their turn."""
    policy, past, seen = Refresh(r, every, staggered=True), Past(), set()
    for _ in range(every):
        error = torch.rand(1, n, 1)
        error[:, :always] = torch.inf
        chosen = policy(error, past)
        past.add(chosen)
        seen |= set(chosen.index.tolist())
        assert set(range(always)) <= set(chosen.index.tolist())
    assert seen == set(range(n))


@settings(deadline=None, max_examples=20)
@given(share=st.sampled_from([0.5, 0.25, 0.1]), seed=st.integers(0, 99), little=st.sampled_from([0.1, 1.0]))
def test_a_budget_is_kept_in_the_mean(share: float, seed: int, little: float) -> None:
    """A user who asks for an eighth of the tokens gets it, whatever is seen."""
    generator, policy, past, n = torch.Generator().manual_seed(seed), Budget(share, little=little), Past(), 40
    spent = 0
    for i in range(1, 60):
        error = torch.rand(1, n, 1, generator=generator) * torch.rand((), generator=generator)
        selection = policy(error, past)
        past.add(selection)
        spent += len(selection.index)
        assert spent <= share * n * i + 1e-6 + 1
    assert spent >= share * n * 59 - n - 1 or little == 1.0


def test_under_a_moving_camera_a_budget_is_frame_skipping() -> None:
    net, frames = small_vit(), frames_of(9, N)
    budget, skip = net.stream(FRAME, Budget(1 / 4)), net.stream(VARIANTS["skip"], Every(4))
    for frame in frames:
        torch.testing.assert_close(budget(frame), skip(frame), atol=2e-5, rtol=1e-4)


def test_in_front_of_a_still_camera_a_budget_goes_where_something_moves() -> None:
    policy, past = Budget(0.25), Past()
    error = torch.full((1, 40, 1), 0.01)
    error[0, [3, 17]] = 1.0
    assert sorted(policy(error, past).index.tolist()) == [3, 17]
    error[:] = 0.01
    error[0, 0] = torch.inf  # a class token must pass, but not alone
    assert policy(error, past).index.tolist() == []


def test_a_saved_stream_goes_on_with_its_budget() -> None:
    net, frames = small_vit(), frames_of(8, N)
    whole, first, second = (net.stream(FRAME, Budget(0.2)) for _ in range(3))
    outputs = [whole(frame) for frame in frames]
    for frame in frames[:4]:
        first(frame)
    second.load_state_dict(first.state_dict())
    for frame, output in zip(frames[4:], outputs[4:], strict=True):
        torch.testing.assert_close(second(frame), output)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Budget(0), "policy.spend is 0; it must be a finite number, above 0 and at most 1"),
        (lambda: Budget(0.5, h=-1), "policy.h is -1; it must be a finite number, 0 or more"),
        (
            lambda: Budget(0.5, little=2),
            "policy.little is 2; it must be a finite number, above 0 and at most 1",
        ),
        (lambda: Refresh(3, 0), "policy.every is 0; it must be a whole number of at least 1"),
        (lambda: Refresh(-3, 2), "policy.r is -3; it must be a whole number of at least 0"),
        (
            lambda: Stream(small_vit(), VARIANTS["rows"], Budget(0.5)),
            r"selects tokens; Budget\(spend=0.5\), which selects tokens once a frame, was given",
        ),
    ],
)
def test_bad_settings_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_policy_that_gives_a_mask_is_told_so() -> None:
    class Mask(TopR):
        def __call__(self, error: torch.Tensor, past: Past | None = None) -> Selection:
            return error.sum(-1) > 0  # type: ignore[return-value]

    stream = small_vit().stream(VARIANTS["temporal"], Mask(3))
    first, second = frames_of(2, N)
    stream(first)
    with pytest.raises(TypeError, match="gave a Tensor; a policy must give a Selection"):
        stream(second)
