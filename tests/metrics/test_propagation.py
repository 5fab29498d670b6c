"""Label propagation: what stays, moves or gets lost, and the published protocol step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evt.metrics.propagation import Propagation
from evt.metrics.segmentation import VOID, boundary_measure, region_similarity

GRID, PATCH = (6, 9), 8


def features(seed: int = 0, dim: int = 64) -> Tensor:
    """Of patches that are hardly alike, (n, D)."""
    return torch.randn(GRID[0] * GRID[1], dim, generator=torch.Generator().manual_seed(seed))


def in_pixels(labels: Tensor) -> Tensor:
    """The mask of whole patches, (H, W), of labels on the grid."""
    return labels.byte().repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)


def stripe(first: int, last: int, number: int = 1) -> Tensor:
    """A mask of whole columns of patches."""
    labels = torch.zeros(GRID)
    labels[:, first:last] = number
    return in_pixels(labels)


def moved(of_patches: Tensor, columns: int) -> Tensor:
    return of_patches.reshape(*GRID, -1).roll(columns, 1).flatten(0, 1)


def test_what_does_not_move_stays() -> None:
    mask = stripe(2, 5) + stripe(7, 9, number=4)
    track = Propagation(mask, features(), GRID)
    for _ in range(10):
        found = track.step(features())
        assert found.dtype == torch.uint8
        assert torch.equal(found, mask)
    assert region_similarity(found == 1, mask == 1) == boundary_measure(found == 1, mask == 1) == 1


def test_only_corners_are_rounded_by_the_upsampling() -> None:
    """Between four patches of which one is the object's, less than half of it is left in the corner's pixels."""
    labels = torch.zeros(GRID)
    labels[1:4, 2:6] = 1
    mask = in_pixels(labels)
    track = Propagation(mask, features(), GRID)
    # By hand, i and j pixels away from the corner: (0.5 + (i + 0.5) / 8) (0.5 + (j + 0.5) / 8) < 0.5
    lost = {(0, 0), (0, 1), (1, 0), (0, 2), (2, 0), (1, 1)}
    expected = {(y + i * down, x + j * right) for y, down in ((8, 1), (31, -1)) for x, right in ((16, 1), (47, -1))
                for i, j in lost}  # fmt: skip
    for _ in range(10):
        assert set(map(tuple, (track.step(features()) != mask).nonzero().tolist())) == expected


def test_what_moves_is_followed() -> None:
    track = Propagation(stripe(0, 2), features(), GRID)
    for i in range(1, 8):
        assert torch.equal(track.step(moved(features(), i)), stripe(i, i + 2))


def test_what_jumps_too_far_is_lost() -> None:
    """From the fourth column on, which patches have left that were within a radius of 4."""
    there = slice(4 * PATCH, None)
    for radius, followed in ((4, True), (3, False)):
        found = Propagation(stripe(0, 2), features(), GRID, radius=radius).step(moved(features(), 4))
        assert torch.equal(found[:, there], stripe(4, 6)[:, there]) == followed


def test_pixels_that_do_not_count_are_background_in_the_first_mask() -> None:
    mask = stripe(2, 5) + stripe(7, 9, number=VOID)
    assert torch.equal(Propagation(mask, features(), GRID).step(features()), stripe(2, 5))


def test_an_object_that_fills_the_picture() -> None:
    mask = stripe(0, 9, number=3)
    assert torch.equal(Propagation(mask, features(), GRID).step(features(1)), mask)


def test_the_published_protocol_step_by_step() -> None:
    """Affinities of all patches, those beyond the neighbourhood or below the k-th set to 0, and normalised.

    Half of the patches stay the same in each frame, so they are equally near in several.
    """
    k, radius, n_last = 5, 2, 3
    n = GRID[0] * GRID[1]
    place = torch.tensor([divmod(i, GRID[1]) for i in range(n)])
    close = (place[:, None] - place).abs().amax(-1) <= radius
    generator = torch.Generator().manual_seed(0)
    present = torch.randn(n, 8, generator=generator)
    labels = torch.randint(0, 3, GRID, generator=generator)
    mask = in_pixels(labels)
    track = Propagation(mask, present, GRID, n_last=n_last, radius=radius, k=k)
    context = [(present, torch.nn.functional.one_hot(labels.flatten(), 3).float())]
    for _ in range(8):
        changed = torch.rand(n, generator=generator) < 0.5
        present = torch.where(changed[:, None], torch.randn(n, 8, generator=generator), present)
        sources = [context[0], *context[1:][-n_last:]]
        affinity = torch.cat(
            [
                (torch.cosine_similarity(present[:, None], x[None], -1) / 0.1).exp() * close
                for x, _ in sources
            ],
            1,
        )  # (n, m * n)
        affinity[affinity < affinity.topk(k).values[:, -1:] * (1 - 1e-5)] = 0
        affinity /= affinity.sum(1, keepdim=True)
        soft = affinity @ torch.cat([of_one for _, of_one in sources])  # (n, 3)
        context.append((present, soft))
        found = track.step(present[None])
        torch.testing.assert_close(track._last[-1][1], soft, atol=1e-5, rtol=1e-4)
        maps = torch.nn.functional.interpolate(
            soft.T.reshape(1, 3, *GRID), size=mask.shape, mode="bilinear", align_corners=False
        )[0]
        maps = torch.stack([(x - x.min()) / (x.max() - x.min()) for x in maps])
        assert (found == maps.argmax(0)).float().mean() > 0.999


def test_features_of_another_grid_are_refused() -> None:
    track = Propagation(stripe(2, 5), features(), GRID)
    with pytest.raises(ValueError, match=r"features are \(53, 64\); a 6x9 grid needs as many patches"):
        track.step(features()[1:])
