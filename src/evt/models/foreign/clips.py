"""A VideoMAE of transformers as this package's own, which may look at fewer tokens of a clip; see `evt.tokens`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from evt.errors import ConversionError
from evt.models.foreign.convert import convert
from evt.models.foreign.family import kind_of
from evt.models.foreign.parts import counted
from evt.models.videomae import VideoMAE

CLASSIFIER = "transformers.models.videomae.modeling_videomae.VideoMAEForVideoClassification"


def videomae(model: Any) -> VideoMAE:
    """Make a `VideoMAE` of a classifier of clips, which stays as it is; the weights are shared, as by `convert`.

    Its `forward` takes what the model does, (B, T, 3, H, W), and a reduction besides: `net(clips, RunLength(0.1))`.

    Args:
        model: a `VideoMAEForVideoClassification`, without dropout or in evaluation mode.

    Raises:
        ConversionError: it is something else, does not take the mean of all tokens, or cannot be converted.
    """
    if kind_of(model) != CLASSIFIER:
        raise ConversionError(f"a {kind_of(model)} is no classifier of clips; it must be a {CLASSIFIER}")
    if model.fc_norm is None:
        raise ConversionError(
            "the model classifies the first token, which a reduction may drop; its config must have use_mean_pooling"
        )
    config, converted = model.config, convert(model)
    own: Any = converted.model
    with torch.device("meta"):  # all weights that it comes with are replaced
        net = VideoMAE(
            size=config.image_size,
            classes=max(1, config.num_labels),
            view_frames=config.num_frames,
            tubelet=(config.tubelet_size, config.patch_size, config.patch_size),
            dim=config.hidden_size,
            depth=1,
            num_heads=config.num_attention_heads,
        )
    embeddings = own.videomae.embeddings
    net.patch_embed.proj = embeddings.patch_embeddings.projection
    net.pos_embed = embeddings.position_embeddings[0].to(model.device)
    net.blocks = nn.ModuleList(converted.blocks)
    net.fc_norm, net.head = own.fc_norm, counted(own.classifier)  # type: ignore[assignment]
    return net.train(False)
