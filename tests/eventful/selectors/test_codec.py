"""What the codec moved, told before each frame."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evt.eventful import VARIANTS, Batch, Codec
from evt.eventful.inside import Inside, Note
from evt.eventful.policy import Past
from tests.common import small_frames, small_vit

FRAME = VARIANTS["frame"]
STILL, ALL = torch.zeros(6, 6), torch.ones(6, 6)


@settings(deadline=None, max_examples=50)
@given(
    moves=st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1, 3]), min_size=6, max_size=6), max_size=4),
    keep=st.integers(1, 6),
    n_prefix=st.integers(0, 1),
)
def test_tokens_pass_by_how_far_they_moved_since_they_last_did(
    moves: list[list[float]], keep: int, n_prefix: int
) -> None:
    """By a list of sums, one for each token."""
    error, note, past = torch.zeros(1, n_prefix + 6, 1), Note(), Past()
    error[:, :n_prefix] = torch.inf
    past.inside = Inside(error, [], [], None, (2, 3), [note])
    past.begin(1)
    policy, since = Codec(keep, None, at_least=0.5), [0.0] * 6
    for own in moves:
        note.motion = torch.tensor(own).view(2, 3)
        passed = {int(i) - n_prefix for i in policy(error, past).index}
        since = [a + b for a, b in zip(since, own, strict=True)]
        far = [i for i in range(6) if since[i] >= 0.5]
        shown = passed - {-1}
        assert (-1 in passed) == bool(n_prefix)
        assert len(shown) == min(keep - n_prefix, len(far))
        assert shown <= set(far)
        assert all(since[i] >= since[j] for i in shown for j in set(far) - shown)
        since = [0.0 if i in shown else x for i, x in enumerate(since)]


def test_where_all_moves_it_is_the_dense_model_and_where_nothing_does_the_last_output() -> None:
    net = small_vit()
    stream, dense = net.stream(FRAME, Codec(36, every=4)), net.stream(VARIANTS["base"])
    expected = torch.empty(0)
    for i, frame in enumerate(small_frames(6, changed=36)):
        told = ALL if i == 2 else STILL
        expected = dense(frame) if i in (0, 2, 4) else expected
        stream.moves([told])
        torch.testing.assert_close(stream(frame), expected, atol=2e-5, rtol=1e-4)


def test_a_batch_is_told_of_each_of_its_streams_and_one_that_was_saved_knows() -> None:
    """What moved before a stream was saved still counts after it."""
    net = small_vit()
    frames = small_frames(7, changed=36)
    moves = [torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(7)]
    together, alone = ([net.stream(FRAME, Codec(5, 5)) for _ in range(2)] for _ in range(2))
    batch = Batch(together)
    for i, frame in enumerate(frames):
        if i == 3:
            loaded = net.stream(FRAME, Codec(5, 5))
            loaded.load_state_dict(together[1].state_dict())
            batch.remove(together[1])
            batch.add(loaded)
        batch.moves([[moves[i][0]], [moves[i][1]]])
        for k, out in enumerate(batch([frame, frame.flip(-1)])):
            alone[k].moves([moves[i][k]])
            torch.testing.assert_close(out, alone[k](frame.flip(-1) if k else frame), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (None, r"was not told; call moves\(\[pixels, .* \(the stream is as it was before"),
        ([torch.zeros(5, 6)], "of 5 x 6 tokens, and a frame has 6 x 6"),
        ([torch.zeros(36)], r"shape \(36,\); it must be \(rows, columns\)"),
        ([-ALL], "finite and not negative"),
        ([ALL / 0], "finite and not negative"),
        ([ALL, ALL], "it must be a list of 1"),
        (ALL, "is a tensor of shape"),
        (
            [None],
            r"motion has a NoneType in it; it must be a list of 1, a tensor \(rows, columns\) for each video",
        ),
        ([ALL.numpy()], "motion has a ndarray in it"),
        ([ALL.to(torch.complex64)], "tensor of torch.complex64 in it"),
        (6, "motion is a int; it must be a list of 1"),
    ],
)
def test_what_cannot_be_told_is_refused(told: Any, sentence: str) -> None:
    net = small_vit()
    stream = net.stream(FRAME, Codec(5))
    first, second = small_frames(2)
    stream(first)

    def tell_and_run() -> None:
        if told is not None:
            stream.moves(told)
        stream(second)

    with pytest.raises(ValueError, match=sentence):
        tell_and_run()


def test_a_stream_that_was_not_told_stops_no_other_of_its_batch() -> None:
    """All are as they were, and go on when it is told."""
    net, frames = small_vit(), small_frames(4, changed=36)
    streams, alone = ([net.stream(FRAME, Codec(5)) for _ in range(2)] for _ in range(2))
    batch = Batch(streams)
    for i, frame in enumerate(frames):
        if i < 2:
            batch.moves([[ALL], [STILL]])
        else:
            streams[0].moves([ALL])
            with pytest.raises(ValueError, match=r"frame 1 of the batch: Codec.* was not told"):
                batch([frame, frame])
            streams[1].moves([STILL])
        for k, out in enumerate(batch([frame, frame])):
            alone[k].moves([(ALL, STILL)[k]])
            torch.testing.assert_close(out, alone[k](frame), atol=2e-5, rtol=1e-4)


def test_a_batch_that_is_told_nothing_says_what_it_needs() -> None:
    batch = Batch([small_vit().stream(FRAME, Codec(5))])
    with pytest.raises(
        ValueError, match="what moves is a NoneType; it must be a list, with an entry for each"
    ):
        batch.moves(None)  # type: ignore[arg-type]


def test_another_policy_takes_no_note() -> None:
    """A program may tell all its streams the same."""
    net = small_vit()
    stream, other = (net.stream(VARIANTS["base"]) for _ in range(2))
    for frame in small_frames(2):
        stream.moves([STILL])
        assert torch.equal(stream(frame), other(frame))


def test_a_distance_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at_least is 0"):
        Codec(5, at_least=0)
