"""Loads ViViT's weights: the published checkpoints, and the temporal sub-models that were fine-tuned here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from evt.models.checkpoints import load_tensors

# Patterns of our names, and what the published checkpoints call these parts. All that match apply, in order.
_PUBLISHED = (
    (r"^patch_embed\.proj\.", "backbone.stem.conv1."),
    (r"^spatial\.cls_token$", "backbone.cls_token"),
    (r"^spatial\.pos_embed$", "backbone.pos_embd"),
    (r"^spatial\.blocks\.", "backbone.layers."),
    (r"^spatial\.norm\.", "backbone.norm."),
    (r"^temporal\.cls_token$", "backbone.cls_token_out"),
    (r"^temporal\.pos_embed$", "backbone.temp_embd"),
    (r"^temporal\.blocks\.", "backbone.layers_temporal."),
    (r"^temporal\.norm\.", "backbone.norm_out."),
    (r"\.norm1\.", ".norm."),
    (r"\.norm2\.", ".norm_ffn."),
    (r"\.attn\.qkv\.", ".attn.to_qkv."),
    (r"\.mlp\.fc1\.", ".ffn.net.0."),
    (r"\.mlp\.fc2\.", ".ffn.net.3."),
)
_VERB_HEAD, _NOUN_HEAD = "head.linear1.", "head.linear2."
_FINE_TUNED = ("temporal.", "head.")


def published(model: nn.Module, head: str = "head.linear.") -> dict[str, Tensor]:
    """The parameters under the names of the published checkpoints; `head` is theirs for the classifier."""
    return {_published_name(name, head): x for name, x in model.state_dict().items()}


def _published_name(ours: str, head: str) -> str:
    ours = re.sub(r"^head\.", head, ours)
    for pattern, name in _PUBLISHED:
        ours = re.sub(pattern, name, ours)
    return ours


def load_published(model: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> list[str]:
    """Load a published checkpoint (the tensors below its `model_state`); path is for messages.

    Returns:
        What was left out, a sentence each: the nouns' classifier of EPIC-Kitchens, as the task is verbs.

    Raises:
        CheckpointError: as `load_checkpoint`, and where there are parameters that are not ViViT's; the names are the
            published ones.
    """
    nouns = sorted(name for name in weights if name.startswith(_NOUN_HEAD))
    verbs = any(name.startswith(_VERB_HEAD) for name in weights)
    own = published(model, _VERB_HEAD) if verbs else published(model)
    load_tensors(own, {name: x for name, x in weights.items() if name not in nouns}, path, only=True)
    return [f"{' and '.join(nouns)} left out: they classify nouns, and the task is verbs"] if nouns else []


def fine_tuned_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights that fine-tuning changes: the temporal sub-model and the classifier."""
    return {name: x for name, x in model.state_dict().items() if name.startswith(_FINE_TUNED)}


def load_fine_tuned(model: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Replace the temporal sub-model and the classifier by fine-tuned ones; the spatial sub-model stays.

    Raises:
        CheckpointError: as `load_checkpoint`, and where there are parameters of anything else.
    """
    load_tensors(fine_tuned_weights(model), weights, path, only=True)
