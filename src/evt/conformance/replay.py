"""Replays conformance cases: what the published implementations computed on small models, and what this one does.

A case is a folder with `case.json` (what was built and run) and `tensors.safetensors` (weights, inputs, outputs).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from evt.conformance.rlt import rlt_outputs
from evt.conformance.vivit import vivit_outputs
from evt.eventful import VARIANTS, Policy, Threshold, TopR, count_ops
from evt.models.vit import ViT
from evt.models.vitdet import ViTDet

LEVELS = ("p2", "p3", "p4", "p5", "p6")

_Run = Callable[[dict[str, Any], dict[str, Tensor]], tuple[dict[str, float], bool | None]]


class CaseError(ValueError):
    """A case that cannot be replayed; the message says why."""


@dataclass(frozen=True)
class Replay:
    """How a replayed case compares with its recorded outputs.

    errors: the largest absolute error of each output, by name.
    counts_equal: whether the operations of every frame and kind are equal; None where a case records none.
    tolerance: the largest error that passes.
    """

    errors: dict[str, float]
    counts_equal: bool | None
    tolerance: float

    @property
    def error(self) -> float:
        """The largest absolute error of all outputs; NaN if any is."""
        return float(torch.tensor(list(self.errors.values())).max())

    @property
    def passed(self) -> bool:
        """Whether all errors are within the tolerance and all counts equal."""
        return self.error <= self.tolerance and self.counts_equal is not False


def replay(folder: Path, tolerance: float | None = None, device: str = "cpu") -> Replay:
    """Replay the case in a folder.

    Args:
        folder: the case.
        tolerance: the largest absolute error that passes, None for that of the case's kind.
        device: what it runs on.

    Raises:
        CaseError: a file is missing or broken, the case is of a kind or variant that is not known, or what it says
            cannot be built or run.
    """
    try:
        return _replay(folder, tolerance, device)
    except CaseError:
        raise
    except KeyError as error:
        raise CaseError(f"the case has no {error}") from error
    except (
        ValueError,
        TypeError,
        RuntimeError,
        ArithmeticError,
        IndexError,
        AttributeError,
        AssertionError,
    ) as error:
        # A case may hold anything, and what fails on it first is any line of the model.
        raise CaseError(f"the case cannot be replayed: {type(error).__name__}: {error}") from error


def _replay(folder: Path, tolerance: float | None, device: str) -> Replay:
    try:
        case = json.loads((folder / "case.json").read_text())
        tensors = load_file(folder / "tensors.safetensors", device)
    except (OSError, ValueError, SafetensorError) as error:
        raise CaseError(f"not a case: {error}") from error
    kinds: dict[str, tuple[_Run, float]] = {
        "backbone": (_replay_backbone, 1e-4),
        "detector": (_replay_detector, 1e-3),
        "vivit": (_replay_vivit, 1e-4),
        "rlt": (_replay_rlt, 1e-4),
    }
    if not isinstance(case, dict):
        raise CaseError(f"not a case: case.json holds a {type(case).__name__}; it must hold settings by name")
    if case.get("kind") not in kinds:
        raise CaseError(f"kind is {case.get('kind')!r}; allowed are {', '.join(kinds)}")
    run, usual_tolerance = kinds[case["kind"]]
    with torch.device(device):  # where models are built
        errors, counts_equal = run(case, tensors)
    if not errors:
        raise CaseError("the case has no frames")
    return Replay(errors, counts_equal, usual_tolerance if tolerance is None else tolerance)


def _replay_backbone(case: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, float], bool]:
    net = backbone_of(case, tensors)
    states = net.states(_variant(case))
    errors, counts = {}, []
    for t, tokens in enumerate(tensors["input/tokens"]):
        with torch.no_grad(), count_ops() as ops:
            out = net.forward_tokens(tokens.unsqueeze(0), states, policy_of(case, t))
        errors[f"{t}/tokens"] = max_error(out.squeeze(0), tensors["output/tokens"][t])
        counts.append(ops)
    return errors, [Counter(recorded) for recorded in case["counts"]] == counts


def _replay_vivit(case: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, float], bool]:
    with count_ops() as ops:
        outputs = vivit_outputs(case, tensors, _variant(case), policy_of(case, 0))
    errors = {name: max_error(x, tensors[f"output/{name}"]) for name, x in outputs.items()}
    return errors, Counter(case["counts"]) == ops


def _replay_rlt(case: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, float], None]:
    outputs = rlt_outputs(case, tensors)
    return {name: max_error(x, tensors[f"output/{name}"].float()) for name, x in outputs.items()}, None


def backbone_of(case: dict[str, Any], tensors: dict[str, Tensor]) -> ViT:
    """The ViT of a case, with its weights."""
    net = ViT(
        grid=tuple(case["grid"]),
        patch_size=case.get("patch", 16),
        **_backbone_settings(case),
    )
    prefix = "weights/backbone.net."
    weights = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
    try:
        names = net.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CaseError(f"the weights do not fit: {error}") from error
    # A backbone case begins after the patch embedding and carries no weights for it.
    wrong = [
        name for name in names.missing_keys if not name.startswith("patch_embed.")
    ] + names.unexpected_keys
    if wrong:
        raise CaseError(f"the weights do not fit the model: {', '.join(wrong)}")
    return net.eval()


def _replay_detector(case: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, float], None]:
    model = detector_of(case, tensors)
    states = model.net.states(_variant(case))
    errors = {}
    for t, frame in enumerate(tensors["input/frames"]):
        with torch.no_grad():
            embedding = model.net.patch_embed(model.normalise(frame))
            tokens = model.net.forward_tokens(embedding, states, policy_of(case, t))
            features = model.pyramid(tokens)
            proposals = model.propose(features)
            detections = model.classify(features, proposals)
        out = {
            "embedding": embedding,
            "tokens": tokens,
            **dict(zip(LEVELS, features, strict=True)),
            "proposal_boxes": proposals[0].boxes,
            "proposal_logits": proposals[0].logits,
            **detections[0]._asdict(),
        }
        for name, x in out.items():
            if t == 0 or name not in LEVELS:  # the pyramid is recorded for the first frame only
                errors[f"{t}/{name}"] = max_error(x, tensors[f"output/{t}/{name}"])
    return errors, None


def detector_of(case: dict[str, Any], tensors: dict[str, Tensor]) -> ViTDet:
    """The detector of a case, with its weights; what a case does not say is as for VID."""
    height, width = case["input_size"]
    if height != width or [height // case["patch"], width // case["patch"]] != case["grid"]:
        raise CaseError(f"input_size is {case['input_size']}; it must be square, and grid times patch")
    model = ViTDet(
        size=height,
        patch_size=case["patch"],
        **_backbone_settings(case),
        n_classes=case["classes"],
        fpn_channels=case["fpn_channels"],
        fc_dim=case["fc_dim"],
        pre_nms_top=case["rpn"]["pre_nms_top"],
        post_nms_top=case["rpn"]["post_nms_top"],
        score_threshold=case["roi"]["score_threshold"],
        max_detections=case["roi"]["max_detections"],
    )
    weights = {name.removeprefix("weights/"): x for name, x in tensors.items() if name.startswith("weights/")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CaseError(f"the weights do not fit: {error}") from error
    return model.eval()


def _backbone_settings(case: dict[str, Any]) -> dict[str, Any]:
    names = ("dim", "depth", "mlp_ratio", "window_size", "window_blocks", "pretrain_grid", "rel_pos_grid")
    return {name: case[name] for name in names} | {"num_heads": case["heads"]}


def policy_of(case: dict[str, Any], t: int) -> Policy | None:
    """The policy of a case at its frame t."""
    kind, value = case["policy"], case["value"]
    if kind == "top_r_schedule" and t >= len(value):
        raise CaseError(f"value has {len(value)} entries, but there is a frame {t}; each frame needs its own")
    choices: dict[str, Callable[[], Policy | None]] = {
        "none": lambda: None,
        "top_r": lambda: TopR(value),
        "top_r_schedule": lambda: TopR(value[t]),
        "threshold": lambda: Threshold(value),
    }
    if kind not in choices:
        raise CaseError(f"policy is {kind!r}; allowed are {', '.join(choices)}")
    return choices[kind]()


def _variant(case: dict[str, Any]) -> Any:
    if case["variant"] not in VARIANTS:
        raise CaseError(f"variant is {case['variant']!r}; allowed are {', '.join(VARIANTS)}")
    variant = VARIANTS[case["variant"]]
    # Only some cases record the pool; 1 in a case of a pooled variant says nothing.
    return replace(variant, pool=case["pool"]) if case.get("pool", 1) > 1 else variant


def max_error(out: Tensor, recorded: Tensor) -> float:
    """The largest absolute difference; infinite where the shapes differ."""
    if out.shape != recorded.shape:
        return float("inf")
    return float((out - recorded).abs().max()) if out.numel() else 0.0
