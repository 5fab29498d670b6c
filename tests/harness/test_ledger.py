"""The file of finished parts, after what can happen to it on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evt.data.video import DataError
from evt.harness.ledger import Ledger


@pytest.mark.parametrize("damage", ["garbage", "", "7", '["a"]', '[["a"], 1]', '"ab"', "\udcff"])
def test_a_damaged_line_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    """Else a resumed run of days ends in a traceback that says neither which file nor how to go on."""
    path = tmp_path / "videos.jsonl"
    path.write_bytes(b'["a", 1]\n' + damage.encode(errors="surrogateescape") + b'\n["b", 2]\n')
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"videos\.jsonl: line 2 is damaged.*delete the file"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_first_line_that_a_kill_cut_short_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "videos.jsonl"
    path.write_text('["a", {"x"')
    Ledger(path).put("b", 2)
    assert path.read_text() == json.dumps(["b", 2]) + "\n"
    assert Ledger(path)["b"] == 2
