"""The training loop: its schedule, its exact resume, and several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evt.harness.train import Losses, Recipe, train

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


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 1))


def trained(folder: Path, recipe: Recipe = RECIPE, losses=squared_error) -> nn.Module:  # type: ignore[no-untyped-def]
    model = small_model()
    train(model, Noise(), losses, recipe, folder, torch.device("cpu"))
    return model


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Killed after the 5th step, of which the 4th is on disk: same weights and same log, bit for bit."""
    expected = trained(tmp_path / "whole")
    with pytest.raises(KilledError):
        trained(tmp_path / "parts", losses=killed_after(5))
    assert len((tmp_path / "parts/log.jsonl").read_text().splitlines()) == 5
    resumed = trained(tmp_path / "parts", replace(RECIPE, save_every=3))
    for a, b in zip(expected.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / "whole/log.jsonl").read_text() == (tmp_path / "parts/log.jsonl").read_text()
    log = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(12))


def test_workers_change_nothing(tmp_path: Path) -> None:
    a, b = trained(tmp_path / "a"), trained(tmp_path / "b", replace(RECIPE, workers=2))
    assert all(map(torch.equal, a.parameters(), b.parameters()))


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(ValueError, match=r"a run with another train\.lr"):
        trained(tmp_path, replace(RECIPE, lr=0.1))


def test_every_sample_is_seen_once_an_epoch_but_for_the_rest(tmp_path: Path) -> None:
    seen: list[float] = []

    def losses(model: nn.Module, batch: list[tuple[Tensor, Tensor]]) -> Losses:
        seen.extend(round(float(x[2]) * 9) for x, _ in batch)
        return squared_error(model, batch)

    class Still(Noise):
        def sample(self, i: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            x = torch.arange(3.0) * i / 18
            return x, x

    train(small_model(), Still(), losses, RECIPE, tmp_path, torch.device("cpu"))
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
    train(
        model,
        Noise(),
        lambda m, b: {"nothing": 0 * squared_error(m, b)["size"]},
        recipe,
        tmp_path,
        torch.device("cpu"),
    )
    for p, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), old * (0.95 if p.ndim == 2 else 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "train.epochs is 0"),
        ({"lr": float("nan")}, "train.lr is nan"),
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
from evt.harness.train import processes, train
from tests.harness.test_train import RECIPE, Noise, small_model

def losses(model, batch):
    x, y = (torch.stack(part) for part in zip(*batch))
    return {"error": (model(x) - y).square().mean()}

model = small_model()
train(model, Noise(), losses, RECIPE, Path(sys.argv[1]), torch.device("cpu"))
if processes()[0] == 0:
    torch.save(model.state_dict(), sys.argv[1] + "/weights.pt")
"""


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """torchrun splits each batch; the mean of two half-batch gradients is the gradient of the whole."""
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for launcher, folder in ((torchrun, "two"), ([], "one")):
        (tmp_path / folder).mkdir()
        command = [sys.executable, *launcher, str(script), str(tmp_path / folder)]
        subprocess.run(command, check=True, capture_output=True, cwd=root, env=environment)
    one, two = (torch.load(tmp_path / folder / "weights.pt") for folder in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight)
