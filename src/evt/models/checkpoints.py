"""Weights from files: the published checkpoints (torch .pth, pickled numpy arrays) and our own safetensors."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from evt.errors import CheckpointError
from evt.files import write

_SUFFIXES = (".pth", ".pyth", ".pt", ".ckpt", ".pkl", ".safetensors")
_INSIDE = (
    "model",
    "model_state",
    "module",
    "state_dict",
)  # as detectron2, ViViT, VideoMAE and Lightning keep theirs
_LIGHTNING = "model."  # before the names of the model that a Lightning module trains
_BACKBONE = "backbone."
_CLASSES = "roi_heads.box_predictor.cls_score.weight"

# What pickles of numpy arrays refer to. torch.load(weights_only=True) has such a list too, but reads its own files
# only, not plain pickles such as detectron2's .pkl.
_SAFE = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


BROKEN = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    AssertionError,
    OverflowError,
    struct.error,
)
"""The ways in which reading a broken pickle, or a file of torch.save, fails."""


SHA256, CLASSES = "evt.sha256", "evt.classes"
"""What written weights say of themselves; under names that files of others do not use for something else."""


def read_checkpoint(path: str | Path, allow_pickle: bool = False) -> dict[str, Tensor]:
    """The parameters in a file, by name.

    Args:
        path: a .safetensors; or a .pth, .pyth, .pt, .ckpt or .pkl with the parameters in a dict, or in one under
            `model`, `model_state`, `module` or `state_dict`; there `model.` may stand before all names.
        allow_pickle: run whatever a pickle says. A pickle can run any code: only for files that are trusted.

    Raises:
        CheckpointError: the file is missing, empty, broken or of another kind, holds no parameters, or needs
            allow_pickle.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        folder = ", and this is a folder" if path.is_dir() else ""
        raise CheckpointError(f"{path}: a checkpoint ends in {', '.join(_SUFFIXES)}{folder}")
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    content = _read(path, allow_pickle)
    for key in _INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path}: there are no parameters in it; it must hold a dict of them by name")
    tensors = {str(name): _tensor(path, name, x) for name, x in content.items()}
    if all(name.startswith(_LIGHTNING) for name in tensors):
        return {name.removeprefix(_LIGHTNING): x for name, x in tensors.items()}
    return tensors


def files_of(path: str | Path) -> list[Path]:
    """The files that a checkpoint is: itself, or of a folder its *.safetensors, in order."""
    path = Path(path)
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


def load_checkpoint(model: nn.Module, path: str | Path, allow_pickle: bool = False) -> list[str]:
    """Load all parameters of a model from a file; see `read_checkpoint`.

    Returns:
        What the file holds and the model does not have, as "name (shape)", for the caller to print.

    Raises:
        CheckpointError: the file cannot be read, or a parameter is missing, of another shape, not of floating-point
            numbers, or not finite; then the model is as it was.
    """
    return load_tensors(model.state_dict(), read_checkpoint(path, allow_pickle), path)


def load_backbone(model: nn.Module, path: str | Path, allow_pickle: bool = False) -> list[str]:
    """Load a detector's backbone and pyramid from a file for other classes, such as a ViTDet trained on COCO.

    Returns:
        What the file holds and was not loaded, as "name (shape)", for the caller to print.

    Raises:
        CheckpointError: as `load_checkpoint`, for the parameters of backbone and pyramid.
    """
    own = {name: x for name, x in model.state_dict().items() if name.startswith(_BACKBONE)}
    return load_tensors(own, read_checkpoint(path, allow_pickle), path)


def load_tensors(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: str | Path, only: bool = False
) -> list[str]:
    """Copy the parameters that were read from a file into a model's own, all or none.

    Args:
        own: the parameters of the model, or views of them, by the names that the file has for them.
        tensors: what was read.
        path: of the file, for messages.
        only: refuse what the model does not have.

    Returns:
        What the model does not have, as "name (shape)".

    Raises:
        CheckpointError: see `load_checkpoint`.
    """
    wrong = [f"{name} is not a parameter of this model" for name in tensors if only and name not in own]
    for name, x in own.items():
        if name not in tensors:
            wrong.append(f"{name} is missing, which must be of shape {_shape(x)}")
        elif tensors[name].shape != x.shape:
            wrong.append(f"{name} is of shape {_shape(tensors[name])}, and must be of shape {_shape(x)}")
            found, expected = len(tensors[name]) - 1, len(x) - 1
            if name == _CLASSES and found != expected:
                wrong.insert(0, f"{wrong.pop()}: it is for {found} classes, and the model has {expected}")
        elif not tensors[name].is_floating_point():
            kind = str(tensors[name].dtype).removeprefix("torch.")
            wrong.append(f"{name} is of {kind}; it must be of floating-point numbers")
        elif not tensors[name].to(x.dtype).isfinite().all():
            wrong.append(f"{name} has NaN or infinite values; all must be finite numbers")
    if wrong:
        more = f" (and {len(wrong) - 1} more parameters do not fit)" if len(wrong) > 1 else ""
        raise CheckpointError(f"{path}: {wrong[0]}{more}")
    with torch.no_grad():
        for name, x in own.items():
            x.copy_(tensors[name])
    return [f"{name} ({_shape(x)})" for name, x in tensors.items() if name not in own]


def save_checkpoint(
    tensors: Mapping[str, Tensor], path: str | Path, classes: Sequence[str] | None = None
) -> None:
    """Write parameters as safetensors with their hash; a run that dies on the way leaves what was there before.

    Args:
        tensors: by name.
        path: of the file.
        classes: the names of what they tell apart, in order, for `classes_in`; None where these are not known.

    Raises:
        CheckpointError: path does not end in .safetensors, or cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: checkpoints are written as .safetensors")
    # Copies, since safetensors takes neither views nor tensors that share memory.
    copies = {
        name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in tensors.items()
    }
    try:
        names = {} if classes is None else {CLASSES: json.dumps(list(classes))}
        write(path, _in_order(save(copies, {SHA256: hash_of(copies, names.get(CLASSES, "")), **names})))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata sorted, which safetensors itself writes in a random order."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of 8
    return len(text).to_bytes(8, "little") + text + content[end:]


def classes_in(path: str | Path) -> list[str] | None:
    """The names of the classes that a checkpoint carries, in order; None where it carries none.

    Raises:
        CheckpointError: what it carries is no list of different names.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(CLASSES)
        return None if text is None else different_names(json.loads(text))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the names of its classes cannot be read ({error})") from error


def read_class_names(path: str | Path) -> list[str]:
    """The names of a model's classes from a text file, one a line, in the order of the model's outputs.

    Raises:
        CheckpointError: the file cannot be read, is empty or names a class twice.
    """
    try:
        return different_names(Path(path).read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path}: cannot be read as names of classes, one a line ({reason})") from error


def different_names(names: object) -> list[str]:
    """Names that are a list of texts, none empty and none twice.

    Raises:
        ValueError: they are not; the message says what they are.
    """
    if not isinstance(names, list) or not names or not all(isinstance(x, str) and x.strip() for x in names):
        raise ValueError("names of classes are needed, none of them empty")
    if twice := next((x for x in names if names.count(x) > 1), None):
        raise ValueError(f"{twice!r} is there twice; each class has one name")
    return names


@torch.no_grad()
def hash_of(tensors: Mapping[str, Tensor], classes: str = "") -> str:
    """A hash of tensors with their names, types and shapes, and of the classes as they are written beside them."""
    digest = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    digest.update(classes.encode())
    return digest.hexdigest()


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) or "()"


def _tensor(path: Path, name: object, x: object) -> Tensor:
    try:
        if isinstance(x, np.ndarray):
            return torch.tensor(x)
        if isinstance(x, Tensor):
            return x
    except TypeError:  # an array of something that is no number
        pass
    raise CheckpointError(
        f"{path}: {name} is {type(x).__name__}; a parameter is a tensor or an array of numbers, in the dict that the "
        f"file is, or in one under {', '.join(_INSIDE)}"
    )


def _read(path: Path, allow_pickle: bool) -> Any:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
                metadata = file.metadata() or {}
        except (OSError, SafetensorError, *BROKEN) as error:
            raise CheckpointError(f"{path}: cannot be read as safetensors: {error}") from error
        # Files of others have none.
        if SHA256 in metadata and metadata[SHA256] != hash_of(tensors, metadata.get(CLASSES, "")):
            raise CheckpointError(
                f"{path}: is damaged: its tensors, or the names of its classes, are not those that were written "
                "(their sha256 differs)"
            )
        return tensors
    try:
        with path.open("rb") as file:
            archive = file.read(4) == b"PK\x03\x04"  # what torch.save writes
        if archive or path.suffix != ".pkl":
            return torch.load(path, map_location="cpu", weights_only=not allow_pickle)
        data = path.read_bytes()
        return pickle.loads(data) if allow_pickle else _ArrayUnpickler(io.BytesIO(data)).load()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or 'the file is broken'}") from error
    except BROKEN as error:
        if allow_pickle or not isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(f"{path}: is broken, or is no checkpoint") from error
        # What torch says goes on for lines, of options that are not ours.
        refused = re.search(r"(?:GLOBAL|refers to) ([\w.]+)", str(error))
        what = f" (it refers to {refused[1]})" if refused else ""
        raise CheckpointError(
            f"{path}: holds more than tensors and arrays{what}, or is broken; "
            "if you trust where it comes from, give allow_pickle (model.allow_pickle=true)"
        ) from error


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of dicts, lists, texts, numbers and numpy arrays, and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may refer to."""
        if (module, name) in _SAFE:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")
