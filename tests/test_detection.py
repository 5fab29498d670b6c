"""Object detection from the command line: data set and checkpoint in, mAP50 out."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from evt import reproduce, run, train
from evt.data.video import Frame
from evt.evaluate import loop
from evt.evaluate.trace import Seen, Subject, observe
from evt.models.checkpoints import read_checkpoint, save_checkpoint
from evt.models.vit import ViT
from evt.models.vitdet import ViTDet
from evt.training.objectives.detection import detection_losses
from evt.training.task import Task
from tests.commands import SMALL, Refused, command
from tests.common import ROOT
from tests.data.vid_tree import VIDEOS, coco_json, write_json, write_tree

DETECTOR = [*SMALL, "model.fpn_channels=16", "model.fc_dim=32", "model.post_nms_top=20"]
# Random weights give every class about 1 / 31, so that all boxes are detections.
SHOWS_ALL = "model.score_threshold=0.01"


def write_checkpoint(path: Path, n_classes: int = 30) -> Path:
    torch.manual_seed(0)
    net = ViT(
        dim=24, depth=3, num_heads=3, window_size=3, window_blocks=(0, 1), pretrain_grid=4, rel_pos_grid=8
    )
    model = ViTDet(net, 64, fpn_channels=16, fc_dim=32, n_classes=n_classes)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    save_checkpoint(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("vid") / "ILSVRC2015")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "small.safetensors")


def run_vid(
    monkeypatch: pytest.MonkeyPatch, folder: Path, root: Path, weights: Path, *arguments: str
) -> dict[str, Any]:
    command(
        monkeypatch, run.run, "model.size=128", "policy.r=16", *DETECTOR, SHOWS_ALL, "data=vid",
        f"data.root={root}", f"model.checkpoint={weights}", f"hydra.run.dir={folder}", *arguments,
    )  # fmt: skip
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


def test_a_tree_and_its_json_give_the_same_detections_and_map50(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    root: Path,
    weights: Path,
) -> None:
    """Also that a run on VID detects in every frame, flushes at every gap, and prints its mAP50."""
    from_xml = run_vid(monkeypatch, tmp_path / "xml", root, weights)
    out = capsys.readouterr().out
    path = write_json(tmp_path / "val.json", coco_json())
    from_json = run_vid(monkeypatch, tmp_path / "json", root, weights, f"data.annotations={path}")
    lines = (tmp_path / "xml/detections.jsonl").read_text()
    assert lines == (tmp_path / "json/detections.jsonl").read_text()
    assert from_xml["detection"] == from_json["detection"]
    assert from_xml["detection"]["n_frames"] == sum(map(len, VIDEOS.values()))
    assert from_xml["detection"]["n_detections"] > 0
    assert 0 <= from_xml["detection"]["map50"] <= 100
    assert from_xml["first"]["frames"] == 4  # two videos, and two gaps in the second
    assert from_xml["later"]["detector_ms"] > 0
    assert f"{from_xml['detection']['map50']:.2f}" in [
        line.split()[-1] for line in out.splitlines() if "mAP50" in line
    ]
    frames = [json.loads(line) for line in lines.splitlines()]
    assert len(frames) == sum(map(len, VIDEOS.values()))
    assert all(frame["scores"] == sorted(frame["scores"], reverse=True) for frame in frames)


def test_a_frame_folder_with_a_checkpoint_gives_detections_but_no_map50(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path, weights: Path
) -> None:
    folder = root / "Data/VID/val" / next(iter(VIDEOS))
    command(
        monkeypatch, run.run, "model.size=128", "policy.r=16", *DETECTOR, SHOWS_ALL, "data=frames",
        f"data.path={folder}", f"model.checkpoint={weights}", f"hydra.run.dir={tmp_path}",
    )  # fmt: skip
    detection = json.loads((tmp_path / "metrics.json").read_text())["detection"]
    assert detection["n_detections"] > 0
    assert detection["map50"] is None
    assert detection["reason"] == "there is no ground truth"


def test_without_a_checkpoint_no_accuracy_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, root: Path
) -> None:
    command(
        monkeypatch, run.run, "model.size=128", "policy.r=16", *DETECTOR, "data=vid",
        f"data.root={root}", "data.n_videos=1", f"hydra.run.dir={tmp_path}",
    )  # fmt: skip
    assert "detection" not in json.loads((tmp_path / "metrics.json").read_text())
    assert "mAP50" not in capsys.readouterr().out


ROWS = "table.points=[{size: 128, variant: base}, {size: 128, variant: temporal, r: [32, 8]}]"
"""Of a table, instead of the paper's."""


def table_arguments(root: Path, weights: Path, folder: Path) -> list[str]:
    return [
        "table=table_c", *DETECTOR, SHOWS_ALL, "data=vid", f"data.root={root}", f"model.checkpoint={weights}",
        f"out={folder}", f"hydra.run.dir={folder}/run", ROWS,
    ]  # fmt: skip


def test_a_table_killed_in_the_middle_of_a_row_ends_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path, weights: Path
) -> None:
    """SIGKILL after the first video of a row; the CSV of the run that goes on is identical."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command(monkeypatch, reproduce.reproduce, *table_arguments(root, weights, whole))
    process = subprocess.Popen(
        [sys.executable, "-m", "evt.reproduce", *table_arguments(root, weights, killed)],
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip
    part = killed / "run/videos.jsonl"
    while process.poll() is None and not (part.exists() and part.read_bytes().endswith(b"\n")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "table_c.csv").exists()

    measured = []

    def listed(subject: Subject, frame: Frame) -> Seen:
        measured.append(frame.name)
        return observe(subject, frame)

    monkeypatch.setattr(loop, "observe", listed)
    command(monkeypatch, reproduce.reproduce, *table_arguments(root, weights, killed))
    assert (killed / "table_c.csv").read_bytes() == (whole / "table_c.csv").read_bytes()
    assert len(measured) < sum(map(len, VIDEOS.values())) * 3

    table = pd.read_csv(whole / "table_c.csv")
    assert list(table.columns[:7]) == [
        "size",
        "variant",
        "r",
        "gflops",
        "gflops_paper",
        "map50",
        "map50_paper",
    ]
    assert table["map50"].notna().all()
    assert list(table["frames"]) == [8] * 3
    assert set(table["data"]) == {"VID val"}
    assert set(table["checkpoint"]) == {"small.safetensors"}
    assert table["gflops"][0] > table["gflops"][1] > table["gflops"][2]


def test_a_quick_look_is_called_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path, weights: Path
) -> None:
    command(monkeypatch, reproduce.reproduce, *table_arguments(root, weights, tmp_path), "data.n_videos=1")
    assert set(pd.read_csv(tmp_path / "table_c.csv")["data"]) == {"VID val, first 1 of 2 videos"}


def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command(
        monkeypatch, reproduce.reproduce, *SMALL, ROWS, f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run"
    )
    for text in (capsys.readouterr().out, (tmp_path / "table_c.md").read_text()):
        assert "VID_ROOT=FOLDER" in text
        assert "WEIGHTS=FILE" in text
    assert pd.read_csv(tmp_path / "table_c.csv")["map50"].isna().all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["data=vid"], "data.root is not set"),
        (["data=vid", "data.root=nowhere"], "data.root is nowhere, which is not a folder"),
        (
            ["data=vid", "data.root=ROOT", "data.split=test"],
            "data.split is 'test'; allowed are val, train, det",
        ),
        (["data=vid", "data.root=ROOT", "data.n_videos=0"], "data.n_videos is 0"),
        (["data=vid", "data.root=ROOT", "data.annotations=no.json"], "no.json: no such annotation file"),
        (["model.checkpoint=no.pth", *SMALL], "no.pth: there is no such file"),
        (["model.checkpoint=EMPTY", *SMALL], "the file is empty"),
        (
            ["model.checkpoint=WEIGHTS", *SMALL, "model.backbone.depth=4"],
            "blocks.3.norm1.weight is missing, which must be",
        ),
        (["model.checkpoint=OTHER", *DETECTOR], "it is for 5 classes, and the model has 30"),
        (["model/detector=yolo"], "model/detector is yolo; allowed are builtin, detectron2"),
        (["compare=maybe"], "compare is 'maybe'; it must be true or false"),
        (["fast=maybe"], "fast is 'maybe'; it must be true or false"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    root: Path,
    weights: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.pth").touch()
    if "model.checkpoint=OTHER" in arguments:
        write_checkpoint(tmp_path / "other.safetensors", n_classes=5)
    places = {"ROOT": str(root), "EMPTY": "empty.pth", "WEIGHTS": str(weights), "OTHER": "other.safetensors"}
    given = [
        f"{key}={places.get(value, value)}"
        for key, _, value in (argument.partition("=") for argument in arguments)
    ]
    assert sentence in refused("model.size=128", *given)


@pytest.mark.parametrize("broken", ["frame", "xml", "missing xml"])
def test_broken_data_end_the_run_and_keep_what_is_done(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path, weights: Path, broken: str
) -> None:
    """The second video is broken: the file is named, the first is not measured again once it is mended."""
    bad = tmp_path / "ILSVRC2015"
    shutil.copytree(root, bad)
    video = "VID/val/ILSVRC2015_val_00007010"
    path = bad / (f"Data/{video}/000005.JPEG" if broken == "frame" else f"Annotations/{video}/000005.xml")
    if broken == "missing xml":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:60])
    arguments = [
        "model.size=128", "policy.r=16", *DETECTOR, "data=vid", f"data.root={bad}",
        f"model.checkpoint={weights}", f"hydra.run.dir={tmp_path}/run",
    ]  # fmt: skip
    assert path.name in refused(*arguments)
    assert len((tmp_path / "run/videos.jsonl").read_text().splitlines()) == 1
    good = root / path.relative_to(bad)
    path.write_bytes(good.read_bytes())
    command(monkeypatch, run.run, *arguments)
    assert json.loads((tmp_path / "run/metrics.json").read_text())["detection"]["n_frames"] == 8


def test_training_on_vid_and_det_goes_on_after_a_kill(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, weights: Path
) -> None:
    """From weights of other classes; the trained checkpoint is one that evt.run takes."""
    root = write_tree(tmp_path / "ILSVRC2015", {f"part/{v}": f for v, f in VIDEOS.items()}, "VID/train")
    write_tree(root, {"n0": {7: VIDEOS["ILSVRC2015_val_00000000"][1]}}, "DET/train")
    coco = write_checkpoint(tmp_path / "coco.safetensors", n_classes=5)
    arguments = [
        "task=vid", "model.size=128", *DETECTOR, f"data.vid.root={root}", f"model.checkpoint={coco}",
        "train.epochs=2", "train.batch_size=2", "train.workers=0", "train.save_every=3", "train.warmup_steps=2",
        "train.decay_epochs=[2]",
    ]  # fmt: skip
    command(monkeypatch, train.train_task, *arguments, f"hydra.run.dir={tmp_path}/whole")
    assert "not loaded: roi_heads.box_predictor.cls_score.weight" in capsys.readouterr().err

    calls = iter(range(5))

    def until_killed(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return detection_losses(*arguments)

    def detection(*arguments: Any) -> Task[Any, Any]:
        return replace(train.detection(*arguments), losses=until_killed)

    with monkeypatch.context() as patch:
        patch.setitem(train.OBJECTIVES, "detection", detection)
        with pytest.raises(SystemExit):
            command(patch, train.train_task, *arguments, f"hydra.run.dir={tmp_path}/parts")
    assert next(calls, None) is None
    command(monkeypatch, train.train_task, *arguments, f"hydra.run.dir={tmp_path}/parts")
    whole, parts = (read_checkpoint(tmp_path / name / "weights.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(x, parts[name]) for name, x in whole.items())
    # 8 frames of VID and 1 picture of DET, two at a time, twice
    assert len((tmp_path / "whole/log.jsonl").read_text().splitlines()) == 8
    run_vid(
        monkeypatch, tmp_path / "run", write_tree(tmp_path / "val"), tmp_path / "whole/weights.safetensors",
        "data.n_videos=1",
    )  # fmt: skip
