"""Settings of a policy, which may change before any frame and are checked whenever they do."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Checked(Generic[T]):
    """An attribute that is what a check makes of its name and the value that it is set to.

    Raises:
        ValueError: when it is set, where the check does.
    """

    def __init__(self, check: Callable[[str, Any], T]) -> None:
        self.check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.kept = name, f"_{name}"

    def __get__(self, policy: Any, owner: type) -> T:
        value: T = getattr(policy, self.kept)
        return value

    def __set__(self, policy: Any, value: Any) -> None:
        setattr(policy, self.kept, self.check(self.name, value))


def number_or_share(name: str, value: Any) -> float:
    """A setting that is a whole number of tokens, an int, or a share of them, a float.

    Raises:
        ValueError: it is neither, or not in its range.
    """
    if not isinstance(value, bool):
        if isinstance(value, Integral) and int(value) >= 0:
            return int(value)
        if isinstance(value, Real) and not isinstance(value, Integral) and 0 < float(value) <= 1:
            return float(value)
    raise ValueError(
        f"policy.{name} is {value!r}; it must be a whole number of at least 0, or a share of the tokens above 0 and "
        "at most 1, as 0.125"
    )


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A setting that is a whole number.

    Raises:
        ValueError: it is none, or not in its range.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, Integral)
        or int(value) < least
        or (most is not None and int(value) > most)
    ):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"policy.{name} is {value!r}; it must be a whole number {allowed}")
    return int(value)


def number(name: str, value: Any, above: float | None = None, most: float = math.inf) -> float:
    """A setting that is a number of at least 0; see `whole`.

    above: it must be more than this.
    """
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or value > most or (value < 0 if above is None else value <= above):
        allowed = "0 or more" if above is None else f"above {above}"
        allowed += f" and at most {most}" if math.isfinite(most) else ""
        raise ValueError(f"policy.{name} is {value!r}; it must be a finite number, {allowed}")
    return float(value)


def at_least_1(name: str, value: Any) -> int:
    """A setting that is a whole number of at least 1; see `whole`."""
    return whole(name, value, 1)
