"""An interval that is wrong makes differences look real that are not, or hides those that are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evt.metrics import bootstrap
from evt.metrics.detection import DetectionMetrics

CLASSES = ("cat", "dog", "fox")


def random_video(rng: np.random.Generator, name: str, times: int = 1) -> list[dict[str, object]]:
    """The records of a video of three frames, under so many names."""
    copies = [DetectionMetrics(CLASSES) for _ in range(times)]
    for i in range(3):
        boxes = torch.tensor(rng.uniform(0, 40, (4, 2)), dtype=torch.float32)
        boxes = torch.cat([boxes, boxes + 20], 1)
        labels = torch.tensor(rng.integers(0, 3, 4))
        shifted = boxes + torch.tensor(rng.normal(0, 3, (4, 1)), dtype=torch.float32)
        found = torch.tensor(np.where(rng.random(4) < 0.8, labels, rng.integers(0, 3, 4)))
        scores = torch.tensor(rng.random(4), dtype=torch.float32)
        for k, metrics in enumerate(copies):
            metrics.add(f"{name}.{k}:{i}", boxes, labels, shifted, scores, found)
    return [metrics.records() for metrics in copies]


def merged(records: list[dict[str, object]]) -> DetectionMetrics:
    metrics = DetectionMetrics(CLASSES)
    for record in records:
        metrics.add_records(record)
    return metrics


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), times=st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any))
def test_a_resample_scores_as_pycocotools_scores_its_videos_written_out(seed: int, times: list[int]) -> None:
    plain = merged([random_video(np.random.default_rng((seed, i)), f"v{i}")[0] for i in range(4)])
    written_out = merged(
        [
            copy
            for i, n in enumerate(times)
            for copy in random_video(np.random.default_rng((seed, i)), f"v{i}", n)
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evt.metrics.detection.resample", lambda n: np.array([times, [1] * 4]))
        drawn, once = plain.map50().resamples
    assert once == pytest.approx(plain.compute().map50, abs=1e-9)
    assert drawn == pytest.approx(written_out.compute().map50, abs=1e-9)


def test_every_resample_draws_as_many_videos_as_there_are() -> None:
    draws = bootstrap.resample(7)
    assert draws.shape == (1000, 7)
    assert (draws.sum(1) == 7).all()
    assert abs(draws.mean(0) - 1).max() < 0.2
    assert (draws == bootstrap.resample(7)).all()


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    """1000 clips, 80% right: 1.96 times the root of 0.8 x 0.2 / 1000."""
    hits = [1] * 800 + [0] * 200
    width = bootstrap.mean_of(hits).interval
    assert width == pytest.approx(1.96 * (0.16 / 1000) ** 0.5, rel=0.1)


def test_half_the_width_by_hand() -> None:
    assert bootstrap.Estimate(50, np.arange(101.0)).interval == pytest.approx(95 / 2)
    assert bootstrap.Estimate(1, np.array([1.0, np.nan, 1.0])).interval == 0


def test_mixed_figures_by_hand() -> None:
    a, b = (bootstrap.Estimate(x, np.full(3, x + 1)) for x in (2.0, 10.0))
    mixed = bootstrap.Estimate.mixed((0.25, 0.75), (a, b))
    assert (mixed.value, mixed.resamples.tolist()) == (8, [9, 9, 9])
    difference = b - a
    assert (difference.value, difference.resamples.tolist(), difference.interval) == (8, [8, 8, 8], 0)


def test_rows_meet_the_same_resamples() -> None:
    """Else the difference of a row and itself, measured twice, would not be nothing."""
    records = [random_video(np.random.default_rng(i), f"v{i}")[0] for i in range(3)]
    once, again = merged(records).map50(), merged(records).map50()
    difference = once - again
    assert (difference.value, difference.interval) == (0, 0)
    assert once.interval > 0
    assert merged(records[:1]).map50().interval == pytest.approx(0, abs=1e-9)


def test_a_part_of_each_video_is_resampled_by_videos() -> None:
    records = [random_video(np.random.default_rng(i), f"v{i}")[0] for i in range(3)]
    first = merged(records).only(lambda name: name.endswith(":0")).map50()
    alone = []
    for record in records:
        video = merged([record]).only(lambda name: name.endswith(":0"))
        alone.append(video.records())
    assert first.resamples.tolist() == merged(alone).map50().resamples.tolist()


def test_frames_are_chosen_with_all_that_is_theirs() -> None:
    records = [random_video(np.random.default_rng(i), f"v{i}")[0] for i in range(3)]
    assert (
        merged(records).only(lambda name: name.startswith("v1")).compute() == merged(records[1:2]).compute()
    )
