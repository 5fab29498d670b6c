"""The small tables: what they measure must not depend on how many processes measure it, nor on being killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf, open_dict

from evt import reproduce, run
from evt.build import build
from evt.errors import ConfigError
from evt.evaluate.ledger import Ledger
from evt.evaluate.pool import in_batches
from evt.eventful import init_weights
from evt.models.checkpoints import save_checkpoint
from evt.models.vit import ViT
from evt.models.vitdet import ViTDet
from evt.models.vivit import ViViT
from evt.models.vivit_weights import fine_tuned_weights, published
from evt.settings import CONFIG_DIR, config_of, job_of
from evt.tables import fill
from evt.tables.fill import quick_form
from tests.commands import Refused, command

pytestmark = pytest.mark.usefixtures("one_process")

TINY: dict[str, Any] = {"fpn_channels": 16, "fc_dim": 16}
TINY_BACKBONE: dict[str, Any] = {"dim": 16, "depth": 3, "num_heads": 2}
TINY_CLIPS: dict[str, Any] = {"dim": 16, "num_heads": 2, "spatial_depth": 2, "temporal_depth": 1}


AROUND = [35, 30, 25, 20, 15]


def points(table: str, *rows: str) -> str:
    """The argument that gives a table other rows."""
    return f"table.tables.{table}.points=[{', '.join(rows)}]"


def given(settings: dict[str, int], below: str = "model") -> list[str]:
    return [f"{below}.{name}={value}" for name, value in settings.items()]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments for a tiny detector that finds many things."""
    torch.manual_seed(0)
    net = ViT(
        patch_size=8, window_size=8, window_blocks=[0, 1], pretrain_grid=16, rel_pos_grid=16, **TINY_BACKBONE
    )
    model = ViTDet(net, size=128, n_classes=8, short_edge=1.0, **TINY)
    model.net.apply(init_weights)
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.5)
    torch.nn.init.normal_(model.proposal_generator.rpn_head.objectness_logits.weight, std=0.1)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(model.state_dict(), path)
    tiny = [*given(TINY), *given(TINY_BACKBONE, "model.backbone")]
    return [*tiny, "model.backbone.window_blocks=[0,1]", f"model.checkpoint={path}"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments for a tiny ViViT, and the same with a temporal sub-model for r = 25."""
    folder = tmp_path_factory.mktemp("weights")
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = ViViT(
            size=80, classes=12, temporal_stride=1, view_frames=16, temporal_views=1, spatial_views=1,
            tubelet=(2, 8, 8), **TINY_CLIPS,
        )  # fmt: skip
        model.apply(init_weights)
        torch.nn.init.normal_(model.head.weight)
        if seed == 0:
            save_checkpoint(published(model), folder / "a.safetensors")
    save_checkpoint(fine_tuned_weights(model), folder / "r25.safetensors")
    tuned = [
        f"table.weights={{tuned_r: {{25: {{fine_tuned: '{folder}/r25.safetensors'}}}}}}",
        points("table_d_mini", "{variant: base}", f"{{variant: temporal, r: {AROUND}}}",
               f"{{variant: temporal, tuned_r: 25, r: {AROUND}}}"),
    ]  # fmt: skip
    return [*given(TINY_CLIPS), f"model.checkpoint={folder}/a.safetensors", *tuned]


def made(monkeypatch: pytest.MonkeyPatch, folder: Path, table: str, *arguments: str) -> pd.DataFrame:
    places = [f"out={folder}/out", f"hydra.run.dir={folder}/run"]
    command(monkeypatch, reproduce.reproduce, f"table={table}", *places, *arguments)
    return read(folder, "table_1_mini" if table == "mini" else table)


def read(folder: Path, table: str) -> pd.DataFrame:
    return pd.read_csv(folder / "out" / f"{table}.csv")


EACH = ["table.detect_from=0", "table.detect_every=1"]
"""Objects are detected in each frame."""

FEW = [
    *("data.n_videos=3", "data.n_frames=5", "table.batch=1", "table.detect_from=3"),
    points("table_c_mini", "{variant: base}", "{variant: [stgt, rows], r: 64}"),
    points("table_1_mini", "{variant: [base, spatial]}", "{variant: [temporal, spatiotemporal], r: 64}"),
    points("table_b_mini", "{variant: base}", "{variant: temporal, h: 1}"),
]


def test_a_row_is_what_a_run_over_the_same_videos_gives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, detector: list[str]
) -> None:
    """Streams of a batch must not touch each other, and both ways to measure must agree for tables to be believed."""
    few = ["data.n_videos=3", "data.n_frames=5"]
    batch = ["table.batch=3", "table.metrics.accuracy.parts=1"]
    rows = points("table_drift_mini", "{variant: base}", "{variant: temporal, r: 64}")
    table = made(monkeypatch, tmp_path, "table_drift_mini", *detector, *few, *EACH, *batch, rows)
    folder = tmp_path / "alone"
    videos = [*few, "data.setting=light", "policy.r=64", "compare=false"]
    command(monkeypatch, run.run, "model=vitdet_mini", *detector, *videos, f"hydra.run.dir={folder}")
    metrics = json.loads((folder / "metrics.json").read_text())
    row = table[table.variant == "temporal"].iloc[0]
    assert row.map50 == pytest.approx(metrics["detection"]["map50"], abs=1e-6)
    first, later = metrics["first"]["gflops"], metrics["later"]["gflops"]
    assert row.gflops == pytest.approx(0.0037 * first + 0.9963 * later)


def test_a_killed_table_goes_on_after_its_last_videos_with_more_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, detector: list[str]
) -> None:
    """Half an hour of measuring must not be done again, and the tables must come out the same."""
    arguments = [*detector, *FEW]
    one = made(monkeypatch, tmp_path / "one", "mini", *arguments)
    put = Ledger.put
    done: list[str] = []

    def put_one(ledger: Ledger, key: str, value: object) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(key)
        put(ledger, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "put", put_one)
        with pytest.raises(SystemExit):
            made(monkeypatch, tmp_path / "two", "mini", *arguments)
    measured: list[str] = []

    def put_and_tell(ledger: Ledger, key: str, value: object) -> None:
        measured.append(key)
        put(ledger, key, value)

    monkeypatch.setattr(Ledger, "put", put_and_tell)
    monkeypatch.setattr(fill, "in_batches", in_batches)
    made(monkeypatch, tmp_path / "two", "mini", *arguments, "workers=2")
    assert len(measured) == 2
    for table in ("table_c_mini", "table_1_mini", "table_b_mini"):
        one_file, two_file = (tmp_path / name / f"out/{table}.csv" for name in ("one", "two"))
        assert one_file.read_bytes() == two_file.read_bytes()
    assert list(one.variant) == ["base", "spatial", "temporal", "spatiotemporal"]
    assert one.op_ratio[0] == 1
    assert one.gflops.is_monotonic_decreasing
    assert (one.frames == 15).all()
    assert list(read(tmp_path / "one", "table_b_mini").h[1:]) == [1]


def test_parts_are_of_the_length_of_the_videos(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, detector: list[str]
) -> None:
    few = [
        "data.n_videos=1",
        "data.n_frames=8",
        *EACH,
        points("table_drift_mini", "{variant: base}"),
        "table.metrics.accuracy.parts=2",
    ]
    table = made(monkeypatch, tmp_path, "table_drift_mini", *detector, *few)
    assert {"map50_part1", "map50_part2"} < set(table.columns)
    assert table.frames[0] == 8


def test_a_row_of_frame_skipping_is_the_mean_over_its_phases(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, detector: list[str]
) -> None:
    """Else the frames that are looked at could be those that were run, or those that were held longest."""
    folder = tmp_path / "alone"
    few = ["data.n_videos=2", "data.n_frames=5", *EACH, points(
        "table_drift_mini", "{variant: base}", "{variant: skip, every: [1, 2]}")]  # fmt: skip
    table = made(monkeypatch, tmp_path, "table_drift_mini", *detector, *few, "table.metrics.accuracy.parts=1")
    base, whole, half = (row for _, row in table.iterrows())
    assert whole.map50 == base.map50
    assert whole.op_ratio == 1
    scores = []
    for phase in (0, 1):
        command(
            monkeypatch, run.run, "model=vitdet_mini", "variant=skip", "policy.every=2", f"policy.phase={phase}",
            *detector, "data.n_videos=2", "data.n_frames=5", "data.setting=light", "compare=false",
            f"hydra.run.dir={folder}",
        )  # fmt: skip
        scores.append(json.loads((folder / "metrics.json").read_text())["detection"]["map50"])
    assert half.map50 == pytest.approx(sum(scores) / 2, abs=1e-6)
    # Of four later frames each phase runs two.
    assert half.gflops == pytest.approx((0.0037 + 0.9963 / 2) * base.gflops)
    assert half.frames == 10
    # Skipping nothing is the dense model, and so is a row against itself.
    differences = ["minus_base", "minus_base_interval", "minus_skip", "minus_skip_interval"]
    assert whole[differences].tolist() == base[differences].tolist() == [0, 0, 0, 0]
    assert half.minus_base == pytest.approx(half.map50 - base.map50)
    assert half[differences[2:]].tolist() == [0, 0]


def test_objects_are_detected_where_the_table_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, detector: list[str]
) -> None:
    """Accuracy is to be of frames in which errors have settled, and the others are run for that alone."""
    few = ["data.n_videos=1", "data.n_frames=8", points("table_drift_mini", "{variant: base}")]
    where = ["table.detect_from=3", "table.detect_every=2", "table.metrics.accuracy.parts=8"]
    table = made(monkeypatch, tmp_path, "table_drift_mini", *detector, *few, *where)
    seen = [k for k in range(8) if table[f"map50_part{k + 1}"].notna().all()]
    assert seen == [3, 5, 7]


def test_error_over_time_is_against_the_dense_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, detector: list[str]
) -> None:
    few = ["data.n_videos=2", "data.n_frames=5", "table.batch=2", "table.metrics.error.until=[1,2,4,8]",
           points("error_over_time", "{variant: base, path: fast}", "{variant: skip, path: fast, every: 2}",
                  "{variant: temporal, path: fast, r: [256, 16]}")]  # fmt: skip
    errors_of = [name for k in (1, 2, 4, 8) for name in (f"error_{k}", f"error_{k}_interval")]
    shown = f"table.columns=[variant,path,setting,{','.join(errors_of)}]"
    table = made(monkeypatch, tmp_path, "error_over_time", *detector, *few, shown)
    assert list(table.path) == ["fast"] * 4
    base, skip, whole, few_tokens = (row for _, row in table.iterrows())
    columns = ["error_1", "error_2", "error_4"]
    # The dense model beside runs as its row does: on the reference path it is elsewhere in the last digits.
    assert base[columns].tolist() == [0, 0, 0]
    assert whole[columns].tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert (few_tokens[columns] > 0).all()
    assert table.error_8.isna().all()
    for name in columns:
        assert few_tokens[f"{name}_interval"] > 0
    # Half of the frames are those of the dense model: frame 1 in one of two phases.
    folder = tmp_path / "alone"
    errors = []
    for phase in (0, 1):
        command(
            monkeypatch, run.run, "model=vitdet_mini", "variant=skip", "policy.every=2", f"policy.phase={phase}",
            *detector, "data.n_videos=2", "data.n_frames=5", f"hydra.run.dir={folder}",
        )  # fmt: skip
        errors.append(json.loads((folder / "metrics.json").read_text())["later"]["relative_l2_error"])
    weighted = (skip.error_1 + skip.error_2 + 2 * skip.error_4) / 4
    assert weighted == pytest.approx(sum(errors) / 2)


def test_a_metric_that_is_null_is_dropped_and_one_of_a_thing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, detector: list[str]
) -> None:
    few = ["data.n_videos=1", "data.n_frames=8", points("table_drift_mini", "{variant: base}")]
    table = made(
        monkeypatch, tmp_path, "table_drift_mini", *detector, *few, "table.metrics.accuracy=null",
        "table.notes.parts=none",
    )  # fmt: skip
    assert table.map50.isna().all()
    assert table.frames[0] == 8
    assert "Data: 1 generated video of 8 frames" in (tmp_path / "out/table_drift_mini.md").read_text()


def test_clips_are_classified_by_each_temporal_sub_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, classifier: list[str]
) -> None:
    """A row for each budget without tuning, and one for each at which the tuned one is tested."""
    table = made(monkeypatch, tmp_path, "table_d_mini", *classifier, "data.n_clips=10")
    assert list(table.r[1:6]) == AROUND == list(table.r[6:])
    assert table.tuned_r[:6].isna().all()
    assert (table.tuned_r[6:] == 25).all()
    assert (table.clips == 10).all()
    assert list(table.gflops[1:6]) == list(table.gflops[6:])
    # 10 clips: whole tenths; and the two temporal sub-models are not the same.
    assert ((table.top1 * 0.1) % 1 == 0).all()
    assert list(table.top1[1:6]) != list(table.top1[6:])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["table=table_c", "quick=true"], "table_c has no quick form"),
        (["table=mini", "quick=2"], "quick is 2; it must be true or false"),
        (["table=mini", "quick=true", "data.n_videos=3"], "quick=true makes data.n_videos 8"),
        (["table=mini", "workers=0"], "workers is 0; it must be a whole number from 1 to"),
        (["table=mini", points("table_c_mini", "{variant: temporal, r: 300}")], "r is 300, but a frame has 256"),
        (["table=mini", points("table_b_mini", "{variant: temporal, h: -1}")], "policy.h is -1; it must be a finite"),
        (["table=mini", points("table_c_mini", "{variant: none}")], "has variant none; allowed are"),
        (["table=mini", points("table_c_mini")], "points is []; it must be a list of points"),
        (["table=mini", points("table_c_mini", "3")], "a point is 3; it must be settings by name"),
        (["table=mini", points("table_c_mini", "{variant: temporal}")], "variant temporal takes (policy="),
        (["table=mini", points("table_c_mini", "{variant: base, r: 3}")], "variant base takes no policy"),
        (["table=mini", points("table_c_mini", "{variant: temporal, r: 3, h: 1}")], "temporal takes (policy="),
        (["table=mini", points("table_c_mini", "{variant: skip}")], "variant skip takes (every, phase)"),
        (["table=mini", points("table_c_mini", "{variant: skip, every: 0}")], "policy.every is 0; it must be"),
        (["table=mini", points("table_c_mini", "{model: vivit, variant: base}")], "has model vivit; it must be"),
        (
            ["table=mini", points("table_c_mini", "{variant: rlt, threshold: 1}")],
            "rlt threshold=1: the variant is for other models",
        ),
        (["table=mini", points("table_c_mini", "{varient: base}")], "a point has varient, which is none of"),
        (["table=mini", points("table_c_mini", "{variant: skip, every: 46}")], "runs the first of 46 frames"),
        (["table=mini", "data.n_frames=1"], "a video has 1 frame; tables need at least one later frame"),
        (["table=mini", "table.metrics={operations: null, accuracy: null}"], "table.metrics has no metric"),
        (["table=mini", "table.tables.table_c_mini.title=null"], "table_c_mini.title is None; it must be a text"),
        (
            ["table=mini", "table.columns=[variant,h,every,policy,spend,gflops,map50]"],
            "points have r, but table.columns does not; without it rows look alike",
        ),
        (["table=mini", 'table.notes.model="{modell.size}"'], "the note model of mini is '{modell.size}'; in"),
        (["table=mini", "table.digits.gflops=x"], "it must be settings by name, each a whole number"),
        (["table=mini", "table.name=../up"], "a table's name is ../up; it must be of letters"),
        (["table=mini", "quick=true", points("table_b_mini", "{variant: base}")], "quick=true leaves out"),
        (["table=mini", "quick=true", "table.quick.tables=[mini]"], "a list of some of table_c_mini, table_1_mini"),
        (["table=mini", "quick=true", "table.quick.data=3"], "it must have `data`, settings by name"),
        (["table=mini", "table.tables.table_c_mini=3"], "table.tables.table_c_mini is 3; it must have a title"),
        (["table=mini", "data.n_frames=24"], "table.detect_from is 24, but a video has 24 frames; it must be less"),
        (["table=error_over_time", "table.metrics.error.until=[8, 4]"], "until is [8, 4]; each must be larger"),
        (["table=mini", "model=vitdet"], "model is vitdet, but mini is of vitdet_mini"),
        (["table=mini", "model.n_classes=7"], "they must be as many"),
        (["table=mini", "data=video"], "data is video, but mini is of sprites; leave data as it is"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_anything_is(
    refused: Refused, tmp_path: Path, detector: list[str], arguments: list[str], sentence: str
) -> None:
    weights = [] if {"model=vitdet", "model.n_classes=7", "table=table_c"} & set(arguments) else detector
    places = [f"out={tmp_path}", f"hydra.run.dir={tmp_path}/run", "model.checkpoint=null"]
    assert sentence in refused(*places, *weights, *arguments, task=reproduce.reproduce)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    "table", ["mini", "table_drift_mini", "table_d_mini", "error_over_time", "table_rlt"]
)
def test_the_points_of_a_table_can_be_measured(tmp_path: Path, table: str, quick: bool) -> None:
    """Its own, with the weights that come with the package; else `make reproduce-mini` ends in a refusal."""
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = hydra.compose("reproduce", [f"table={table}"])
    with open_dict(cfg):
        cfg.device = "cpu"
    cfg = config_of(job_of(OmegaConf.merge(cfg, quick_form(cfg) if quick else {})))  # type: ignore[arg-type]
    assert build(cfg.table, "table").work(cfg, tmp_path).parts


def test_two_metrics_do_not_make_one_column(tmp_path: Path) -> None:
    """One would stand under the other's name, without a word."""
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = hydra.compose("reproduce", ["table=mini", "data.n_videos=1", "model.checkpoint=null"])
    with open_dict(cfg):
        cfg.table.metrics.again = cfg.table.metrics.accuracy
        cfg.device = "cpu"
    with pytest.raises(ConfigError, match="column map50 is made twice; each needs a name of its own"):
        build(cfg.table, "table").work(cfg, tmp_path)
