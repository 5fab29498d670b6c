"""Action recognition from the command line: run, fine-tune, tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from evt import reproduce, run, train
from evt.models.vivit import ViViT
from evt.models.vivit_weights import published
from tests.commands import Refused, command
from tests.videos import write_video

SMALL = [
    "model=vivit_epic", "model.size=32", "model.tubelet=[2,8,8]", "model.view_frames=4", "model.dim=24",
    "model.num_heads=3", "model.spatial_depth=2", "model.temporal_depth=1", "model.temporal_views=2",
]  # fmt: skip
COLUMNS = "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,verb,verb_class\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five segments of one video, one past its end, and one of a video that is not there."""
    root = tmp_path_factory.mktemp("epic")
    write_video(root / "videos/P01_01.mp4", 60, fps=30)
    rows = [
        f"P01_01_{i},P01,P01_01,00:00:0{0.3 * i:.2f},00:00:0{0.3 * i + 0.3:.2f},take,{i}" for i in range(4)
    ]
    rows += [
        "P01_01_4,P01,P01_01,00:00:08.00,00:00:09.00,take,4",
        "P02_01_0,P02,P02_01,00:00:00.00,00:00:01.00,put,1",
    ]
    for split in ("train", "validation"):
        (root / f"EPIC_100_{split}.csv").write_text(COLUMNS + "\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint under the published names, with a head for nouns."""
    torch.manual_seed(0)
    model = ViViT(32, 97, 1, 4, 2, 3, (2, 8, 8), 24, 3, spatial_depth=2, temporal_depth=1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = published(model, "head.linear1.")
    state |= {"head.linear2.weight": torch.zeros(300, 24), "head.linear2.bias": torch.zeros(300)}
    path = tmp_path_factory.mktemp("weights") / "vivit.pth"
    torch.save({"model_state": state}, path)
    return path


def metrics_of(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> dict[str, Any]:
    command(monkeypatch, run.run, *SMALL, "policy.r=5", f"hydra.run.dir={folder}", *arguments)
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


ROWS = [
    "table.points=[{variant: base}, {variant: temporal, tuned_r: 5, r: 6}, {variant: temporal, tuned_r: 9, r: 9}, "
    "{variant: temporal, r: 5}]",
]
"""Of a table, instead of the paper's."""


def test_a_clip_runs_beside_the_dense_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, root: Path
) -> None:
    metrics = metrics_of(monkeypatch, tmp_path, "data=video", f"data.path={root}/videos/P01_01.mp4")
    out = capsys.readouterr().out
    assert metrics["first"]["frames"] == 1
    assert metrics["later"]["frames"] == 1
    assert metrics["op_ratio"] == pytest.approx(metrics["dense_tflops"] / metrics["tflops"])
    assert metrics["op_ratio"] > 1
    assert f"{metrics['op_ratio']:.2f}" in next(line for line in out.splitlines() if "operations" in line)
    assert f"{metrics['time_ratio']:.2f}" in next(line for line in out.splitlines() if "time" in line)
    assert "top5" not in metrics  # seeded weights


def test_a_data_set_is_classified_and_what_is_left_out_is_listed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    root: Path,
    weights: Path,
) -> None:
    metrics = metrics_of(
        monkeypatch, tmp_path, "data=epic", f"data.root={root}", f"model.checkpoint={weights}"
    )
    figures = metrics["recognition"]
    assert (figures["clips"], figures["skipped"], figures["missing"]) == (4, 1, 1)
    assert figures["top1"] in (0, 25, 50, 75, 100)
    left_out = (tmp_path / "left_out.txt").read_text()
    assert "P02_01_0: not on disk" in left_out
    assert "P01_01_4: the segment from 8 to 9 s is not in" in left_out
    captured = capsys.readouterr()
    assert "2 clips are in no average" in captured.err
    assert "nouns" in captured.err
    assert "top-1 in percent" in captured.out


def test_on_error_fail_ends_the_run(refused: Refused, tmp_path: Path, root: Path) -> None:
    arguments = [
        *SMALL,
        "policy.r=5",
        "data=epic",
        f"data.root={root}",
        "data.on_error=fail",
        f"hydra.run.dir={tmp_path}",
    ]
    assert "1 clips are not on disk, the first P02_01_0" in refused(*arguments)


def test_fine_tuned_weights_fill_their_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path, weights: Path
) -> None:
    """Fine-tuning at r = 5, then a table with naive rows, a tuned row and one without weights."""
    command(
        monkeypatch, train.train_task, "task=vivit_temporal", "r=5", f"data.root={root}", "data.split=train",
        f"model.checkpoint={weights}", *SMALL[1:], "train.epochs=1", "train.batch_size=2", "train.lr=0.01",
        f"hydra.run.dir={tmp_path}/tuned/r5",
    )  # fmt: skip
    assert "P01_01_4" in (tmp_path / "tuned/r5/left_out.txt").read_text()
    arguments = [
        "table=table_d", *SMALL[1:], "model.temporal_stride=10", "data=epic", f"data.root={root}",
        f"model.checkpoint={weights}", f"fine_tuned={tmp_path}/tuned", f"out={tmp_path}",
        f"hydra.run.dir={tmp_path}/run", *ROWS,
    ]  # fmt: skip
    command(monkeypatch, reproduce.reproduce, *arguments)
    table = pd.read_csv(tmp_path / "table_d.csv", dtype=str, keep_default_na=False)
    assert list(table.columns[:8]) == [
        "size",
        "variant",
        "tuned_r",
        "r",
        "tflops",
        "tflops_paper",
        "top1",
        "top1_paper",
    ]
    assert [bool(top1) for top1 in table["top1"]] == [True, True, False, True]
    assert list(table["tuned_r"]) == ["", "5", "9", ""]
    assert list(table["r"]) == ["", "6", "9", "5"]
    assert list(table["clips"]) == ["4", "4", "", "4"]
    assert list(table["left_out"]) == ["2", "2", "", "2"]
    written = (tmp_path / "table_d.md").read_text()
    assert "r100/temporal.safetensors" in written
    assert "4 of the clips have fewer than the 31 frames that a view spans" in written


def test_broken_fine_tuned_weights_are_found_before_the_first_row(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    root: Path,
    weights: Path,
) -> None:
    """Else a table would end after days."""
    (tmp_path / "r5").mkdir()
    (tmp_path / "r5/temporal.safetensors").write_bytes(b"cut short")
    common = ["table=table_d", *SMALL[1:], "data=epic", f"data.root={root}", f"model.checkpoint={weights}"]
    common += [f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run", *ROWS]
    for folder, sentence in ((tmp_path, "r5/temporal.safetensors"), (tmp_path / "no", "is not a folder")):
        with pytest.raises(SystemExit):
            command(monkeypatch, reproduce.reproduce, *common, f"fine_tuned={folder}")
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run/parts.jsonl").exists()


def test_labels_of_another_number_are_refused(refused: Refused, tmp_path: Path) -> None:
    """Else a selection of Kinetics would be scored by wrong class numbers."""
    write_video(tmp_path / "a_000000_000001.mp4", 12, fps=25)
    (tmp_path / "k.csv").write_text("label,youtube_id,time_start,time_end,split\nzumba,a,0,1,val\n")
    arguments = [
        f"data.annotations={tmp_path}/k.csv",
        f"data.videos={tmp_path}",
        f"hydra.run.dir={tmp_path}/run",
    ]
    narrow = ["model.dim=24", "model.num_heads=3"]
    sentence = refused("model=vivit_kinetics", "data=kinetics", *arguments, *narrow)
    assert "model.classes is 400, but Kinetics-400 k has 1 labels" in sentence


@pytest.mark.parametrize(("table", "rows", "naive"), [("table_d", 16, 3), ("table_a", 4, 3)])
def test_tflops_equal_the_paper(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    table: str,
    rows: int,
    naive: int,
) -> None:
    command(
        monkeypatch, reproduce.reproduce, f"table={table}", f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run"
    )
    filled = pd.read_csv(tmp_path / f"{table}.csv", dtype=str, keep_default_na=False)
    assert len(filled) == rows + naive
    for ours, paper in zip(filled["tflops"][:rows], filled["tflops_paper"][:rows], strict=True):
        digits = len(paper.partition(".")[2])
        assert f"{float(ours):.{digits}f}" == paper
    assert set(filled["top1"]) == {""}
    out = capsys.readouterr().out
    assert f"{rows} of {rows} rows equal" in out
    assert "WEIGHTS=FILE" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["model=vivit_epic", "policy.r=402"],
            "policy.r is 402, but a frame has 401 tokens; it must be at most 401",
        ),
        (["model=vivit_kinetics", "policy.r=198"], "policy.r is 198, but a frame has 197 tokens"),
        (
            ["model=vivit_epic", "data=sprites", "data.n_videos=2"],
            "data.n_videos is 2, but these videos have no labels, and a model of clips takes one of them",
        ),
        (["model=vivit_epic", "data=vid", "data.root=x"], "data is vid; allowed are epic"),
        (["model=vitdet", "data=epic", "data.root=x"], "data is epic; allowed are davis, frames"),
        (
            ["model=vivit_epic", "data=epic", "data.root=x"],
            "EPIC_100_validation.csv: no such annotation file",
        ),
        (
            ["model=vivit_epic", "data=epic", "data.root=x", "data.on_error=ignore"],
            "data.on_error is 'ignore'",
        ),
        (["model=vivit_epic", "variant=spatial"], "form no grid"),
        (["model=vivit_epic", "variant=skip", "variant.move=true"], "one token, of no place"),
        (["model=vivit_epic", "model.fine_tuned=a.safetensors"], "model.checkpoint is not"),
    ],
)
def test_an_impossible_command_is_refused_in_one_sentence(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    narrow = [] if "model=vitdet" in arguments else ["model.dim=24", "model.num_heads=3"]
    assert sentence in refused(*arguments, *narrow)
