"""What was found in the last frame, and where objects tend to be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evt.eventful import VARIANTS, Batch, Policy, Regions, TopR
from evt.eventful.inside import Inside, Note
from evt.eventful.policy import Past
from tests.common import small_detector, small_frames, small_vit

FRAME = VARIANTS["frame"]
ALL = torch.tensor([[0.0, 0, 6, 6, 1]])

box = st.tuples(*[st.floats(-1, 6, allow_subnormal=False)] * 4, st.floats(0, 1))


@settings(deadline=None, max_examples=50)
@given(
    boxes=st.lists(box, max_size=4),
    margin=st.sampled_from([0.0, 0.5, 1.0]),
    confidence=st.sampled_from([0.0, 0.5]),
    n_prefix=st.integers(0, 1),
    known=st.booleans(),
)
def test_a_token_passes_exactly_where_it_shows_some_of_a_box(
    boxes: list[tuple[float, ...]], margin: float, confidence: float, n_prefix: int, known: bool
) -> None:
    """By hand, place by place; those of the map and those that must pass besides."""
    error, note, past = torch.zeros(1, n_prefix + 20, 1), Note(), Past()
    error[:, :n_prefix] = torch.inf
    note.boxes = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 5)
    often = torch.linspace(0, 0.2, 20).view(4, 5) if known else None
    past.inside = Inside(error, [], [], None, (4, 5), [note])
    past.begin(1)
    selection = Regions(confidence, margin, None, often)(error, past)
    expected = list(range(n_prefix))
    for i in range(20):
        y, x = divmod(i, 5)
        shown = any(
            x + 1 > x0 - margin and x < x1 + margin and y + 1 > y0 - margin and y < y1 + margin
            for x0, y0, x1, y1, score in boxes
            if score >= confidence
        )
        if shown or (often is not None and often[y, x] >= 0.1):
            expected.append(n_prefix + i)
    assert selection.index.tolist() == expected


@pytest.mark.parametrize("policy", [Regions(every=None), Regions(every=None, often=torch.ones(6, 6))])
def test_regions_that_cover_the_picture_are_the_dense_model(policy: Regions) -> None:
    net = small_vit()
    stream, dense = net.stream(FRAME, policy), net.stream(VARIANTS["base"])
    for frame in small_frames(4, changed=36):
        torch.testing.assert_close(stream(frame), dense(frame), atol=2e-5, rtol=1e-4)
        stream.saw([ALL if policy.often is None else ALL[:0]])


def test_where_nothing_is_found_the_last_output_stays_until_a_whole_frame() -> None:
    net = small_vit()
    stream, dense = net.stream(FRAME, Regions(every=3)), net.stream(VARIANTS["base"])
    expected = torch.empty(0)
    for i, frame in enumerate(small_frames(5, changed=36)):
        expected = dense(frame) if i % 3 == 0 else expected
        torch.testing.assert_close(stream(frame), expected, atol=2e-5, rtol=1e-4)
        stream.saw([ALL[:0]])


def test_a_batch_is_told_of_each_of_its_streams_and_one_that_was_saved_knows() -> None:
    """Each selects by its own boxes, also of two videos in step, and nothing is copied for that."""
    net = small_vit()
    boxes = [[ALL * 0.5], [ALL[:0], ALL], [ALL]]
    policies: list[Policy] = [Regions(every=5), Regions(every=5), TopR(3)]
    streams, alone = ([net.stream(FRAME, policy) for policy in policies] for _ in range(2))
    videos = [small_frames(6, changed=36, batch=len(own), seed=k) for k, own in enumerate(boxes)]
    batch = Batch(streams)
    for i in range(4):
        for k, out in enumerate(batch([video[i] for video in videos])):
            torch.testing.assert_close(out, alone[k](videos[k][i]), atol=1e-5, rtol=1e-4)
            alone[k].saw(boxes[k])
        together = batch._together
        batch.saw(boxes)
        assert batch._together is together
    saved = net.stream(FRAME, Regions(every=5))
    saved.load_state_dict(streams[1].state_dict())
    for out in (saved(videos[1][4]), streams[1].copy()(videos[1][4])):
        torch.testing.assert_close(out, alone[1].copy()(videos[1][4]), atol=1e-5, rtol=1e-4)


def test_boxes_stand_over_the_tokens_that_show_them() -> None:
    """What a box frames in a picture that is resized and padded is seen by the tokens that it becomes."""
    model = small_detector()  # 64 x 64 pixels, patches of 16
    image = torch.zeros(3, 96, 128, dtype=torch.uint8)
    shown = image.clone()
    shown[:, 30:70, 60:100] = 255
    change = (model.preprocess(shown) - model.preprocess(image)).abs().amax(1)[0] > 0.1
    seen = change.unflatten(0, (4, 16)).unflatten(2, (4, 16)).any(3).any(1)
    box = model.in_tokens(torch.tensor([[60.0, 30, 100, 70]]), (96, 128))
    error, note, past = torch.zeros(1, 16, 1), Note(), Past()
    note.boxes = torch.cat([box, torch.ones(1, 1)], -1)
    past.inside = Inside(error, [], [], None, (4, 4), [note])
    past.begin(1)
    selection = Regions(margin=0, every=None)(error, past)
    assert selection.index.tolist() == seen.flatten().nonzero().flatten().tolist()


def told(found: object) -> Callable[[], object]:
    def make() -> object:
        stream = small_vit().stream(FRAME, Regions())
        stream(small_frames(1)[0])
        stream.saw(found)  # type: ignore[arg-type]
        return stream

    return make


def frames(n: int, policy: Regions) -> list[Tensor]:
    stream = small_vit().stream(FRAME, policy)
    return [stream(frame) for frame in small_frames(n)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Regions(confidence=2), r"policy\.confidence is 2; it must be a finite number"),
        (lambda: Regions(margin=-1), r"policy\.margin is -1; it must be a finite number, 0 or more"),
        (lambda: Regions(every=0), r"policy\.every is 0; it must be a whole number of at least 1"),
        (
            lambda: frames(1, Regions(often=torch.ones(4, 6))),
            "has 4 x 6 tokens, and a frame has 6 x 6; it must be made for frames of this size",
        ),
        (lambda: frames(2, Regions()), "follows what a detector found, and this stream was not told"),
        (told([None]), r"found has a NoneType in it; it must be a list of 1"),
        (told([]), r"found is a list of 0; it must be a list of 1, a tensor \(n, 5\) for each video"),
        (told([torch.ones(2, 4)]), r"of shape \(2, 4\); it must be \(n, 5\)"),
        (told([ALL * torch.nan]), "all of them finite"),
        (lambda: small_vit().stream(FRAME, Regions()).saw([ALL]), "has seen no frame yet"),
    ],
)
def test_bad_input_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
