"""What timm has for fine-tuning Transformers: drop path, mixup, and learning rates that fall from layer to layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evt.errors import ConfigError
from evt.eventful import Block
from evt.models.foreign.libraries import imported

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Samples (B, ...) and labels (B,) to mixed ones, and how much each is of each class, (B, classes)."""

LAYERS = {
    "embedding": r"(?!.*temporal\.).*(?:patch_embed|pos_embed|cls_token|length_embed)",
    "spatial": r".*spatial\.blocks\.(\d+)\.",
    "between": r".*temporal\.(?:pos_embed|cls_token)",
    "blocks": r".*blocks\.(\d+)\.",
}
"""Patterns of parameters in the order of layers, as timm's `group_matcher`; what fits none is behind the last."""


def add_drop_path(model: nn.Module, rate: float) -> None:
    """Let training leave out the branches of blocks for some samples (stochastic depth; Huang et al. 2016).

    Args:
        model: whose blocks are told.
        rate: of the last block; that of others rises on a line from 0, in each sub-model by itself.

    Raises:
        ConfigError: the model has no blocks, or timm is not installed.
    """
    layers = timm_for("drop_path", "layers")
    found = [
        [block for block in part if isinstance(block, Block)]
        for part in model.modules()
        if isinstance(part, nn.ModuleList)
    ]
    if not any(found):
        raise ConfigError(
            f"train.drop_path is {rate}, but what is trained has no Transformer blocks; it must be 0"
        )
    for blocks in found:
        for block, own in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
            block.drop_path = layers.DropPath(own).train(block.training)


def mixing(alpha: float, n_classes: int) -> Mix:
    """Mixup (Zhang et al. 2018) by timm: each sample with one of the same batch, by a share from Beta(alpha, alpha).

    The share comes from torch's generator, which the training loop seeds, and not from numpy's, which timm uses.

    Raises:
        ConfigError: timm is not installed.
    """
    mixup = timm_for("mixup", "data").Mixup(mixup_alpha=alpha, label_smoothing=0, num_classes=n_classes)

    def mix(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        state = np.random.get_state()
        np.random.seed(int(torch.randint(2**32, ())))
        try:
            return mixup(x, labels)
        finally:
            np.random.set_state(state)

    return mix


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """By how much the learning rate of each parameter is scaled: 1 behind the last block, `decay` in it, and so on.

    Raises:
        ConfigError: timm is not installed.
    """
    groups = timm_for("layer_decay", "optim").param_groups_layer_decay(_Layered(model), layer_decay=decay)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    return {name: scales[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def timm_for(setting: str, part: str) -> Any:
    """A part of timm, which a setting of a recipe needs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return imported(f"timm.{part}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"train.{setting} needs {error.name}: pip install 'evt[timm]'") from error


class _Layered(nn.Module):
    """A model of which timm is told the order of its layers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def group_matcher(self, coarse: bool) -> dict[str, str]:
        return LAYERS
