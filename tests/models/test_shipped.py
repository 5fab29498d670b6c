"""Weights that are not those that were shipped would give tables that nobody can compare."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from evt.errors import CheckpointError
from evt.models import shipped


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that ships one file."""
    (tmp_path / "small.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  small.safetensors\n")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    return tmp_path


def test_a_name_stands_for_its_file_and_a_path_for_itself(folder: Path) -> None:
    assert shipped.checkpoint_path("shipped:small") == str(folder / "small.safetensors")
    assert shipped.checkpoint_path("runs/small.pth") == "runs/small.pth"


def test_an_unknown_name_is_refused_with_those_that_are_known(folder: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"shipped:large: no such weights .* allowed are shipped:small$"
    ):
        shipped.checkpoint_path("shipped:large")


def test_a_file_that_was_changed_or_lost_is_refused(folder: Path) -> None:
    (folder / "small.safetensors").write_bytes(b"weight!")
    with pytest.raises(CheckpointError, match=r"small\.safetensors: is not the file that was shipped"):
        shipped.checkpoint_path("shipped:small")
    (folder / "small.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"small\.safetensors: the file is missing"):
        shipped.checkpoint_path("shipped:small")


def test_all_that_ships_is_whole_small_enough_and_has_a_card() -> None:
    files = {path.name for path in shipped.FOLDER.glob("*.safetensors")}
    assert set(shipped.shipped_sums()) == files
    for file in files:
        shipped.checkpoint_path(f"shipped:{Path(file).stem}")
        assert (shipped.FOLDER / file).stat().st_size <= 12e6
        assert (shipped.FOLDER / file).with_suffix(".md").is_file()
