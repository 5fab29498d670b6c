"""A new model of frames is one file and one yaml: no command has to hear of it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from evt import bench, run
from evt.data.video import Frame
from evt.eventful import Policy, Stream, Variant, init_weights
from evt.models.vit import ViT
from evt.settings import CONFIG_DIR
from tests.commands import Refused, command

YAML = """
_target_: evt.models.pocket.Pocket
name: pocket
size: 32
checkpoint: null
allow_pickle: false
class_names: null
seed: 0
"""


class Pocket(nn.Module):
    """A Transformer and nothing else."""

    sees = "frames"
    n_classes = 1

    def __init__(self, size: PositiveInt = 32) -> None:
        super().__init__()
        self.size = size
        self.net = ViT((size // 8, size // 8), 8, 16, 2, 2, window_blocks=())
        self.n_tokens = self.net.grid[0] * self.net.grid[1]
        self.input_numbers = 3 * size**2

    def initialise(self) -> None:
        self.apply(init_weights)

    def load(self, paths: Sequence[str], allow_pickle: bool = False) -> list[str]:
        return []

    def check(self, variant: Variant) -> None:
        pass

    def stream(self, variant: Variant, policy: Policy | None = None) -> Stream:
        return Stream(self.net, variant, policy)

    def inputs(self, frame: Frame) -> Iterator[Tensor]:
        yield F.interpolate(frame.image[None].float() / 255, (self.size, self.size))

    def decode(self, outputs: Sequence[Tensor], frame: Frame) -> Any:
        raise AssertionError("without trained weights nothing is detected")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The arguments of a run of it."""
    shutil.copytree(CONFIG_DIR, tmp_path / "configs")
    (tmp_path / "configs/model/pocket.yaml").write_text(YAML)
    for name in ("settings", "build"):
        monkeypatch.setattr(f"evt.{name}.CONFIG_DIR", tmp_path / "configs")
    module = ModuleType("evt.models.pocket")
    module.Pocket = Pocket  # type: ignore[attr-defined]
    module.__file__ = __file__
    monkeypatch.setattr(Pocket, "__module__", module.__name__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    data = ["data=sprites", "data.n_videos=1", "data.n_frames=4", "data.size=[64,64]"]
    return ["model=pocket", "policy=top_r", "policy.r=4", *data, f"hydra.run.dir={tmp_path}/run"]


def test_it_is_measured_and_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: list[str]) -> None:
    command(monkeypatch, run.run, *given)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["first"]["frames"] == 1
    assert metrics["later"]["frames"] == 3
    assert 0 < metrics["later"]["gflops"] < metrics["first"]["gflops"]
    of_share = ["policy.r=0.25" if x == "policy.r=4" else x for x in given]  # of 16 tokens
    command(monkeypatch, run.run, *of_share)
    assert (
        json.loads((tmp_path / "run/metrics.json").read_text())["later"]["gflops"]
        == metrics["later"]["gflops"]
    )
    command(monkeypatch, bench.bench, *given, "repeats=1", "threads=1", "parts=false")
    assert json.loads((tmp_path / "run/bench.json").read_text())["records"]["this"]["op_ratio"] > 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["policy.r=17"], "policy.r is 17, but a frame has 16 tokens; it must be at most 16"),
        (
            ["policy.r=1.5"],
            "policy.r is 1.5; it must be a whole number of at least 0, or a share of the tokens above",
        ),
        (
            ["variant=rlt"],
            "variant is rlt, which is for videomae; for pocket it must be one of base, temporal,",
        ),
        (["data=epic", "data.root=x"], "data is epic; allowed are davis, frames, real, sprites, vid, video"),
        (["model.size=0"], "model.size is 0; it must be a whole number of at least 1"),
    ],
)
def test_what_it_cannot_do_is_refused_under_its_name(
    refused: Refused, given: list[str], arguments: list[str], sentence: str
) -> None:
    left = {argument.partition("=")[0] for argument in arguments}
    kept = [x for x in given if x.partition("=")[0] not in left]
    if "data" in left:
        kept = [x for x in kept if not x.startswith("data.")]
    if "variant" in left:
        kept = [x for x in kept if not x.startswith("policy")]
    assert sentence in refused(*kept, *arguments)
