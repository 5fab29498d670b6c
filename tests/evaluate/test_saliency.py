"""A run of a model of saliency, from settings to figures, on small weights of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evt import run
from evt.models.checkpoints import save_checkpoint
from evt.report import main_figures, summary_table
from tests.commands import command
from tests.models.test_saliency import SETTINGS, small_model

AGREEMENT = {
    "feature_relative_l2",
    "feature_cosine",
    "saliency_mae",
    "saliency_correlation",
    "saliency_iou",
}


def figures(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> dict[str, Any]:
    weights = folder / "small.safetensors"
    save_checkpoint(small_model().published(), weights)
    model = ["model=dinov2_saliency", *(f"model.{name}={value}" for name, value in SETTINGS.items())]
    data = ["data=sprites", "data.n_videos=2", "data.n_frames=4", "data.size=[64,96]"]
    places = [f"model.checkpoint={weights}", f"hydra.run.dir={folder}/run", "threads=1"]
    command(monkeypatch, run.run, *model, *data, *places, *arguments)
    metrics: dict[str, Any] = json.loads((folder / "run/metrics.json").read_text())
    return metrics


def test_a_run_compares_features_and_saliency_with_the_dense_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metrics = figures(monkeypatch, tmp_path, "policy.r=6")
    first, later = metrics["first"], metrics["later"]
    assert (first["frames"], later["frames"]) == (2, 6)
    # The dense model is the library's own code.
    assert [first["feature_relative_l2"], first["saliency_mae"]] == pytest.approx([0, 0], abs=1e-6)
    assert first["feature_cosine"] == pytest.approx(1)
    assert later["feature_relative_l2"] > 0.01
    assert later["saliency_mae"] > 0
    assert later["feature_cosine"] < 1
    assert later["gflops"] < first["gflops"]
    # The decoder is dense, and counted apart.
    assert later["decoder_gflops"] == pytest.approx(first["decoder_gflops"])
    assert later["decoder_gflops"] > 0
    assert metrics["all"].keys() > AGREEMENT | {"decoder_ms", "gflops", "ms", "dense_ms"}
    assert main_figures(metrics).keys() > AGREEMENT
    table = summary_table({**metrics, "peak_memory_bytes": 0})
    assert "GFlops of the decoder" in table
    assert "IoU of saliency above 0.5" in table


def test_with_all_tokens_there_is_nothing_between_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metrics = figures(monkeypatch, tmp_path, "policy.r=50")
    assert metrics["later"]["feature_relative_l2"] < 1e-4
    assert metrics["later"]["saliency_correlation"] == pytest.approx(1, abs=1e-3)


def test_alone_there_is_nothing_to_agree_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    metrics = figures(monkeypatch, tmp_path, "variant=base", "policy=none", "compare=false")
    assert not metrics["all"].keys() & AGREEMENT
    assert metrics["all"]["decoder_gflops"] > 0


def test_seeded_weights_are_measured_without_predictions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metrics = figures(monkeypatch, tmp_path, "model.checkpoint=null", "policy.r=6")
    assert metrics["later"]["gflops"] < metrics["first"]["gflops"]
    assert "decoder_ms" not in metrics["all"]
