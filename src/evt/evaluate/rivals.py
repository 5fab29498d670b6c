"""The dense model as other runtimes run it, which is what a user would pick instead, in the same race."""

from __future__ import annotations

import copy
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from evt.errors import ConfigError
from evt.evaluate.race import Laps
from evt.evaluate.speed import times_of
from evt.eventful import VARIANTS

Run = Callable[[Tensor], Tensor]


class UnavailableError(Exception):
    """A rival that cannot run here; the message says why."""


class Rival:
    """A dense network in another runtime, as a stream that keeps nothing.

    error: relative L2 of its output against the network's own in float32, on the last of the inputs it was made with.
    """

    nbytes = 0

    def __init__(self, run: Run, error: float) -> None:
        self._run, self.error = run, error

    def reset(self) -> None:
        """There is nothing to forget."""

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Run one frame, (B, ...) as the network takes it, to the network's output."""
        return self._run(x)

    def record(self, laps: Laps, dense: Laps) -> dict[str, Any]:
        """Its figures beside the dense model."""
        return {**times_of(laps, dense), "state_mb": 0.0, "error": self.error}


def check_rivals(names: Sequence[str], setting: str) -> None:
    """Refuse names that are no rivals'.

    Raises:
        ConfigError: one is none, or stands there twice.
    """
    allowed = f"allowed are {', '.join(RIVALS)}, each once"
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise ConfigError(f"{setting} is {names!r}; it must be a list; {allowed}")
    for name in names:
        if name not in RIVALS or list(names).count(name) > 1:
            raise ConfigError(f"{setting} has {name!r}; {allowed}")


def build_rivals(
    names: Sequence[str], model: Any, inputs: Sequence[Tensor], dtype: torch.dtype
) -> tuple[dict[str, Rival], dict[str, str]]:
    """Rivals by name, and of those that cannot run here, why; for the arguments see `build_rival`."""
    rivals: dict[str, Rival] = {}
    absent: dict[str, str] = {}
    network = model.stream(VARIANTS["base"]).network
    for name in tqdm(names, desc="rivals", disable=not names):
        with told(absent, name):
            rivals[name] = build_rival(name, network, inputs, dtype)
    return rivals, absent


@contextmanager
def told(absent: dict[str, str], name: str) -> Iterator[None]:
    """Why one cannot run goes among others."""
    try:
        yield
    except UnavailableError as why:
        absent[name] = str(why)


@torch.no_grad()
def build_rival(name: str, network: nn.Module, inputs: Sequence[Tensor], dtype: torch.dtype) -> Rival:
    """A rival by its name.

    Args:
        name: in `RIVALS`.
        network: in float32; it stays as it is.
        inputs: frames as it takes them, all of one shape, for which alone the rival is made.
        dtype: of what torch compiles; the others say in their names what they compute in.

    Raises:
        UnavailableError: it cannot run here.
    """
    if inputs[0].is_cuda and name != "torch_compile":
        raise UnavailableError("it is timed on processors alone")
    expected = network(inputs[-1])
    try:
        run = RIVALS[name](network, inputs, dtype)
        error = torch.linalg.vector_norm(run(inputs[-1]).float() - expected)
    except UnavailableError:
        raise
    except Exception as why:  # of another's compiler, whose errors are of any kind
        first = next(iter(str(why).strip().splitlines()), "")
        raise UnavailableError(f"{type(why).__name__}: {first}") from why
    return Rival(run, float(error / torch.linalg.vector_norm(expected)))


def torch_compile(network: nn.Module, inputs: Sequence[Tensor], dtype: torch.dtype) -> Run:
    """What torch's own compiler makes of it."""
    compiled = torch.compile(copy.deepcopy(network).to(dtype), dynamic=False)
    return lambda x: compiled(x.to(dtype))


def onnxruntime(network: nn.Module, inputs: Sequence[Tensor], dtype: torch.dtype) -> Run:
    """ONNX Runtime, in float32."""
    runtime, _ = needed("onnxruntime"), needed("onnxscript")
    for name in ("onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)
    model = torch.onnx.export(_exported(network, inputs), input_names=["frame"], dynamo=True, verbose=False)
    assert model is not None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(
        model.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: torch.from_numpy(session.run(None, {"frame": x.float().numpy()})[0])


def openvino(network: nn.Module, inputs: Sequence[Tensor], dtype: torch.dtype) -> Run:
    """OpenVINO, in float32."""
    return _compiled(needed("openvino").convert_model(_exported(network, inputs)), "f32")


def openvino_bf16(network: nn.Module, inputs: Sequence[Tensor], dtype: torch.dtype) -> Run:
    """OpenVINO, in bfloat16 on a processor with units for it."""
    library = needed("openvino")
    if "BF16" not in library.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UnavailableError("this processor has no units for bfloat16")
    return _compiled(library.convert_model(_exported(network, inputs)), "bf16")


def openvino_int8(network: nn.Module, inputs: Sequence[Tensor], dtype: torch.dtype) -> Run:
    """OpenVINO with int8 weights and activations by NNCF, calibrated on the inputs; bfloat16 elsewhere if it may."""
    library, nncf = needed("openvino"), needed("nncf")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = nncf.quantize(
        library.convert_model(_exported(network, inputs)),
        nncf.Dataset([x.numpy() for x in inputs]),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(inputs),
    )
    has_units = "BF16" in library.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return _compiled(model, "bf16" if has_units else "f32")


RIVALS: dict[str, Callable[[nn.Module, Sequence[Tensor], torch.dtype], Run]] = {
    make.__name__: make for make in (torch_compile, onnxruntime, openvino, openvino_bf16, openvino_int8)
}
"""What makes each, by name."""


def needed(name: str) -> Any:
    """A library that a rival is of.

    Raises:
        UnavailableError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as why:
        raise UnavailableError(f"{name} is not installed (pip install 'evt[rivals]')") from why


def _exported(network: nn.Module, inputs: Sequence[Tensor]) -> torch.export.ExportedProgram:
    return torch.export.export(network, (inputs[0],))


def _compiled(model: Any, precision: str) -> Run:
    """A model of OpenVINO on as many threads as torch has, one frame after the other."""
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = needed("openvino").Core().compile_model(model, "CPU", settings)
    return lambda x: torch.from_numpy(compiled([x.float().numpy()])[0])
