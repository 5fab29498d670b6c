"""The training loop: its schedule, its exact resume, and several processes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from evt.errors import DataError, TrainingError
from evt.files import seal, unsealed
from evt.training.task import Losses
from tests.common import ROOT
from tests.training.runs import (
    ORIGIN,
    RECIPE,
    KilledError,
    Noise,
    in_blocks,
    killed_after,
    small_model,
    squared_error,
    trained,
)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path: Path, optimizer: Literal["adamw", "muon"]) -> None:
    """Killed after the 5th step, of which the 4th is on disk: same weights and same log, bit for bit."""
    recipe = replace(RECIPE, optimizer=optimizer)
    expected = trained(tmp_path / "whole", recipe, model=in_blocks())
    with pytest.raises(KilledError):
        trained(tmp_path / "parts", recipe, losses=killed_after(5), model=in_blocks())
    assert len((tmp_path / "parts/log.jsonl").read_text().splitlines()) == 5
    resumed = trained(tmp_path / "parts", replace(recipe, save_every=3), model=in_blocks())
    for a, b in zip(expected.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / "whole/log.jsonl").read_text() == (tmp_path / "parts/log.jsonl").read_text()
    log = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(12))


def test_workers_change_nothing(tmp_path: Path) -> None:
    a, b = trained(tmp_path / "a"), trained(tmp_path / "b", replace(RECIPE, workers=2))
    assert all(map(torch.equal, a.parameters(), b.parameters()))


def test_a_run_is_not_taken_up_with_another_optimizer_or_without_its_state(tmp_path: Path) -> None:
    """Earlier versions kept both optimizers as one."""
    trained(tmp_path, model=in_blocks())
    muon = replace(RECIPE, optimizer="muon")
    with pytest.raises(TrainingError, match=r"differs in train\.optimizer; give another"):
        trained(tmp_path, muon, model=in_blocks())
    trained(tmp_path / "muon", muon, model=in_blocks())
    path = tmp_path / "muon/last.pt"
    content = unsealed(path.read_bytes())
    assert content is not None
    last = torch.load(io.BytesIO(content), weights_only=True)
    del last["muon"]
    torch.save(last, path)
    path.write_bytes(path.read_bytes() + seal(path.read_bytes()))
    with pytest.raises(TrainingError, match=r"last\.pt: is broken, or of another version"):
        trained(tmp_path / "muon", muon, model=in_blocks())


class Fewer(Noise):
    def __len__(self) -> int:
        return 17


@pytest.mark.parametrize(
    ("changes", "differ"),
    [
        ({"recipe": replace(RECIPE, lr=0.1)}, r"train\.lr"),
        ({"origin": {**ORIGIN, "data.root": "elsewhere"}}, r"data\.root"),
        ({"origin": {**ORIGIN, "data.det.root": "here"}}, r"data\.det\.root"),
        ({"origin": {"data.root": "here"}}, r"model\.window_blocks"),
        ({"data": Fewer()}, "number of samples"),
        ({"model": small_model(seed=1)}, "starting weights"),
        ({"model": small_model(width=9)}, "starting weights"),
    ],
)
@pytest.mark.parametrize("steps", [5, 12])  # killed, and finished
def test_a_folder_of_another_run_is_refused(
    tmp_path: Path, changes: dict[str, Any], differ: str, steps: int
) -> None:
    """Else its weights are handed out as those of a run that never was."""
    if steps == 12:
        trained(tmp_path)
    else:
        with pytest.raises(KilledError):
            trained(tmp_path, losses=killed_after(steps))
    with pytest.raises(TrainingError, match=rf"holds another run, which differs in {differ}; give another"):
        trained(tmp_path, **changes)


def test_a_finished_run_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What changes nothing about a run may be another; its weights are there again, and no step is done."""
    first = trained(tmp_path)
    assert "finished" not in capsys.readouterr().out
    log = (tmp_path / "log.jsonl").read_text()
    again = trained(tmp_path, replace(RECIPE, workers=1, save_every=5), losses=killed_after(0))
    assert capsys.readouterr().out == (
        f"this run is finished: {tmp_path} holds all of its 12 steps, and none is done again\n"
    )
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert (tmp_path / "log.jsonl").read_text() == log
    assert not again.training


@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.99])
def test_a_broken_last_checkpoint_is_told(tmp_path: Path, part: float) -> None:
    trained(tmp_path)
    content = (tmp_path / "last.pt").read_bytes()
    for broken in (content[: int(part * len(content))], b"junk" * int(1 + 100 * part)):
        (tmp_path / "last.pt").write_bytes(broken)
        with pytest.raises(TrainingError, match=r"last\.pt: is broken, or .*; delete .* to start anew$"):
            trained(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_sample_is_told_in_the_same_words_by_a_worker(tmp_path: Path, workers: int) -> None:
    """Else the traceback of the worker is printed as the error."""

    class Broken(Noise):
        def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            if i == 7:
                raise DataError("000007.JPEG: cannot be read")
            return super().sample(i, generator)

    with pytest.raises(DataError, match=r"^000007\.JPEG: cannot be read$"):
        trained(tmp_path, replace(RECIPE, workers=workers), data=Broken())


def test_every_sample_is_seen_once_an_epoch_but_for_the_rest(tmp_path: Path) -> None:
    seen: list[float] = []

    def losses(model: nn.Module, batch: list[tuple[Tensor, Tensor]]) -> Losses:
        seen.extend(round(float(x[2]) * 9) for x, _ in batch)
        return squared_error(model, batch)

    class Still(Noise):
        def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            x = torch.arange(3.0) * i / 18
            return x, x

    trained(tmp_path, losses=losses, data=Still())
    epochs = [seen[i : i + 16] for i in (0, 16, 32)]
    assert all(len(set(epoch)) == 16 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the loss of step 0 is not finite \(bad nan\)"):
        trained(
            tmp_path, losses=lambda model, batch: {"bad": squared_error(model, batch)["error"] * float("nan")}
        )


TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
from evt.device import processes
from tests.training.runs import trained

def losses(model, batch):
    x, y = (torch.stack(part) for part in zip(*batch))
    return {"error": (model(x) - y).square().mean()}

model = trained(Path(sys.argv[1]), losses=losses)
if processes()[0] == 0:
    torch.save(model.state_dict(), sys.argv[1] + "/weights.pt")
"""


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """torchrun splits each batch; the mean of two half-batch gradients is the gradient of the whole."""
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for launcher, folder in ((torchrun, "two"), ([], "one")):
        (tmp_path / folder).mkdir()
        command = [sys.executable, *launcher, str(script), str(tmp_path / folder)]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)
    one, two = (torch.load(tmp_path / folder / "weights.pt") for folder in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight)
