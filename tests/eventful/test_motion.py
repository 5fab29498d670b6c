"""Kept outputs that are moved along with the picture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evt.eventful import VARIANTS, Every, Policy, Stream, TopR, Variant, count_ops
from evt.eventful.motion import cells, moved, shifts
from evt.models.vivit import SubModel
from tests.common import WithClassToken, small_frames, small_vit

GRID = (6, 7)
SKIP = Variant(hold=True, move=True)
FRAME = Variant(gate="frame", sparse_qk=True, sparse_av=True, rows=True, fast=True, move=True)
KEEPS: list[tuple[Variant, Policy]] = [(SKIP, Every(9)), (FRAME, TopR(0))]
"""Nothing passes in the later frames that are looked at, so that all of the output is kept."""


def with_class_token() -> WithClassToken:
    torch.manual_seed(0)
    return WithClassToken(GRID, patch_size=4)


def views(down: int, right: int) -> tuple[Tensor, Tensor]:
    """Two pictures cut from one of noise; what the first shows is, in the second, so many pixels further."""
    whole = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return tuple(
        whole[..., y : y + 4 * GRID[0], x : x + 4 * GRID[1]] for y, x in ((16, 16), (16 - down, 16 - right))
    )  # type: ignore[return-value]


@pytest.mark.parametrize(("variant", "policy"), KEEPS)
def test_a_still_video_is_unchanged(variant: Variant, policy: Policy) -> None:
    """Exactly, and so is one of a single colour, in which every place looks like every other."""
    for frame in (views(0, 0)[0], torch.ones(1, 3, 24, 28)):
        stream = with_class_token().stream(variant, policy)
        first = stream(frame)
        assert torch.equal(stream(frame), first)


@pytest.mark.parametrize(("variant", "policy"), KEEPS)
@settings(deadline=None, max_examples=10)
@given(down=st.integers(-1, 1), right=st.integers(-1, 1))
def test_whole_patches_are_followed(variant: Variant, policy: Policy, down: int, right: int) -> None:
    """Each token that was in the first picture has the output that it had there; the class token stays."""
    first, second = views(4 * down, 4 * right)
    stream = with_class_token().stream(variant, policy)
    before, after = stream(first), stream(second)
    assert torch.equal(after[:, 0], before[:, 0])
    old, new = (x[:, 1:].unflatten(1, GRID) for x in (before, after))
    shifted = old.roll((down, right), (1, 2))
    known = torch.zeros(GRID, dtype=torch.bool)
    known[max(0, down) : GRID[0] + min(0, down), max(0, right) : GRID[1] + min(0, right)] = True
    assert torch.equal(new[:, known], shifted[:, known])


def test_between_patches_the_output_is_between_theirs() -> None:
    first, second = (cells(x, GRID) for x in views(0, 2))
    x = torch.arange(7.0).expand(6, 7).reshape(1, 42, 1).expand(2, -1, -1)
    out = moved(x, shifts(first, second, GRID)).unflatten(1, GRID)
    torch.testing.assert_close(out[:, :, 1:, 0], torch.arange(0.5, 6).expand(2, 6, 6))


def test_what_passed_is_as_it_is_and_is_known_by_its_own_picture() -> None:
    """A token that passed is of the present frame: it comes from nowhere else, then and later."""
    first, second = views(4, 0)
    kept, own = (with_class_token().stream(v, TopR(43)) for v in (VARIANTS["frame"], FRAME))
    for frame in (first, second):
        assert torch.equal(own(frame), kept(frame))
    own.policy = TopR(0)
    assert torch.equal(own(second), kept(second))
    own.reset()
    kept.reset()
    frames = small_frames(3, GRID, changed=5)
    own.policy = kept.policy = TopR(6)  # with the class token all that changes
    for frame in frames:
        assert torch.equal(own(frame), kept(frame))


@pytest.mark.parametrize(("variant", "policy"), [(SKIP, Every(3)), (FRAME, TopR(9))])
def test_a_saved_stream_goes_on_as_it_would_have(variant: Variant, policy: Policy) -> None:
    net, frames = small_vit(), small_frames(6, changed=20)
    whole, first, second = (net.stream(variant, policy) for _ in range(3))
    outputs = [whole(frame) for frame in frames]
    for frame in frames[:2]:
        first(frame)
    second.load_state_dict(first.state_dict())
    for frame, output in zip(frames[2:], outputs[2:], strict=True):
        assert torch.equal(second(frame), output)


def test_operations_are_counted_and_few() -> None:
    stream, frames = small_vit().stream(SKIP, Every(2)), small_frames(2)
    stream(frames[0])
    with count_ops() as ops:
        stream(frames[1])
    assert ops == {"gate": 17**2 * 16 * 36 + 3 * 36 * 24}


def test_a_frame_that_was_run_whole_is_not_searched() -> None:
    first, second = views(4, 0)
    kept, own = (with_class_token().stream(v, TopR(43)) for v in (VARIANTS["frame"], FRAME))
    for frame in (first, second):
        with count_ops() as ops:
            kept(frame)
        with count_ops() as own_ops:
            own(frame)
    assert own_ops == ops


@pytest.mark.parametrize("changes", [{}, {"gate": "reference"}])
def test_only_what_is_kept_can_be_moved(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="move needs hold, or the gate `frame`"):
        Variant(move=True, **changes)  # type: ignore[arg-type]


def test_tokens_without_a_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="form no grid that is known; say grid="):
        Stream(SubModel(5, 8, 1, 2, 2), SKIP, Every(2))
