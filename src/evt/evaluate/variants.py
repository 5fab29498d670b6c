"""What `variant=...` and `policy=...` name, and whether it suits the model that they are for."""

from __future__ import annotations

from functools import partial
from typing import Any

from omegaconf import DictConfig

from evt.build import build, choices, class_of
from evt.errors import ConfigError
from evt.eventful import VARIANTS, Policy, Variant
from evt.tokens import REDUCTIONS, Reduction


def build_reduction(cfg: DictConfig) -> Reduction | None:
    """What a command's variant and policy name for a model of whole clips; None is the dense model.

    Raises:
        ConfigError: the variant is for other models, or the policy for other variants.
    """
    variant, policy = cfg.variant.name, cfg.policy
    if variant not in ("base", *REDUCTIONS):
        raise ConfigError(
            f"variant is {variant} (temporal where none is given), but {cfg.model.name} sees a whole clip at once, "
            f"with no frame before to reuse; it must be {', '.join(('base', *REDUCTIONS))}"
        )
    kind = REDUCTIONS.get(variant)
    if (class_of(policy, "policy") if "_target_" in policy else None) is not kind:
        takes = ", ".join(choices("policy", lambda cls: cls is kind)) or "none"
        raise ConfigError(f"policy is {policy.name}, but variant {variant} takes {takes}")
    if kind is None:
        return None
    reduction: Reduction = build(policy, "policy")
    return reduction


def build_variant(cfg: DictConfig, model_name: str) -> Variant:
    """The variant that `variant=...` names, with its fields as given, for a model that sees one input after another.

    Args:
        cfg: the settings below `variant`.
        model_name: of the model, for the message.

    Raises:
        ConfigError: the variant is for models of whole clips, or a field cannot be.
    """
    if cfg.name in REDUCTIONS:
        raise ConfigError(
            f"variant is {cfg.name}, which is for {models_of_clips()}; for {model_name} it must be one of "
            f"{', '.join(VARIANTS)}"
        )
    variant: Variant = build(cfg, "variant")
    return variant


def models_of_clips() -> str:
    """The names of the models that see a whole clip at once, for a message."""
    found = choices("model", lambda cls: getattr(cls, "sees", None) == "clips")
    return ", ".join(dict.fromkeys(found.values()))


def build_policy(cfg: DictConfig, variant: Variant, model: Any) -> Policy | None:
    """The policy that `policy=...` names; None for a variant that takes none.

    Args:
        cfg: the settings below `policy`.
        variant, model: that it is for.

    Raises:
        ConfigError: the variant takes none or another, a setting cannot be, or it is for another model.
        DataError: a file that it is read from cannot be used.
    """
    kind = class_of(cfg, "policy") if "_target_" in cfg else None
    if not variant.takes:
        if kind is not None:
            raise ConfigError(f"policy is {cfg.name}, but the variant has no gates; it must be none")
        return None
    has = "skips frames" if variant.hold else "has gates"
    if kind is None or not _suits(variant, kind):
        allowed = " or ".join(choices("policy", partial(_suits, variant)))
        raise ConfigError(f"policy is {cfg.name}, but the variant {has}; it must be {allowed}")
    policy: Policy = build(cfg, "policy")
    check_policy(policy, variant, model)
    return policy


def takes(variant: str, policy: type) -> bool:
    """Whether the variant of a name takes policies of a class."""
    if variant in REDUCTIONS:
        return policy is REDUCTIONS[variant]
    return _suits(VARIANTS[variant], policy)


def _suits(variant: Variant, policy: type) -> bool:
    return getattr(policy, "selects", "tokens") in variant.takes


def check_told(policy: Any, detects: bool, moves: bool) -> None:
    """Refuse a policy that follows what a detector finds, or what a codec moves, where that is not known.

    Raises:
        ConfigError: it does, and it is not.
    """
    if getattr(policy, "looks_at_motion", False) and not moves:
        raise ConfigError(
            f"the policy {policy} follows how far the codec moved what a frame shows, and here that is not known: "
            "python -m evt.run data=video data.motion=true says it"
        )
    if getattr(policy, "looks_at_boxes", False) and not detects:
        raise ConfigError(
            f"the policy {policy} follows what a detector finds, and here nothing is detected: python -m evt.run and "
            "tables do, of a model with trained weights, as model.checkpoint=FILE"
        )


def check_policy(policy: Policy | None, variant: Variant, model: Any) -> None:
    """Refuse a budget of more tokens than a frame of the model has, a policy for other models, and what is none.

    Raises:
        ConfigError: it is.
    """
    if policy is None:
        return
    needed = ("counts_tokens", "selects", "check")
    if lacking := [name for name in needed if not hasattr(policy, name)]:
        raise ConfigError(
            f"{type(policy).__name__} has no {lacking[0]}; a policy needs {', '.join(needed)}, and to be called; see "
            "evt.eventful.Policy"
        )
    if getattr(policy, "looks_at_boxes", False) and not hasattr(model, "regions"):
        raise ConfigError(
            f"the policy {policy} follows what a detector finds, and this model has none; it must be a ViTDet, as "
            "model=vitdet"
        )
    try:
        policy.check(model.n_tokens)
        model.stream(variant, policy)
    except ValueError as error:
        raise ConfigError(str(error)) from error
