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

    @property
    def steady(self) -> bool:
        """Whether each later frame costs the same, as far as the policy is concerned."""
        return self.policy is None or self.policy.counts_tokens

    def held(self) -> Contestant:
        """It with a policy that follows nothing: the r that it held last, where it followed something."""
        held = getattr(self.policy, "held", None)
        return self if held is None else replace(self, policy=held())


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

    With pooling and for `rows` they depend on the frames, and it runs on them; else torch's meta device is enough.

    Args:
        contestant: a steady one.
        model, cfg: what it runs, and its settings.
        inputs: frames.
    """
    variant = contestant.variant
    if variant.gate is None or (variant.pool == 1 and not variant.rows):
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


def records_of(
    runs: Sequence[Contestant],
    laps: Sequence[Laps],
    model: Any,
    cfg: DictConfig,
    inputs: Sequence[Tensor],
) -> list[dict[str, Any]]:
    """The figures of contestants beside the dense model, which is the first of them.

    Of one that is not steady no frame stands for all of them: its speed-up is of the sum of all later frames that
    were timed, and its operations are of these frames, as they were run.

    Args:
        runs, laps: the contestants, and what they did.
        model, cfg: what they run, and its settings.
        inputs: the frames.
    """
    dense, found = laps[0], []
    counted = [operations(run, model, cfg, inputs) if run.steady else 0 for run in runs]
    for run, own, ops in zip(runs, laps, counted, strict=True):
        times, as_run = times_of(own, dense), sum(dense.later_ops) / sum(own.later_ops)
        if not run.steady:
            times["speed_up"] = sum(dense.later) / sum(own.later)
        op_ratio = counted[0] / ops if run.steady else as_run
        efficiency = times["speed_up"] / op_ratio
        found.append(
            {
                **times,
                **{"op_ratio": op_ratio, "efficiency": efficiency, "ops_run_ratio": as_run},
                "state_mb": own.nbytes / 1e6,
            }
        )
    return found
