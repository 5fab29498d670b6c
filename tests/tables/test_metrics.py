"""What small tables measure, by hand."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from evt.data.video import Frame
from evt.evaluate.trace import Seen, Step
from evt.tables.metrics import ErrorOverTime, FrameOperations


def frames(errors: list[float]) -> list[Seen]:
    """Frames whose outputs are so far from the dense model's, relative to it."""
    return [
        Seen(
            None,
            [Step(torch.tensor([3 + 5 * x, 4.0]), Counter(), 0.0, 0, i == 0)],
            [Step(torch.tensor([3.0, 4.0]), Counter(), 0.0, 0, i == 0)],
            None,
            0,
            0.0,
        )
        for i, x in enumerate(errors)
    ]


def test_error_is_the_mean_over_frames_up_to_each() -> None:
    """The flush, which has none, counts nowhere; what a video is too short for is left out."""
    metric = ErrorOverTime((1, 2, 4, 8))
    records = [
        metric.record(frames([0, 0.1, 0.2, 0.3, 0.5]), None),
        metric.record(frames([0, 0.3, 0.2, 0.3, 0.3]), None),
    ]
    assert records == [pytest.approx([0.1, 0.2, 0.4]), pytest.approx([0.3, 0.2, 0.3])]
    found = metric.estimates(records, None)
    assert list(found) == ["error_1", "error_2", "error_4"]
    assert [x.value for x in found.values()] == pytest.approx([0.2, 0.2, 0.35])
    assert found["error_2"].interval == pytest.approx(0, abs=1e-6)
    assert found["error_1"].interval == pytest.approx(0.1)


def test_bins_ascend() -> None:
    with pytest.raises(ValueError, match=r"until is \[4, 2\]; each must be larger than the one before"):
        ErrorOverTime((4, 2))


def test_operations_are_of_frames_in_which_a_budget_has_settled() -> None:
    """By hand: a flush of 8, frames of 1, and from frame 3 on of 4, which alone stand for later ones."""
    ops = [8, 1, 1, 4, 4, 4]
    images = [Frame(torch.zeros(3, 2, 2), str(i), i == 0) for i in range(len(ops))]
    steps = [Step(torch.zeros(1), Counter(linear=x), 0.0, 0, False) for x in ops]
    video = [Seen(image, [step], [], None, 0, 0.0) for image, step in zip(images, steps, strict=True)]
    for settled, later in ((1, 14 / 5), (3, 4)):
        metric = FrameOperations(flush_rate=0.5, settled=settled)
        cells = metric.columns([metric.record(video, None)], None)
        assert cells == {"gflops": pytest.approx((8 + later) / 2 / 1e9), "videos": 1, "frames": 6}
