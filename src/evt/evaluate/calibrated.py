"""Thresholds that were found on videos (`evt.evaluate.calibration`): the file that keeps them, and the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

from torch import nn

from evt.errors import ConfigError
from evt.evaluate.sealed import read_sealed, write_sealed
from evt.eventful import Thresholds, Variant
from evt.models.checkpoints import hash_of


@dataclass(frozen=True)
class Calibration:
    """Thresholds of the gates of one network under one variant, and what they were found on.

    model: its name.
    n_tokens: of a frame.
    variant: what it switches on, see `switched`.
    weights: a hash of the network's.
    videos: names of those that were looked at.
    r: tokens that were to pass each gate, in the mean over later frames.
    passed: how many did, by gate.
    h: the thresholds, by gate.
    """

    model: str
    n_tokens: int
    variant: Mapping[str, Any]
    weights: str
    videos: list[str]
    r: int
    passed: list[float]
    h: list[float]

    def write(self, path: Path) -> None:
        """Write it as JSON, with the sha256 of all that is before it.

        Raises:
            OSError: it cannot be written.
        """
        write_sealed(path, asdict(self), indent=1)

    @classmethod
    def read(cls, path: Path) -> tuple[Calibration, str]:
        """Read what `write` wrote, and its sha256.

        Raises:
            DataError: the file is missing, of another kind, damaged or edited.
            OSError: it cannot be read.
        """
        return read_sealed(path, cls, "evt.calibrate")


class Calibrated(Thresholds):
    """Select by the thresholds in a file, for the network and the variant that they were found for.

    sha256: of the file's content.

    Raises:
        DataError: the file cannot be used, see `Calibration.read`.
    """

    def __init__(self, file: str | Path) -> None:
        self.calibration, self.sha256 = Calibration.read(Path(file))
        super().__init__(self.calibration.h)
        self._file = file
        self._fitting: WeakSet[Any] = WeakSet()

    def __repr__(self) -> str:
        return f"Calibrated(to r={self.calibration.r})"

    def check(self, n_tokens: int) -> None:
        """Refuse frames of another number of tokens.

        Raises:
            ConfigError: they are.
        """
        if n_tokens != self.calibration.n_tokens:
            raise self._other(
                f"of {self.calibration.n_tokens} tokens a frame, and here a frame has {n_tokens}"
            )

    def fits(self, network: nn.Module, variant: Variant) -> None:
        """Refuse another variant, and another network but on torch's meta device, where there are no weights.

        Raises:
            ConfigError: it is another one.
        """
        was, now = (asdict(Variant()) | dict(x) for x in (self.calibration.variant, switched(variant)))
        if differ := [name for name in now if was.get(name) != now[name]]:
            name = differ[0]
            raise self._other(
                f"under another variant: {name} was {was.get(name)}, and here it is {now[name]}"
            )
        # Once for each network: it takes as long as a frame of a small one, and a network may be rounded later.
        if network not in self._fitting and not any(x.is_meta for x in network.parameters()):
            if hash_of(network.state_dict()) != self.calibration.weights:
                raise self._other("with other weights than those that are here")
            self._fitting.add(network)
        super().fits(network, variant)

    def _other(self, how: str) -> ConfigError:
        return ConfigError(
            f"policy.file is {self._file}, whose thresholds were found for {self.calibration.model} {how}; "
            "`python -m evt.calibrate` finds those for this model and variant"
        )


def switched(variant: Variant) -> dict[str, Any]:
    """What a variant changes of the dense model, but for `fast`, which hardly changes what comes to a gate."""
    dense = replace(Variant(), fast=variant.fast)
    return {name: x for name, x in asdict(variant).items() if x != getattr(dense, name)}
