"""What the settings of tables must be."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from evt.errors import ConfigError
from evt.tokens.run_length import check_threshold


def check_counts(cfg: DictConfig, where: str, *names: str) -> None:
    """Refuse settings that must be whole numbers of at least 1 and are not; `where` goes before their names.

    Raises:
        ConfigError: one is not; the message names it.
    """
    for name in names:
        if isinstance(cfg[name], bool) or not isinstance(cfg[name], int) or cfg[name] < 1:
            raise ConfigError(f"{where}{name} is {cfg[name]!r}; it must be a whole number of at least 1")


def check_thresholds(table: DictConfig, chosen: str) -> None:
    """Refuse a table's thresholds that are none, and the setting that picks some of them where it picks others.

    Raises:
        ConfigError: the message names the setting.
    """
    try:
        for threshold in table.thresholds:
            check_threshold(threshold, "one of table.thresholds")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    picked = table[chosen] if OmegaConf.is_list(table[chosen]) else [table[chosen]]
    if others := [x for x in picked if x not in table.thresholds]:
        raise ConfigError(
            f"table.{chosen} has {others[0]!r}; it must be among table.thresholds, {list(table.thresholds)}"
        )
