"""Following objects and judging saliency, on features and masks made by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from tqdm import tqdm

from evt.data.davis import DAVIS
from evt.data.video import Frame
from evt.errors import DataError
from evt.evaluate.ledger import Ledger
from evt.evaluate.loop import Unit, evaluate
from evt.evaluate.segmentation import Segmentation
from evt.evaluate.trace import Seen, Subject
from evt.metrics.propagation import Propagation
from evt.models.features import Features
from tests.data.test_davis import write_tree

GRID, PATCH = (30, 53), 16  # 480x848: boundaries match within 8 pixels
FEATURES = torch.randn(1, GRID[0] * GRID[1], 256, generator=torch.Generator().manual_seed(0))


def columns(first: int, last: int, number: int = 1) -> Tensor:
    """A mask of whole columns of patches."""
    mask = torch.zeros(GRID[0] * PATCH, GRID[1] * PATCH, dtype=torch.uint8)
    mask[:, first * PATCH : last * PATCH] = number
    return mask


def frames(masks: list[Tensor], video: str = "ants") -> list[Frame]:
    image = torch.zeros(3, *masks[0].shape, dtype=torch.uint8)
    return [Frame(image, f"x/{video}/{i:05}.jpg", i == 0, mask=mask) for i, mask in enumerate(masks)]


def add(
    evaluator: Segmentation, masks: list[Tensor], saliency: Tensor | None = None, video: str = "ants"
) -> None:
    for frame in frames(masks, video):
        seen = Seen(frame, [], [], Features(saliency, FEATURES[0], GRID), 0, 0.0)
        evaluator.update(seen)


def test_objects_that_do_not_move() -> None:
    evaluator = Segmentation()
    mask = columns(10, 20) + columns(30, 40, number=2)
    add(evaluator, 4 * [mask], saliency=3 * (mask > 0).float() - 1)
    result = evaluator.compute()
    assert (result.mean.j, result.mean.f, result.mean.jf) == (100, 100, 100)
    assert result.mean.mae == 0
    assert result.mean.max_f == pytest.approx(100)
    assert (result.n_objects, result.reason) == (2, None)
    assert result.per_video == [("ants", result.mean)]


def test_patches_may_reach_beyond_the_picture() -> None:
    """A picture in a padded square: half of its first row and column of patches shows padding alone."""
    mask = columns(10, 20)[PATCH:, PATCH:]
    evaluator = Segmentation()
    for frame in frames(4 * [mask]):
        salient = (mask > 0).float()[::2, ::2]  # resized to half: as the network sees it
        beyond = (PATCH // 2, 0, PATCH // 2, 0)
        height, width = salient.shape
        evaluator.add_frame(frame, Features(salient, FEATURES[0], GRID, beyond, (height, width)))
    result = evaluator.compute().mean
    assert result.j is not None
    assert result.j > 99.9  # half a patch is no whole number of rows of the small grid
    assert result.f == 100
    assert result.mae is not None
    assert result.mae < 0.01


def test_a_square_loses_only_its_corners() -> None:
    """Fewer pixels than the boundaries' tolerance."""
    mask = columns(10, 30)
    mask[: 4 * PATCH] = mask[20 * PATCH :] = 0
    evaluator = Segmentation()
    add(evaluator, 4 * [mask])
    result = evaluator.compute().mean
    assert result.f == 100
    assert result.j is not None
    assert 99.8 < result.j < 100


def test_the_first_and_the_last_frame_do_not_count() -> None:
    """By hand: columns 10 to 20 are found in each; in two of the four frames that count they are 10 to 15."""
    evaluator = Segmentation()
    half, whole = columns(10, 15), columns(10, 20)
    add(evaluator, [whole, whole, half, half, whole, half])
    assert evaluator.compute().mean.j == pytest.approx(75)


def test_the_mean_is_over_objects() -> None:
    """Of two videos, one of which has two objects, as in DAVIS."""
    evaluator = Segmentation()
    one, both = columns(10, 20), columns(10, 20) + columns(30, 40, number=2)
    add(evaluator, [one, columns(10, 15), one], video="ants")
    add(evaluator, [both, both, both], video="bear")
    result = evaluator.compute()
    assert result.mean.j == pytest.approx((50 + 100 + 100) / 3)
    assert [(name, scores.j) for name, scores in result.per_video] == [("ants", 50), ("bear", 100)]
    assert result.mean.mae is None


def test_saliency_is_over_videos() -> None:
    """By hand: of each map half is salient; in one of the two videos half of that is an object's."""
    saliency = columns(0, 26).float()
    evaluator = Segmentation()
    add(evaluator, 2 * [columns(0, 26)], saliency)
    add(evaluator, 4 * [columns(0, 13)], saliency)
    result = evaluator.compute()
    assert result.mean.mae == pytest.approx(13 / 53 / 2)
    assert result.mean.max_f == pytest.approx(100 * (1 + 1.3 * 0.5 / (0.3 * 0.5 + 1)) / 2)
    assert (result.mean.j, result.per_video[0][1].j) == (100, None)  # of two frames none is left


def test_records_add_up(tmp_path: Path) -> None:
    """As a ledger keeps them, video by video."""
    whole, added = Segmentation(), Segmentation()
    for video in ("ants", "bear"):
        masks, saliency = [columns(10, 20), columns(12, 21), columns(13, 22)], columns(9, 15).float()
        part = Segmentation()
        add(whole, masks, saliency, video)
        add(part, masks, saliency, video)
        added.add(json.loads(json.dumps(part.record())))
    assert added.compute() == whole.compute()


def test_pixels_that_do_not_count() -> None:
    """Neither for objects nor for saliency."""
    mask = columns(10, 20)
    mask[:, 15 * PATCH :] = 255
    evaluator = Segmentation()
    add(evaluator, [columns(10, 20), mask, mask], columns(10, 20).float())
    result = evaluator.compute().mean
    assert (result.j, result.f, result.mae) == (100, 100, 0)


def test_what_cannot_be_judged() -> None:
    evaluator = Segmentation()
    with pytest.raises(DataError, match=r"00000\.jpg: its mask shows no object; the first of a video must"):
        add(evaluator, [columns(0, 0)])
    [frame] = frames([columns(10, 20)])
    with pytest.raises(DataError, match=r"00000\.jpg: there is no mask of this frame"):
        evaluator.add_frame(replace(frame, mask=None), Features(None, FEATURES[0], GRID))
    result = evaluator.compute()
    assert (result.mean.j, result.n_objects) == (None, 0)
    assert result.reason == "no video has a frame between its first and its last"


class Colours:
    """A model whose features are the patches of the picture themselves, and whose stream does nothing."""

    nbytes = 0

    def reset(self) -> None:
        """Nothing is kept."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def stream(self, variant: Any, policy: Any = None) -> Colours:
        return self

    def inputs(self, sample: Frame) -> Iterator[Tensor]:
        yield sample.image

    def decode(self, outputs: Any, sample: Frame) -> Features:
        patches = outputs[0].unfold(1, 4, 4).unfold(2, 4, 4)  # (3, h, w, 4, 4)
        _, h, w = patches.shape[:3]
        return Features(None, patches.permute(1, 2, 0, 3, 4).reshape(h * w, -1).float() + 1, (h, w))


def test_it_goes_with_the_loop_and_with_davis(tmp_path: Path) -> None:
    videos = DAVIS(write_tree(tmp_path / "davis"))
    units = [Unit(video.name, video.fingerprint, video) for video in videos]
    model = Colours()
    results = []
    for _ in range(2):  # the second time from the ledger
        new = partial(Segmentation, partial(Propagation, n_last=2, radius=1))
        with tqdm(total=12, disable=True) as bar:
            found, _, _ = evaluate(
                Subject(model, model),
                units,
                {"segmentation": new},
                Ledger(tmp_path / "ledger"),
                "",
                bar,
            )
        results.append(found["segmentation"].compute())
    assert results[0] == results[1]
    assert [name for name, _ in results[0].per_video] == ["ants", "bear", "cows"]
    assert results[0].n_objects == 6
