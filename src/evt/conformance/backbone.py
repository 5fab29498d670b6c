"""Replays cases of ViTDet's backbone: the tokens of some frames, from patch embeddings to the last block's output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evt.conformance.case import Outcome, load, policy_of, variant_of, weights_of
from evt.eventful import count_ops
from evt.models.vit import ViT

TOLERANCE = 1e-4


@torch.no_grad()
def run(case: dict[str, Any], tensors: dict[str, Tensor]) -> Outcome:
    """Run a case frame by frame, each of `input/tokens`, (T, N, D) or, of several streams, (T, B, N, D).

    Raises:
        CaseError: weights, variant or policy are not those of such a model.
    """
    net = ViT(grid=tuple(case["grid"]), patch_size=case.get("patch", 16), **settings_of(case)).eval()
    # The case begins after the patch embedding and carries no weights for it.
    load(net, weights_of(tensors, "weights/backbone.net."), without="patch_embed.")
    states = net.states(variant_of(case))
    outputs, counts = [], []
    frames = tensors["input/tokens"]
    for t, frame in enumerate(frames):
        tokens = frame if frame.ndim == 3 else frame.unsqueeze(0)  # (B, N, D)
        with count_ops() as ops:
            outputs.append(net.forward_tokens(tokens, states, policy_of(case, t)))
        counts.append(ops)
    return {"tokens": torch.stack(outputs).view_as(frames)} if outputs else {}, counts


def settings_of(case: dict[str, Any]) -> dict[str, Any]:
    """A case's settings of the backbone, by the names of `ViT`."""
    names = ("dim", "depth", "mlp_ratio", "window_size", "window_blocks", "pretrain_grid", "rel_pos_grid")
    return {name: case[name] for name in names} | {"num_heads": case["heads"]}
