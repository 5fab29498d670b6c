"""What is known of timm's Vision Transformers (timm 1.0)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from evt.eventful import Rotary
from evt.eventful.layout import Grid
from evt.models.foreign.family import Family, Turns, expect, refuse, with_prefix
from evt.models.foreign.parts import (
    Apart,
    Biased,
    HeadNorms,
    PairBias,
    Parts,
    Scale,
    chain,
    counted,
    does_nothing,
)
from evt.models.foreign.tokenwise import check_tokenwise

VIT, EVA, SAM = "timm.models.vision_transformer", "timm.models.eva", "timm.models.vision_transformer_sam"
RELPOS, BEIT = "timm.models.vision_transformer_relpos", "timm.models.beit"


def vit_parts(block: Any) -> Parts:
    """The parts of a `Block`, with LayerScale or not, and with norms in its attention or not."""
    expect(block, block, f"{VIT}.Block")
    attn = block.attn
    expect(attn, block, "timm.layers.attention.Attention")
    if getattr(attn, "gate", None) is not None:
        refuse(attn, "what it attends to is gated by what its tokens were (gated=True)")
    check_tokenwise(block.norm1, attn.qkv, attn.q_norm, attn.k_norm)
    check_tokenwise(attn.norm, attn.proj, block.ls1, block.norm2, block.mlp, block.ls2)
    return plain(block, with_norms(counted(attn.qkv), attn), block.ls1, block.ls2)


def plain(block: Any, qkv: nn.Module, scale1: Any, scale2: Any, **others: Any) -> Parts:
    """Parts that have timm's usual names, and those that have not.

    Args:
        block: what has them.
        qkv: queries, keys and values.
        scale1, scale2: LayerScale after attention and after the MLP; None is none.
        others: of `Parts`.
    """
    attn = block.attn
    return Parts(
        norm1=chain(block.norm1),
        qkv=qkv,
        proj=chain(getattr(attn, "norm", None), attn.proj, scale1),
        norm2=chain(block.norm2),
        mlp=chain(block.mlp, scale2),
        num_heads=attn.num_heads,
        scale=attn.scale,
        **others,
    )


def with_norms(qkv: nn.Module, attn: Any) -> nn.Module:
    """Queries, keys and values, with the norms of attention after them, if it has them."""
    if does_nothing(attn.q_norm) and does_nothing(attn.k_norm):
        return qkv
    return HeadNorms(qkv, chain(attn.q_norm), chain(attn.k_norm), attn.num_heads)


def scales(block: Any) -> list[nn.Module | None]:
    """LayerScale after attention and after the MLP, where a block has parameters for it."""
    return [None if gamma is None else Scale(gamma) for gamma in (block.gamma_1, block.gamma_2)]


def eva_parts(block: Any) -> Parts:
    """The parts of an `EvaBlock`: DINOv3, EVA-02 and all else that turns queries and keys."""
    expect(block, block, f"{EVA}.EvaBlock")
    attn = block.attn
    expect(attn, block, f"{EVA}.EvaAttention", "timm.layers.attention.AttentionRope")
    if attn.gate is not None:
        refuse(attn, "what it attends to is gated by what its tokens were (gated=True)")
    if getattr(attn, "num_kv_groups", 1) > 1:
        refuse(attn, "several queries share a key (num_kv_heads)")
    check_tokenwise(block.norm1, attn.qkv, attn.q_proj, attn.k_proj, attn.v_proj, attn.q_norm, attn.k_norm)
    check_tokenwise(attn.norm, attn.proj, block.norm2, block.mlp)
    if attn.qkv is None:
        qkv: nn.Module = Apart(counted(attn.q_proj), counted(attn.k_proj), counted(attn.v_proj))
    elif getattr(attn, "q_bias", None) is not None:
        qkv = Biased(counted(attn.qkv), attn.q_bias, attn.v_bias)
    else:
        qkv = counted(attn.qkv)
    return plain(block, with_norms(qkv, attn), *scales(block))


def check_eva(model: Any) -> None:
    """Refuse positions that are another turn in each head and block, or at random."""
    check_vit(model)
    if model.rope_mixed:
        refuse(model.rope, "its positions are others in each block and head (rope_type='mixed')")
    if model.rope is not None and model.rope.training and getattr(model.rope, "aug_active", False):
        refuse(model.rope, "in training mode its positions are random; call model.eval() before")


def relpos_parts(block: Any) -> Parts:
    """The parts of a `RelPosBlock`, whose heads add biases to pairs of tokens."""
    expect(block, block, f"{RELPOS}.RelPosBlock")
    attn = block.attn
    expect(attn, block, f"{RELPOS}.RelPosAttention")
    if attn.rel_pos is not None:
        expect(attn.rel_pos, attn, f"{_REL}.RelPosBias", f"{_REL}.RelPosMlp")
    check_tokenwise(block.norm1, attn.qkv, attn.q_norm, attn.k_norm)
    check_tokenwise(attn.proj, block.ls1, block.norm2, block.mlp, block.ls2)
    bias = None if attn.rel_pos is None else PairBias(attn.rel_pos, "get_bias")
    return plain(block, with_norms(counted(attn.qkv), attn), block.ls1, block.ls2, pair_bias=bias)


def check_relpos(model: Any) -> None:
    """Refuse biases that all blocks share."""
    check_vit(model)
    if model.shared_rel_pos is not None:
        refuse(model.shared_rel_pos, "all blocks share its biases (shared_rel_pos)")


def beit_parts(block: Any) -> Parts:
    """The parts of a `Block` of BEiT, whose heads add biases to pairs of tokens, or do not."""
    expect(block, block, f"{BEIT}.Block")
    attn = block.attn
    expect(attn, block, f"{BEIT}.Attention")
    check_tokenwise(block.norm1, attn.qkv, attn.proj, block.norm2, block.mlp)
    qkv = counted(attn.qkv)
    if attn.q_bias is not None:
        qkv = Biased(qkv, attn.q_bias, attn.v_bias)
    bias = None if attn.window_size is None else PairBias(attn, "_get_rel_pos_bias")
    return plain(block, qkv, *scales(block), pair_bias=bias)


def check_beit(model: Any) -> None:
    """Refuse biases that all blocks share."""
    check_vit(model)
    if model.rel_pos_bias is not None:
        refuse(model.rel_pos_bias, "all blocks share its biases (use_shared_rel_pos_bias)")


def sam_parts(block: Any) -> Parts:
    """The parts of a `Block` of a SAM image encoder, with windows or not, and relative positions or not."""
    expect(block, block, f"{SAM}.Block")
    attn = block.attn
    expect(attn, block, f"{SAM}.Attention")
    if attn.rope is not None:
        refuse(attn, "it turns queries and keys by their places in a grid of one size (use_rope)")
    check_tokenwise(block.norm1, attn.qkv, attn.q_norm, attn.k_norm)
    if block.window_size and not (does_nothing(attn.q_norm) and does_nothing(attn.k_norm)):
        refuse(attn, "in windows, which are padded, it normalises queries and keys (qk_norm)")
    check_tokenwise(attn.proj, block.ls1, block.norm2, block.mlp, block.ls2)
    return plain(
        block,
        with_norms(counted(attn.qkv), attn),
        block.ls1,
        block.ls2,
        window_size=block.window_size or None,
        rel_pos=(attn.rel_pos_h, attn.rel_pos_w) if attn.use_rel_pos else None,
    )


def eva_rotary(model: Any) -> Turns:
    """How an Eva turns queries and keys: by `rope`, (n, 2d), sines first."""
    neighbours = not model.blocks[0].attn.rotate_half

    def turns(given: dict[str, Any], tokens: Tensor, grid: Grid | None, number: int) -> Rotary | None:
        rope = given.pop("rope", None)
        if rope is None:
            return None
        sin, cos = rope.chunk(2, dim=-1)
        return with_prefix(cos, sin, tokens.shape[1], neighbours)

    return turns


def check_vit(model: Any) -> None:
    """Refuse a CNN before the blocks."""
    expect(model.patch_embed, model, "timm.layers.patch_embed.PatchEmbed")


_VIT = Family(
    method="forward_features",
    blocks="blocks",
    parts=vit_parts,
    features=lambda model, frame: model.forward_features(frame),
    num_prefix_tokens=lambda model: model.num_prefix_tokens,
    check=check_vit,
    frame_shape=lambda model: (1, model.patch_embed.proj.in_channels, *model.patch_embed.img_size),
)

_EVA = replace(
    _VIT,
    parts=eva_parts,
    check=check_eva,
    rotary=eva_rotary,
    arguments=lambda cos, sin: {"rope": torch.cat([sin, cos], dim=-1)},
)

_SAM = replace(_VIT, parts=sam_parts, num_prefix_tokens=lambda model: 0, form="BHWC")

_REL = "timm.layers.pos_embed_rel"

FAMILIES = {
    f"{RELPOS}.VisionTransformerRelPos": replace(_VIT, parts=relpos_parts, check=check_relpos),
    f"{BEIT}.Beit": replace(_VIT, parts=beit_parts, check=check_beit),
    f"{SAM}.VisionTransformerSAM": _SAM,
    f"{EVA}.Eva": _EVA,
    f"{VIT}.VisionTransformer": _VIT,
    "timm.models.deit.VisionTransformerDistilled": _VIT,
}
"""By class."""
