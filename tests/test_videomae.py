"""VideoMAE through `python -m evt.run`: labelled clips, a single clip, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from evt.data.actions import AnyClip
from evt.models.checkpoints import read_checkpoint, save_checkpoint
from evt.models.videomae import VideoMAE, published
from evt.run import run
from evt.train import train_task
from evt.training.objectives.motion import motion_losses
from tests.commands import Refused, command
from tests.data.test_something import write as write_something
from tests.models.foreign.test_convert import library
from tests.videos import write_video

SETTINGS: dict[str, Any] = {
    "size": 80, "classes": 12, "temporal_stride": 1, "temporal_views": 1, "spatial_views": 1,
    "dim": 24, "depth": 2, "num_heads": 3,
}  # fmt: skip
SMALL = ["model=videomae", *(f"model.{name}={value}" for name, value in SETTINGS.items())]
CLIPS = ["data=sprite_clips", "data.n_clips=6"]
STILL = ["data=sprites", "data.n_videos=1", "data.n_frames=16", "data.size=[80,80]", "data.setting=static"]


def ran(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> dict[str, Any]:
    command(monkeypatch, run, *SMALL, f"hydra.run.dir={folder}", *arguments)
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


@pytest.mark.parametrize("key", ["model", "module"])
def test_clips_are_classified_with_official_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    torch.manual_seed(0)
    torch.save({key: published(VideoMAE(**SETTINGS))}, tmp_path / "official.pth")
    figures = ran(
        monkeypatch, tmp_path, "variant=rlt", *CLIPS, f"model.checkpoint={tmp_path}/official.pth"
    )["recognition"]  # fmt: skip
    assert figures["clips"] == 6
    assert 0 < figures["kept"] < 1
    assert 0 <= figures["top1"] <= 100


def test_a_clip_that_hardly_moves_costs_less_and_random_dropping_as_much(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rlt = ran(monkeypatch, tmp_path / "rlt", "variant=rlt", *STILL)["tokens"]
    drop = ran(monkeypatch, tmp_path / "drop", "variant=random_drop", *STILL)["tokens"]
    merge = ran(monkeypatch, tmp_path / "merge", "variant=token_merging", "policy.r=20", *STILL)["tokens"]
    assert rlt["kept"] == drop["kept"] < 0.8
    assert rlt["tflops"] == drop["tflops"] < rlt["dense_tflops"]
    ats = ran(monkeypatch, tmp_path / "ats", "variant=ats", "policy.fraction=0.3", *STILL)["tokens"]
    assert ats["tflops"] < ats["dense_tflops"] == rlt["dense_tflops"]
    assert merge["tflops"] < merge["dense_tflops"] == rlt["dense_tflops"]


def test_a_threshold_of_nothing_is_the_dense_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = tmp_path / "a.safetensors"
    torch.manual_seed(0)
    save_checkpoint(published(VideoMAE(**SETTINGS)), weights)
    clips = ["data=sprite_clips", "data.n_clips=4", "data.setting=noise", f"model.checkpoint={weights}"]
    dense = ran(monkeypatch, tmp_path / "dense", "variant=base", *clips)["recognition"]
    rlt = ran(monkeypatch, tmp_path / "rlt", "variant=rlt", "policy.threshold=0", *clips)["recognition"]
    assert rlt["tflops"] == dense["tflops"]
    assert rlt["top1"] == dense["top1"]


def test_official_weights_begin_with_an_embedding_of_run_lengths_that_is_zero(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """So that it can be trained from them."""
    torch.manual_seed(0)
    save_checkpoint(published(VideoMAE(**SETTINGS)), tmp_path / "a.safetensors")
    arguments = ["variant=rlt", *CLIPS, f"model.checkpoint={tmp_path}/a.safetensors"]
    with_lengths = ["model.length_embedding=true", "policy.lengths=true"]
    without = ran(monkeypatch, tmp_path / "without", *arguments)["recognition"]
    found = ran(monkeypatch, tmp_path / "with", *arguments, *with_lengths)["recognition"]
    assert "zero, since it is not in the file: length_embed\n" in capsys.readouterr().err
    assert (found["top1"], found["top5"]) == (without["top1"], without["top5"])


def test_what_was_trained_has_the_published_names_and_can_be_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = [*SMALL[1:], "model.tubelet=[2,16,16]"]
    recipe = ["train.batch_size=2", "train.workers=0", "data.clips.n_clips=4"]
    train = tmp_path / "train"
    arguments = ["task=videomae_mini", "variant=rlt", *small, *recipe, f"hydra.run.dir={train}"]
    command(monkeypatch, train_task, *arguments)
    weights = read_checkpoint(train / "weights.safetensors")
    assert weights.keys() == published(VideoMAE(**SETTINGS)).keys()
    assert weights["blocks.0.attn.q_bias"].all()  # they have moved from zero
    checkpoint = f"model.checkpoint={train}/weights.safetensors"
    figures = ran(monkeypatch, tmp_path / "run", "variant=rlt", *CLIPS, checkpoint)["recognition"]
    assert figures["clips"] == 6


def test_a_killed_training_with_merged_tokens_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To the same weights, with paths that are dropped, too; and not to those without merging."""
    library("timm")
    small = [
        *SMALL[1:],
        "model.tubelet=[2,16,16]",
        "train.batch_size=2",
        "data.clips.n_clips=6",
        "train.save_every=1",
    ]

    def weights(name: str, *arguments: str) -> bytes:
        command(
            monkeypatch,
            train_task,
            "task=videomae_mini",
            *small,
            *arguments,
            f"hydra.run.dir={tmp_path}/{name}",
        )
        return (tmp_path / name / "weights.safetensors").read_bytes()

    merging = ["variant=token_merging", "policy.r=60", "train.drop_path=0.3", "train.layer_decay=0.8"]
    whole = weights("whole", *merging)
    assert whole != weights("dense")
    steps = iter(range(2))

    def killed(*arguments: Any, **settings: Any) -> Any:
        next(steps)
        return motion_losses(*arguments, **settings)

    monkeypatch.setattr("evt.train.motion_losses", killed)
    with pytest.raises(StopIteration):
        weights("parts", *merging)
    assert len((tmp_path / "parts/log.jsonl").read_text().splitlines()) == 2
    monkeypatch.setattr("evt.train.motion_losses", motion_losses)
    assert weights("parts", *merging) == whole


def test_a_clip_that_is_too_short_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its last frame is repeated, and what is saved on that is not the video's."""
    ran(monkeypatch, tmp_path, "variant=rlt", *STILL, "data.n_frames=10")
    assert "the clip has 10 frames and a view spans 16" in capsys.readouterr().out


def test_something_something_is_seen_as_in_its_published_evaluation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Frames spread over the whole video, 2 by 3 views; those of too few frames are counted."""
    annotations, labels, videos = write_something(tmp_path)
    for name, n in (("41775", 20), ("99", 5), ("7", 8)):
        write_video(videos / f"{name}.webm", n, fps=12)
    spread: list[list[int]] = []
    inputs = VideoMAE.inputs

    def noting(model: VideoMAE, clip: AnyClip) -> Iterator[torch.Tensor]:
        spread.extend(model.views.positions(len(clip.frames)))
        assert len(model.views) == 6
        return inputs(model, clip)

    monkeypatch.setattr(VideoMAE, "inputs", noting)
    small = [f"model.{name}={x}" for name, x in (SETTINGS | {"classes": 2}).items() if "views" not in name]
    small.remove("model.temporal_stride=1")
    data = ["data=something", f"data.annotations={annotations}", f"data.labels={labels}"]
    command(
        monkeypatch, run, "model=videomae", "variant=base", *small, *data, f"data.videos={videos}",
        f"hydra.run.dir={tmp_path}/run",
    )  # fmt: skip
    assert spread[:2] == [
        [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18],
        [0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16, 18, 19],
    ]
    assert json.loads((tmp_path / "run/metrics.json").read_text())["recognition"]["short"] == 2
    out = capsys.readouterr().out
    assert "clips shorter than a view" in out
    assert "2 of 3 clips have fewer than the 16 frames that a view spans" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "variant is temporal (temporal where none is given), but videomae sees a whole clip at once"),
        (["variant=rlt", "policy.threshold=-1"], "policy.threshold is -1; it must be a finite number, 0 or more"),
        (["variant=rlt", "policy=top_r", "policy.r=3"], "policy is top_r, but variant rlt takes run_length"),
        (["variant=token_merging", "policy.r=-2"], "policy.r is -2; it must be a whole number, 0 or more"),
        (["variant=rlt", "model.size=90"], "model.size is 90; it must be a multiple of the tubelet's 16"),
        (["variant=rlt", "model.view_frames=5"], "model.view_frames is 5; it must be a multiple of the tubelet's 2"),
        (["variant=rlt", "policy.lengths=true"], "policy.lengths is true, but the model has no embedding"),
        (["variant=base", "policy=run_length"], "policy is run_length, but variant base takes none"),
        (["variant=rlt", "model.tubelet=[2,0,16]"], "tubelet is [2, 0, 16]; it must be three whole numbers"),
        (["variant=rlt", "model.num_heads=0"], "model.num_heads is 0; it must be a whole number of at least 1"),
        (["variant=rlt", "fast=true"], "fast is true, but videomae has one path alone"),
        (["variant=rlt", "model=vivit_mini"], "variant is rlt, which is for videomae; for vivit it must be one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    refused: Refused, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    model = [] if "model=vivit_mini" in arguments else SMALL
    assert sentence in refused(*model, *CLIPS, *arguments, f"hydra.run.dir={tmp_path}")
