"""What cases of every kind have in common: why one cannot be replayed, its weights, its variant and its policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from evt.eventful import VARIANTS, Policy, Threshold, TopR, Variant

Outcome = tuple[dict[str, Tensor], "list[Counter[str]] | None"]
"""What a case's model gave: outputs by the names under which they are recorded, and the operations, by kind, of each
frame or of the whole video; None where cases of this kind record none."""


class CaseError(ValueError):
    """A case that cannot be replayed; the message says why."""


class SkippedError(CaseError):
    """A case that is not at fault, but needs what is not here; the message says what."""


def weights_of(tensors: dict[str, Tensor], prefix: str = "weights/") -> dict[str, Tensor]:
    """The recorded parameters whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def load(model: nn.Module, weights: dict[str, Tensor], without: str | None = None) -> None:
    """Load recorded weights, by the model's names; of parameters that begin with `without` none are recorded.

    Raises:
        CaseError: one is missing, is of another shape, or is none of the model's.
    """
    try:
        names = model.load_state_dict(weights, strict=without is None)
    except RuntimeError as error:
        raise CaseError(f"the weights do not fit: {error}") from error
    missing = [name for name in names.missing_keys if without is None or not name.startswith(without)]
    if wrong := missing + names.unexpected_keys:
        raise CaseError(f"the weights do not fit the model: {', '.join(wrong)}")


def check_pixels(case: dict[str, Any], mean: Any, std: Any) -> None:
    """Refuse a case whose pixels are normalised in another way than those of the published models.

    Raises:
        CaseError: they are.
    """
    recorded = [tuple(x) if isinstance(x, list) else x for x in (case["pixel_mean"], case["pixel_std"])]
    if recorded != [mean, std]:
        raise CaseError(
            f"pixels have mean {case['pixel_mean']} and deviation {case['pixel_std']}; "
            f"they must have {mean} and {std}"
        )


def policy_of(case: dict[str, Any], t: int = 0) -> Policy | None:
    """The policy of a case at its frame t.

    Raises:
        CaseError: it is none that there is, or has no budget for this frame.
    """
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


def variant_of(case: dict[str, Any]) -> Variant:
    """The variant of a case.

    Raises:
        CaseError: there is no such variant.
    """
    if case["variant"] not in VARIANTS:
        raise CaseError(f"variant is {case['variant']!r}; allowed are {', '.join(VARIANTS)}")
    variant = VARIANTS[case["variant"]]
    # Only some cases record the pool; 1 in a case of a pooled variant says nothing.
    return replace(variant, pool=case["pool"]) if case.get("pool", 1) > 1 else variant
