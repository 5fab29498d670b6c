"""The conformance command on the recorded cases of the published implementation."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import evt.conformance.__main__ as conformance
from evt.conformance import backbone
from evt.conformance.case import CaseError
from evt.conformance.replay import replay
from tests.common import CONFORMANCE

CASES = sorted(case.parent for case in CONFORMANCE.glob("*/case.json"))
TEMPORAL = CONFORMANCE / "backbone-temporal-top_r"
DETECTOR = CONFORMANCE / "detector-temporal"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_passes(case: Path) -> None:
    """Else this is not the paper's method: outputs within tolerance on every frame, counts of every kind equal."""
    result = replay(case)
    assert result.passed, result
    if case.name.startswith("backbone"):  # only these record their operations
        assert result.counts_equal


@pytest.mark.parametrize("pool", [2, 3])
def test_a_batch_of_a_pooling_variant_is_its_members_one_by_one(pool: int) -> None:
    """On recorded weights and frames; the published code, of which no such case is recorded, is wrong there."""
    folder = CONFORMANCE / "backbone-batch3-top_r"
    case = json.loads((folder / "case.json").read_text()) | {"variant": "spatiotemporal", "pool": pool}
    tensors = load_file(folder / "tensors.safetensors")
    frames = tensors["input/tokens"]  # (T, B, N, D)
    outputs, counts = backbone.run(case, tensors)
    alone = [backbone.run(case, {**tensors, "input/tokens": frames[:, [i]]}) for i in range(frames.shape[1])]
    torch.testing.assert_close(outputs["tokens"], torch.cat([x["tokens"] for x, _ in alone], 1))
    assert counts == [
        sum(of_frame, Counter()) for of_frame in zip(*(ops for _, ops in alone if ops), strict=True)
    ]
    assert len(alone) == 3


def copy_case(folder: Path, source: Path = TEMPORAL, **changes: Any) -> Path:
    """A copy of a case in which some entries of case.json are others."""
    shutil.copytree(source, folder)
    case = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps({**case, **changes}))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["conformance", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        conformance.main()
    return int(end.value.code or 0)


def test_the_command_prints_a_line_a_case(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, TEMPORAL, CONFORMANCE / "backbone-stgt-top_r") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [
        ["backbone-temporal-top_r", "pass"],
        ["backbone-stgt-top_r", "pass"],
    ]
    assert lines[-1] == "2 of 2 cases pass"


def test_a_wrong_output_count_or_number_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Else the command would vouch for anything."""
    variant = copy_case(tmp_path / "variant", variant="tokenwise")
    counts = json.loads((TEMPORAL / "case.json").read_text())["counts"]
    counts[2]["gate"] += 1
    count = copy_case(tmp_path / "count", counts=counts)
    number = copy_case(tmp_path / "number")
    tensors = load_file(number / "tensors.safetensors")
    tensors["output/tokens"][3, 50, 7] += 2e-4
    save_file(tensors, number / "tensors.safetensors")
    nan = copy_case(tmp_path / "nan")
    tensors["output/tokens"][3, 50, 7] = torch.nan
    save_file(tensors, nan / "tensors.safetensors")
    assert run(monkeypatch, variant, count, number, nan, TEMPORAL) == 1
    out = capsys.readouterr().out
    assert out.count("FAIL") == 4
    assert "1 of 5 cases pass" in out


def test_a_wrong_number_at_any_stage_of_the_detector_fails(tmp_path: Path) -> None:
    """Else only some stages would be held to the published ones."""
    case = copy_case(tmp_path / "case", DETECTOR)
    recorded = load_file(case / "tensors.safetensors")
    stages = {name.rpartition("/")[2] for name in recorded if name.startswith("output/")}
    assert len(stages) == 12
    for name in [f"output/0/{stage}" for stage in stages] + ["output/4/boxes"]:
        changed = recorded[name].clone()
        changed.view(-1)[7] += 1
        save_file({**recorded, name: changed}, case / "tensors.safetensors")
        result = replay(case)
        assert not result.passed, name
        assert [key for key, error in result.errors.items() if error > 1e-3] == [name.removeprefix("output/")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": [160, 128]}, r"input_size is \[160, 128\]"),
        ({"grid": [8, 8]}, "input_size is"),
        ({"classes": 6}, "weights do not fit"),
        ({"rpn": {"pre_nms_top": 100}}, "no 'post_nms_top'"),
    ],
)
def test_a_detector_that_cannot_be_built_says_why(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CaseError, match=message):
        replay(copy_case(tmp_path / "case", DETECTOR, **changes))


def test_what_is_no_case_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    kind = copy_case(tmp_path / "kind", kind="segmenter")
    assert run(monkeypatch, tmp_path / "empty", kind, TEMPORAL) == 1
    out = capsys.readouterr().out
    assert f"not a case: there is no {tmp_path}/empty/case.json" in out
    assert "kind is 'segmenter'" in out
    assert "1 of 3 cases pass" in out


@pytest.mark.parametrize("name", ["case.json", "tensors.safetensors"])
def test_the_file_that_a_case_lacks_is_named(tmp_path: Path, name: str) -> None:
    """Not its folder, which is there; safetensors itself does not say which file it did not find."""
    case = copy_case(tmp_path / "case")
    (case / name).unlink()
    with pytest.raises(CaseError) as told:
        replay(case)
    assert str(told.value) == f"not a case: there is no {case / name}"


@pytest.mark.parametrize("content", [[1], "kind", None, 7])
def test_a_case_that_holds_no_settings_is_named(tmp_path: Path, content: Any) -> None:
    case = copy_case(tmp_path / "case")
    (case / "case.json").write_text(json.dumps(content))
    with pytest.raises(CaseError, match=r"not a case: case\.json holds a \w+"):
        replay(case)


def test_a_bad_case_does_not_end_the_replay_of_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each of these fails with another kind of exception, deep in the model."""
    changes: list[dict[str, Any]] = [
        {"window_size": 0},
        {"heads": 0},
        {"grid": [3, 5]},
        {"grid": 7},
        {"kind": []},
        {"dim": "96"},
        {"counts": 3},
        {"counts": [[]]},
        {"policy": "top_r_schedule", "value": 5},
        {"window_blocks": None},
    ]
    cases = [copy_case(tmp_path / f"bad{i}", **change) for i, change in enumerate(changes)]
    (cases[0] / "case.json").write_bytes(b"\xff")
    cases.append(copy_case(tmp_path / "window", window_size=0))
    assert run(monkeypatch, *cases, TEMPORAL) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["FAIL"] * len(cases) + ["pass"]
    assert lines[-1] == f"1 of {len(cases) + 1} cases pass"
    assert "model.backbone.num_heads is 0" in lines[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "spacial"}, "variant is 'spacial'"),
        ({"policy": "random"}, "policy is 'random'"),
        ({"policy": "top_r_schedule", "value": [3, 3]}, "value has 2 entries, but there is a frame 2"),
        ({"heads": 5}, "multiple of num_heads"),
        ({"dim": 48}, "weights do not fit"),
        ({"depth": 5}, "weights do not fit"),
    ],
)
def test_a_case_that_cannot_be_built_says_why(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        replay(copy_case(tmp_path / "case", **changes))


@pytest.mark.parametrize(("kind", "mean"), [("vivit-base", 0.5), ("rlt", [0.485, 0.456, 0.4])])
def test_pixels_of_another_kind_are_told(tmp_path: Path, kind: str, mean: Any) -> None:
    """Else every output differs, and nothing says why."""
    case = copy_case(tmp_path / "case", CONFORMANCE / kind, pixel_mean=mean)
    with pytest.raises(CaseError, match=r"^pixels have mean .* they must have"):
        replay(case)
