"""What is known of the Vision Transformers of Hugging Face's transformers (transformers 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from evt.errors import ConversionError
from evt.eventful import Rotary
from evt.eventful.layout import Grid
from evt.models.foreign.family import Family, Turns, expect, of_config, refuse, with_prefix
from evt.models.foreign.parts import Apart, Parts, chain, counted
from evt.models.foreign.tokenwise import check_tokenwise

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""The implementations of attention of which it is known that they compute the same."""


@dataclass(frozen=True)
class Names:
    """What a layer calls its parts, and its attention the layers and numbers that it has.

    layer, attention: the classes of the two.
    """

    layer: str
    attention: str
    attn: str = "attention"
    norm1: str = "norm1"
    norm2: str = "norm2"
    scale1: str | None = None
    scale2: str | None = None
    out: str = "o_proj"
    num_heads: str = "num_attention_heads"
    scaling: str = "scaling"


def parts(layer: Any, names: Names) -> Parts:
    """The parts of a layer."""
    expect(layer, layer, names.layer)
    attn = getattr(layer, names.attn)
    expect(attn, layer, names.attention)
    check_implementation(attn)
    scale1, scale2 = (getattr(layer, name) if name else None for name in (names.scale1, names.scale2))
    norm1, norm2, out = getattr(layer, names.norm1), getattr(layer, names.norm2), getattr(attn, names.out)
    q, k, v = attn.q_proj, attn.k_proj, attn.v_proj
    check_tokenwise(norm1, q, k, v, out, scale1, norm2, layer.mlp, scale2)
    return Parts(
        norm1=chain(norm1),
        qkv=Apart(counted(q), counted(k), counted(v)),
        proj=chain(out, scale1),
        norm2=chain(norm2),
        mlp=chain(layer.mlp, scale2),
        num_heads=getattr(attn, names.num_heads),
        scale=getattr(attn, names.scaling),
    )


def videomae_parts(layer: Any) -> Parts:
    """The parts of a layer of VideoMAE, whose tokens are those of a clip."""
    expect(layer, layer, f"{_VIDEOMAE}Layer")
    attn, out = layer.attention.attention, layer.attention.output
    for module, kind in (
        (attn, "SelfAttention"),
        (out, "SelfOutput"),
        (layer.attention, "Attention"),
        (layer.intermediate, "Intermediate"),
        (layer.output, "Output"),
    ):
        expect(module, layer, _VIDEOMAE + kind)
    check_implementation(attn)
    check_tokenwise(layer.layernorm_before, attn.query, attn.key, attn.value, out.dense)
    check_tokenwise(layer.layernorm_after, layer.intermediate, layer.output.dense)
    return Parts(
        norm1=chain(layer.layernorm_before),
        qkv=Apart(counted(attn.query), counted(attn.key), counted(attn.value)),
        proj=chain(out.dense),
        norm2=chain(layer.layernorm_after),
        mlp=chain(layer.intermediate, layer.output.dense),
        num_heads=attn.num_attention_heads,
        scale=attn.scaling,
    )


def check_implementation(attn: Any) -> None:
    """Refuse attention that a program has added to those of transformers."""
    implementation = attn.config._attn_implementation
    if implementation not in ATTENTION:
        refuse(attn, f"its implementation is {implementation!r}; it must be one of {', '.join(ATTENTION)}")


def hidden_state(model: Any, frame: Tensor) -> Tensor:
    """What a model makes of frames, after its last layer, or after the norm that follows it."""
    out: Tensor = model(pixel_values=frame, return_dict=True).last_hidden_state
    return out


def resized_hidden_state(model: Any, frame: Tensor) -> Tensor:
    """The same of a model that takes another size than its own when it is asked to."""
    side = model.config.image_size
    own = tuple(side) if isinstance(side, list | tuple) else (side, side)
    other = tuple(frame.shape[-2:]) != own
    out = model(pixel_values=frame, interpolate_pos_encoding=other, return_dict=True)
    tokens: Tensor = out.last_hidden_state
    return tokens


def check_dinov3(model: Any) -> None:
    """Refuse positions at random, as in training mode."""
    config = model.config
    random = (config.pos_embed_shift, config.pos_embed_jitter, config.pos_embed_rescale)
    if model.rope_embeddings.training and any(share is not None for share in random):
        refuse(model.rope_embeddings, "in training mode its positions are random; call model.eval() before")


def dinov3_rotary(model: Any) -> Turns:
    """How a DINOv3 turns queries and keys: by `position_embeddings`, cosines and sines, (n, d) each."""

    def turns(given: dict[str, Any], tokens: Tensor, grid: Grid | None, number: int) -> Rotary:
        cos, sin = given.pop("position_embeddings")
        return with_prefix(cos, sin, tokens.shape[1], neighbours=False)

    return turns


def windowed_parts(layer: Any, names: Names) -> Parts:
    """The parts of a layer of a SAM image encoder or of ViTDet, in windows or not, with relative positions or not."""
    expect(layer, layer, names.layer)
    attn = getattr(layer, names.attn)
    expect(attn, layer, names.attention, names.attention.replace("VisionAttention", "VisionSdpaAttention"))
    if getattr(layer, "use_residual_block", False):
        refuse(layer, "a convolution follows its MLP (residual_block_indices)")
    norm1, norm2, out = getattr(layer, names.norm1), getattr(layer, names.norm2), getattr(attn, names.out)
    check_tokenwise(norm1, attn.qkv, out, norm2, layer.mlp)
    rel_pos = hasattr(attn, "rel_pos_h")
    return Parts(
        norm1=chain(norm1),
        qkv=counted(attn.qkv),
        proj=chain(out),
        norm2=chain(norm2),
        mlp=chain(layer.mlp),
        num_heads=getattr(attn, names.num_heads),
        scale=getattr(attn, names.scaling),
        window_size=layer.window_size or None,
        rel_pos=(attn.rel_pos_h, attn.rel_pos_w) if rel_pos else None,
    )


def sam3_parts(layer: Any, names: Names) -> Parts:
    """The parts of a layer of SAM 3's image encoder."""
    return replace(parts(layer, names), window_size=layer.window_size or None)


def sam3_rotary(model: Any) -> Turns:
    """How SAM 3's image encoder turns queries and keys: by places in the window, or in the whole grid."""
    layers = list(model.layers)

    def turns(given: dict[str, Any], tokens: Tensor, grid: Grid | None, number: int) -> Rotary:
        assert grid is not None
        layer = layers[number]
        side = layer.window_size
        if side and (grid[0] % side or grid[1] % side):
            raise ConversionError(
                f"{grid[0]} x {grid[1]} patches; they must be whole windows of {side} x {side}"
            )
        cos, sin = layer.rotary_emb(tokens, layer.position_ids.to(tokens.device))  # (1, n, d) each
        cos, sin = cos[0], sin[0]
        if side:
            rows, columns = (torch.arange(n, device=tokens.device) % side for n in grid)
            place = (rows[:, None] * side + columns).flatten()
            cos, sin = cos[place], sin[place]
        return Rotary(cos, sin, neighbours=True)

    return turns


def _file(name: str) -> str:
    return f"transformers.models.{name}.modeling_{name}."


def _dinov2(kind: str) -> Names:
    return Names(f"{kind}Layer", f"{kind}Attention", scale1="layer_scale1", scale2="layer_scale2")


def _clip(kind: str) -> Names:
    return Names(
        f"{kind}EncoderLayer",
        f"{kind}Attention",
        attn="self_attn",
        norm1="layer_norm1",
        norm2="layer_norm2",
        out="out_proj",
        num_heads="num_heads",
        scaling="scale",
    )


def _family(
    names: Names,
    blocks: str,
    num_prefix_tokens: Callable[[Any], int],
    features: Callable[[Any, Tensor], Tensor] | None = resized_hidden_state,
    encoder: str | None = None,
) -> Family:
    return Family(
        method="forward",
        blocks=blocks,
        encoder=encoder,
        parts=partial(parts, names=names),
        features=features,
        num_prefix_tokens=num_prefix_tokens,
        arguments=lambda cos, sin: {"attention_mask": None},
    )


_VIT, _CLIP, _SIGLIP = f"{_file('vit')}ViT", f"{_file('clip')}CLIP", f"{_file('siglip')}Siglip"
_DINOV2 = f"{_file('dinov2')}Dinov2"
_REGISTERS = f"{_file('dinov2_with_registers')}Dinov2WithRegisters"
_DINOV3 = f"{_file('dinov3_vit')}DINOv3ViT"
_SAM, _VITDET = f"{_file('sam')}Sam", f"{_file('vitdet')}VitDet"
_SAM_FAMILY = Family(
    method="forward",
    blocks="layers",
    parts=partial(
        windowed_parts,
        names=Names(
            f"{_SAM}VisionLayer",
            f"{_SAM}VisionAttention",
            attn="attn",
            norm1="layer_norm1",
            norm2="layer_norm2",
            out="proj",
            scaling="scale",
        ),
    ),
    features=hidden_state,
    num_prefix_tokens=lambda model: 0,
    form="BHWC",
)
_SAM3 = f"{_file('sam3')}Sam3"
_SAM3_NAMES = Names(f"{_SAM3}ViTLayer", f"{_SAM3}ViTRoPEAttention", norm1="layer_norm1", norm2="layer_norm2")

_VIDEOMAE = f"{_file('videomae')}VideoMAE"

MODELS = {
    f"{_VIT}Model": _family(
        Names(f"{_VIT}Layer", f"{_VIT}Attention", norm1="layernorm_before", norm2="layernorm_after"),
        "layers",
        lambda model: 1,
    ),
    f"{_DINOV2}Model": _family(
        _dinov2(_DINOV2), "encoder.layer", lambda model: 1, hidden_state, f"{_DINOV2}Encoder"
    ),
    f"{_REGISTERS}Model": _family(
        _dinov2(_REGISTERS),
        "encoder.layer",
        lambda model: 1 + model.config.num_register_tokens,
        hidden_state,
        f"{_REGISTERS}Encoder",
    ),
    f"{_DINOV3}Model": replace(
        _family(
            replace(_dinov2(_DINOV3), num_heads="num_heads"),
            "model.layer",
            lambda model: 1 + model.config.num_register_tokens,
            hidden_state,
            f"{_DINOV3}Encoder",
        ),
        check=check_dinov3,
        rotary=dinov3_rotary,
        arguments=lambda cos, sin: {"position_embeddings": (cos, sin)},
    ),
    f"{_SAM}VisionEncoder": _SAM_FAMILY,
    f"{_SAM}VisionModel": replace(
        _SAM_FAMILY, blocks="vision_encoder.layers", encoder=f"{_SAM}VisionEncoder"
    ),
    f"{_SAM3}ViTModel": replace(
        _family(_SAM3_NAMES, "layers", lambda model: 0, hidden_state),
        parts=partial(sam3_parts, names=_SAM3_NAMES),
        rotary=sam3_rotary,
        form="BHWC",
        pads=False,
        arguments=lambda cos, sin: {},
    ),
    f"{_VITDET}Model": replace(
        _SAM_FAMILY,
        blocks="encoder.layer",
        encoder=f"{_VITDET}Encoder",
        parts=partial(
            windowed_parts,
            names=Names(
                f"{_VITDET}Layer", f"{_VITDET}Attention", out="proj", num_heads="num_heads", scaling="scale"
            ),
        ),
        form="BCHW",
        returns_tuple=True,
    ),
    f"{_VIDEOMAE}Model": Family(
        method="forward",
        blocks="encoder.layer",
        encoder=f"{_VIDEOMAE}Encoder",
        parts=videomae_parts,
        features=hidden_state,
        num_prefix_tokens=lambda model: 0,
        frame_shape=lambda model: (1, model.config.num_frames, *of_config(model)[1:]),
    ),
    f"{_CLIP}VisionModel": _family(
        _clip(_CLIP), "encoder.layers", lambda model: 1, encoder=f"{_CLIP}Encoder"
    ),
    f"{_SIGLIP}VisionModel": _family(
        _clip(_SIGLIP), "encoder.layers", lambda model: 0, encoder=f"{_SIGLIP}Encoder"
    ),
}
FAMILIES = MODELS | {
    f"{kind}Backbone": replace(MODELS[f"{kind}Model"], features=None)
    for kind in (_DINOV2, _REGISTERS, _DINOV3, _VITDET)
}
"""By class; backbones give what several of their layers do."""
