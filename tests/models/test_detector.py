"""Boxes, anchors, matching, and the detector as a whole: what it finds, and that it learns."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evt.data.video import Boxes
from evt.models.boxes import clip, decode, encode, giou_loss, pairwise_iou
from evt.models.matching import IGNORED, match, sample
from evt.models.roi_heads import pyramid_level
from evt.models.rpn import anchors
from evt.models.vit import ViT
from evt.models.vitdet import ViTDet
from tests.common import small_detector

has_detectron2 = importlib.util.find_spec("detectron2") is not None


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """What is this small waits for its threads longer than it computes."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def tensor(*boxes: list[float]) -> torch.Tensor:
    return torch.tensor(boxes, dtype=torch.float32)


def test_iou_and_giou_by_hand() -> None:
    """Overlap 1 of a union of 7 in a hull of 9; apart, a gap of 1 in a hull of 3; the same; no area."""
    a = tensor([0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 2, 3])
    b = tensor([1, 1, 3, 3], [2, 0, 3, 1], [0, 0, 2, 3])
    torch.testing.assert_close(pairwise_iou(a, b).diagonal(), torch.tensor([1 / 7, 0, 1]))
    torch.testing.assert_close(giou_loss(a, b), torch.tensor([1 - 1 / 7 + 2 / 9, 1 + 1 / 3, 0]))
    points = tensor([1, 1, 1, 1])
    assert pairwise_iou(points, points).item() == 0
    assert giou_loss(points, points).isfinite()


def test_boxes_move_by_deltas_as_by_hand() -> None:
    """A box 10 x 20 around (5, 10) moves by a tenth of its width and grows to the double height."""
    box, deltas = tensor([0, 0, 10, 20]), torch.tensor([[1.0, 0, 0, 5 * math.log(2)]])
    torch.testing.assert_close(decode(box, deltas, (10, 10, 5, 5)), tensor([1, -10, 11, 30]))


def test_a_box_grows_by_a_bounded_factor() -> None:
    """detectron2's bound; without it one wild delta makes infinite boxes."""
    box = decode(tensor([0, 0, 16, 16]), torch.tensor([[0.0, 0, 50, -50]]), (1, 1, 1, 1))
    torch.testing.assert_close(box[0, 2] - box[0, 0], torch.tensor(1000.0))
    assert box.isfinite().all()


_corners = st.tuples(st.floats(-50, 50), st.floats(-50, 50), st.floats(1, 60), st.floats(1, 60))


@settings(deadline=None)
@given(_corners, _corners, st.sampled_from([(1, 1, 1, 1), (10, 10, 5, 5)]))
def test_decode_is_the_inverse_of_encode(
    first: tuple[float, ...], second: tuple[float, ...], weights: tuple[float, ...]
) -> None:
    box, target = (tensor([x, y, x + w, y + h]) for x, y, w, h in (first, second))
    torch.testing.assert_close(decode(box, encode(box, target, weights), weights), target, atol=1e-2, rtol=0)


def test_boxes_are_clipped_to_height_and_width() -> None:
    assert clip(tensor([-1, -2, 50, 60], [1, 2, 3, 4]), 30, 40).tolist() == [[0, 0, 40, 30], [1, 2, 3, 4]]


def test_anchors_stand_in_detectron2s_order() -> None:
    """Else a published head's outputs would belong to other boxes: rows, columns, aspect ratios 1/2, 1, 2."""
    boxes = anchors(2, 3, 4)
    assert boxes.shape == (18, 4)
    long, short = 32 * math.sqrt(2) / 2, 32 / math.sqrt(2) / 2
    torch.testing.assert_close(boxes[0], torch.tensor([-long, -short, long, short]))
    assert boxes[1].tolist() == [-16, -16, 16, 16]
    torch.testing.assert_close(boxes[2], torch.tensor([-short, -long, short, long]))
    assert boxes[4].tolist() == [-12, -16, 20, 16]  # the second cell of the first row
    assert boxes[10].tolist() == [-16, -12, 16, 20]  # the first cell of the second row


def test_boxes_are_pooled_on_the_level_of_their_size() -> None:
    """Equation 1 of FPN by hand: 224 x 224 on p4, half and twice that below and above, elongated by area."""
    boxes = tensor(
        [0, 0, 1, 1], [0, 0, 111, 111], [0, 0, 113, 113], [0, 0, 225, 225], [0, 0, 449, 449], [0, 0, 900, 900]
    )
    assert pyramid_level(boxes, 16).tolist() == [0, 0, 1, 2, 3, 3]
    assert pyramid_level(boxes / 2, 8).tolist() == [0, 0, 1, 2, 3, 3]
    assert pyramid_level(tensor([0, 0, 1024, 10], [3, 3, 3, 3]), 16).tolist() == [0, 0]


def test_boxes_match_as_by_hand() -> None:
    """IoU with the first true box: 1, 1/2, 1/4, 0; with the second only the last overlaps, by 1/10."""
    truth = tensor([0, 0, 4, 1], [10, 0, 20, 1])
    boxes = tensor([0, 0, 4, 1], [0, 0, 2, 1], [0, 0, 1, 1], [19, 0, 20, 1], [50, 50, 51, 51])
    index, kind = match(boxes, truth, 0.3, 0.7, keep_best=True)
    assert kind.tolist() == [1, IGNORED, 0, 1, 0]
    assert index[[0, 3]].tolist() == [0, 1]
    assert match(boxes, truth, 0.3, 0.7, keep_best=False)[1].tolist() == [1, IGNORED, 0, 0, 0]
    assert match(boxes, truth, 0.5, 0.5, keep_best=False)[1].tolist() == [1, 1, 0, 0, 0]
    assert match(boxes, truth[:0], 0.3, 0.7, keep_best=True)[1].tolist() == [0] * 5


def test_a_true_box_that_nothing_overlaps_makes_no_match() -> None:
    """All overlap it equally, by 0; they must not all become positive."""
    assert match(tensor([0, 0, 1, 1]), tensor([5, 5, 6, 6]), 0.3, 0.7, keep_best=True)[1].tolist() == [0]


@pytest.mark.parametrize(("n_positive", "expected"), [(100, (8, 24)), (3, (3, 29))])
def test_samples_are_at_most_a_fraction_positive(n_positive: int, expected: tuple[int, int]) -> None:
    kind = torch.tensor([1] * n_positive + [0] * 50 + [IGNORED] * 20)
    positive, negative = sample(kind, 32, 0.25)
    assert (len(positive), len(negative)) == expected
    assert (kind[positive] == 1).all()
    assert (kind[negative] == 0).all()
    assert len(set(positive.tolist() + negative.tolist())) == 32


def test_detections_are_in_pixels_of_the_frame() -> None:
    """A frame of 720 x 1280 is resized to 36 x 64, so what is found there is 20 times as large in the frame."""
    model = small_detector(score_threshold=0.2)
    tokens = model.net(torch.randn(1, 3, 64, 64)).detach()
    features = model.pyramid(tokens)
    found = model.classify(features, model.propose(features))[0]
    scaled = model.detect(tokens, (720, 1280))
    assert len(found.boxes) > 0
    torch.testing.assert_close(scaled.boxes, 20 * found.boxes)
    assert torch.equal(scaled.labels, found.labels)


def test_detections_keep_their_limits() -> None:
    """Scores fall, exceed the threshold, and are no more than asked for; a stricter threshold leaves the first."""
    tokens = small_detector().net(torch.randn(1, 3, 64, 64)).detach()
    loose, few, strict = (
        small_detector(score_threshold=threshold, max_detections=n).detect(tokens, (64, 64))
        for threshold, n in ((0.2, 100), (0.2, 5), (0.26, 100))
    )
    assert len(loose.scores) > 5
    assert (loose.scores.diff() <= 0).all()
    assert loose.scores.min() > 0.2
    assert torch.equal(few.boxes, loose.boxes[:5])
    assert torch.equal(strict.scores, loose.scores[loose.scores > 0.26])


def test_where_nothing_can_be_proposed_nothing_is_found() -> None:
    """A backbone that went NaN must not end a run of hours in the detector."""
    found = small_detector().detect(torch.full((1, 16, 32), torch.nan), (64, 64))
    assert [len(x) for x in found] == [0, 0, 0]


def test_pictures_of_a_batch_do_not_mix() -> None:
    model = small_detector(score_threshold=0.2)
    tokens = model.net(torch.randn(2, 3, 64, 64)).detach()
    features = model.pyramid(tokens)
    both = model.classify(features, model.propose(features))
    for i in range(2):
        alone = model.detect(tokens[i : i + 1], (64, 64))  # 40 x 40 pixels of the input
        torch.testing.assert_close(alone.boxes * 0.625, both[i].boxes, atol=1e-3, rtol=0)


def test_losses_on_a_picture_without_objects() -> None:
    """Frames without objects are part of VID; they teach what background is, and nothing about boxes."""
    model = small_detector()
    nothing = Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    losses = model.losses(torch.randn(1, 3, 64, 64), [nothing])
    assert losses["loss_rpn_loc"] == losses["loss_box_reg"] == 0
    # An untrained detector: log 2 for each of 256 anchors, and log 4 for four classes.
    assert losses["loss_rpn_cls"].item() == pytest.approx(math.log(2), abs=0.05)
    assert losses["loss_cls"].item() == pytest.approx(math.log(4), abs=0.1)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():  # training on several GPUs waits for each of them
        assert parameter.grad is not None, name


def test_losses_under_mixed_precision_are_near_those_in_float32() -> None:
    model, image = small_detector(), torch.randn(1, 3, 64, 64)
    targets = [Boxes(tensor([20, 10, 50, 40]), torch.tensor([2]))]
    torch.manual_seed(1)
    full = model.losses(image, targets)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.losses(image, targets)
    for name in ("loss_rpn_cls", "loss_rpn_loc", "loss_cls"):
        assert mixed[name].item() == pytest.approx(full[name].item(), rel=0.05), name


def test_a_small_detector_learns_a_frame() -> None:
    """Losses fall, every parameter gets a gradient, and in the end the object is found with its class."""
    model = small_detector()
    image = torch.randn(1, 3, 64, 64)
    image[..., 10:40, 20:50] += 2
    targets = [Boxes(tensor([20, 10, 50, 40]), torch.tensor([2]))]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(60):
        loss = torch.stack(list(model.losses(image, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    assert history[-1] < 0.4 * history[0], history
    # A frame of 64 x 64 is resized to 40 x 40, which is what detect undoes.
    found = model.detect(model.net(image), (64, 64))
    assert found.labels[0] == 2
    assert pairwise_iou(found.boxes[:1] * 0.625, targets[0].boxes).item() > 0.6


def test_a_width_that_the_pyramid_cannot_quarter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dim is 30; it must be a multiple of 4"):
        ViTDet(ViT(dim=30, num_heads=3), 64)


@pytest.mark.skipif(has_detectron2, reason="detectron2 is here")
def test_without_detectron2_its_heads_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model.detector is detectron2, which cannot be imported"):
        small_detector(detector="detectron2")


@pytest.mark.skipif(not has_detectron2, reason="detectron2 is not here")
def test_detectron2s_heads_find_the_same() -> None:
    """On the same parameters, which have the same names."""
    ours, theirs = (
        small_detector(score_threshold=0.2),
        small_detector(score_threshold=0.2, detector="detectron2"),
    )
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(1, 3, 64, 64)
    tokens = ours.net(image).detach()
    for a, b in zip(ours.detect(tokens, (64, 64)), theirs.detect(tokens, (64, 64)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=0)
    targets = [Boxes(tensor([20, 10, 50, 40]), torch.tensor([2]))]
    assert theirs.losses(image, targets).keys() == ours.losses(image, targets).keys()
