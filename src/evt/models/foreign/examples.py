"""Models of timm and transformers with random weights, to be converted and held against what they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from evt.models.foreign.convert import Converted
from evt.models.foreign.libraries import imported

GRIDS = ((14, 14), (10, 16))
"""Rows and columns of patches of the pictures that a model is held against itself on: its own, and others."""

SMALL_GRIDS = ((4, 4), (5, 3))
"""The same of a small model."""

ALL_TOKENS = ("temporal", "rows")
"""The variants by which all tokens pass: on the reference path, and on the fast one."""


@dataclass(frozen=True)
class Example:
    """A model.

    name: an architecture of timm, or a class of transformers.
    settings: what it is built with.
    note: what these make of it, in words.
    small: what else, for a model that is built and run in a blink.
    patch: side of a patch in pixels.
    resizes: whether it takes pictures of other sizes than its own.
    frames: of a clip, where it takes clips in the place of pictures.
    part: which of its settings are those of its backbone, where they are not its own.
    output: what of it is held against the original, where it gives more than a tensor.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    small: Mapping[str, Any] = field(default_factory=dict)
    patch: int = 16
    resizes: bool = True
    frames: int | None = None
    part: str | None = None
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.name}, {self.note}" if self.note else self.name

    @property
    def library(self) -> str:
        """Whose it is."""
        return "timm" if self.name.islower() else "transformers"

    @property
    def title(self) -> str:
        """The model in a table."""
        return f"{self.library}: `{self.name}`" + (f", {self.note}" if self.note else "")

    def build(self, small: bool = False) -> nn.Module:
        """The model in evaluation mode, all weights random.

        Raises:
            ModuleNotFoundError: its library is not installed.
        """
        library, settings = imported(self.library), dict(self.settings)
        if small:
            backbone = _SMALL[self.library](self.patch * SMALL_GRIDS[0][0])
            settings = _merged(settings, {self.part: backbone} if self.part else backbone)
            settings = _merged(settings, self.small)
        torch.manual_seed(0)
        if self.library == "timm":
            model = library.create_model(self.name, pretrained=False, num_classes=0, **settings)
        else:
            cls = getattr(library, self.name)
            model = cls(cls.config_class(**settings))
        for parameter in model.parameters():
            # So large that tokens influence each other, and nothing is near 0, as LayerScale is at first.
            shape = parameter.shape
            width = shape[1:].numel() if len(shape) > 3 else shape[-1] if shape else 1
            parameter.data += 1.4 * width**-0.5 * torch.randn_like(parameter)
        model.eval()
        return model

    def pictures(self, batch: int, grid: tuple[int, int]) -> Tensor:
        """Random pictures of so many patches, (B, 3, H, W), or clips, (B, T, 3, H, W)."""
        frames = () if self.frames is None else (self.frames,)
        return torch.randn(batch, *frames, 3, *(self.patch * side for side in grid))

    def tensor(self, output: Any) -> Tensor:
        """What is held against the original of what a model gives."""
        if self.output is None:
            return output
        given = getattr(output, self.output)
        return given if isinstance(given, Tensor) else torch.cat([x.flatten() for x in given])

    def features(self, model: Any, pictures: Tensor) -> Tensor:
        """What the model itself makes of pictures."""
        if self.output is not None:
            return self.tensor(model(pixel_values=pictures))
        if self.library == "timm":
            out = model.forward_features(pictures)
        elif self.name in ("ViTModel", "CLIPVisionModel", "SiglipVisionModel"):
            own = pictures.shape[-2:] == (model.config.image_size,) * 2
            out = model(pixel_values=pictures, interpolate_pos_encoding=not own).last_hidden_state
        else:
            out = model(pixel_values=pictures).last_hidden_state
        return out


def _merged(settings: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others in their place, and so in those of parts."""
    return {**settings} | {
        name: _merged(settings.get(name, {}), value) if isinstance(value, dict) else value
        for name, value in others.items()
    }


_SMALL: dict[str, Callable[[int], dict[str, Any]]] = {
    "timm": lambda size: {"img_size": size, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "transformers": lambda size: {
        "image_size": size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
}
"""What makes a model small, by library, for pictures of a side in pixels."""

_DYNAMIC = {"dynamic_img_size": True}

_WINDOWS = {"window_size": 3, "global_attn_indexes": [1]}
_STAGES = {"out_features": ["stage1", "stage2"]}
_MAPS = "what two blocks give"
_VITDET = {"use_relative_position_embeddings": True}

EXAMPLES = (
    Example("vit_tiny_patch16_224", note="one size", resizes=False),
    Example("vit_base_patch16_224", _DYNAMIC),
    Example(
        "vit_small_patch16_224", _DYNAMIC | {"class_token": False, "global_pool": "avg"}, "average pooling"
    ),
    Example("vit_small_patch16_224", _DYNAMIC | {"pos_embed": "none"}, "no positions"),
    Example(
        "vit_small_patch16_224",
        _DYNAMIC | {"qk_norm": True, "scale_attn_norm": True},
        "qk-norm and a norm after attention",
    ),
    Example("vit_small_patch16_224", _DYNAMIC | {"qkv_bias": False}, "no biases of q, k and v"),
    Example("deit_small_patch16_224", _DYNAMIC),
    Example("deit_small_distilled_patch16_224", _DYNAMIC),
    Example("deit3_small_patch16_224", _DYNAMIC),
    Example("vit_small_patch14_dinov2", _DYNAMIC, patch=14),
    Example("vit_small_patch14_reg4_dinov2", _DYNAMIC, patch=14),
    Example("vit_giant_patch14_dinov2", _DYNAMIC | {"depth": 2}, "2 blocks (SwiGLU)", patch=14),
    Example("vit_base_patch16_clip_224", _DYNAMIC),
    Example("vit_base_patch16_clip_quickgelu_224", _DYNAMIC),
    Example("vit_base_patch16_siglip_224", _DYNAMIC),
    Example("vit_base_patch16_siglip_gap_224", _DYNAMIC),
    Example("eva02_tiny_patch14_224", _DYNAMIC, "EVA-02, SwiGLU", patch=14),
    Example("eva02_base_patch16_clip_224", _DYNAMIC, "EVA-02 CLIP"),
    Example("vit_small_patch16_rope_224", _DYNAMIC, "RoPE"),
    Example("vit_small_patch16_dinov3", _DYNAMIC),
    Example("vit_small_plus_patch16_dinov3", _DYNAMIC),
    Example("vit_pe_core_tiny_patch16_384", _DYNAMIC),
    Example("vit_relpos_small_patch16_224", note="one size", resizes=False),
    Example("vit_relpos_small_patch16_224", {"rel_pos_type": "bias"}, "a table of biases", resizes=False),
    Example("vit_relpos_base_patch16_cls_224", note="one size", resizes=False),
    Example("beit_base_patch16_224", note="one size", resizes=False),
    Example("beitv2_base_patch16_224", note="one size", resizes=False),
    Example("samvit_base_patch16_224", small=_WINDOWS),
    Example("samvit_base_patch16", {"img_size": 224}, "at 224", small=_WINDOWS),
    Example("ViTModel"),
    Example("Dinov2Model", {"patch_size": 14}, patch=14),
    Example("Dinov2Model", {"patch_size": 14, "use_swiglu_ffn": True}, "SwiGLU", patch=14),
    Example("Dinov2WithRegistersModel", {"patch_size": 14}, patch=14),
    Example("DINOv3ViTModel"),
    Example("DINOv3ViTModel", {"use_gated_mlp": True, "num_register_tokens": 4}, "SwiGLU and registers"),
    Example(
        "SamVisionModel", {"image_size": 224}, "at 224", _WINDOWS | {"output_channels": 8}, resizes=False
    ),
    Example(
        "Sam3ViTModel",
        {
            "image_size": 224,
            "window_size": 7,
            "num_hidden_layers": 2,
            "global_attn_indexes": [1],
            "patch_size": 16,
        },
        "2 blocks at 224",
        _WINDOWS | {"window_size": 2, "pretrain_image_size": 64},
        resizes=False,
    ),
    Example(
        "VitDetModel",
        _VITDET | {"window_size": 4, "window_block_indices": [0, 1, 3, 4, 6, 7, 9, 10]},
        small={"window_size": 3, "window_block_indices": [0]},
    ),
    Example("VitDetModel", note="global, no relative positions"),
    Example("VideoMAEModel", {"num_frames": 4}, "4 frames a clip", resizes=False, frames=4),
    Example("CLIPVisionModel", {"patch_size": 16}),
    Example("SiglipVisionModel"),
    Example("Dinov2Backbone", {"patch_size": 14} | _STAGES, _MAPS, patch=14, output="feature_maps"),
    Example(
        "Dinov2WithRegistersBackbone", {"patch_size": 14} | _STAGES, _MAPS, patch=14, output="feature_maps"
    ),
    Example("DINOv3ViTBackbone", _STAGES, _MAPS, output="feature_maps"),
    Example(
        "VitDetBackbone",
        _VITDET | {"window_size": 4, "window_block_indices": [0]} | _STAGES,
        _MAPS,
        small={"window_size": 3},
        output="feature_maps",
    ),
    Example("ViTForImageClassification", note="logits", resizes=False, output="logits"),
    Example("Dinov2ForImageClassification", {"patch_size": 14}, "logits", patch=14, output="logits"),
    Example(
        "DepthAnythingForDepthEstimation",
        {
            "backbone_config": {"model_type": "dinov2", "patch_size": 14, "reshape_hidden_states": False}
            | {"out_indices": [3, 6, 9, 12]},
            "reassemble_hidden_size": 768,
        },
        "depth",
        {
            "backbone_config": {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]},
            "reassemble_hidden_size": 32,
            "neck_hidden_sizes": [8, 8, 8, 8],
            "fusion_hidden_size": 8,
            "head_hidden_size": 8,
        },
        patch=14,
        part="backbone_config",
        output="predicted_depth",
    ),
    Example(
        "SamModel",
        {"vision_config": {"image_size": 224}, "prompt_encoder_config": {"image_size": 224}},
        "masks, at 224",
        {"vision_config": _WINDOWS, "prompt_encoder_config": {"image_size": 64}},
        resizes=False,
        part="vision_config",
        output="pred_masks",
    ),
    Example(
        "CLIPVisionModelWithProjection",
        {"patch_size": 16},
        "embeddings",
        resizes=False,
        output="image_embeds",
    ),
    Example(
        "SiglipForImageClassification",
        {"vision_config": {}},
        "logits",
        resizes=False,
        part="vision_config",
        output="logits",
    ),
    Example(
        "VideoMAEForVideoClassification",
        {"num_frames": 4},
        "logits",
        resizes=False,
        frames=4,
        output="logits",
    ),
)

_ONE = {"depth": 1}

REFUSED = (
    Example("swin_tiny_patch4_window7_224"),
    Example("hiera_tiny_224"),
    Example("vit_tiny_r_s16_p8_224", _ONE, "hybrid"),
    Example("cait_xxs24_224"),
    Example("vit_small_patch16_18x2_224", _ONE, "parallel blocks"),
    Example("vit_small_patch16_224", _ONE | {"attn_layer": "diff"}, "differential attention"),
    Example("vit_small_patch16_rope_mixed_224", _ONE),
    Example("vit_srelpos_small_patch16_224", _ONE, "shared relative positions"),
    Example("samvit_base_patch16", _ONE | {"use_rope": True, "use_rel_pos": False}, "RoPE"),
    Example("vit_small_patch16_224", {"drop_path_rate": 0.1}, "stochastic depth, in training mode"),
    Example("SwinModel"),
    Example("HieraModel"),
    Example("PvtModel"),
    Example("SegformerModel"),
    Example("SegformerForSemanticSegmentation"),
    Example(
        "VitDetModel", {"residual_block_indices": [0], "num_hidden_layers": 1}, "a convolution after a block"
    ),
)
"""What is refused."""


@torch.no_grad()
def relative_error(x: Tensor, reference: Tensor) -> float:
    """The distance of one tensor from another over the norm of the latter."""
    return float(torch.linalg.vector_norm(x - reference) / torch.linalg.vector_norm(reference))


@torch.no_grad()
def errors(
    example: Example, model: nn.Module, net: Converted, batch: int, grid: tuple[int, int]
) -> tuple[float, float]:
    """The largest relative errors of a converted model on pictures of one size.

    Returns:
        Of the dense network and of the first frame of streams; and of streams in which all tokens pass, of a later
        frame.
    """
    pictures = [example.pictures(batch, grid) for _ in range(2)]
    first, later = (example.features(model, picture) for picture in pictures)
    dense, streamed = relative_error(example.tensor(net(pictures[0])), first), 0.0
    for variant in ALL_TOKENS:
        stream: Any = net.stream(variant, r=0)
        dense = max(dense, relative_error(example.tensor(stream(pictures[0])), first))
        stream.policy.r = stream.states.blocks[0].qkv_gate.gate.u.shape[1]
        streamed = max(streamed, relative_error(example.tensor(stream(pictures[1])), later))
    return dense, streamed
