"""The cache of spatial outputs and the fine-tuning on it: right, resumable, and clear about what cannot be."""

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

from evt.errors import DataError, TrainingError
from evt.eventful import VARIANTS, TopR
from evt.models.checkpoints import read_checkpoint
from evt.models.vivit import ViViT
from evt.models.vivit_weights import load_fine_tuned
from evt.training import spatial_cache
from evt.training.finetune import DROPOUT, EPIC_KITCHENS, KINETICS, fine_tune
from evt.training.loop import Recipe
from evt.training.spatial_cache import SpatialCache, fill_cache
from tests.common import ROOT
from tests.vivit import Clips, small_vivit

TEMPORAL = VARIANTS["temporal"]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spatial_cache, "CLIPS_PER_SHARD", 4)


def filled(folder: Path, model: ViViT, data: Clips | None = None, r: int = 5) -> SpatialCache:
    return fill_cache(folder, model, TEMPORAL, TopR(r), data or Clips(10))


def test_the_cache_holds_what_the_spatial_model_gives(tmp_path: Path) -> None:
    """Else the temporal model would be tuned for something it never sees."""
    model = small_vivit()
    cache = filled(tmp_path, model)
    assert [name for name, *_ in cache.clips] == [f"clip_{i}" for i in range(10)]
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        f"0000{i}.safetensors" for i in range(3)
    ]
    for i in (0, 5, 9):
        clip = Clips(10)[i]
        spatial, label = cache[i]
        assert label == clip.label
        expected = model.run_spatial(model.preprocess(clip.frames), TEMPORAL, TopR(5))
        torch.testing.assert_close(spatial, expected, rtol=0, atol=0)


def test_an_interrupted_cache_goes_on_at_its_next_shard(tmp_path: Path) -> None:
    """A clip of the second shard stops the first run; a half-written shard of a kill is not taken for one."""
    model = small_vivit()
    with pytest.raises(DataError, match=r"broken\.mp4"):
        fill_cache(tmp_path, model, TEMPORAL, TopR(5), Clips(10, (6,)), "fail")
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    (tmp_path / ".00001.safetensors.partial").write_bytes(b"half")
    data = Clips(10)
    cache = filled(tmp_path, model, data)
    assert len(cache) == 10
    # All clips are listed to see that they are the same; those of the shard that is there are not read again.
    assert data.read[10:] == [f"clip_{i}" for i in range(4, 10)]
    data.read.clear()
    filled(tmp_path, model, data)
    assert len(data.read) == 10


def test_broken_clips_are_left_out_of_the_cache_and_listed(tmp_path: Path) -> None:
    for _ in range(2):  # filled, and opened again
        cache = filled(tmp_path, small_vivit(), Clips(10, broken=(0, 7)))
        assert [name for name, *_ in cache.clips] == [f"clip_{i}" for i in (1, 2, 3, 4, 5, 6, 8, 9)]
        assert set(cache.skipped) == {"clip_0", "clip_7"}
    with pytest.raises(DataError, match="none of its 2 clips could be read"):
        filled(tmp_path / "none", small_vivit(), Clips(2, broken=(0, 1)))


def test_a_cache_of_something_else_is_refused(tmp_path: Path) -> None:
    """Else a model would be tuned on the outputs of another, and nobody would know."""
    model = small_vivit()
    filled(tmp_path, model)
    with pytest.raises(DataError, match="was made with other policy; choose another folder"):
        filled(tmp_path, model, r=6)
    with pytest.raises(DataError, match="other clips"):
        filled(tmp_path, model, Clips(9))
    with pytest.raises(DataError, match="other num_heads"):
        filled(tmp_path, small_vivit(num_heads=2))
    torch.nn.init.zeros_(model.temporal.norm.bias)  # not of the spatial model
    filled(tmp_path, model)
    torch.nn.init.normal_(model.spatial.norm.bias)
    with pytest.raises(DataError, match="other weights"):
        filled(tmp_path, model)


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    filled(tmp_path, small_vivit())
    (tmp_path / "00001.safetensors").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"00001.safetensors: not a shard of spatial outputs .* delete it"):
        filled(tmp_path, small_vivit())


def recipe(**changes: Any) -> Recipe:
    return Recipe(
        **{"epochs": 3, "batch_size": 3, "lr": 1e-3, "weight_decay": 0.05, "save_every": 1, **changes}
    )


def test_training_takes_the_step_that_torch_takes(tmp_path: Path) -> None:
    """One step without dropout, beside Adam on the cross-entropy of the logits' mean written out here."""
    model, reference = small_vivit(), small_vivit()
    cache = filled(tmp_path / "cache", model)
    fine_tune(model, cache, recipe(epochs=1, batch_size=10, weight_decay=0.0), tmp_path / "run", dropout=0)

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
    path = fine_tune(model, cache, recipe(lr=1e-2, epochs=40, save_every=500), tmp_path / "run", 0.1)
    losses = [
        json.loads(line)["cross_entropy"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()
    ]
    assert sum(losses[-3:]) < sum(losses[:3]) / 1.5
    assert top1_on(model, cache) > max(before, 0.4)  # of 5 classes, so 0.2 by chance
    tuned = small_vivit()
    load_fine_tuned(tuned, read_checkpoint(path), path)
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

    def head(name: str, seed: int = 0, dropout: float = 0.5) -> torch.Tensor:
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


def test_the_papers_settings() -> None:
    """Supplement, sections B and C."""
    settings = [(r.epochs, r.batch_size, r.lr, r.weight_decay) for r in (EPIC_KITCHENS, KINETICS)]
    assert settings == [(5, 8, 1e-5, 0.05), (10, 16, 2e-6, 0.05)]
    assert DROPOUT == 0.5


KILLED = """
import os, signal, sys
from pathlib import Path
from evt.data.epic_kitchens import EpicKitchens
from evt.eventful import VARIANTS, TopR
from evt.training import finetune
from evt.training import spatial_cache
from evt.training import loop as train
from tests.vivit import small_vivit

root, work, victim = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def and_die(save):
    def run(*arguments):
        save(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    return run

spatial_cache.CLIPS_PER_SHARD = 2
if victim == "shard":
    spatial_cache._fill_shard = and_die(spatial_cache._fill_shard)
else:
    train._save = and_die(train._save)
model = small_vivit()
cache = spatial_cache.fill_cache(work / "cache", model, VARIANTS["temporal"], TopR(5), EpicKitchens(root, "train"))
recipe = train.Recipe(epochs=3, batch_size=2, lr=1e-3, weight_decay=0.05, save_every=1)
finetune.fine_tune(model, cache, recipe, work / "run")
"""


def test_a_killed_fine_tuning_on_videos_goes_on_and_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a csv and videos to tuned weights, with SIGKILL after the first shard and after the first step."""
    # Imported here, as only this test needs a video encoder.
    from evt.data.epic_kitchens import EpicKitchens
    from tests.videos import write_video

    monkeypatch.setattr(spatial_cache, "CLIPS_PER_SHARD", 2)
    write_video(tmp_path / "P01/videos/P01_01.MP4", 60, 60)
    rows = [f"P01_01_{i},P01_01,00:00:00.{i}0,00:00:00.{i + 2}0,verb,{i % 5}" for i in range(5)]
    columns = "narration_id,video_id,start_timestamp,stop_timestamp,verb,verb_class"
    (tmp_path / "EPIC_100_train.csv").write_text("\n".join([columns, *rows]) + "\n")

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    for victim, left in (("shard", "cache/00000.safetensors"), ("training", "run/last.pt")):
        died = subprocess.run(
            [sys.executable, "-c", KILLED, tmp_path, tmp_path / "work", victim], env=environment, check=False
        )
        assert died.returncode == -signal.SIGKILL
        assert (tmp_path / "work" / left).exists()
    assert not (tmp_path / "work/run/temporal.safetensors").exists()

    data = EpicKitchens(tmp_path, "train")
    tuned = []
    for work in (tmp_path / "work", tmp_path / "unbroken"):
        model = small_vivit()
        cache = fill_cache(work / "cache", model, TEMPORAL, TopR(5), data)
        assert len(cache) == 5
        tuned.append(read_checkpoint(fine_tune(model, cache, recipe(batch_size=2), work / "run")))
    for name, x in tuned[0].items():
        assert torch.equal(x, tuned[1][name]), name
