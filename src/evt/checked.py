"""Settings are what the annotations of the class that takes them say: types and ranges, checked by pydantic."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model


class Wrong(NamedTuple):
    """What is wrong with some settings, in sentences.

    values: of those that have a value which cannot be.
    names: of those that have none, or that are not settings at all.
    """

    values: list[str]
    names: list[str]


def wrong(where: str, settings: Mapping[str, Any], *takers: Any, chosen: str = "") -> Wrong:
    """What is wrong with settings.

    Args:
        where: goes before their names, as in `model.size`; may be empty.
        settings: by name.
        takers: the classes or functions whose parameters they are.
        chosen: whose settings they are, in words, where one is not among them.
    """
    # A config has lists alone; strictly, they are no tuples.
    given = {key: tuple(x) if isinstance(x, list) else x for key, x in settings.items()}
    kinds = kinds_of(*takers)
    said = Wrong([], [])
    try:
        _model(*takers).model_validate(given)
    except ValidationError as errors:
        for one in {error["loc"][0]: error for error in errors.errors()}.values():
            key, within = str(one["loc"][0]), one["loc"][1:]
            kind = "value" if within else one["type"]
            name = f"{where}.{key}" if where else key
            if kind == "missing":
                said.names.append(not_set(name))
            elif kind == "extra_forbidden":
                said.names.append(f"{name} is not a setting; {those_of(chosen or where, kinds)}")
            else:
                value = settings[key]
                said.values.append(f"{name} is {value!r}; it must be {described(value, kinds[key])}")
    return said


def those_of(where: str, names: Iterable[str]) -> str:
    """What is said of the settings that there are."""
    listed = ", ".join(names)
    return f"those of {where} are {listed}" if listed else f"{where} has none"


def not_set(name: str) -> str:
    """What is said of a setting that has no value."""
    return f"{name} is not set; give it on the command line as {name}=..."


@functools.cache
def kinds_of(*takers: Any) -> dict[str, Any]:
    """The annotated types of the parameters of classes or functions, by name."""
    kinds: dict[str, Any] = {}
    for taker in takers:
        hints = typing.get_type_hints(getattr(taker, "__init__", taker), include_extras=True)
        kinds |= {name: hints.get(name, Any) for name in inspect.signature(taker).parameters}
    kinds.pop("self", None)
    return kinds


@functools.cache
def _model(*takers: Any) -> type[BaseModel]:
    """The pydantic model of what classes or functions take."""
    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
    defaults = {
        name: ... if parameter.default is parameter.empty else parameter.default
        for taker in takers
        for name, parameter in inspect.signature(taker).parameters.items()
    }
    fields: dict[str, Any] = {name: (kind, defaults[name]) for name, kind in kinds_of(*takers).items()}
    return create_model("Settings", __config__=config, **fields)


def described(value: object, kind: Any) -> str:
    """What a value of an annotated type must be, in words, where this one is not."""
    if isinstance(kind, type) and kind.__module__.startswith("evt."):
        return f"a {kind.__name__}"
    schema = TypeAdapter(kind).json_schema()
    said = _in_words(schema)
    if isinstance(value, int | float) and not isinstance(value, bool) and "a path" in said:
        said += f" (no number, and no camera by its number; ./{value} is a file of that name)"
    return said


def _in_words(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        kinds = list(schema["anyOf"])
        if any(kind.get("format") == "path" for kind in kinds):  # a text where a path may be is one
            kinds = [kind for kind in kinds if kind != {"type": "string"}]
        words = [_in_words(kind) for kind in kinds]
        return (
            ", or "
            if any(part in x for x in words for part in ("of at", "above", "from", ", each"))
            else " or "
        ).join(words)
    if "const" in schema or "enum" in schema:
        return " or ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        least = "" if "maxItems" in schema else "at least "
        number = f" of {least}{schema['minItems']}" if "minItems" in schema else ""
        each = schema["prefixItems"][0] if "prefixItems" in schema else schema["items"]
        return f"a list{number}, each {_in_words(each)}"
    if schema.get("type") == "object":
        each = schema.get("additionalProperties")
        return f"settings by name, each {_in_words(each)}" if isinstance(each, dict) else "settings by name"
    if schema.get("type") in ("integer", "number"):
        return _number_in_words(schema)
    if schema.get("format") == "path":
        return "a path"
    return {"boolean": "true or false", "null": "null"}.get(schema.get("type", ""), "a text")


def _number_in_words(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    whole = schema["type"] == "integer"
    if whole and above is not None:
        least, above = above + 1, None
    if least is not None and most is not None:
        ranges = [f"from {least} to {most}"]
    else:
        bounds = {"of at least": least, "above": above, "at most": most, "below": below}
        ranges = [" and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)]
    kind = "a whole number" if whole else "a finite number" if ranges[0] else "a number"
    return " ".join([kind, *ranges]).strip()
