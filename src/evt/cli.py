"""What the commands share: a Hydra entry point whose errors are one clear sentence."""

from __future__ import annotations

import argparse
import functools
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

import evt
from evt import settings
from evt.build import check
from evt.checked import not_set
from evt.errors import ConfigError, UserError
from evt.files import sentence, write_together
from evt.interrupt import imports_are_done
from evt.lock import locked
from evt.settings import escape_interpolation, help_of, places, unknown_setting
from evt.sweep import Failed, once, take_hydras_place
from evt.workers import is_first, leave_to_the_first, n_processes

REMOVABLE = {"data.det"}
"""What `~` may take out of a config."""

LAUNCHERS = {
    "joblib": "hydra-joblib-launcher (pip install -e '.[joblib]')",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
    "ray": "hydra-ray-launcher",
}
"""Of sweeps, what brings them."""


def run_command(config_name: str, task: Callable[[DictConfig], object], shared: bool = False) -> None:
    """Run a command's task under Hydra with the process's arguments.

    What a task returns are its figures, for the table of a sweep. Exit status 0 when all went well, 2 after an error
    of the user's, told in one sentence, 130 after Ctrl-C.

    Args:
        config_name: the command's config.
        task: what it does.
        shared: several processes of torchrun may share it.
    """

    begun: list[bool] = []

    @functools.wraps(task)
    def told_in_one_sentence(cfg: DictConfig) -> object:
        begun.append(True)
        try:
            folder = Path(HydraConfig.get().runtime.output_dir)
            with locked(folder), _config_kept(cfg, folder):
                expand_homes(cfg)
                check(cfg)
                with too_little_memory_told():
                    if HydraConfig.get().mode == RunMode.MULTIRUN:
                        return once(cfg, folder, task)
                    return task(cfg)
        except (UserError, OSError, OmegaConfBaseException) as error:
            of_config = isinstance(error, OmegaConfBaseException)
            said = _explain(error, config_name) if of_config else sentence(error)
            if HydraConfig.get().mode == RunMode.RUN:
                fail(said)
            # One impossible point of a sweep does not keep the others from running.
            print(f"error: {said}", file=sys.stderr)
            return Failed(said)

    imports_are_done()
    if "--version" in sys.argv[1:]:
        print(f"evt {evt.__version__}")
        return
    # Hydra then raises what is wrong with the arguments instead of printing it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] = map(_home_quoted, sys.argv[1:])
    take_hydras_place()
    main = hydra.main(version_base="1.3", config_path=str(settings.CONFIG_DIR), config_name=config_name)
    try:
        if {"-h", "--help"} & set(sys.argv[1:]):
            print(help_of(config_name, _choices(config_name)))
            return
        _refuse_processes(shared, config_name)
        for argument in sys.argv[1:]:
            _refuse_hidden(argument, config_name)
            _refuse_added_or_removed(argument, config_name)
        while True:
            try:
                main(told_in_one_sentence)()
                break
            except HydraException as error:
                if begun or not _left_to_points(error):
                    raise
    except (HydraException, OmegaConfBaseException) as error:
        # Of a config that cannot be read, Hydra says nothing itself.
        unread = (
            f"the configs in {settings.CONFIG_DIR} cannot be read: {' '.join(str(error.__cause__).split())}"
        )
        fail(_explain(error, config_name) or unread)
    except (ConfigError, OSError) as error:
        fail(sentence(error))
    except Exception as error:
        if begun:
            raise
        # Of yaml and of Hydra, whose kinds of errors are many.
        if "Config group override" in str(error):
            fail(f"{' '.join(sys.argv[1:])}: the name of a choice must be a text, as in model=vitdet")
        fail(f"the configs in {settings.CONFIG_DIR} cannot be read: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        if is_first():
            print("interrupted", file=sys.stderr)
        sys.exit(130)


def _refuse_processes(shared: bool, config_name: str) -> None:
    """Refuse several processes of torchrun where they would do the same work, or wait for one another in vain."""
    if (n := n_processes()) == 1:
        return
    if not shared:
        fail(
            f"torchrun started {n} processes, and evt.{config_name} runs in one: start it by python -m "
            f"evt.{config_name}; evt.run and evt.train can be shared"
        )
    if {"-m", "--multirun"} & set(sys.argv[1:]):
        fail(
            f"torchrun started {n} processes, which share one run, and -m asks for a sweep; leave one of the two out "
            "(hydra/launcher=joblib runs several points at once)"
        )


@contextmanager
def too_little_memory_told() -> Iterator[None]:
    """Turn what numpy and torch raise where there is no memory into a sentence.

    Raises:
        ConfigError: there was none.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch has a kind of error for this on a GPU alone.
        none_left = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not none_left and "can't allocate memory" not in str(error):
            raise
        said = str(error).partition("\n")[0] or "no more can be allocated"
        raise ConfigError(
            f"these settings need more memory than there is ({said}); sizes and numbers of frames must be "
            "smaller"
        ) from error


@contextmanager
def _config_kept(cfg: DictConfig, folder: Path) -> Iterator[None]:
    """Write the config to `.hydra` as Hydra would, which is kept from it (see configs/folder.yaml).

    That of a first run is there from the beginning, and goes again where the run is refused before it left anything.
    That of a later run takes its place when its results have taken theirs.
    """
    if not is_first():
        yield
        return
    whole = HydraConfig.get()
    parts = {"config": cfg, "hydra": OmegaConf.create({"hydra": whole}), "overrides": whole.overrides.task}
    texts = {folder / ".hydra" / f"{name}.yaml": OmegaConf.to_yaml(part) for name, part in parts.items()}
    first = not (folder / ".hydra/config.yaml").exists()
    (folder / ".hydra").mkdir(exist_ok=True)
    if first:
        write_together(texts)
    try:
        yield
    except Exception:
        if first and all(
            path.name in (".hydra", ".lock") or path.suffix == ".log" for path in folder.iterdir()
        ):
            shutil.rmtree(folder / ".hydra")
        raise
    write_together(texts)


def parser_of(command: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for the arguments of a command without settings, which knows --version."""
    parser = argparse.ArgumentParser(
        f"python -m evt.{command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"evt {evt.__version__}")
    return parser


def fail(sentence: str) -> NoReturn:
    """End a command that was given what it cannot use: one sentence, and status 2."""
    leave_to_the_first()
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def _explain(error: Exception, config_name: str) -> str:
    """One sentence for what Hydra says in several."""
    message = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        said = f"{group} is {choice}; allowed are {', '.join(error.options)}"
        if choice in LAUNCHERS and group == "hydra/launcher":
            return f"{said}, and {choice} where {LAUNCHERS[choice]} is installed"
        return said
    if isinstance(error, OverrideParseException):
        unread = f"the argument {error.override} cannot be read; it must be of the form setting=value"
        if "=" not in str(error.override):
            return unread
        # Quotes whose last one is a part of the text, for the backslash before it, are not meant as that.
        meant = re.sub(r"""=(["'])(.*)\1$""", r"=\2", str(error.override))
        return (
            f"{unread}, and a text with other characters than letters, digits and _ - . / needs quotes, as in "
            f"{quoted(meant)}"
        )
    if several := re.match(r"Ambiguous value for argument '(.+?)'\n", message):
        return (
            f"{several[1]} has several values; add -m to run each of them in turn, or give a text that has commas in "
            f"quotes, as in {quoted(several[1])}"
        )
    if isinstance(error, InterpolationResolutionError):
        given = [argument for argument in sys.argv[1:] if "${" in argument and "=" in argument]
        if given and given[0].startswith("hydra."):
            return f"{given[0]} has ${{ in it, which the names of folders of runs cannot have"
        if given:
            return f"{given[0]} names a setting that there is not; a text that has ${{ in it is {quoted(given[0])}"
    if unknown := re.match(r"Could not override '([^']+)'", message):
        return unknown_setting(unknown[1], _chosen(config_name))
    if lacking := re.match(r"Key '.*' is not in struct\s+full_key: (\S+)", message):
        return not_set(lacking[1])
    return " ".join(message.split())


def quoted(argument: str) -> str:
    """An argument of a command as a shell takes it, with all after its first = as one text.

    In Hydra's double quotes a quote is \\", and ${ is \\${; the shell's single quotes keep both from the shell.
    """
    key, _, text = argument.partition("=")
    return shlex.quote(f"{key}={_hydra_text(text)}")


def _hydra_text(text: str) -> str:
    """A text in Hydra's quotes: backslashes count where they stand before a quote or ${, and are doubled there."""
    return QuotedString(escape_interpolation(text), Quote.double).with_quotes()


def _home_quoted(argument: str) -> str:
    """An argument with a path that begins with ~, which Hydra's grammar has no place for, in quotes and expanded."""
    key, equals, values = argument.partition("=")
    if key.startswith("hydra.") and values.startswith('"~/'):  # the command's own are expanded later
        return f"{key}={_hydra_text(os.path.expanduser('~'))[:-1]}{values[2:]}"
    if not equals or re.search(r"""['"\[\]{}()]""", values):
        return argument
    parts = [_hydra_text(os.path.expanduser(x)) if x.startswith("~") else x for x in values.split(",")]
    return f"{key}={','.join(parts)}"


def expand_homes(cfg: DictConfig) -> None:
    """Put the home folder for a ~ that a text of a config begins with: no text but a path does."""
    for where, written in places(cfg):
        if isinstance(written, str) and written.startswith(("~", "${oc.env:")):
            text = OmegaConf.select(cfg, where)
            if text.startswith("~"):
                OmegaConf.update(cfg, where, escape_interpolation(os.path.expanduser(text)))


def _refuse_added_or_removed(argument: str, config_name: str) -> None:
    """Refuse what Hydra would take and no command would read: settings added with +, and those removed with ~."""
    given = re.match(r"(\+\+?|~)(\w[^=]*)", argument)
    if not given or given[2].startswith("hydra") or given[2] in REMOVABLE:
        return
    sign, key = given.groups()
    chosen = _chosen(config_name)
    group, _, name = key.rpartition(".")
    below = OmegaConf.select(chosen, group) if group else chosen
    if not isinstance(below, DictConfig) or name not in list(below):
        fail(unknown_setting(key, chosen))
    if sign == "~":
        fail(f"{argument}: {key} cannot be left out; without this argument it is as the command has it")
    fail(f"{argument}: {key} is set without a {sign}: {argument.removeprefix(sign)}")


def _refuse_hidden(argument: str, config_name: str) -> None:
    """Refuse what says which class is built, Hydra's own included: a command line chooses, and names no code."""
    key, _, value = argument.lstrip("+~").partition("=")
    group, _, name = key.rpartition(".")
    if any(part.startswith("_") for part in key.split(".")) or (
        key.startswith("hydra.") and "_target_" in value
    ):
        fail(f"{argument}: what is built is not said on the command line, but in the configs")
    if name == "name" and group.partition(".")[0] in ("model", "variant", "policy", "data"):
        fail(unknown_setting(key, _chosen(config_name)))


def _chosen(config_name: str) -> DictConfig:
    """The config with the groups that the command line chooses, and nothing else of it."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(settings.CONFIG_DIR), version_base="1.3"):
        return hydra.compose(config_name, overrides=_choices(config_name))


def _choices(config_name: str) -> list[str]:
    """What the command line chooses; of several the first is as good as any to say what settings there are."""
    chosen = [
        argument.split(",")[0]
        for argument in sys.argv[1:]
        if (settings.CONFIG_DIR / argument.split("=")[0]).is_dir()
    ]
    # A task has groups of its own.
    names = [config_name, *(argument.replace("=", "/") for argument in chosen)]
    return [argument for argument in chosen if any(_known(argument, name) for name in names)]


def _left_to_points(error: HydraException) -> bool:
    """Make a sweep of one value of a setting that a sweep was refused for; False where that is not why.

    Hydra composes what all points have in common before the points, and with the defaults of what is swept over: a
    setting that only some variants have is refused there. Settings that are swept over are left to the points.
    """
    unknown = re.match(r"Could not override '([^']+)'", str(error))
    if unknown and {"-m", "--multirun"} & set(sys.argv):
        for i, argument in enumerate(sys.argv):
            key, _, value = argument.partition("=")
            if key == unknown[1] and value and not key.startswith("hydra."):
                sys.argv[i] = f"{key}=choice({value})"
                return True
    return False


def _known(argument: str, config_name: str) -> bool:
    """Whether a config has the group that an argument chooses from."""
    group = argument.split("=")[0].split("/")[0]
    file = settings.CONFIG_DIR / f"{config_name}.yaml"
    defaults = OmegaConf.select(OmegaConf.load(file), "defaults") if file.is_file() else None
    return any(group in str(line) for line in defaults or [])
