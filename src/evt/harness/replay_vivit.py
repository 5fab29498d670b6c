"""Replays ViViT cases: a whole video, from its frames to the probabilities of its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from evt.eventful import Policy, Variant, count_ops
from evt.models.vivit import PIXEL_MEAN, PIXEL_STD, ViViT
from evt.models.vivit_weights import load_published


def vivit_of(case: dict[str, Any], tensors: dict[str, Tensor]) -> ViViT:
    """The ViViT of a case, with its weights.

    Raises:
        ValueError: the weights do not fit, or pixels are normalised in another way than for the published models.
    """
    if (case["pixel_mean"], case["pixel_std"]) != (PIXEL_MEAN, PIXEL_STD):
        raise ValueError(
            f"pixels have mean {case['pixel_mean']} and deviation {case['pixel_std']}; "
            f"they must have {PIXEL_MEAN} and {PIXEL_STD}"
        )
    model = ViViT(
        size=case["view_size"],
        classes=case["classes"],
        temporal_stride=case["temporal_stride"],
        view_frames=case["view_frames"],
        temporal_views=case["temporal_views"],
        spatial_views=case["spatial_views"],
        tubelet=case["tubelet"],
        dim=case["dim"],
        num_heads=case["heads"],
        mlp_ratio=case["mlp_ratio"],
        spatial_depth=case["spatial_depth"],
        temporal_depth=case["temporal_depth"],
    )
    prefix = "weights/"
    load_published(
        model, {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
    )
    return model.eval()


def replay_vivit(
    case: dict[str, Any], tensors: dict[str, Tensor], variant: Variant, policies: Iterator[Policy | None]
) -> tuple[dict[str, float], bool]:
    """Run a case; the largest error of each output, and whether the counts over the whole clip are equal."""
    model = vivit_of(case, tensors)
    with torch.no_grad(), count_ops() as ops:
        views = model.preprocess(tensors["input/video"])
        spatial = model.run_spatial(views, variant, next(policies))
        logits = model.classify(spatial)
    outputs = {
        "view_first": views[0],
        "view_last": views[-1],
        "spatial": spatial,
        "probabilities": logits.mean(dim=0, keepdim=True).softmax(dim=-1),
    }
    errors = {name: _max_error(out, tensors[f"output/{name}"]) for name, out in outputs.items()}
    return errors, Counter(case["counts"]) == ops


def _max_error(out: Tensor, recorded: Tensor) -> float:
    return float((out - recorded).abs().max()) if out.shape == recorded.shape else float("inf")
