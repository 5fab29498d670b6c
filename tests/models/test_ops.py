"""Suppression and ROIAlign, our own and (where it imports) torchvision's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evt.models import ops

compiled = pytest.param(
    "compiled", marks=pytest.mark.skipif(not ops.COMPILED, reason="torchvision is not here")
)
both = pytest.mark.parametrize("which", ["own", compiled])


def chosen(name: str, which: str) -> Callable[..., Tensor]:
    return getattr(ops, f"own_{name}" if which == "own" else name)


@both
def test_nms_keeps_what_overlaps_by_the_threshold_and_no_more(which: str) -> None:
    """IoU of the two is 1 / 2 by hand; only a greater one suppresses."""
    nms = chosen("nms", which)
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 1]])
    scores = torch.tensor([0.3, 0.8])
    assert nms(boxes, scores, 0.5).tolist() == [1, 0]
    assert nms(boxes, scores, 0.49).tolist() == [1]


@both
def test_nms_lets_a_suppressed_box_suppress_nothing(which: str) -> None:
    """Steps of 1 along boxes of width 3: neighbours have IoU 2 / 4, next neighbours 1 / 5."""
    nms = chosen("nms", which)
    boxes = torch.tensor([[i, 0.0, i + 3, 1] for i in range(5)])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), 0.4).tolist() == [0, 2, 4]
    assert nms(boxes, torch.tensor([0.8, 0.9, 0.7, 0.5, 0.6]), 0.4).tolist() == [1, 4]


@both
def test_nms_of_nothing_and_of_boxes_without_area(which: str) -> None:
    nms, batched = chosen("nms", which), chosen("batched_nms", which)
    none = torch.zeros(0, 4)
    assert nms(none, torch.zeros(0), 0.5).shape == (0,)
    assert batched(none, torch.zeros(0), torch.zeros(0, dtype=torch.long), 0.5).shape == (0,)
    points = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1]])
    assert nms(points, torch.tensor([0.1, 0.2]), 0.5).tolist() == [1, 0]


def by_definition(boxes: list[list[int]], order: list[int], threshold: float) -> list[int]:
    """One box after the other against all that were kept, in whole numbers."""
    kept: list[int] = []
    for i in order:
        for j in kept:
            a, b = boxes[i], boxes[j]
            overlap = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
            if overlap > threshold * union:
                break
        else:
            kept.append(i)
    return kept


_box = st.tuples(*(st.integers(0, 8) for _ in range(2)), *(st.integers(1, 8) for _ in range(2)))


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(_box, max_size=40), threshold=st.sampled_from([0.25, 0.5, 0.75]), seed=st.integers(0, 99)
)
def test_nms_in_blocks_and_groups_is_the_definition(
    boxes: list[tuple[int, ...]], threshold: float, seed: int
) -> None:
    """Across the borders of blocks, and with groups, of which each is suppressed as if alone."""
    n, generator = len(boxes), torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator).tolist()
    corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    scores = torch.empty(n)
    scores[order] = torch.linspace(1, 0, n)
    groups = torch.randint(3, (n,), generator=generator)
    x = torch.tensor(corners, dtype=torch.float32).view(-1, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "_BLOCK", 8)
        assert ops.own_nms(x, scores, threshold).tolist() == by_definition(corners, order, threshold)
        kept = set()
        for group in range(3):
            kept |= set(by_definition(corners, [i for i in order if groups[i] == group], threshold))
        assert ops.own_batched_nms(x, scores, groups, threshold).tolist() == [i for i in order if i in kept]


@both
@settings(max_examples=30, deadline=None)
@given(
    corner=st.tuples(st.floats(2, 20), st.floats(2, 20)),
    sides=st.tuples(st.floats(0.5, 35), st.floats(0.5, 35)),
)
def test_roi_align_of_a_plane_is_the_plane_at_the_bins_centres(
    which: str, corner: tuple[float, float], sides: tuple[float, float]
) -> None:
    """Bilinear samples of x + 100 y are exact wherever they lie, and their mean is the value at the centre."""
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(32.0), indexing="ij")
    features = torch.stack([x + 100 * y, torch.ones(30, 32)])[None]
    (x0, y0), (width, height) = corner, sides
    # At scale 1/2, a pixel at 2 c is the border between the cells c - 1 and c.
    roi = torch.tensor([[0, x0, y0, x0 + width, y0 + height]])
    out = chosen("roi_align", which)(features, roi, 3, 0.5)
    at_x = torch.tensor([(x0 + (i + 0.5) * width / 3) / 2 - 0.5 for i in range(3)])
    at_y = torch.tensor([(y0 + (i + 0.5) * height / 3) / 2 - 0.5 for i in range(3)])
    torch.testing.assert_close(out[0, 0], at_x + 100 * at_y[:, None], atol=2e-3, rtol=1e-5)
    torch.testing.assert_close(out[0, 1], torch.ones(3, 3))


@both
def test_roi_align_beyond_the_border(which: str) -> None:
    """Up to a cell outside, the outermost cells count; farther away nothing does."""
    features = torch.tensor([[1.0, 2], [3, 4]])[None, None]
    roi_align = chosen("roi_align", which)
    # One bin, ceil(2) x ceil(2) samples at -1.5 + 0.5 = -1 and 0 along each axis: -1 is just near enough.
    assert roi_align(features, torch.tensor([[0.0, -1, -1, 1, 1]]), 1, 1.0).item() == 1
    # Samples at -1.25 and -0.25: of four, the one at (-0.25, -0.25) counts, and the mean is over four.
    assert roi_align(features, torch.tensor([[0.0, -1.25, -1.25, 0.75, 0.75]]), 1, 1.0).item() == 0.25
    # Samples at 1 and 2 (the lower right cell twice each way), the second just near enough.
    assert roi_align(features, torch.tensor([[0.0, 1, 1, 3, 3]]), 1, 1.0).item() == 4
    # One sample, at (0.5, 0.5): the mean of all four cells.
    assert roi_align(features, torch.tensor([[0.0, 0.75, 0.75, 1.25, 1.25]]), 1, 1.0).item() == 2.5


@both
def test_roi_align_takes_each_region_from_its_picture(which: str) -> None:
    features = torch.arange(3.0)[:, None, None, None].expand(3, 2, 5, 6).contiguous()
    rois = torch.tensor([[2.0, 1, 1, 3, 3], [0, 1, 1, 3, 3], [1, 0, 0, 5, 4]])
    out = chosen("roi_align", which)(features, rois, 2, 1.0)
    assert out.shape == (3, 2, 2, 2)
    torch.testing.assert_close(out.mean((1, 2, 3)), torch.tensor([2.0, 0, 1]))
    assert chosen("roi_align", which)(features, torch.zeros(0, 5), 2, 1.0).shape == (0, 2, 2, 2)


@both
def test_roi_align_has_the_gradient_of_a_linear_map(which: str) -> None:
    """<A f, g> = <f, A^T g> for any f and g: else training would follow another function."""
    torch.manual_seed(0)
    features = torch.randn(2, 3, 9, 7, requires_grad=True)
    low = torch.rand(6, 2) * 12 - 2
    picture = torch.tensor([0.0, 1, 1, 0, 1, 0])[:, None]
    rois = torch.cat([picture, low, low + 0.5 + 12 * torch.rand(6, 2)], 1)
    out = chosen("roi_align", which)(features, rois, 4, 0.5)
    g = torch.randn_like(out)
    (grad,) = torch.autograd.grad(out, features, g)
    torch.testing.assert_close((features * grad).sum(), (out * g).sum())
    assert grad.abs().sum() > 0


@pytest.mark.skipif(not ops.COMPILED, reason="torchvision is not here")
def test_our_own_equal_torchvisions() -> None:
    torch.manual_seed(0)
    low = torch.rand(300, 2) * 200 - 10
    boxes = torch.cat([low, low + 1 + 100 * torch.rand(300, 2)], 1)
    scores, groups = torch.rand(300), torch.randint(4, (300,))
    assert torch.equal(ops.own_nms(boxes, scores, 0.5), ops.nms(boxes, scores, 0.5))
    batched = ops.own_batched_nms(boxes, scores, groups, 0.5)
    assert torch.equal(batched, ops.batched_nms(boxes, scores, groups, 0.5))
    features, rois = torch.randn(2, 8, 50, 40), torch.cat([torch.randint(2, (300, 1)), boxes], 1)
    ours, theirs = (f(features, rois, 7, 0.25) for f in (ops.own_roi_align, ops.roi_align))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
