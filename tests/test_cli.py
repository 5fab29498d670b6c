"""The command line: what is refused at once, names of any characters, and what the commands say of themselves."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

import evt
from evt import train
from evt.__main__ import commands
from evt.cli import quoted, too_little_memory_told
from evt.errors import ConfigError
from evt.run import run
from evt.settings import (
    CONFIG_DIR,
    changed,
    comments_of,
    config_of,
    described,
    escape_interpolation,
    job_of,
    settings_of,
)
from tests.commands import SMALL, Refused, command
from tests.common import ROOT
from tests.data.test_frames import write_frames

NAME = """it's a "b", [c](d){e} é日本=:;&|<>!*?#%@+~ ${x} \\${y} \\" \\\\ $HOME `z` \\"""
"""A name with all that shells, Hydra or OmegaConf would read something into."""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["+foo=1"], "foo is not a setting; those of the command are model, policy, variant, data, fast"),
        (["++foo=1"], "foo is not a setting; those of the command are"),
        (["~foo"], "foo is not a setting; those of the command are"),
        (["+foo.bar.baz=1"], "foo.bar.baz is not a setting, since foo.bar is not a group of them"),
        (["+model.foo=1"], "model.foo is not a setting; those of model=vitdet are detector, size"),
        (["+model.dim=24"], "short_edge, checkpoint, allow_pickle, class_names, seed; model.backbone.dim is one"),
        (["model.backbone.grid=[8,8]"], "model.backbone.grid is not a setting; those of model.backbone are patch"),
        (["++model.size.x=1"], "model.size.x is not a setting, since model.size is not a group of them"),
        (["model=vivit_mini", "+model.window_size=3"], "model.window_size is not a setting; those of model=vivit"),
        (["+policy.r=3"], "+policy.r=3: policy.r is set without a +: policy.r=3"),
        (["++policy=top_r"], "++policy=top_r: policy is set without a ++: policy=top_r"),
        (["-m", "+foo=1,2"], "foo is not a setting"),
        (["~policy.r"], "~policy.r: policy.r cannot be left out"),
        (["~policy"], "~policy: policy cannot be left out"),
        (["~model.size=1024"], "~model.size=1024: model.size cannot be left out"),
        (["data=video", "~data.path"], "~data.path: data.path cannot be left out"),
    ],
)  # fmt: skip
def test_settings_cannot_be_added_or_taken_away(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(*arguments)
    assert not list(tmp_path.iterdir())  # at once: no folder of a run


@pytest.mark.parametrize(
    "argument",
    [
        "model._target_=os.system",
        "model._target_=evt.models.vivit.ViViT",
        "+data._target_=os.system",
        "++policy._target_=evt.files.os.system",
        "+data.path._target_=os.system",
        "+model._partial_=true",
        "+model._args_=[ls]",
        "model.size._target_=os.system",
        "model.backbone._target_=evt.models.vivit.ViViT",
        "hydra.sweeper._target_=os.system",
        "+hydra.callbacks={x: {_target_: os.system, command: touch run}}",
    ],
)
def test_no_code_is_named_on_the_command_line(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argument: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused("data=video", argument)
    assert "what is built is not said on the command line, but in the configs" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (
            "model.size={_target_: os.system, command: touch run}",
            "model.size._target_ is os.system; it must be a class of the package evt",
        ),
        ("model.backbone.window_blocks=[{_target_: os.abort}]", "it must be a list, each a whole number"),
        ("data.path={_target_: os.abort}", "data.path._target_ is os.abort; it must be a class"),
        ("policy.name=threshold", "policy.name is not a setting; those of policy=top_r are r"),
    ],
)
def test_what_a_setting_holds_is_not_run(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argument: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused("data=video", argument)
    assert not (tmp_path / "run").exists()


def test_a_part_of_the_training_data_can_be_taken_away_and_no_other(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "~data.vid: data.vid cannot be left out" in refused("~data.vid", task=train.train_task)
    # Goes on to the root, which is not there.
    assert "data.vid.root" in refused("~data.det", task=train.train_task)


@given(st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]), min_size=1))
@example(NAME)
@example("~")
@example("${")
@example("\\\\${a}\\")
@example('a\\"')
def test_a_quoted_text_is_that_text_after_shell_hydra_and_omegaconf(text: str) -> None:
    (argument,) = shlex.split(quoted(f"data.path={text}"))
    value = OverridesParser.create().parse_override(argument).value()
    assert OmegaConf.create({"path": value}).path == text


def test_the_shell_reads_the_quotes_as_shlex_does() -> None:
    printed = subprocess.check_output(["sh", "-c", f"printf %s {quoted(f'data.path={NAME}')}"], text=True)
    assert [printed] == shlex.split(quoted(f"data.path={NAME}"))


def test_the_advice_can_be_pasted_into_a_shell(refused: Refused, tmp_path: Path) -> None:
    """A name that cannot be read without quotes: what the error says, run by a shell, runs."""
    folder = write_frames(tmp_path / NAME, [f"{i}.png" for i in range(3)], [(32, 32)] * 3)
    advice = refused("data=frames", f"data.path={folder}").partition("as in ")[2]
    small = [*SMALL, "model.size=64", "policy.r=4", "compare=false", f"hydra.run.dir={tmp_path}/run"]
    line = f"{shlex.join([sys.executable, '-m', 'evt.run', 'data=frames', *small])} {advice}"
    subprocess.run(["sh", "-c", line], check=True, capture_output=True, cwd=tmp_path)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["data"], metrics["all"]["frames"]) == (folder.name, 3)


@pytest.mark.parametrize(
    ("given", "name"),
    [("a,b", "a,b"), ("a=b", "a=b"), ("é.mp4", "é.mp4"), ("${no}", "${no}"), ("[x", "[x"), ("a(1)", "a(1)")],
)  # fmt: skip
def test_the_advice_reads_as_what_was_meant(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused("data=frames", f"data.path={given}")
    advice = re.search(r"'data\.path=.*'", said)
    assert advice
    (argument,) = shlex.split(advice[0])
    assert f"data.path is {name}, which is not a folder" in refused("data=frames", argument)


@pytest.mark.parametrize(
    "argument",
    ["data.path=~/no such", 'data.path="~/no such"', "data.path='~/no such'", "data.path=${oc.env:FRAMES}"],
)
def test_a_path_may_begin_at_home(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argument: str
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "h,o=m${e}'"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("FRAMES", "~/no such")
    said = refused("data=frames", argument)
    assert f"data.path is {home}/no such, which is not a folder" in said


@pytest.mark.parametrize("folder", ["~/sweep", '"~/sweep"'])
def test_a_sweep_and_the_folder_of_a_run_may_begin_at_home(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    refused("-m", "data=frames", "data.path=~/a,~/b", f"hydra.sweep.dir={folder}")
    assert sorted(path.name for path in (tmp_path / "home/sweep").iterdir() if path.is_dir()) == ["0", "1"]


def test_the_commands_are_listed_without_importing_them() -> None:
    """All that `python -m` runs, and torch is not loaded for it."""
    code = (
        "import runpy, sys; sys.argv = ['evt']; runpy.run_module('evt', run_name='__main__'); "
        "print('torch' in sys.modules)"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.splitlines()[-1] == "False"
    runnable = {
        re.sub(r"\.__main__$", "", ".".join(path.relative_to(ROOT / "src").with_suffix("").parts))
        for path in (ROOT / "src/evt").rglob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    assert set(commands()) == runnable - {"evt"}
    for name in commands():
        assert f"python -m {name} " in printed


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("run", "model"),
        ("run", "variant"),
        ("run", "policy"),
        ("run", "data"),
        ("train", "task"),
        ("reproduce", "table"),
        ("bench", ""),
        ("calibrate", ""),
        ("occupancy", "model"),
    ],
)
def test_every_setting_of_every_choice_has_a_comment(name: str, group: str) -> None:
    """Which is what --help says of it."""
    choices = (
        [f"{group}={path.stem}" for path in (CONFIG_DIR / group).glob("*.yaml")]
        if group
        else ["variant=base"]
    )
    assert choices
    for choice in choices:
        assert not [setting for setting, _, comment in settings_of(name, [choice]) if not comment]


@pytest.mark.parametrize("group", ["model", "variant", "policy", "data", "task", "table", "model/detector"])
def test_every_choice_says_what_it_is(group: str) -> None:
    assert not [path for path in (CONFIG_DIR / group).glob("*.yaml") if not described(path)]


def test_help_has_a_line_for_each_choice_and_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, run, "model=vitdet_mini", "--help")
    assert re.search(r"\n  model\.backbone\.dim=128 +width of a token\n", capsys.readouterr().out)
    command(monkeypatch, run, "model=vivit_mini,vitdet", "data=sprite_clips", "--help")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    composed = OmegaConf.load(CONFIG_DIR / "model/vivit_mini.yaml")
    assert isinstance(composed, DictConfig)
    for name in set(composed) - {"name", "_target_"}:
        (line,) = [line for line in lines if line.startswith(f"model.{name}=")]
        assert re.fullmatch(r"\S.*?  +\w.*", line)
    assert "base                       The dense model: every frame from scratch." in lines
    assert not [line for line in lines if "_target_" in line]
    (line,) = [line for line in lines if line.startswith("model.seed=0 ")]
    assert line.endswith("  of the initial weights")


def test_a_comment_is_above_or_behind_its_setting(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "# @package x\n# What it\n# is.\ndefaults:\n  - y # no setting\n\n# Of a,\n# in two.\na: 1\n"
        "b: '#' # of b\nc:\n  # above\n  d: 2 # behind\n  e: 3\nf: 4\n"
    )
    assert comments_of(file) == {"": "What it is.", "a": "Of a, in two.", "b": "of b", "c.d": "above behind"}


def test_the_version_is_the_projects(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, run, "--version")
    assert capsys.readouterr().out == f"evt {evt.__version__}\n"
    for name in ("evt", "evt.claims", "evt.conformance", "evt.data.sprites"):
        printed = subprocess.check_output([sys.executable, "-m", name, "--version"], text=True)
        assert printed == f"evt {evt.__version__}\n"


def test_the_citation_is_of_this_version_and_names_both_methods() -> None:
    """Valid by the schema of CFF 1.2 as cffconvert has it; here, what it demands of every file."""
    citation = OmegaConf.load(ROOT / "CITATION.cff")
    assert isinstance(citation, DictConfig)
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (evt.__version__, "MIT")
    assert [reference["url"].rpartition("/")[2] for reference in citation["references"]] == [
        "2308.13494",
        "2411.05222",
    ]
    assert f"## [{evt.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert os.linesep.join(["MIT License", ""]) in (ROOT / "LICENSE").read_text()


def test_paths_of_any_characters_go_through_make() -> None:
    """What make would run, as its dry run says, with a name that shells and Hydra would read something into."""
    given = [f"{name}={NAME.replace('$', '$$')}" for name in ("VID_ROOT", "WEIGHTS")]
    make = ["make", "--no-print-directory"]  # make test says the folder that it enters
    said = subprocess.check_output(
        [*make, "-n", "-o", ".venv/.ready", "reproduce-table-c", *given],
        text=True,
        cwd=ROOT,
    )
    arguments = shlex.split(said.splitlines()[0])
    assert "data.root=${oc.env:VID_ROOT}" in arguments
    assert "model.checkpoint=${oc.env:WEIGHTS}" in arguments

    def arrives(name: str, *given: str) -> str:
        show = ["--eval", f'show: ; @printf %s "$${name}"', "show"]
        environment = {key: x for key, x in os.environ.items() if key != name}
        return subprocess.check_output([*make, *show, *given], text=True, cwd=ROOT, env=environment)

    assert arrives("VID_ROOT", *given) == NAME
    assert arrives("REAL") == "../shared/data"  # what stands in the Makefile arrives, too


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").glob("*.py")))
def test_a_script_says_what_it_takes(script: str) -> None:
    printed = subprocess.check_output([sys.executable, ROOT / "scripts" / script, "--help"], text=True)
    assert printed.startswith(f"usage: {script}")


@pytest.mark.parametrize(
    "allocate",
    [lambda: np.empty(2**60, np.uint8), lambda: torch.empty(2**60, dtype=torch.uint8)],
    ids=["numpy", "torch"],
)
def test_too_little_memory_is_told(allocate: Callable[[], object]) -> None:
    """Else settings that no check has foreseen end in a traceback."""
    with pytest.raises(ConfigError, match="need more memory than there is"), too_little_memory_told():
        allocate()


def test_other_errors_than_of_memory_are_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="shapes"), too_little_memory_told():
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_a_config_that_is_cut_ends_in_one_line(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In an interpolation, of which Hydra says nothing itself."""
    shutil.copytree(CONFIG_DIR, tmp_path / "configs")
    path = tmp_path / "configs/folder.yaml"
    text = path.read_text()
    assert "runs/${now:" in text
    path.write_text(text[: text.index("runs/${now:") + len("runs/${n")])
    monkeypatch.setattr("evt.settings.CONFIG_DIR", tmp_path / "configs")
    assert "configs cannot be read: " in refused(*SMALL)


@given(st.text(st.sampled_from("${}\\a:.x")), st.text(st.sampled_from("${}\\a:.x")))
def test_a_config_that_is_made_anew_keeps_its_texts(text: str, other: str) -> None:
    """Else the path of a checkpoint with a ${ in it would be read as an interpolation where a table is filled."""
    model = DictConfig({"checkpoint": escape_interpolation(text), "size": 1})
    assert (changed(model, size=2).checkpoint, changed(model, size=2).size) == (text, 2)
    assert changed(model, checkpoint=other).checkpoint == other
    cfg = DictConfig(dict.fromkeys(("data", "flush_rate", "fine_tuned", "device", "threads", "out")))
    cfg.model, cfg.table = model, {"names": [escape_interpolation(other)]}
    again = config_of(job_of(cfg))
    assert (again.model.checkpoint, again.table.names[0]) == (text, other)
    assert "out" not in again
