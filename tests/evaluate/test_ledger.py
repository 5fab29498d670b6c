"""The file of finished parts, after what can happen to it on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evt.evaluate.ledger import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of three parts."""
    ledger = Ledger(tmp_path / "videos.jsonl")
    for key, value in (("a", 1), ("b", {"x": [0.1, "ä"]}), ("c", None)):
        ledger.put(key, value)
    return tmp_path / "videos.jsonl"


def test_a_line_is_its_part_and_the_hash_of_it(path: Path) -> None:
    """By sha256 of another's writing: what stands before the hash and its comma."""
    line = path.read_text().splitlines()[0]
    assert json.loads(line) == ["a", 1, hashlib.sha256(b'["a", 1').hexdigest()]


@pytest.mark.parametrize(
    "line", ["garbage", "", "7", '["b"]', '[["b"], 1]', '["b", 2]', "\udcff", "[" * 9999, "9" * 400]
)
def test_a_damaged_line_is_told_and_computed_anew(
    path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are kept, and what is done anew counts."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = line.encode(errors="surrogateescape") + b"\n"
    path.write_bytes(b"".join(lines))
    ledger = Ledger(path)
    assert "videos.jsonl: line 2 is damaged, edited or of another program" in caplog.text
    assert ("a" in ledger, "b" in ledger, "c" in ledger) == (True, False, True)
    ledger.put("b", 3)
    assert Ledger(path)["b"] == 3


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_is_taken_over(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "videos.jsonl"
    parts = {"a": 1, "b": {"x": [0.1, "ä"]}, "c": None}
    for key, value in parts.items():
        Ledger(path).put(key, value)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    ledger = Ledger(path)
    found = {key: ledger[key] for key in ("a", "b", "c") if key in ledger}
    assert found.items() <= parts.items()
    assert len(found) in (1, 2)  # a newline is of two lines


@pytest.mark.parametrize("cut", [1, 30, 75])
def test_a_line_that_a_kill_cut_short_does_not_spoil_the_next(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    ledger = Ledger(path)
    assert "c" not in ledger
    ledger.put("d", 2)
    again = Ledger(path)
    assert [key for key in "abcd" if key in again] == ["a", "b", "d"]
