"""Whether this machine can hold a model, found out before it is built."""

from __future__ import annotations

import os
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.overrides import TorchFunctionMode

from evt.build import build
from evt.errors import ConfigError

DEPTHS = ("depth", "spatial_depth", "temporal_depth")
"""The settings that are a number of blocks, all alike."""


def check_memory(cfg: DictConfig) -> None:
    """Refuse a model that this machine's memory cannot hold, before anything is allocated.

    It is built on the meta device with one block, and with one more of each kind, which gives the size of all.

    Args:
        cfg: the settings below `model`.

    Raises:
        ConfigError: the parameters, what one block makes of a frame's tokens, and a sample need more than there is.
    """
    net = cfg.get("backbone", cfg)  # what the blocks are built with
    depths = {key: net[key] for key in DEPTHS if isinstance(net.get(key), int) and net[key] > 1}

    def built(**changed: int) -> Any:
        blocks: dict[str, Any] = {**dict.fromkeys(depths, 1), **changed}
        if depths and "window_blocks" in net:
            blocks["window_blocks"] = []
        small = OmegaConf.merge(cfg, {"backbone": blocks} if "backbone" in cfg else blocks)
        with torch.device("meta"), _Undrawn():
            return build(small, "model")  # type: ignore[arg-type]

    try:
        one = built()
        needed = _size(one) + sum(
            (depth - 1) * (_size(built(**{key: 2})) - _size(one)) for key, depth in depths.items()
        )
        # Of each token its queries, keys and values and the hidden layer of the MLP, in single precision.
        needed += int(4 * one.n_tokens * net.get("dim", 0) * (3 + net.get("mlp_ratio", 4)))
        needed += 4 * one.input_numbers
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ConfigError(
            f"the settings below model are too large for any tensor: {_largest(cfg)}"
        ) from error
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ConfigError(
            f"this model needs at least {needed / 1e9:.3g} GB, and this machine has {memory / 1e9:.3g} GB; the "
            f"largest settings are {_largest(cfg)}"
        )


class _Undrawn(TorchFunctionMode):
    """Weights are not drawn: on the meta device there is nothing to draw, and torch imports its compiler for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _size(model: torch.nn.Module) -> int:
    return 4 * sum(x.numel() for x in model.parameters())


def _largest(cfg: DictConfig) -> str:
    """The three largest numbers below `model`, for a message."""
    settings: dict[Any, Any] = {**cfg, **{f"backbone.{key}": x for key, x in cfg.get("backbone", {}).items()}}
    numbers = {str(key): x for key, x in settings.items() if isinstance(x, int) and key != "seed"}
    return ", ".join(
        f"model.{key}={numbers[key]}" for key in sorted(numbers, key=numbers.__getitem__)[:-4:-1]
    )
