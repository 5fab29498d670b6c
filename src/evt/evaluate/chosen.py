"""What a run's config names: model, variant, policy and data, which can be run together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from evt.data.loading import WANTED, build_data
from evt.errors import ConfigError
from evt.evaluate.classes import warn_of_generated
from evt.evaluate.variants import build_policy, build_reduction, build_variant, check_told
from evt.eventful import Policy, Variant
from evt.models.loading import Weights, build_model, sees_of
from evt.tokens import Reduction


@dataclass(frozen=True)
class Chosen:
    """What a run's config names.

    data: what the model runs on: videos or clips.
    label: variant and policy, for the user.
    """

    model: Any
    weights: Weights
    variant: Variant | Reduction | None
    policy: Policy | None
    data: Any
    label: str

    @property
    def data_name(self) -> str:
        """Of the data, for the user: of a data set, or of the one video or clip that there is."""
        name: str = getattr(self.data, "name", None) or self.data[0].name
        return name


def build_run(cfg: DictConfig, device: torch.device) -> Chosen:
    """Model, variant, policy and data of a run.

    Raises:
        ConfigError: a setting cannot be, or not with the others.
        CheckpointError, DataError: weights or data cannot be used.
    """
    sees, name = sees_of(cfg.model), cfg.model.name
    data_set = build_data(cfg.data, "data", WANTED[sees])
    data = getattr(data_set, WANTED[sees])()
    if sees != "frames" and not hasattr(data, "classes") and len(data) > 1:
        raise ConfigError(
            f"data.n_videos is {len(data)}, but these videos have no labels, and a model of clips takes one of them; "
            "it must be 1, or data=sprite_clips for labelled clips"
        )
    if sees == "clips" and cfg.fast:
        raise ConfigError(f"fast is true, but {name} has one path alone; leave fast false")
    variant: Any = build_reduction(cfg) if sees == "clips" else build_variant(cfg.variant, name)
    model, weights = build_model(cfg.model, device)
    model.check(variant)
    policy = None if sees == "clips" else build_policy(cfg.policy, variant, model)
    check_told(policy, weights.trained, getattr(data_set, "motion", False))
    warn_of_generated(weights, data_set)
    what = variant if sees == "clips" else policy
    return Chosen(model, weights, variant, policy, data, f"{cfg.variant.name} {what or ''}".strip())
