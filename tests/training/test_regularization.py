"""Drop path, label smoothing, mixup and layer decay, against timm's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evt.errors import ConfigError
from evt.models.vit import ViT
from evt.training.recipe import Recipe, build_optimizers
from evt.training.regularization import add_drop_path, layer_scales, mixing
from tests.common import small_frames, small_vit
from tests.models.foreign.test_convert import library
from tests.training.objectives.test_motion import small_videomae
from tests.training.runs import RECIPE, trained
from tests.vivit import small_vivit


def test_paths_are_dropped_of_whole_samples() -> None:
    """Of equal clips there are as many outcomes as ways to drop the last block's two branches, and not more."""
    library("timm")
    model, clip = small_videomae(), torch.randn(1, 4, 3, 32, 32)
    net, frame = small_vit(), small_frames(1)[0]
    with torch.no_grad():
        dense = model(clip), net(frame)
        add_drop_path(model, 0.5)
        add_drop_path(net, 0.5)
        assert torch.equal(model(clip), dense[0])  # in evaluation nothing is dropped
        model.train(), net.train()
        torch.manual_seed(0)
        # Two blocks of VideoMAE, of which the first drops nothing; of ViTDet's the first of four.
        assert len(model(clip.expand(64, -1, -1, -1, -1)).round(decimals=4).unique(dim=0)) == 4
        out = net(frame.expand(64, -1, -1, -1)).flatten(1).round(decimals=3)
    assert 4 < len(out.unique(dim=0)) <= 4**3
    rates = [block.drop_path.drop_prob for block in net.blocks]  # type: ignore[union-attr]
    assert rates == pytest.approx([0, 0.5 / 3, 1 / 3, 0.5])


def test_learning_rates_fall_from_layer_to_layer_as_in_timm() -> None:
    timm = library("timm")
    net = ViT((4, 4), 4, dim=24, depth=6, num_heads=3, window_blocks=())
    theirs = timm.models.VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=6, num_heads=3)
    names = {id(p): name for name, p in theirs.named_parameters()}
    groups = library("timm.optim").param_groups_layer_decay(theirs, layer_decay=0.7)
    expected = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    ours = layer_scales(torch.nn.ModuleDict({"net": net, "head": torch.nn.Linear(24, 2)}), 0.7)
    ours = {name.removeprefix("net."): scale for name, scale in ours.items()}
    shared = ours.keys() & expected.keys()
    assert len(shared) == 6 * 12 + 5
    assert {name: ours[name] for name in shared} == pytest.approx({name: expected[name] for name in shared})
    groups = build_optimizers(net, replace(RECIPE, optimizer="muon", layer_decay=0.7))["muon"].param_groups
    assert [group["lr_scale"] for group in groups] == pytest.approx([0.7**i for i in range(5, -1, -1)])


def test_the_temporal_sub_model_of_vivit_is_behind_the_spatial_one() -> None:
    library("timm")
    scales = layer_scales(small_vivit(1, 1), 0.5)
    order = ["patch_embed.proj.weight", "spatial.blocks.0.mlp.fc1.weight", "temporal.pos_embed",
             "temporal.blocks.0.mlp.fc1.weight", "head.weight"]  # fmt: skip
    assert scales["head.weight"] == 1
    assert [scales[name] for name in order] == sorted({scales[name] for name in order})


def test_samples_and_labels_are_mixed_alike_and_by_the_seed_of_the_step() -> None:
    """Else a run that was killed would go on with other mixtures; what else draws from numpy is left alone."""
    library("timm")
    x, labels = torch.randn(4, 3, 5), torch.tensor([0, 2, 1, 3])
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    seen = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        mixed, target = mixing(0.8, 4)(x.clone(), labels)
        share = target[0, 0]  # of the first sample; the rest is the last one's
        torch.testing.assert_close(mixed, share * x + (1 - share) * x.flip(0))
        assert target[0, 3] == pytest.approx(1 - float(share), abs=1e-6)
        seen.append(float(share))
    assert seen[0] == seen[1] != seen[2]
    assert np.random.rand() == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_path": 1.0}, "train.drop_path is 1.0; it must be a finite number of at least 0 and below 1"),
        ({"label_smoothing": -0.1}, "train.label_smoothing is -0.1"),
        ({"mixup": -1.0}, "train.mixup is -1.0; it must be a finite number of at least 0"),
        ({"mixup": 0.2, "batch_size": 3}, "train.batch_size is 3; with train.mixup, which mixes pairs"),
        ({"layer_decay": 0.0}, "train.layer_decay is 0.0"),
        ({"drop_path": 0.1}, "train.drop_path is 0.1, but what is trained has no Transformer blocks; it must be 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    library("timm")
    with pytest.raises(ConfigError, match=message):
        trained(tmp_path, replace(RECIPE, **changes))


@pytest.mark.parametrize("changes", [{"drop_path": 0.1}, {"mixup": 0.8}, {"layer_decay": 0.75}])
def test_timm_is_asked_for_before_the_work(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    monkeypatch.setattr("evt.training.recipe.find_spec", lambda name: None)
    name = next(iter(changes))
    with pytest.raises(ConfigError, match=rf"^train\.{name} needs timm: pip install 'evt\[timm\]'$"):
        replace(RECIPE, **changes)
    assert isinstance(replace(RECIPE, label_smoothing=0.1), Recipe)  # which torch has
