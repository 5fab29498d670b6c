"""The names that transformers gives the parameters of VideoMAE, as those of the official checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

PREFIX = "videomae."
"""What the names of the backbone begin with in a classifier's file."""

_NAMES = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    r"encoder.layer.(\d+).attention.output.dense": r"blocks.\1.attn.proj",
    r"encoder.layer.(\d+).layernorm_before": r"blocks.\1.norm1",
    r"encoder.layer.(\d+).layernorm_after": r"blocks.\1.norm2",
    r"encoder.layer.(\d+).intermediate.dense": r"blocks.\1.mlp.fc1",
    r"encoder.layer.(\d+).output.dense": r"blocks.\1.mlp.fc2",
    "classifier": "head",
}
_ATTENTION = re.compile(r"encoder\.layer\.(\d+)\.attention\.attention\.(.+)")
_BIASES = {"query.bias": "q_bias", "value.bias": "v_bias"}  # files of before transformers 5 have the latter
_OF_QKV = [f"{name}.weight" for name in ("query", "key", "value")]


def official_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters under their official names; as they are where they are not those of transformers' classifier."""
    if not any(name.startswith(PREFIX) for name in tensors):
        return dict(tensors)
    renamed: dict[str, Tensor] = {}
    qkv: dict[str, dict[str, Tensor]] = {}
    for full_name, x in tensors.items():
        name = full_name.removeprefix(PREFIX)
        if match := _ATTENTION.fullmatch(name):
            block, part = f"blocks.{match[1]}.attn", match[2]
            if part in _OF_QKV:
                qkv.setdefault(block, {})[part] = x
            else:
                renamed[f"{block}.{_BIASES.get(part, part)}"] = x
            continue
        stem, _, kind = name.rpartition(".")
        for theirs, official in _NAMES.items():
            if match := re.fullmatch(theirs, stem):
                name = f"{match.expand(official)}.{kind}"
        renamed[name] = x
    for block, parts in qkv.items():
        if parts.keys() == set(_OF_QKV):  # else the qkv is told to be missing
            renamed[f"{block}.qkv.weight"] = torch.cat([parts[part] for part in _OF_QKV])
    return renamed
