"""A VideoMAE of transformers, shared and loaded, on all tokens of clips and on fewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evt.errors import ConversionError
from evt.models.foreign.clips import videomae
from evt.models.foreign.examples import EXAMPLES, SMALL_GRIDS, relative_error
from evt.models.videomae import VideoMAE
from evt.tokens import Merge, RandomDrop, Reduction, RunLength
from tests.models.foreign.test_convert import TOLERANCE, built

EXAMPLE = next(x for x in EXAMPLES if x.name == "VideoMAEForVideoClassification")


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def clips() -> Tensor:
    """Two clips of 4 frames, 2 x 16 tokens each, of which the lower half stands still."""
    views = EXAMPLE.pictures(2, SMALL_GRIDS[0])
    views[:, 1:, :, 32:] = views[:, :1, :, 32:]
    return views


def test_with_shared_weights_it_is_the_original() -> None:
    """Whatever becomes of these; and where a reduction leaves all tokens."""
    model = built(EXAMPLE)
    net, views = videomae(model), EXAMPLE.pictures(2, SMALL_GRIDS[0])  # nothing stands still
    for reduction in (None, RunLength(0.0), Merge(0)):
        assert relative_error(net(views, reduction), model(views).logits) < TOLERANCE
    for parameter in model.parameters():
        parameter *= 1.1
    assert relative_error(net(views), model(views).logits) < TOLERANCE


@pytest.mark.parametrize("reduction", [RunLength(0.1), RandomDrop(0.1)])
def test_what_is_kept_is_what_the_original_makes_of_it(reduction: Reduction) -> None:
    """By its own mask of tokens, which it has for pre-training."""
    model = built(EXAMPLE)
    net, views = videomae(model), clips()[:1]
    tokens, keep = net.encode(views, reduction)
    assert keep is not None
    assert 16 <= int(keep.sum()) < 32
    expected = model.videomae(views, bool_masked_pos=~keep).last_hidden_state
    assert relative_error(tokens.x, expected[0]) < TOLERANCE
    logits = model.classifier(model.fc_norm(expected.mean(1)))
    assert relative_error(net(views, reduction), logits) < TOLERANCE


def test_tokens_are_merged() -> None:
    """As many as are said, of the same clips to other logits."""
    model = built(EXAMPLE)
    net, views = videomae(model), clips()
    tokens, _ = net.encode(views, Merge(5))
    assert list(tokens.lengths) == [32 - 2 * 5] * 2
    assert relative_error(net(views, Merge(5)), model(views).logits) > 1e-3


@pytest.mark.parametrize("older", [False, True], ids=["transformers 5", "transformers 4"])
def test_files_are_loaded_by_the_models_own_name(older: bool, tmp_path: Path) -> None:
    """As `model=videomae model.checkpoint=FOLDER/model.safetensors` does."""
    model = built(EXAMPLE)
    tensors = model.state_dict()
    if older:
        biases = {"query.bias": "q_bias", "value.bias": "v_bias"}
        for new, old in biases.items():
            tensors = {name.replace(f"attention.{new}", f"attention.{old}"): x for name, x in tensors.items()}
    save_file({name: x.contiguous() for name, x in tensors.items()}, tmp_path / "model.safetensors")
    net = VideoMAE(size=64, classes=2, view_frames=4, dim=32, depth=2, num_heads=2, mlp_ratio=2)
    assert net.load([str(tmp_path / "model.safetensors")]) == []
    views = clips()
    assert relative_error(net(views), model(views).logits) < 1e-4  # norms add another small number


def test_what_is_no_classifier_of_means_is_refused() -> None:
    model = built(EXAMPLE)
    with pytest.raises(ConversionError, match="VideoMAEModel is no classifier of clips"):
        videomae(model.videomae)
    model.fc_norm = None
    with pytest.raises(ConversionError, match="must have use_mean_pooling"):
        videomae(model)
