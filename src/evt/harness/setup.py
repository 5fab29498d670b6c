"""From a composed config to the things it names. All checks of values that a user chose are here or below."""

from __future__ import annotations

import hashlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf

from evt.data.clips import Clip, FrameFolder
from evt.data.generated import MovingSquares
from evt.data.samples import IndexedVideo
from evt.data.sprites import SpriteVideos
from evt.data.vid import VID
from evt.data.vid_annotations import CLASSES
from evt.data.video import DataError, Video
from evt.eventful import Policy, Threshold, TopR, Variant, init_weights
from evt.harness.train import Recipe
from evt.models.checkpoints import load_backbone, load_checkpoint
from evt.models.vitdet import ViTDet

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that cannot be; the message names it, says what was wrong and what is allowed."""


def build_device(cfg: DictConfig) -> torch.device:
    """The device that `device=...` names, after setting torch's thread count by `threads=...`."""
    if cfg.threads is not None:
        if not isinstance(cfg.threads, int) or cfg.threads < 1:
            raise ConfigError(f"threads is {cfg.threads!r}; it must be a whole number of at least 1, or null")
        torch.set_num_threads(cfg.threads)
    available = {"cpu": torch.device("cpu")}
    if torch.cuda.is_available():
        available["cuda"] = torch.device("cuda")
    available["auto"] = available.get("cuda", available["cpu"])
    return _choice(available, "device", cfg.device)


def build_variant(cfg: DictConfig) -> Variant:
    """The variant that `variant=...` names, with its fields as given."""
    return _call(Variant, "variant", cfg)


def build_policy(cfg: DictConfig, variant: Variant, n_tokens: int) -> Policy | None:
    """The policy that `policy=...` names; None for a variant without gates, which takes none."""
    policies: dict[str, Callable[..., Policy | None]] = {
        "top_r": TopR,
        "threshold": Threshold,
        "none": _no_policy,
    }
    policy = _call(_choice(policies, "policy.name", cfg.name), "policy", cfg)
    if variant.gate is None and policy is not None:
        raise ConfigError(f"policy is {cfg.name}, but the variant has no gates; it must be none")
    if variant.gate is not None and policy is None:
        raise ConfigError("policy is none, but the variant has gates; it must be top_r or threshold")
    if isinstance(policy, TopR) and policy.r > n_tokens:
        raise ConfigError(
            f"policy.r is {policy.r}, but a frame has {n_tokens} tokens; it must be at most {n_tokens}"
        )
    return policy


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from.

    source: the checkpoint's file or the seed, in words.
    sha256: of the checkpoint; None where the weights were drawn from a seed.
    """

    source: str
    sha256: str | None = None

    @property
    def trained(self) -> bool:
        """Whether they come from a checkpoint."""
        return self.sha256 is not None

    def __str__(self) -> str:
        return self.source


def build_model(cfg: DictConfig, device: torch.device, backbone_only: bool = False) -> tuple[ViTDet, Weights]:
    """The model that `model=...` names, in evaluation mode, and where its weights come from.

    What a checkpoint holds and the model has no use for is listed on stderr.

    backbone_only: take nothing but backbone and pyramid from the checkpoint, which may be for other classes.
    """
    models = {"vitdet": ViTDet}
    apart = ("seed", "checkpoint", "allow_pickle")
    for key, hint in (("seed", int), ("checkpoint", str | None), ("allow_pickle", bool)):
        if not _fits(cfg[key], hint):
            raise ConfigError(f"model.{key} is {cfg[key]!r}; it must be {_described(hint)}")
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(cfg.seed)
        model = _call(_choice(models, "model.name", cfg.name), "model", cfg, apart=apart)
        model.net.apply(init_weights)  # the detector's layers draw theirs as they are built
    if cfg.checkpoint is None:
        return model.eval(), Weights(f"seeded initialisation (seed {cfg.seed})")
    load = load_backbone if backbone_only else load_checkpoint
    for name in load(model, cfg.checkpoint, cfg.allow_pickle):
        print(f"{cfg.checkpoint}: not loaded: {name}", file=sys.stderr)
    sha256 = hashlib.sha256(Path(cfg.checkpoint).read_bytes()).hexdigest()
    return model.eval(), Weights(Path(cfg.checkpoint).name, sha256)


def build_recipe(cfg: DictConfig) -> Recipe:
    """The training recipe below `train`."""
    return _call(Recipe, "train", cfg)


def build_training_data(cfg: DictConfig) -> Sequence[IndexedVideo]:
    """The annotated videos that `data` names, to train on."""
    kinds: dict[str, Callable[..., Sequence[IndexedVideo]]] = {"sprites": SpriteVideos, "vid": VID}
    return _call(_choice(kinds, "data.name", cfg.name), "data", cfg)


def build_data(cfg: DictConfig) -> Sequence[Video]:
    """The videos that `data=...` names."""
    sets: dict[str, Callable[..., Sequence[Video]]] = {"sprites": SpriteVideos, "vid": VID}
    single: dict[str, Callable[..., Video]] = {
        "generated": MovingSquares,
        "video": Clip,
        "frames": FrameFolder,
    }
    if cfg.name in single:
        return [_call(single[cfg.name], "data", cfg)]
    if cfg.name not in sets:
        _choice({**sets, **single}, "data.name", cfg.name)
    return _call(sets[cfg.name], "data", cfg)


def class_names(videos: Sequence[Video], n_classes: int) -> Sequence[str]:
    """The names of a model's classes: those of the data where they have ground truth.

    Raises:
        ConfigError: the data have another number of classes than the model.
    """
    if isinstance(videos, SpriteVideos | VID):
        if len(videos.classes) != n_classes:
            raise ConfigError(
                f"model.n_classes is {n_classes}, but the data have {len(videos.classes)} classes; "
                "they must be as many"
            )
        return videos.classes
    known = {len(names): names for names in (CLASSES, SpriteVideos.classes)}
    return known.get(n_classes, [f"class {i}" for i in range(n_classes)])


def _no_policy() -> None:
    return None


def _choice(choices: Mapping[str, T], setting: str, name: Any) -> T:
    if name not in choices:
        raise ConfigError(f"{setting} is {name}; allowed are {', '.join(sorted(choices))}")
    return choices[name]


def _call(build: Callable[..., T], where: str, cfg: DictConfig, apart: tuple[str, ...] = ()) -> T:
    """Call `build` with the settings below `where`, less its name and those that are used apart from it."""
    for key in map(str, cfg):
        if OmegaConf.is_missing(cfg, key):
            raise ConfigError(f"{where}.{key} is not set; give it on the command line as {where}.{key}=...")
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    chosen = f"{where}={name}" if (name := settings.pop("name", None)) else where
    hints = typing.get_type_hints(getattr(build, "__init__", build))
    allowed = [*inspect.signature(build).parameters, *apart]
    for key, value in settings.items():
        if key not in allowed:
            raise ConfigError(f"{where}.{key} is not a setting; those of {chosen} are {', '.join(allowed)}")
        if key in hints and not _fits(value, hints[key]):
            raise ConfigError(f"{where}.{key} is {value!r}; it must be {_described(hints[key])}")
    try:
        return build(**{key: value for key, value in settings.items() if key not in apart})
    except DataError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _fits(value: object, hint: Any) -> bool:
    """Whether a config's value is of an annotated type: a whole number is a float, but a bool is no number."""
    for kind in _alternatives(hint):
        if typing.get_origin(kind) is Literal:
            fits = value in typing.get_args(kind)
        elif typing.get_origin(kind) is Sequence:
            fits = isinstance(value, list) and all(_fits(x, typing.get_args(kind)[0]) for x in value)
        elif typing.get_origin(kind) is tuple:
            kinds = typing.get_args(kind)
            fits = isinstance(value, list) and len(value) == len(kinds) and all(map(_fits, value, kinds))
        elif kind in (int, float):
            fits = isinstance(value, (int, kind)) and not isinstance(value, bool)
        else:
            fits = isinstance(value, kind)
        if fits:
            return True
    return False


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in {typing.Union, types.UnionType} else (hint,)


def _described(hint: Any) -> str:
    """An annotated type in words."""
    if len(_alternatives(hint)) > 1:
        return " or ".join(map(_described, _alternatives(hint)))
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is Sequence:
        return f"a list, each {_described(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is tuple:
        return f"a list of {len(typing.get_args(hint))}, each {_described(typing.get_args(hint)[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    return words.get(hint, "a text")
