"""What settings there are, for those who give others."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf


def unknown_setting(key: str, chosen: DictConfig) -> str:
    """Why there is no such setting, in a sentence.

    Args:
        key: of the setting.
        chosen: the config that has it not.
    """
    group, _, _ = key.rpartition(".")
    if group == "policy" and OmegaConf.select(chosen, "policy.name") == "none":
        return f"{key} cannot be set: variant {chosen.variant.name} has no gates, so its policy is none"
    settings = OmegaConf.select(chosen, group) if group else chosen
    if not isinstance(settings, DictConfig):
        return f"{key} is not a setting, since {group} is not a group of them"
    where = f"{group}={settings.name}" if "name" in settings else group or "the command"
    names = [str(name) for name in settings if name != "name"]
    return f"{key} is not a setting; those of {where} are {', '.join(names)}"
