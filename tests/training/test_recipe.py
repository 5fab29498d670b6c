"""What a recipe says: the learning rate, what the optimizers train, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evt.training.recipe import Recipe
from tests.training.runs import RECIPE, in_blocks, small_model, squared_error, trained


def test_the_learning_rate_follows_the_supplement() -> None:
    """Section C: linear warm-up, then tenfold decay from the third of five epochs on."""
    recipe = Recipe(5, 8, 1e-4, 0.1, warmup_steps=4, decay_epochs=(3,))
    rates = [recipe.lr_at(step, 10) for step in range(50)]
    assert rates[:4] == pytest.approx([2e-5, 4e-5, 6e-5, 8e-5])
    assert rates[4:20] == pytest.approx([1e-4] * 16)
    assert rates[20:] == pytest.approx([1e-5] * 30)
    cosine = Recipe(5, 8, 1e-4, 0.1, cosine=True)
    assert [cosine.lr_at(step, 10) for step in (0, 25, 50)] == pytest.approx([1e-4, 5e-5, 0])


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
        (
            {"decay_epochs": [0]},
            r"decay_epochs is \[0\]; it must be a list, each a whole number of at least 1",
        ),
        ({"optimizer": "sgd"}, r"train\.optimizer is 'sgd'; it must be adamw or muon"),
        ({"precision": "half"}, "train.precision is 'half'; it must be float32 or bfloat16 or float16"),
        ({"weight_decay": -1.0}, "train.weight_decay is -1"),
        ({"batch_size": 19}, "18 samples to train on, fewer than train.batch_size, 19"),
        ({"cosine": True, "decay_epochs": (2,)}, "only one of them"),
    ],
)
def test_an_impossible_recipe_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, replace(RECIPE, **changes))  # type: ignore[arg-type]
