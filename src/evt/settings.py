"""What settings there are: for `--help`, and for those who give others. Loads no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from evt.checked import those_of

_PACKAGED = Path(__file__).parent / "configs"
CONFIG_DIR = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "configs"
"""The configs: inside the package where a wheel installed it, at the top of the tree in a checkout."""


def escape_interpolation(text: str) -> str:
    """A text such that OmegaConf takes it as it is."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def changed(cfg: DictConfig, **values: Any) -> DictConfig:
    """The same settings with other values of some."""
    # To read the others and write them anew would take a ${ in a path for an interpolation.
    return cast(DictConfig, OmegaConf.merge(cfg, _escaped(values)))


def job_of(cfg: DictConfig) -> str:
    """What a table's config says of the figures, as JSON: neither where they go nor how many processes there are."""
    parts = {
        name: as_python(cfg[name])
        for name in ("model", "data", "table", "flush_rate", "fine_tuned", "device", "threads")
    }
    return json.dumps(parts)


def config_of(job: str) -> DictConfig:
    """The config that a job was made of, less what does not matter to its figures."""
    return DictConfig(_escaped(json.loads(job)))


def as_python(part: Any) -> Any:
    """A part of a config, interpolations resolved, as lists and dicts where it is more than a value."""
    return OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part


def places(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """All parts of a config as they are written, interpolations and all, by where they are."""

    def visit(part: Any, where: str) -> Iterator[tuple[str, Any]]:
        yield where, part
        if isinstance(part, dict):
            for key, below in part.items():
                yield from visit(below, f"{where}.{key}" if where else str(key))

    return visit(OmegaConf.to_container(cfg, resolve=False), "")


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_escaped(x) for x in value]
    return escape_interpolation(value) if isinstance(value, str) else value


def help_of(command: str, arguments: list[str]) -> str:
    """What `--help` prints: the choices, and a line for each setting, as the comments in the configs say.

    Args:
        command: the name of its config.
        arguments: of the command line; the settings are those of the choices among them.
    """
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        whole = hydra.compose(command, overrides=arguments, return_hydra_config=True)
    chosen = {k: v for k, v in whole.hydra.runtime.choices.items() if not k.startswith("hydra/")}
    lines = [comments_of(CONFIG_DIR / f"{command}.yaml")[""], "", "Choices, as in NAME=CHOICE:"]
    for name, choice in sorted(chosen.items()):
        lines.append(f"  {name}={choice}")
        options = sorted((CONFIG_DIR / name.partition("@")[0]).glob("*.yaml"))
        width = max(len(option.stem) for option in options)
        lines += [f"    {option.stem:{width}}  {described(option)}" for option in options]
    given = " ".join(f"{name}={choice}" for name, choice in sorted(chosen.items()))
    lines += ["", f"Settings, as in NAME=VALUE, of {given} (give other choices beside --help for theirs):"]
    found = list(settings_of(command, arguments))
    width = min(36, max(len(name) for name, _, _ in found))
    lines += [f"  {name:{width}}  {comment or ''}" for name, _, comment in found]
    folders = {**comments_of(CONFIG_DIR / "folder.yaml"), **comments_of(CONFIG_DIR / f"{command}.yaml")}
    lines += [
        f"  {name:{width}}  {comment}"
        for name, comment in folders.items()
        if name.startswith(("hydra.run.", "hydra.sweep."))
    ]
    lines += [
        "",
        "-m runs all combinations of values with commas between them; --cfg job prints the whole config.",
    ]
    return "\n".join(lines)


def settings_of(command: str, arguments: list[str]) -> Iterator[tuple[str, Any, str | None]]:
    """The settings of a command: name and value as NAME=VALUE, the value, and what its comment says of it.

    Those inside a commented one, such as the titles below `table.tables`, have a line only if they have a comment of
    their own; None is the comment of one that has none and lies in no commented one.
    """
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = hydra.compose(command, overrides=arguments)
        loader = GlobalHydra.instance().config_loader()
        defaults = loader.compute_defaults_list(command, arguments, RunMode.RUN).defaults
    comments: dict[str, str] = {}
    for default in defaults:
        file = CONFIG_DIR / f"{default.config_path}.yaml"
        if not file.is_file():  # Hydra's own
            continue
        package = f"{default.package}." if default.package else ""
        for other in (file, *kin(file)):
            for name, comment in comments_of(other).items():
                if name and (other == file or package + name not in comments):
                    comments[package + name] = comment
    yield from _walk(OmegaConf.to_container(config, resolve=False), "", comments, False)


def _walk(
    settings: Any, where: str, comments: dict[str, str], inside: bool
) -> Iterator[tuple[str, Any, str | None]]:
    for key, value in settings.items():
        name = f"{where}{key}"
        comment = comments.get(name)
        below = isinstance(value, dict) and bool(value)
        if hidden(str(key)) and where:
            continue
        if comment or not (below or inside):
            shown = (
                f"{name}.*" if below else f"{name}={value if isinstance(value, str) else json.dumps(value)}"
            )
            yield shown, value, comment
        if below:
            yield from _walk(value, f"{name}.", comments, inside or bool(comment))


def hidden(key: str) -> bool:
    """Whether a setting says what was chosen, and is none of a user's."""
    return key == "name" or key.startswith("_")


def described(file: Path) -> str:
    """What a choice is, in a line."""
    return comments_of(file)[""] or str(OmegaConf.select(OmegaConf.load(file), "title", default=""))


def kin(file: Path) -> list[Path]:
    """The other choices of a group, first those of the same name, whose comments serve where a file has none."""

    def facts(path: Path) -> tuple[bool, str]:
        """Whether it says where its settings go, and its name; read as YAML, all of them would take seconds."""
        text = path.read_text(encoding="utf-8")
        name = re.search(r"^name: *([^\s#]*)", text, re.MULTILINE)
        return text.startswith("# @package"), name[1] if name else ""

    if file.parent == CONFIG_DIR:
        return []
    package, own = facts(file)
    others = {path: facts(path) for path in sorted(file.parent.glob("*.yaml")) if path != file}
    alike = [path for path, (packaged, _) in others.items() if packaged == package]
    return sorted(alike, key=lambda path: others[path][1] != own)


def comments_of(file: Path) -> dict[str, str]:
    """The comments of a config by the settings that they stand above or behind; "" is that at its top."""
    found: dict[str, str] = {}
    above: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        key = re.match(r"( *)(\w+):(?:$|.*?\s# (.*)| )", line)
        if line.lstrip().startswith("#"):
            above.append(line.lstrip(" #"))
        elif key or not line.strip():
            if "" not in found:
                found[""] = " ".join(text for text in above if not text.startswith("@package"))
                above = []
            if key:
                indent = len(key[1])
                parents = [(column, name) for column, name in parents if column < indent] + [(indent, key[2])]
                if comment := " ".join([*above, *([key[3]] if key[3] else [])]):
                    found[".".join(name for _, name in parents)] = comment
            above = []
    return {"": "", **found}


def unknown_setting(key: str, chosen: DictConfig) -> str:
    """Why a config has no such setting, in a sentence."""
    group, _, _ = key.rpartition(".")
    if group == "policy" and OmegaConf.select(chosen, "policy.name") == "none":
        return f"{key} cannot be set: variant {chosen.variant.name} has no gates, so its policy is none"
    settings = OmegaConf.select(chosen, group) if group else chosen
    if not isinstance(settings, DictConfig):
        return f"{key} is not a setting, since {group} is not a group of them"
    where = f"{group}={settings.name}" if "name" in settings else group or "the command"
    names = [str(name) for name in settings if not (group and hidden(str(name)))]
    name = key.removeprefix(f"{group}.")
    inside = [str(k) for k, x in settings.items_ex(resolve=False) if isinstance(x, DictConfig) and name in x]
    there = [f"; {key.removesuffix(name)}{part}.{name} is one" for part in inside if not hidden(name)]
    return f"{key} is not a setting; {those_of(where, names)}{''.join(there)}"
