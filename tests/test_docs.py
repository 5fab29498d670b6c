"""README and docs: every Python block runs, every command is one, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from evt import run
from evt.__main__ import commands
from evt.build import check
from evt.errors import DataError
from evt.eventful import VARIANTS
from evt.settings import CONFIG_DIR
from tests.commands import command
from tests.common import ROOT, small_frames, small_vit
from tests.models.foreign.test_convert import library
from tests.videos import write_video

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LARGE = "ViT(grid=(24, 40))"
"""Of a block that is run on torch's meta device, where size costs nothing."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [block for own, block in found if own == language]


def text_of(page: Path) -> str:
    """What is outside of the fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def typed(page: Path) -> Iterator[list[str]]:
    """What is typed into a shell, in blocks and in the text, as its words."""
    in_text = re.findall(r"`((?:python|make) [^`]+)`", text_of(page))
    for block in [*blocks(page, ""), *in_text]:
        whole = block.replace("\\\n", " ")
        lines = [" ".join(whole.split())] if block in in_text else whole.splitlines()
        for line in lines:
            words = shlex.split(line, comments=True)
            while "&&" in words:
                yield words[: words.index("&&")]
                words = words[words.index("&&") + 1 :]
            if words:
                yield words


def typed_everywhere() -> list[list[str]]:
    """All of it, each once."""
    return [list(words) for words in dict.fromkeys(tuple(words) for page in PAGES for words in typed(page))]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_every_python_block_runs(page: Path, tmp_path: Path) -> None:
    """One after another, as a reader would type them; what is the reader's own is given."""
    timm = library("timm")
    library("transformers")
    given: dict[str, Any] = {
        "model": timm.create_model("test_vit", img_size=224).eval(),
        "frame": torch.rand(1, 3, 224, 224),
        "picture": torch.rand(1, 3, 24, 32),
        "frames": torch.rand(2, 1, 3, 384, 640, device="meta"),
        "folder": tmp_path,
        "busy": lambda: True,
    }
    for block in blocks(page, "python"):
        with torch.device("meta") if LARGE in block else nullcontext():
            exec(compile(block, str(page), "exec"), given)


def test_what_the_docs_add_is_what_a_stream_and_a_run_take() -> None:
    """The policy and the data set, which the test above only defines."""
    made: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(ROOT / "docs/extending.md", "python"):
        exec(block, made)
    stream = small_vit().stream(VARIANTS["temporal"], made["AtRandom"](r=5))
    first, second = small_frames(2)
    assert stream(first).shape == stream(second).shape
    (video,) = made["Noise"](n_frames=3, side=32).videos()
    assert [frame.first for frame in video] == [True, False, False]
    assert len(video) == 3


def test_every_command_is_one() -> None:
    """Its settings exist, and have values that can be; those with `...` in them are left out."""
    known = commands()
    parser = OverridesParser.create()
    targets = re.findall(r"^([a-z0-9-]+(?: [a-z0-9-]+)*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    found = {target for line in targets for target in line.split()}
    variables = set(re.findall(r"^([A-Z_]+) \??=", (ROOT / "Makefile").read_text(), re.MULTILINE))
    variables |= set(re.findall(r"\$\(([A-Z_]+)\)", (ROOT / "Makefile").read_text()))
    seen = 0
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for words in typed_everywhere():
            if "..." in words or words[:3] in (["python", "-m", "timeit"], ["python", "-m", "evt"]):
                continue
            if {"policy=at_random", "data=noise"} & set(words):  # which the reader is to add
                continue
            if words[0] == "make":
                assert not {word for word in words[1:] if "=" not in word} - found, words
                assert not {word.split("=")[0] for word in words[1:] if "=" in word} - variables, words
            elif words[:2] == ["python", "-m"]:
                assert words[2] in known, words
                if (CONFIG_DIR / f"{words[2].removeprefix('evt.')}.yaml").is_file():
                    others = (
                        "-m",
                        "--help",
                        "hydra/launcher",
                        "hydra.launcher",
                    )  # launchers need not be installed
                    arguments = [word for word in words[3:] if not word.startswith(others)]
                    overrides = [one_of(x) for x in parser.parse_overrides(arguments)]
                    checked(hydra.compose(words[2].removeprefix("evt."), overrides))
                    seen += 1
            elif words[0] == "python":
                assert (ROOT / words[1]).is_file(), words
            else:
                assert words[0] in (".", "pip", "torchrun"), words
    assert seen > 30


def checked(cfg: DictConfig) -> None:
    """Refuse settings that cannot be; files that the reader makes are not here."""
    try:
        check(cfg)
    except DataError as error:
        assert "there is no such file" in str(error)  # noqa: PT017  # most commands need none


def one_of(override: Any) -> str:
    """An argument; of a sweep the first of its values."""
    line: str = override.input_line
    return (
        f"{override.key_or_group}={next(iter(override.sweep_string_iterator()))}"
        if override.is_sweep_override()
        else line
    )


def test_the_quick_start_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On three frames; the sweep is a run of each point."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", n_frames=4, fps=10)
    lines = [
        words[3:] for words in typed(ROOT / "docs/quick_start.md") if words[:3] == ["python", "-m", "evt.run"]
    ]
    assert len(lines) == 3
    for arguments in (arguments for arguments in lines if "-m" not in arguments):
        few = [word for word in arguments if not word.startswith(("data.n_frames", "threads"))]
        command(monkeypatch, run.run, *few, "data.n_frames=3", "threads=1", "hydra.run.dir=run")
        printed = capsys.readouterr().out
        assert all(name in printed for name in ("GFlops", "relative L2 error", "mAP50"))


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for path, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]+)?\)", text_of(page)):
            if path.startswith(("http:", "https:")):
                continue
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {path}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor[1:] in slugs, f"{page.name}: {path}{anchor}"


def test_what_works_on_windows_needs_nothing_that_windows_lacks() -> None:
    """As docs/limits.md says; without a command's name, since commands need these."""
    code = (
        "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None; import evt; "
        "print(all(hasattr(evt, name) for name in evt.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
