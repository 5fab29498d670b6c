"""Streams as programs that run without this package: `evt.export`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from evt.errors import ConfigError
from evt.eventful import VARIANTS, TopR, Variant
from evt.eventful.step import FirstStep, LaterStep, refusal
from evt.files import check_writable, replacing

IN_ONE_FILE = 2**30
"""Weights of more bytes than this go into a file of their own beside an ONNX program, which may have 2 GB at most."""


@torch.no_grad()
def export(
    net: Any,
    path: str | Path,
    *,
    r: float,
    variant: str | Variant = "rows",
    frame_shape: Sequence[int] | None = None,
) -> tuple[Path, Path]:
    """Write two programs: of the first frame of a stream, and of every other one.

    The first takes a frame, and gives the network's output and all that is kept. The other takes a frame and what was
    kept, and gives the same again, in the same order. Each has the weights in it. Shapes are fixed.

    Args:
        net: a converted network, or another one of Eventful blocks.
        path: of the program of a later frame; that of the first is beside it, `step_first.onnx` to `step.onnx`. With
            `.onnx` they are in ONNX, with `.pt2` programs of `torch.export`.
        r: tokens that pass each gate in a later frame, see `TopR`.
        variant: or its name in `VARIANTS`.
        frame_shape: (B, C, H, W); if it is not given, one frame of the size that the model is made for.

    Returns:
        The two files, that of a later frame first.

    Raises:
        ConfigError: net is no such network; there is no such variant, or it has no fixed shapes here; a frame has
            fewer than r tokens, or cannot be of this shape, or must be given one; the file is neither of these, or
            ONNX is not installed.
        OSError: a file cannot be written.
    """
    if not hasattr(net, "states"):
        raise ConfigError(
            f"a {type(net).__name__} has no Eventful blocks; convert it first: net = evt.convert(model)"
        )
    path = Path(path)
    first_path = path.with_name(f"{path.stem}_first{path.suffix}")
    if path.suffix not in _WRITERS:
        raise ConfigError(f"{path}: a program is a file that ends in {' or '.join(_WRITERS)}")
    for file in (path, first_path):
        check_writable(file)
    if isinstance(variant, str) and variant not in VARIANTS:
        raise ConfigError(f"there is no variant {variant!r}; there are {', '.join(VARIANTS)}")
    settings = VARIANTS[variant] if isinstance(variant, str) else variant
    if reason := refusal(net, settings):
        raise ConfigError(f"the variant {variant} cannot be exported: it {reason}")
    shape = frame_shape or getattr(net, "frame_shape", None)
    if shape is None:
        raise ConfigError("this network does not say how large a frame is: give frame_shape=(B, C, H, W)")
    if not all(shape):
        raise ConfigError(f"frame_shape is {tuple(shape)}; each of its sides must be at least 1")
    write = _WRITERS[path.suffix]()
    frame = next(net.parameters()).new_zeros(tuple(shape))
    try:
        first = FirstStep(net, settings)
        out, kept = first.run(frame)
        if not isinstance(out, Tensor):
            raise ValueError(
                f"the network gives a {type(out).__name__}, and no tensor; convert the backbone alone"
            )
        later = LaterStep(net, settings, TopR(r), names := list(kept))
        later(frame, *kept.values())
    except (ValueError, RuntimeError, AssertionError) as error:  # as the model's own code has it
        raise ConfigError(
            f"frames of shape {tuple(frame.shape)} with r = {r} cannot be run: {error}"
        ) from error
    write(torch.export.export(first, (frame,)), first_path, names)
    write(torch.export.export(later, (frame, *kept.values())), path, names)
    return path, first_path


def _write_onnx(program: ExportedProgram, path: Path, names: list[str]) -> None:
    """Write a program in ONNX, whose inputs and outputs have names."""
    n_bytes = sum(x.numel() * x.element_size() for x in program.state_dict.values())
    inputs = len(program.graph_signature.user_inputs)
    model = torch.onnx.export(
        program,
        input_names=["frame", *names][:inputs],
        output_names=["output", *(f"next.{name}" for name in names)],
        dynamo=True,
        verbose=False,
    )
    assert model is not None
    if n_bytes > IN_ONE_FILE:
        model.save(path, external_data=True)
        return
    with replacing(path) as new:
        model.save(new)


def _onnx() -> Callable[[ExportedProgram, Path, list[str]], None]:
    """Writes ONNX, where that is installed."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error}; pip install 'evt[export]' brings what ONNX needs") from error
    return _write_onnx


def _write_pt2(program: ExportedProgram, path: Path, names: list[str]) -> None:
    """Write a program of `torch.export`."""
    with replacing(path) as new:
        torch.export.save(program, new)


_WRITERS: dict[str, Callable[[], Callable[[ExportedProgram, Path, list[str]], None]]] = {
    ".onnx": _onnx,
    ".pt2": lambda: _write_pt2,
}
"""What writes a program, by the ending of its file; it is asked for before the work."""
