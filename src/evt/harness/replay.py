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

from evt.eventful import VARIANTS, Policy, Threshold, TopR, count_ops
from evt.models.vit import ViT


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


def replay(folder: Path, tolerance: float | None = None) -> Replay:
    """Replay the case in a folder.

    Args:
        folder: the case.
        tolerance: the largest absolute error that passes, None for that of the case's kind.

    Raises:
        CaseError: a file is missing or broken, or the case is of a kind or variant that is not known.
    """
    try:
        case = json.loads((folder / "case.json").read_text())
        tensors = load_file(folder / "tensors.safetensors")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise CaseError(f"not a case: {error}") from error
    kinds = {"backbone": (_replay_backbone, 1e-4)}
    if case.get("kind") not in kinds:
        raise CaseError(f"kind is {case.get('kind')!r}; allowed are {', '.join(kinds)}")
    run, usual_tolerance = kinds[case["kind"]]
    try:
        errors, counts_equal = run(case, tensors)
    except KeyError as error:
        raise CaseError(f"the case has no {error}") from error
    except (TypeError, ValueError) as error:
        raise CaseError(f"the case cannot be built: {error}") from error
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


def backbone_of(case: dict[str, Any], tensors: dict[str, Tensor]) -> ViT:
    """The ViT of a case, with its weights."""
    net = ViT(
        grid=tuple(case["grid"]),
        patch_size=case.get("patch", 16),
        dim=case["dim"],
        depth=case["depth"],
        num_heads=case["heads"],
        mlp_ratio=case["mlp_ratio"],
        window_size=case["window_size"],
        window_blocks=case["window_blocks"],
        pretrain_grid=case["pretrain_grid"],
        rel_pos_grid=case["rel_pos_grid"],
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
