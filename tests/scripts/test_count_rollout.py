"""The formula by which the operations of `policy=rollout` are counted at full scale."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
import torch

from evt.eventful import VARIANTS, Rollout, count_ops
from tests.common import ROOT, small_frames, small_vit


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("count_rollout", ROOT / "scripts/count_rollout.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("keep", [0, 5, 36])
def test_it_is_what_a_stream_counts(script: ModuleType, keep: int) -> None:
    """Of windows that are padded, too: a flush, the frame after it, and another."""
    network = small_vit()
    stream = network.stream(VARIANTS["frame"], Rollout(keep, 8))
    counts = []
    for frame in small_frames(3):
        with count_ops() as ops:
            stream(frame)
        stream.saw([torch.ones(1, 5)])
        counts.append(ops.total())
    later = script.later_frame(network, keep)
    assert counts == [
        script.whole_frame(network, VARIANTS["frame"]),
        later + script.after_whole(network),
        later,
    ]
