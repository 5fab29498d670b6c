"""The training loop: its schedule, its exact resume, and several processes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evt.errors import DataError, TrainingError
from evt.files import seal, unsealed
from evt.training.loop import Losses, Optimizer, Recipe, train

RECIPE = Recipe(epochs=3, batch_size=4, lr=0.05, weight_decay=0.1, warmup_steps=2, save_every=2)


class Noise:
    """Pairs (x, y) with y linear in x, of which x is noisy anew in every epoch."""

    def __len__(self) -> int:
        return 18

    def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.arange(3.0) * i / 18 + 0.1 * torch.randn(3, generator=generator)
        return x, x.sum(-1, keepdim=True)


def squared_error(model: nn.Module, batch: list[tuple[Tensor, Tensor]]) -> Losses:
    x, y = (torch.stack(part) for part in zip(*batch, strict=True))
    x = x * (torch.rand(len(x), 1) < 0.9)  # something random within the model
    return {
        "error": (model(x) - y).square().mean(),
        "size": 1e-3 * sum(p.square().sum() for p in model.parameters()),
    }


class KilledError(Exception):
    pass


def killed_after(steps: int):  # type: ignore[no-untyped-def]
    left = iter(range(steps))

    def losses(model: nn.Module, batch: list[tuple[Tensor, Tensor]]) -> Losses:
        if next(left, None) is None:
            raise KilledError
        return squared_error(model, batch)

    return losses


def small_model(width: int = 8, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.Linear(width, 1))


ORIGIN = {"data.root": "here", "model.window_blocks": (0, 1)}


def trained(  # type: ignore[no-untyped-def]
    folder: Path,
    recipe: Recipe = RECIPE,
    losses=squared_error,
    data: Noise | None = None,
    model: nn.Module | None = None,
    origin: Mapping[str, object] = ORIGIN,
) -> nn.Module:
    model = model or small_model()
    train(model, data or Noise(), losses, recipe, folder, torch.device("cpu"), origin)
    return model


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path: Path, optimizer: Optimizer) -> None:
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


def in_blocks() -> nn.Module:
    """A model of which Muon trains the matrices."""
    model = nn.Module()
    model.blocks = small_model()
    model.forward = model.blocks.forward
    return model


def test_muon_trains_the_matrices_of_blocks_and_no_others(tmp_path: Path) -> None:
    """One step from the same weights: where AdamW trains, both steps are the same."""
    one = replace(RECIPE, epochs=1, batch_size=18, warmup_steps=0)
    a = trained(tmp_path / "a", one, model=in_blocks())
    b = trained(tmp_path / "b", replace(one, optimizer="muon"), model=in_blocks())
    differ = {
        name
        for (name, x), y in zip(a.named_parameters(), b.parameters(), strict=True)
        if not torch.equal(x, y)
    }
    assert differ == {"blocks.0.weight", "blocks.2.weight"}
    without_blocks = [trained(tmp_path / name, replace(one, optimizer=name)) for name in ("adamw", "muon")]
    assert all(map(torch.equal, *(model.parameters() for model in without_blocks)))


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


def test_the_learning_rate_follows_the_supplement() -> None:
    """Section C: linear warm-up, then tenfold decay from the third of five epochs on."""
    recipe = Recipe(5, 8, 1e-4, 0.1, warmup_steps=4, decay_epochs=(3,))
    rates = [recipe.lr_at(step, 10) for step in range(50)]
    assert rates[:4] == pytest.approx([2e-5, 4e-5, 6e-5, 8e-5])
    assert rates[4:20] == pytest.approx([1e-4] * 16)
    assert rates[20:] == pytest.approx([1e-5] * 30)
    cosine = Recipe(5, 8, 1e-4, 0.1, cosine=True)
    assert [cosine.lr_at(step, 10) for step in (0, 25, 50)] == pytest.approx([1e-4, 5e-5, 0])


def test_only_matrices_decay(tmp_path: Path) -> None:
    """With a learning rate and no gradient, AdamW moves exactly what decays."""
    model = small_model()
    before = [p.detach().clone() for p in model.parameters()]
    recipe = Recipe(epochs=1, batch_size=18, lr=0.1, weight_decay=0.5)
    trained(tmp_path, recipe, lambda m, b: {"nothing": 0 * squared_error(m, b)["size"]}, model=model)
    for p, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), old * (0.95 if p.ndim == 2 else 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "train.epochs is 0"),
        ({"epochs": True}, "train.epochs is True; it must be a whole number of at least 1"),
        ({"batch_size": 2.5}, "train.batch_size is 2.5; it must be a whole number"),
        ({"save_every": "5"}, "train.save_every is '5'"),
        ({"seed": 0.5}, "train.seed is 0.5; it must be a whole number"),
        ({"lr": float("nan")}, "train.lr is nan"),
        ({"lr": True}, "train.lr is True; it must be a finite number of at least 0"),
        ({"clip_norm": 0}, "train.clip_norm is 0; it must be a finite number above 0, or null"),
        ({"clip_norm": -1.0}, "train.clip_norm is -1.0"),
        ({"clip_norm": float("nan")}, "train.clip_norm is nan"),
        ({"decay_epochs": (0,)}, r"train.decay_epochs is \[0\]; each must be a whole number of at least 1"),
        ({"optimizer": "sgd"}, r"train\.optimizer is 'sgd'; it must be one of adamw, muon"),
        ({"precision": "half"}, "train.precision is 'half'; it must be one of float32, bfloat16, float16"),
        ({"weight_decay": -1.0}, "train.weight_decay is -1"),
        ({"batch_size": 19}, "18 samples to train on, fewer than train.batch_size, 19"),
        ({"cosine": True, "decay_epochs": (2,)}, "only one of them"),
    ],
)
def test_an_impossible_recipe_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, replace(RECIPE, **changes))  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the loss of step 0 is not finite \(bad nan\)"):
        trained(
            tmp_path, losses=lambda model, batch: {"bad": squared_error(model, batch)["error"] * float("nan")}
        )


TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
from dataclasses import replace
from evt.training.loop import processes, train
from tests.training.test_train import RECIPE, Noise, small_model

def losses(model, batch):
    x, y = (torch.stack(part) for part in zip(*batch))
    return {"error": (model(x) - y).square().mean()}

model = small_model()
train(model, Noise(), losses, RECIPE, Path(sys.argv[1]), torch.device("cpu"), {})
if processes()[0] == 0:
    torch.save(model.state_dict(), sys.argv[1] + "/weights.pt")
"""


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """torchrun splits each batch; the mean of two half-batch gradients is the gradient of the whole."""
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)]),
        "OMP_NUM_THREADS": "1",
    }
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for launcher, folder in ((torchrun, "two"), ([], "one")):
        (tmp_path / folder).mkdir()
        command = [sys.executable, *launcher, str(script), str(tmp_path / folder)]
        subprocess.run(command, check=True, capture_output=True, cwd=root, env=environment)
    one, two = (torch.load(tmp_path / folder / "weights.pt") for folder in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight)
