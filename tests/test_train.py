"""Training a detector from the command line: what it refuses, and what it says of a run that is finished."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytest

from evt import train
from evt.build import build
from evt.settings import CONFIG_DIR
from tests.commands import command
from tests.data.vid_tree import VIDEOS, write_tree
from tests.test_detection import DETECTOR, write_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A finished run of two steps: the arguments that began it, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    root = write_tree(folder / "ILSVRC2015", {f"part/{v}": f for v, f in VIDEOS.items()}, "VID/train")
    arguments = [
        "task=vid", "~data.det", "model.size=128", *DETECTOR, f"data.vid.root={root}", "frames_per_video=2",
        "train.epochs=1", "train.batch_size=2", "train.workers=0", "train.warmup_steps=0", "train.decay_epochs=[]",
        f"hydra.run.dir={folder}/run",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as monkeypatch:
        command(monkeypatch, train.train_task, *arguments)
    return arguments, folder


@pytest.mark.parametrize(
    ("changes", "differ"),
    [
        (["data.vid.root=OTHER"], "data.vid.root"),
        (["data.vid.n_videos=1"], "data.vid.n_videos, number of samples"),
        (["frames_per_video=3"], "frames_per_video, number of samples"),
        (["model.size=64"], "model.size"),
        (["model.seed=1"], "model.seed, starting weights"),
        (["model.backbone.dim=48"], "model.backbone.dim, starting weights"),
        (["model.checkpoint=WEIGHTS"], "starting weights"),
    ],
)
def test_a_folder_of_another_run_is_refused_by_the_command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    trained: tuple[list[str], Path],
    changes: list[str],
    differ: str,
) -> None:
    """Else the weights of the run that is there are handed out as the trained ones of another."""
    arguments, folder = trained
    (tmp_path / "other").symlink_to(folder / "ILSVRC2015")
    places = {
        "OTHER": str(tmp_path / "other"),
        "WEIGHTS": str(write_checkpoint(tmp_path / "small.safetensors")),
    }
    given = [f"{key}={places.get(x, x)}" for key, _, x in (change.partition("=") for change in changes)]
    before = (folder / "run/weights.safetensors").stat().st_mtime_ns
    told = training_error(monkeypatch, capsys, *arguments, *given)
    assert told.endswith(
        f"run holds another run, which differs in {differ}; give another folder, or the settings that it was "
        "begun with"
    )
    assert (folder / "run/weights.safetensors").stat().st_mtime_ns == before


def test_a_finished_run_started_again_is_said_to_be_finished(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trained: tuple[list[str], Path]
) -> None:
    """And what changes nothing about it may be another: workers, save_every, threads, device."""
    arguments, folder = trained
    before = (folder / "run/weights.safetensors").read_bytes()
    changed = ["train.workers=1", "train.save_every=7", "threads=1", "device=cpu"]
    command(monkeypatch, train.train_task, *arguments, *changed)
    assert f"this run is finished: {folder}/run holds all of its 2 steps" in capsys.readouterr().out
    assert (folder / "run/weights.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["data.vid.root=???"], "data.vid.root is not set; give it on the command line as data.vid.root=..."),
        (["data.vid.name=coco"], "data.vid.name is not a setting; those of data.vid=vid are root, split"),
        (
            ["frames_per_video=2.5"],
            "frames_per_video is 2.5; it must be a whole number of at least 1, or null",
        ),
        (["frames_per_video=0"], "frames_per_video is 0; it must be a whole number"),
        (["model.n_classes=8"], "model.n_classes is 8, but the data have 30 classes; they must be as many"),
        (["model.n_classes=31"], "model.n_classes is 31, but the data have 30 classes; they must be as many"),
        (
            ["train.label_smoothing=0.1"],
            "train.label_smoothing is 0.1, which is for the objective motion or temporal; for detection it must be 0",
        ),
        (
            ["train.mixup=0.8"],
            "train.mixup is 0.8, which is for the objective temporal; for detection it must be 0",
        ),
        (["train.clip_norm=0"], "train.clip_norm is 0; it must be a finite number above 0, or null"),
        (
            ["model.backbone.num_heads=-4"],
            "model.backbone.num_heads is -4; it must be a whole number of at least 1",
        ),
    ],
)
def test_a_training_that_cannot_be_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    trained: tuple[list[str], Path],
    arguments: list[str],
    sentence: str,
) -> None:
    """Before the model is built where it is about the data: that takes its time."""
    if not arguments[0].startswith("model.backbone.num_heads"):
        monkeypatch.setattr(train, "build_model", lambda *_, **__: pytest.fail("the model was built"))
    run_there = f"hydra.run.dir={tmp_path}"
    assert sentence in training_error(monkeypatch, capsys, *trained[0], run_there, *arguments)


def training_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    """What a training that fails writes last; it is one sentence."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, train.train_task, *arguments)
    assert stopped.value.code == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    return told[0]


def test_a_detector_is_not_fine_tuned_on_clips(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The task decides what is trained; the clip itself is not opened."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/P01_01.mp4").touch()
    (tmp_path / "EPIC_100_train.csv").write_text(
        "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,verb,verb_class\n"
        "P01_01_0,P01,P01_01,00:00:00.00,00:00:01.00,take,0\n"
    )
    arguments = [
        "task=vivit_temporal",
        "model=vitdet",
        f"data.root={tmp_path}",
        f"hydra.run.dir={tmp_path}/run",
    ]
    assert "model.name is vitdet; this needs a ViViT" in training_error(monkeypatch, capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            [
                "task=vitdet_mini_cells",
                "data@data.sprites=vid",
                "data.sprites.root=ROOT",
                "data.sprites.split=train",
            ],
            "data.sprites is vid; it must be sprites, whose cells are known",
        ),
        (["task=vivit_mini", "model=vitdet_mini"], "model.name is vitdet; allowed are videomae, vivit"),
        (
            ["task=vivit_mini", "objective=cell"],
            "objective is cell; allowed are cells, detection, motion, temporal",
        ),
        (
            ["task=videomae_mini", "variant=random_drop", "policy=random_drop"],
            "variant is random_drop; to train it must be one of base, rlt, token_merging, ats",
        ),
        (
            ["task=videomae_mini", "model=vivit_mini", "variant=rlt", "policy=run_length"],
            "variant is rlt, which is for videomae; for vivit it must be base",
        ),
        (
            ["task=videomae_mini", "variant=rlt", "variant.av_dtype=bfloat16"],
            "variant.av_dtype is not a setting; variant=rlt has none",
        ),
    ],
)
def test_a_task_refuses_what_it_cannot_learn_from(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    trained: tuple[list[str], Path],
    arguments: list[str],
    sentence: str,
) -> None:
    given = [argument.replace("ROOT", f"{trained[1]}/ILSVRC2015") for argument in arguments]
    told = training_error(monkeypatch, capsys, *given, f"hydra.run.dir={tmp_path}")
    assert told == f"error: {sentence}"


@pytest.mark.parametrize(
    ("task", "paper"),
    [("vivit_temporal", (5, 8, 1e-5, 0.05)), ("vivit_temporal_kinetics", (10, 16, 2e-6, 0.05))],
)
def test_the_papers_settings(task: str, paper: tuple[int, int, float, float]) -> None:
    """Supplement, sections B and C; dropout stands before the classifier."""
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = hydra.compose("train", [f"task={task}"])
    recipe = build(cfg.train, "train")
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay) == paper
    assert cfg.dropout == 0.5
