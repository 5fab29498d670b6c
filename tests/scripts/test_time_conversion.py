"""What a converted model takes: the rows of its table, and the pictures that it is timed on."""

from __future__ import annotations

import re
from itertools import pairwise
from types import ModuleType

import pytest

from tests.common import ROOT
from tests.models.foreign.test_convert import library


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import time_conversion

    return time_conversion


def test_an_eighth_of_a_picture_changes(script: ModuleType) -> None:
    for before, after in pairwise(script.pictures(96, 4)):
        assert abs(float((before != after).float().mean()) - 1 / 8) < 0.01


def test_a_row_has_times_and_how_much_faster_they_are(script: ModuleType) -> None:
    library("transformers")
    shape = script.shapes(small=True, blocks=2)[2]
    laps = script.laps_of(shape, small=True, n_frames=3, repeats=1)
    assert sum(laps["rows"].later_ops) < sum(laps["converted"].later_ops) / 3
    cell = r" \d+ \(\d+\.\d\d\) \|"
    assert re.fullmatch(
        rf"\| SAM 3, image encoder, 2 of its 32 blocks \| 576 \| \d+ \|{3 * cell}\n", script.row(shape, laps)
    )
