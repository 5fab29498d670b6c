"""Which modules see one token at a time, so that they may be run on any selection of tokens."""

from __future__ import annotations

from torch import nn

from evt.models.foreign.family import kind_of, refuse

_TORCH = {
    "linear": ("Linear", "Identity"),
    "normalization": ("LayerNorm", "RMSNorm"),
    "dropout": ("Dropout",),
    "activation": (
        *("GELU", "ReLU", "SiLU", "Mish", "Tanh", "Sigmoid", "ReLU6", "LeakyReLU", "ELU", "SELU", "CELU"),
        *("Hardswish", "Hardsigmoid", "Softplus"),
    ),
}
_TIMM = {
    "mlp": ("Mlp", "GluMlp", "SwiGLU"),
    "norm": ("LayerNorm", "LayerNormFp32", "RmsNorm", "RmsNormFp32", "SimpleNorm", "SimpleNormFp32"),
    "layer_scale": ("LayerScale",),
    "drop": ("DropPath",),
    "activations": (
        "Swish",
        "Mish",
        "Sigmoid",
        "Tanh",
        "HardSwish",
        "HardSigmoid",
        "HardMish",
        "GELU",
        "GELUTanh",
        "QuickGELU",
    ),
}
_TRANSFORMERS = {
    "vit": ("ViTMLP",),
    "dinov2": ("Dinov2MLP", "Dinov2SwiGLUFFN", "Dinov2LayerScale"),
    "dinov2_with_registers": (
        "Dinov2WithRegistersMLP",
        "Dinov2WithRegistersSwiGLUFFN",
        "Dinov2WithRegistersLayerScale",
    ),
    "dinov3_vit": ("DINOv3ViTMLP", "DINOv3ViTGatedMLP", "DINOv3ViTLayerScale"),
    "sam": ("SamMLPBlock",),
    "sam3": ("Sam3MLP",),
    "videomae": ("VideoMAEIntermediate",),
    "vitdet": ("VitDetMlp",),
    "clip": ("CLIPMLP",),
    "siglip": ("SiglipMLP",),
}

TOKENWISE = {
    *(f"torch.nn.modules.{file}.{name}" for file, names in _TORCH.items() for name in names),
    *(f"timm.layers.{file}.{name}" for file, names in _TIMM.items() for name in names),
    *(
        f"transformers.models.{file}.modeling_{file}.{name}"
        for file, names in _TRANSFORMERS.items()
        for name in names
    ),
}
"""Classes of which it is known; those of transformers' activations, too."""


def check_tokenwise(*modules: nn.Module | None) -> None:
    """Refuse modules of which it is not known that they, and all below them, see one token at a time."""
    for module in modules:
        for part in module.modules() if module is not None else ():
            kind = kind_of(part)
            if kind not in TOKENWISE and not kind.startswith("transformers.activations."):
                refuse(part, "it is not known to treat each token alone")
