"""From a node of a config to the object that it names: `_target_` is its class, the rest what it is built with."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError
from pydantic import Field, NonNegativeInt, PositiveInt

from evt.checked import Wrong, kinds_of, not_set, wrong
from evt.errors import ConfigError, DataError
from evt.eventful import VARIANTS
from evt.settings import CONFIG_DIR, as_python, places

T = TypeVar("T")

Seed = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class Command:
    """The settings of the commands that are in no group."""

    threads: Annotated[int, Field(ge=1, le=os.cpu_count() or 1)] | None = None
    workers: Annotated[int, Field(ge=1, le=os.cpu_count() or 1)] | None = None
    fast: bool = False
    compare: bool = False
    parts: bool = False
    quick: bool = False
    repeats: PositiveInt = 1
    passes: PositiveInt = 1
    within: Annotated[float, Field(gt=0, lt=1)] = 0.05
    frames_per_video: PositiveInt | None = None
    source: Annotated[str, Field(min_length=1)] = "generated"
    n_frames: PositiveInt | None = None
    gate: NonNegativeInt | None = None
    confidence: Annotated[float, Field(ge=0, le=1)] = 0.3
    width: Annotated[int, Field(ge=64)] = 960
    r: NonNegativeInt | Annotated[float, Field(gt=0, le=1)] = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0


@dataclass(frozen=True)
class Start:
    """The settings of a model that its class does not take: what it begins with.

    seed: of the initial weights.
    checkpoint, allow_pickle: a file of weights, and whether it may be a pickle that runs code.
    fine_tuned: another, over the first (ViViT).
    class_names: a file with the names of the classes.
    """

    seed: Seed = 0
    checkpoint: str | None = None
    allow_pickle: bool = False
    fine_tuned: str | None = None
    class_names: str | None = None


@dataclass(frozen=True)
class Reading:
    """The settings of data that their class does not take: what becomes of a clip that cannot be read."""

    on_error: Literal["skip", "fail"] = "skip"


BESIDE: dict[str, tuple[type, ...]] = {"models": (Start,), "data": (Reading,)}
"""By the room of a class: what stands in its configs beside its settings."""

VALUES = ("variant", "policy", "train")
"""Groups that build plain values: these are tried at once, for what types and ranges do not say."""


def check(cfg: DictConfig) -> None:
    """Refuse a command with settings that are not of their type or in their range.

    Where there are none, what is not set is told when it is known to be of use.

    Raises:
        ConfigError: a sentence for each of them, and for each that is not set.
    """
    values, names = wrong("", {key: cfg[key] for key in kinds_of(Command) if key in cfg}, Command)
    for where, node in nodes(cfg):
        found = problems(node, where)
        values, names = values + found.values, names + found.names
        if where in VALUES and found == ([], []):
            try:
                build(node, where)
            except ConfigError as error:
                values.append(str(error))
    if values:
        raise ConfigError(". ".join(dict.fromkeys(values + names)))


def nodes(cfg: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """The nodes of a config that name a class, and where they are."""
    for where, part in places(cfg):
        if isinstance(part, dict) and "_target_" in part:
            yield where, OmegaConf.select(cfg, where) if where else cfg


def problems(node: DictConfig, where: str) -> Wrong:
    """What is wrong with the settings of a node, and with those of its parts.

    Raises:
        ConfigError: it names no class of this package.
    """
    cls = class_of(node, where)
    beside = [x for x in BESIDE.get(cls.__module__.split(".")[1], ()) if kinds_of(x).keys() & set(node)]
    missing = unset(node)
    settings = {key: x for key, x in plain(node).items() if key not in missing}
    below = parts(node, where)
    settings |= {key: object.__new__(kind) for key, (kind, _) in below.items()}  # their class counts
    chosen = f"{where}={node.name}" if "name" in node else where
    values, names = wrong(where, settings, cls, *beside, chosen=chosen)
    names = [*(not_set(f"{where}.{key}") for key in missing), *names]
    for found in [problems(part, f"{where}.{key}") for key, (_, part) in below.items()]:
        values, names = values + found.values, names + found.names
    return Wrong(values, list(dict.fromkeys(names)))


def parts(node: DictConfig, where: str) -> dict[str, tuple[type, DictConfig]]:
    """The settings that are nodes themselves, each with its class, where that is what the node's class takes."""
    return {
        key: (cls, node[key])
        for key, kind in kinds_of(class_of(node, where)).items()
        if kind.__module__.startswith("evt.") and OmegaConf.is_dict(node.get(key))
        if issubclass(cls := class_of(node[key], f"{where}.{key}"), kind)
    }


def build(node: DictConfig, where: str) -> Any:
    """The object that a node names, built with its settings; those that are nodes themselves are built first.

    Raises:
        ConfigError: it names no class of this package, or a setting is not one of its, not set, or cannot be.
        DataError: the data cannot be used.
    """
    values, names = problems(node, where)
    if values or names:
        raise ConfigError(". ".join(values + names))
    cls = class_of(node, where)
    own = kinds_of(cls)
    below = {key: build(part, f"{where}.{key}") for key, (_, part) in parts(node, where).items()}
    try:
        return cls(**{key: value for key, value in plain(node).items() if key in own} | below)
    except DataError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def class_of(node: Mapping[Any, Any], where: str) -> type:
    """The class that a node names.

    Raises:
        ConfigError: it is not one of this package: a config is data, and runs no other code.
    """
    target = node.get("_target_")
    module, _, name = str(target).rpartition(".")
    found = None
    if module.startswith("evt."):
        with suppress(ImportError):
            found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type) or not found.__module__.startswith("evt."):
        raise ConfigError(f"{where}._target_ is {target}; it must be a class of the package evt")
    return found


def choices(group: str, suits: Callable[[type], bool]) -> dict[str, str]:
    """The configs of a group whose class suits, in order: the `name` of each by that of its file."""
    return {stem: str(node.name) for stem, node in configs(group).items() if suits(class_of(node, group))}


def configs(group: str) -> dict[str, DictConfig]:
    """The configs of a group that name a class, by the names of their files, in order."""
    return _configs(CONFIG_DIR / group)


@cache
def _configs(folder: Path) -> dict[str, DictConfig]:
    nodes = {path.stem: cast(DictConfig, OmegaConf.load(path)) for path in sorted(folder.glob("*.yaml"))}
    return {stem: node for stem, node in nodes.items() if "_target_" in node}


def code_of(cfg: DictConfig) -> str:
    """A sha256 of the files of all classes that a config names, and of all policies, which points of tables name."""
    named = [*nodes(cfg), *configs("policy").items()]
    files = sorted({inspect.getfile(class_of(node, where)) for where, node in named})
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()


def choice(choices: Mapping[str, T], setting: str, name: Any) -> T:
    """What a setting's name stands for.

    Raises:
        ConfigError: there is no such name; the message lists those that there are.
    """
    if name not in choices:
        raise ConfigError(f"{setting} is {name}; allowed are {', '.join(sorted(choices))}")
    return choices[name]


def plain(node: DictConfig) -> dict[str, Any]:
    """The settings of a node that have a value, as Python's own; without what says which class it is of.

    Those of a variant that are null are as in the variant of its name.
    """
    settings = {}
    for key in _settings(node):
        with suppress(InterpolationToMissingValueError):
            if not OmegaConf.is_missing(node, key):
                settings[key] = as_python(node[key])
    if node.get("_target_") == "evt.eventful.Variant" and node.name in VARIANTS:
        own = vars(VARIANTS[node.name])
        settings = {key: own.get(key) if value is None else value for key, value in settings.items()}
    return settings


def unset(node: DictConfig) -> list[str]:
    """The settings that have yet to be given."""
    given = plain(node)
    return [key for key in _settings(node) if given.get(key, "") == ""]


def _settings(node: DictConfig) -> list[str]:
    return [str(key) for key in node if key not in ("_target_", "name")]
