"""What is known of timm's Vision Transformers (timm 1.0)."""

from __future__ import annotations

from typing import Any

from torch import nn

from evt.models.foreign.family import Family, expect, refuse
from evt.models.foreign.parts import HeadNorms, Parts, chain, counted, does_nothing
from evt.models.foreign.tokenwise import check_tokenwise

VIT = "timm.models.vision_transformer"


def vit_parts(block: Any) -> Parts:
    """The parts of a `Block`, with LayerScale or not, and with norms in its attention or not."""
    expect(block, block, f"{VIT}.Block")
    attn = block.attn
    expect(attn, block, "timm.layers.attention.Attention")
    if getattr(attn, "gate", None) is not None:
        refuse(attn, "what it attends to is gated by what its tokens were (gated=True)")
    check_tokenwise(block.norm1, attn.qkv, attn.q_norm, attn.k_norm)
    check_tokenwise(attn.norm, attn.proj, block.ls1, block.norm2, block.mlp, block.ls2)
    return Parts(
        norm1=chain(block.norm1),
        qkv=with_norms(counted(attn.qkv), attn),
        proj=chain(attn.norm, attn.proj, block.ls1),
        norm2=chain(block.norm2),
        mlp=chain(block.mlp, block.ls2),
        num_heads=attn.num_heads,
        scale=attn.head_dim**-0.5,
    )


def with_norms(qkv: nn.Module, attn: Any) -> nn.Module:
    """Queries, keys and values, with the norms of attention after them, if it has them."""
    if does_nothing(attn.q_norm) and does_nothing(attn.k_norm):
        return qkv
    return HeadNorms(qkv, chain(attn.q_norm), chain(attn.k_norm), attn.num_heads)


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
)

FAMILIES = {
    f"{VIT}.VisionTransformer": _VIT,
    "timm.models.deit.VisionTransformerDistilled": _VIT,
}
"""By class."""
