"""Replays cases of the detector: frames, from pixels to boxes, with what every stage between them gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evt.conformance.backbone import settings_of
from evt.conformance.case import CaseError, Outcome, load, policy_of, variant_of, weights_of
from evt.models.vit import ViT
from evt.models.vitdet import ViTDet

TOLERANCE = 1e-3

LEVELS = ("p2", "p3", "p4", "p5", "p6")


@torch.no_grad()
def run(case: dict[str, Any], tensors: dict[str, Tensor]) -> Outcome:
    """Run a case frame by frame, each of `input/frames`, (T, 3, H, W) uint8; the pyramid is that of the first frame.

    Raises:
        CaseError: size, weights, variant or policy are not those of such a model.
    """
    model = detector_of(case, tensors)
    states = model.net.states(variant_of(case))
    outputs: dict[str, Tensor] = {}
    for t, frame in enumerate(tensors["input/frames"]):
        embedding = model.net.patch_embed(model.normalise(frame))
        tokens = model.net.forward_tokens(embedding, states, policy_of(case, t))
        features = model.pyramid(tokens)
        (proposals,) = model.propose(features)
        (detections,) = model.classify(features, [proposals])
        stages = {
            "embedding": embedding,
            "tokens": tokens,
            **(dict(zip(LEVELS, features, strict=True)) if t == 0 else {}),
            "proposal_boxes": proposals.boxes,
            "proposal_logits": proposals.logits,
            **detections._asdict(),
        }
        outputs |= {f"{t}/{name}": x for name, x in stages.items()}
    return outputs, None


def detector_of(case: dict[str, Any], tensors: dict[str, Tensor]) -> ViTDet:
    """The detector of a case, with its weights; what a case does not say is as for VID.

    Raises:
        CaseError: input size or weights are not those of such a detector.
    """
    height, width = case["input_size"]
    if height != width or [height // case["patch"], width // case["patch"]] != case["grid"]:
        raise CaseError(f"input_size is {case['input_size']}; it must be square, and grid times patch")
    model = ViTDet(
        ViT(patch_size=case["patch"], **settings_of(case)),
        size=height,
        n_classes=case["classes"],
        fpn_channels=case["fpn_channels"],
        fc_dim=case["fc_dim"],
        pre_nms_top=case["rpn"]["pre_nms_top"],
        post_nms_top=case["rpn"]["post_nms_top"],
        score_threshold=case["roi"]["score_threshold"],
        max_detections=case["roi"]["max_detections"],
    )
    load(model, weights_of(tensors))
    return model.eval()
