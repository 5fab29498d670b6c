"""Replays cases of Token Merging: a batch of views, from pixels to logits, and the tokens after every block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evt.conformance.case import CaseError, Outcome
from evt.conformance.rlt import videomae_of
from evt.tokens import Merge, Packed

TOLERANCE = 1e-4


@torch.no_grad()
def run(case: dict[str, Any], tensors: dict[str, Tensor]) -> Outcome:
    """Run a case on `input/views`, (B, T, 3, H, W), normalised.

    Raises:
        CaseError: the case has a class token.
        CheckpointError: the weights do not fit.
    """
    if case["class_token"]:
        raise CaseError("class_token is true, but VideoMAE has none; it must be false")
    model = videomae_of(case, tensors)
    merging = Merge(case["r"], proportional=case["prop_attn"])
    merging.check(model)
    x = model.embed(tensors["input/views"])
    tokens, outputs = Packed(x.flatten(0, 1), [x.shape[1]] * len(x)), {}
    for block in range(model.depth):
        tokens = model.run_block(block, tokens, merging)
        by_view = (len(x), -1)
        outputs[f"{block}/tokens"] = tokens.x.unflatten(0, by_view)
        assert tokens.size is not None
        outputs[f"{block}/sizes"] = tokens.size.unflatten(0, by_view)
    return outputs | {"logits": model.classify(tokens.means())}, None
