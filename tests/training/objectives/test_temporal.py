"""Fine-tuning of ViViT's temporal sub-model on the cache: right, resumable, and clear about what cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evt.errors import DataError, TrainingError
from evt.eventful import VARIANTS, TopR
from evt.models.vivit import ViViT
from evt.models.vivit_weights import load_fine_tuned
from evt.training.loop import train
from evt.training.objectives.temporal import TemporalClassifier, temporal_task
from evt.training.recipe import Recipe
from evt.training.spatial_cache import SpatialCache
from evt.training.task import Task
from tests.common import ROOT
from tests.vivit import Clips, filled, small_vivit

TEMPORAL = VARIANTS["temporal"]


def recipe(**changes: Any) -> Recipe:
    return Recipe(
        **{"epochs": 3, "batch_size": 3, "lr": 1e-3, "weight_decay": 0.05, "save_every": 1, **changes}
    )


def fine_tune(
    model: ViViT, cache: SpatialCache, recipe: Recipe, folder: Path, dropout: float = 0.5
) -> Task[TemporalClassifier, tuple[Tensor, int]]:
    task = temporal_task(model, cache, dropout)
    train(task, recipe, folder, torch.device("cpu"))
    return task


def test_training_takes_the_step_that_torch_takes(tmp_path: Path) -> None:
    """One step without dropout, beside Adam on the cross-entropy of the logits' mean written out here."""
    model, reference = small_vivit(), small_vivit()
    cache = filled(tmp_path / "cache", model)
    fine_tune(model, cache, recipe(epochs=1, batch_size=10, weight_decay=0.0), tmp_path / "run", 0)

    trained = [x for name, x in reference.named_parameters() if name.startswith(("temporal.", "head."))]
    optimizer = torch.optim.Adam(trained, lr=1e-3)
    means = torch.stack([reference.classify(cache[i][0]).mean(dim=0) for i in range(10)])
    loss = F.cross_entropy(means, torch.tensor([i % 5 for i in range(10)]))
    loss.backward()
    optimizer.step()
    (line,) = (tmp_path / "run/log.jsonl").read_text().splitlines()
    assert json.loads(line)["cross_entropy"] == pytest.approx(loss.item(), abs=1e-5)
    for name, x in reference.state_dict().items():
        # A gradient of next to nothing may have either sign, and Adam's first step is lr whatever its size.
        close = (model.state_dict()[name] - x).abs() < 1e-5
        assert close.float().mean() > 0.98, name
    assert torch.equal(model.spatial.pos_embed, reference.spatial.pos_embed)


def top1_on(model: ViViT, outputs: SpatialCache) -> float:
    """The share of clips that the temporal sub-model classifies rightly from spatial outputs."""
    clips = [outputs[i] for i in range(len(outputs))]
    return sum(int(model.classify(x).mean(dim=0).argmax()) == label for x, label in clips) / len(clips)


def test_training_learns_and_its_weights_are_written(tmp_path: Path) -> None:
    """Clips that differ in brightness by class are told apart after some epochs."""
    model = small_vivit()
    cache = filled(tmp_path / "cache", model)
    before = top1_on(model, cache)
    task = fine_tune(model, cache, recipe(lr=1e-2, epochs=40, save_every=500), tmp_path / "run", 0.1)
    losses = [
        json.loads(line)["cross_entropy"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()
    ]
    assert sum(losses[-3:]) < sum(losses[:3]) / 1.5
    assert top1_on(model, cache) > max(before, 0.4)  # of 5 classes, so 0.2 by chance
    tuned = small_vivit()
    load_fine_tuned(tuned, task.weights(), "weights")
    for name, x in tuned.state_dict().items():
        assert torch.equal(x, model.state_dict()[name]), name


def test_top1_from_the_cache_is_that_of_the_model(tmp_path: Path) -> None:
    model = small_vivit()
    cache = filled(tmp_path, model)
    right = 0
    for i, clip in enumerate(Clips(10)):
        views = model.preprocess(clip.frames)
        right += int(model.predict_views(views, TEMPORAL, TopR(5)).argmax()) == i % 5
    assert top1_on(model, cache) == right / 10


def test_dropout_follows_the_seed_and_can_be_none(tmp_path: Path) -> None:
    cache = filled(tmp_path / "cache", small_vivit())

    def head(name: str, seed: int = 0, dropout: float = 0.5) -> Tensor:
        model = small_vivit()
        fine_tune(model, cache, recipe(seed=seed), tmp_path / name, dropout)
        return model.head.weight.detach()

    first = head("a")
    torch.rand(7)  # what else drew random numbers does not matter
    assert torch.equal(first, head("b"))
    assert not torch.equal(first, head("c", seed=1))
    assert not torch.equal(first, head("d", dropout=0))


def test_a_run_on_something_else_is_refused(tmp_path: Path) -> None:
    model = small_vivit()
    cache = filled(tmp_path / "cache", model)
    fine_tune(model, cache, recipe(), tmp_path / "run")
    with pytest.raises(TrainingError, match="another run, which differs in dropout; give another folder"):
        fine_tune(small_vivit(), cache, recipe(), tmp_path / "run", 0.1)
    with pytest.raises(TrainingError, match="differs in starting weights"):
        fine_tune(model, cache, recipe(), tmp_path / "run")
    with pytest.raises(TrainingError, match="differs in spatial outputs"):
        fine_tune(small_vivit(), filled(tmp_path / "r6", small_vivit(), r=6), recipe(), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"differs in train\.lr"):
        fine_tune(small_vivit(), cache, recipe(lr=1e-4), tmp_path / "run")


def test_labels_beyond_the_models_classes_are_refused(tmp_path: Path) -> None:
    cache = filled(tmp_path / "cache", small_vivit())
    wrong = SpatialCache([(name, label + 1, shard) for name, label, shard in cache.clips], {}, {}, "")
    with pytest.raises(DataError, match="class 5, but the model has 5 classes"):
        fine_tune(small_vivit(), wrong, recipe(), tmp_path / "run")


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_cannot_be_is_refused(tmp_path: Path, dropout: float) -> None:
    cache = filled(tmp_path / "cache", small_vivit())
    with pytest.raises(ValueError, match=f"dropout is {dropout}"):
        fine_tune(small_vivit(), cache, recipe(), tmp_path / "run", dropout)


KILLED = """
import os, signal, sys
from pathlib import Path
from evt.data.epic_kitchens import EpicKitchens
from evt.training.spatial_cache import SpatialCache
from tests.training.objectives.test_temporal import fine_tune, recipe
from tests.vivit import filled, small_vivit

root, work, left = map(Path, sys.argv[1:])

def die_if_left():
    if (work / left).exists():
        os.kill(os.getpid(), signal.SIGKILL)

class Clips(EpicKitchens):
    def __getitem__(self, i):
        die_if_left()
        return super().__getitem__(i)

class Cache(SpatialCache):
    def sample(self, i, generator):
        die_if_left()
        return super().sample(i, generator)

model = small_vivit()
data = (Clips if "cache" in left.parts else EpicKitchens)(root, "train")
cache = filled(work / "cache", model, data, clips_per_shard=2)
fine_tune(model, Cache(**vars(cache)), recipe(batch_size=2), work / "run")
"""


def test_a_killed_fine_tuning_on_videos_goes_on_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    """From a csv and videos to tuned weights, with SIGKILL after the first shard and after the first step."""
    # Imported here, as only this test needs a video encoder.
    from evt.data.epic_kitchens import EpicKitchens
    from tests.videos import write_video

    write_video(tmp_path / "P01/videos/P01_01.MP4", 60, 60)
    rows = [f"P01_01_{i},P01_01,00:00:00.{i}0,00:00:00.{i + 2}0,verb,{i % 5}" for i in range(5)]
    columns = "narration_id,video_id,start_timestamp,stop_timestamp,verb,verb_class"
    (tmp_path / "EPIC_100_train.csv").write_text("\n".join([columns, *rows]) + "\n")

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    for left, shards in (("cache/00000.safetensors", 1), ("run/last.pt", 3)):
        died = subprocess.run(
            [sys.executable, "-c", KILLED, tmp_path, tmp_path / "work", left], env=environment, check=False
        )
        assert died.returncode == -signal.SIGKILL
        assert (tmp_path / "work" / left).exists()
        assert len(list((tmp_path / "work/cache").glob("*.safetensors"))) == shards
    assert len((tmp_path / "work/run/log.jsonl").read_text().splitlines()) == 1

    data = EpicKitchens(tmp_path, "train")
    tuned = []
    for work in (tmp_path / "work", tmp_path / "unbroken"):
        model = small_vivit()
        cache = filled(work / "cache", model, data, clips_per_shard=2)
        assert len(cache) == 5
        tuned.append(fine_tune(model, cache, recipe(batch_size=2), work / "run").weights())
    for name, x in tuned[0].items():
        assert torch.equal(x, tuned[1][name]), name
