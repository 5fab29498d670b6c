"""Loads ViViT's weights: the published checkpoints, and the temporal sub-models that were fine-tuned here."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from evt.models.vivit import ViViT

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


def published_name(ours: str, head: str = "head.linear.") -> str:
    """What the published checkpoints call one of our parameters; `head` is their name for the classifier."""
    ours = re.sub(r"^head\.", head, ours)
    for pattern, name in _PUBLISHED:
        ours = re.sub(pattern, name, ours)
    return ours


def load_published(model: ViViT, weights: Mapping[str, Tensor]) -> list[str]:
    """Load a published checkpoint (the tensors below its `model_state`).

    Returns:
        What was left out, a sentence each: the nouns' classifier of EPIC-Kitchens, as the task is verbs.

    Raises:
        ValueError: parameters are missing, of another shape, not finite, or not ViViT's; the message names them
            as they are published. The model is then as it was.
    """
    nouns = sorted(name for name in weights if name.startswith(_NOUN_HEAD))
    verbs = any(name.startswith(_VERB_HEAD) for name in weights)
    names = {
        ours: published_name(ours, _VERB_HEAD if verbs else "head.linear.") for ours in model.state_dict()
    }
    _load(model, names, {name: x for name, x in weights.items() if name not in nouns})
    return [f"{' and '.join(nouns)} left out: they classify nouns, and the task is verbs"] if nouns else []


def fine_tuned_weights(model: ViViT) -> dict[str, Tensor]:
    """The weights that fine-tuning changes: the temporal sub-model and the classifier."""
    return {name: x for name, x in model.state_dict().items() if name.startswith(_FINE_TUNED)}


def load_fine_tuned(model: ViViT, weights: Mapping[str, Tensor]) -> None:
    """Replace the temporal sub-model and the classifier by fine-tuned ones; the spatial sub-model stays.

    Raises:
        ValueError: parameters are missing, of another shape, not finite, or none of these; the message names
            them. The model is then as it was.
    """
    _load(model, {name: name for name in fine_tuned_weights(model)}, weights)


@torch.no_grad()
def _load(model: ViViT, names: Mapping[str, str], weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the parameters that `names` lists, ours to that in `weights`."""
    parameters = {names[ours]: x for ours, x in model.state_dict().items() if ours in names}
    wrong = [
        *(f"{name} is missing" for name in parameters if name not in weights),
        *(
            f"{name} is {_shape(weights[name])} and must be {_shape(x)}"
            for name, x in parameters.items()
            if name in weights and weights[name].shape != x.shape
        ),
        *(f"{name} is not a parameter of this model" for name in weights if name not in parameters),
        *(f"{name} has NaN or infinite values" for name, x in weights.items() if not torch.isfinite(x).all()),
    ]
    if wrong:
        raise ValueError("the weights do not fit the model: " + "; ".join(wrong))
    for name, x in parameters.items():
        x.copy_(weights[name])


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) or "a number"
