"""What saved operations are worth in time: variants against the dense model, on the same frames."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from evt.data.loading import first_samples
from evt.errors import ConfigError, DataError
from evt.evaluate.race import Laps
from evt.evaluate.trace import trace
from evt.eventful import Policy, Stream, Variant
from evt.models.loading import build_model
from evt.settings import changed

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Contestant:
    """What runs: a variant with its policy, on the fast path or on the reference path."""

    variant: Variant
    policy: Policy | None = None

    def on(self, model: Any, fast: bool) -> Stream:
        """A new stream; ViViT's runs its spatial sub-model."""
        stream: Stream = model.stream(replace(self.variant, fast=fast or self.variant.rows), self.policy)
        return stream


def check_races(variant: Variant) -> None:
    """Refuse a variant that does nothing in some frames: a median says nothing of it.

    Raises:
        ConfigError: it is one.
    """
    if variant.hold:
        raise ConfigError(
            "variant is skip, which does nothing in most frames, so that their median time says nothing; of every k "
            "frames it takes the dense model's time for one, and evt.run measures its accuracy"
        )


@torch.no_grad()
def inputs_of(
    model: Any,
    data: DictConfig,
    n_frames: int | None,
    dtype: torch.dtype,
    setting: str = "data.n_frames",
) -> list[Tensor]:
    """The first frames of the data as a model's streams take them: pictures, or steps of all views.

    Of several videos or clips it is the first.

    Args:
        model, dtype: what they are for.
        data: the settings below `data`.
        n_frames: so many; None is all.
        setting: the one that says so, for messages.

    Raises:
        ConfigError: n_frames is less than 3.
        DataError: the data have fewer frames.
    """
    if n_frames is not None and (not isinstance(n_frames, int) or n_frames < 3):
        raise ConfigError(
            f"{setting} is {n_frames!r}; to see later frames it must be a whole number of at least 3"
        )
    found = (x for sample in first_samples(data, model.sees) for x in model.inputs(sample))
    inputs = [x.to(dtype) for x in islice(found, n_frames)]
    if len(inputs) < (n_frames or 3):
        asked = f"{setting} is {n_frames}" if n_frames else "at least 3 frames are needed"
        raise DataError(f"{asked}, but there are {len(inputs)} frames to run")
    return inputs


def operations(contestant: Contestant, model: Any, cfg: DictConfig, inputs: Sequence[Tensor]) -> int:
    """Operations of a later frame as the paper counts them, which are those of the reference path.

    With pooling, for `rows`, and where the policy does not count tokens, they depend on the frames, and it runs on
    them; else torch's meta device is enough.
    """
    variant, policy = contestant.variant, contestant.policy
    counted = policy is None or policy.counts_tokens
    if variant.gate is None or (counted and variant.pool == 1 and not variant.rows):
        weights = {name: None for name in ("checkpoint", "fine_tuned") if name in cfg}
        model = build_model(changed(cfg, **weights), torch.device("meta"))[0]
        inputs = [x.to("meta", torch.float32) for x in inputs]
    *_, last = trace(contestant.on(model, fast=False), inputs[:3])
    return last.ops.total()


def times_of(laps: Laps, dense: Laps) -> dict[str, Any]:
    """Times of a stream beside the dense model's, medians, with the quartiles of later frames."""
    low, _, high = statistics.quantiles(laps.later, n=4, method="inclusive")
    return {
        "first_ms": 1e3 * statistics.median(laps.first),
        "later_ms": 1e3 * statistics.median(laps.later),
        "later_ms_25": 1e3 * low,
        "later_ms_75": 1e3 * high,
        "speed_up": statistics.median(dense.later) / statistics.median(laps.later),
    }


def record_of(laps: Laps, dense: Laps, op_ratio: float) -> dict[str, Any]:
    """The figures of a contestant beside the dense model."""
    times = times_of(laps, dense)
    return {
        **times,
        "op_ratio": op_ratio,
        "efficiency": times["speed_up"] / op_ratio,
        "ops_run_ratio": dense.ops.total() / laps.ops.total(),
        "state_mb": laps.nbytes / 1e6,
    }
