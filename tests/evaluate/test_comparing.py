"""Runs beside one another: what they differ in, and whether that is more than chance."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evt import compare
from evt.errors import DataError
from evt.evaluate.comparing import Run, compared, differences
from evt.evaluate.kept import RUN, SAMPLES
from evt.run import run
from tests.commands import command, failed

SMALL = ["model=vitdet_mini", "variant=rows", "data.n_videos=3", "data.n_frames=4"]


def clip(name: str, label: int, top: int, content: str = "same") -> dict[str, Any]:
    return {"name": name, "content": content, "records": {"clip": [{"prediction": [name, label, [top]]}]}}


def write(folder: Path, lines: list[dict[str, Any]], **made: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / RUN).write_text(json.dumps({"format": 2, **made}))
    lines = [{"format": 2, "classes": []}, *lines]
    (folder / SAMPLES).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def test_a_difference_is_of_the_same_clips_and_judged_by_pairs(tmp_path: Path) -> None:
    """By hand: of 40 clips one run has 30 right, the other 10 of these; of 2 that one has alone nothing is said."""
    a = write(
        tmp_path / "a",
        [clip(f"c{i}", 0, int(i >= 30)) for i in range(40)] + [clip("x", 0, 1), clip("y", 0, 1)],
    )
    b = write(tmp_path / "b", [clip(f"c{i}", 0, int(i >= 10)) for i in reversed(range(40))])
    runs = [Run.read(folder) for folder in (a, b)]
    (top1,) = compared(runs)
    assert (top1.name, top1.n) == ("top-1", 40)
    assert [x.value for x in top1.estimates] == [75, 25]
    difference = top1.estimates[1] - top1.estimates[0]
    # Half of the pairs differ, by 100: a standard error of 100 sqrt(0.25 / 40).
    assert difference.interval == pytest.approx(1.96 * 100 * (0.25 / 40) ** 0.5, rel=0.1)
    assert "-50 ±15, more than chance" in compare.report(runs)
    assert "left out, since not all have them: A 2" in compare.report(runs)


def test_few_clips_that_differ_are_not_more_than_chance(tmp_path: Path) -> None:
    a = write(tmp_path / "a", [clip(f"c{i}", 0, 0) for i in range(10)])
    b = write(tmp_path / "b", [clip(f"c{i}", 0, int(i == 3)) for i in range(10)])
    report = compare.report([Run.read(folder) for folder in (a, b)])
    assert "top-1, B less A: -10" in report
    assert "not more than chance" in report
    assert "0, the same on each" in compare.report([Run.read(a), Run.read(a)])
    c, d = (
        write(tmp_path / name, [clip(f"c{i}", 0, i * k) for i in range(5)]) for k, name in enumerate("cd")
    )
    assert "on 5 videos or clips chance cannot be told" in compare.report(
        [Run.read(folder) for folder in (c, d)]
    )


def test_other_content_under_the_same_name_is_told(tmp_path: Path) -> None:
    """Else a difference between videos would be taken for one between variants."""
    a = write(tmp_path / "a", [clip(f"c{i}", 0, 0) for i in range(7)])
    b = write(tmp_path / "b", [clip(f"c{i}", 0, 0, "other" if i < 5 else "same") for i in range(7)])
    report = compare.report([Run.read(folder) for folder in (a, b)])
    assert "5 of these do not show the same in all runs" in report
    assert report.endswith("c0, c1, c2 and 2 more")
    assert "do not show the same" not in compare.report([Run.read(a), Run.read(a)])


def test_what_differs_is_told_by_its_setting(tmp_path: Path) -> None:
    made = {"settings": {"policy": {"r": 64}, "model": {"name": "x"}}, "code": {"commit": "1"}}
    a = write(tmp_path / "a", [clip("c", 0, 0)], **made)
    b = write(
        tmp_path / "b",
        [clip("c", 0, 0)],
        settings={"policy": {"h": 1.5}, "model": {"name": "x"}},
        code={"commit": "2"},
    )
    found = dict(differences([Run.read(a), Run.read(b)]))
    assert found == {"policy.r": ["64", "-"], "policy.h": ["-", "1.5"], "code.commit": ['"1"', '"2"']}


def test_runs_leave_what_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """mAP50 and operations are those of metrics.json."""
    folders = [tmp_path / "64", tmp_path / "16"]
    for folder in folders:
        command(monkeypatch, run, *SMALL, f"policy.r={folder.name}", f"hydra.run.dir={folder}")
    compare.main([str(folder) for folder in folders])
    said = capsys.readouterr().out
    for folder in folders:
        metrics = json.loads((folder / "metrics.json").read_text())
        assert f"{metrics['detection']['map50']:.4g}" in said
        assert f"{metrics['later']['gflops']:.4g}" in said
        made = json.loads((folder / RUN).read_text())
        assert made["settings"]["policy"]["r"] == int(folder.name)
        assert len(made["weights"]["sha256"]) == 64
        assert {"torch", "numpy"} <= made["packages"].keys()
    assert "policy.r" in said


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: (folder / RUN).unlink(), "has no run.json"),
        (lambda folder: (folder / SAMPLES).unlink(), "has no samples.jsonl"),
        (lambda folder: (folder / RUN).write_text('{"format": 7}'), "of format 7, of another version of evt"),
        (lambda folder: (folder / RUN).write_text("{"), "run.json is damaged"),
        (lambda folder: (folder / SAMPLES).write_text("[]"), "must hold objects"),
        (
            lambda folder: (folder / SAMPLES).write_text('{"format": 2}\n{"name": "c"}'),
            "a line lacks 'records'",
        ),
        (lambda folder: write(folder, [clip("other", 0, 0)]), "no video or clip in common"),
    ],
)
def test_what_is_no_run_is_told(
    change: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path / "good", [clip("c", 0, 0)])
    bad = tmp_path / "bad"
    shutil.copytree(good, bad)
    change(bad)
    assert sentence in failed(capsys, lambda: compare.main([str(good), str(bad)]))


def test_one_run_is_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path)])
    assert "two at least" in capsys.readouterr().err


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no run\.json"):
        Run.read(tmp_path / "none")
