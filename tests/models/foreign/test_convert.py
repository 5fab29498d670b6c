"""Models of timm and transformers with random weights against what they are converted to."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import evt
from evt.errors import ConfigError, ConversionError
from evt.models.foreign.convert import FAMILIES
from evt.models.foreign.examples import (
    EXAMPLES,
    REFUSED,
    SMALL_GRIDS,
    Example,
    errors,
    relative_error,
)
from evt.models.foreign.libraries import imported

TOLERANCE = 1e-5


def library(name: str) -> Any:
    """A library, or the test is skipped where it is not installed."""
    try:
        return imported(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        pytest.skip(f"{error}: pip install 'evt[{name}]'")


def built(example: Example) -> Any:
    """A small model."""
    library(example.library)
    return example.build(small=True)


PLAIN, DINOV2 = (
    next(x for x in EXAMPLES if x.name == name) for name in ("vit_base_patch16_224", "Dinov2Model")
)


VITDET = next(x for x in EXAMPLES if x.name == "VitDetModel")


@pytest.fixture(params=[PLAIN, DINOV2], ids=str)
def example(request: pytest.FixtureRequest) -> Example:
    """A model of each library."""
    chosen: Example = request.param
    return chosen


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_converted_is_the_original(example: Example) -> None:
    """Dense, and where all tokens pass, at two sizes and of two pictures."""
    model = built(example)
    net = evt.convert(model)
    for batch, grid in ((1, SMALL_GRIDS[0]), (2, SMALL_GRIDS[0]), (1, SMALL_GRIDS[1])):
        if grid == SMALL_GRIDS[0] or example.resizes:
            assert max(errors(example, model, net, batch, grid)) < TOLERANCE


def test_every_class_has_an_example() -> None:
    names = {x.name for x in EXAMPLES if x.library == "transformers"} | {"SamVisionEncoder"}
    assert {kind.rsplit(".", 1)[1] for kind in FAMILIES if kind.startswith("transformers")} <= names


def test_encoder_of_sam_alone() -> None:
    example = next(x for x in EXAMPLES if x.name == "SamVisionModel")
    model = built(example).vision_encoder
    assert max(errors(example, model, evt.convert(model), 1, SMALL_GRIDS[0])) < TOLERANCE


@pytest.mark.parametrize("example", [PLAIN, DINOV2, VITDET], ids=str)
@pytest.mark.parametrize("variant", sorted(evt.VARIANTS))
def test_variants(example: Example, variant: str) -> None:
    """Each that needs no grid of tokens gives what the original does, where the budget is everything."""
    model = built(example)
    net = evt.convert(model)
    everything = evt.TopR(16 if example is VITDET else 17)
    skip, budget = evt.Every(1), evt.Budget(1.0)
    policies = {"base": None, "spatial": None, "skip": skip, "skip_moved": skip, "frame": budget}
    policy = policies.get(variant, everything)
    if evt.VARIANTS[variant].pool > 1 and example is VITDET:
        return  # below
    if (pools := evt.VARIANTS[variant].pool > 1) or evt.VARIANTS[variant].move:
        said = "variant.pool is 2, but the grid that tokens form is not known" if pools else "form no grid"
        with pytest.raises(ConfigError, match=said):
            net.stream(variant, policy)
        return
    stream = net.stream(variant, policy)
    for picture in (example.pictures(2, SMALL_GRIDS[0]) for _ in range(3)):
        with torch.no_grad():
            assert relative_error(stream(picture), example.features(model, picture)) < TOLERANCE


@pytest.mark.parametrize("variant", ["spatial", "spatiotemporal"])
def test_windows_pool_as_the_reference_path_does(variant: str) -> None:
    """Which has all of equation 10 where all tokens pass."""
    net = evt.convert(built(VITDET))
    settings = evt.VARIANTS[variant]
    stream = net.stream(settings, evt.TopR(24) if settings.gate else None)
    fast = net.stream(evt.Variant(pool=2, fast=True))
    for picture in (VITDET.pictures(2, (6, 4)) for _ in range(2)):
        assert relative_error(stream(picture), fast(picture)) < TOLERANCE
        assert relative_error(stream(picture), net(picture)) > 0.01


def test_streams_of_different_sizes_share_windows() -> None:
    """One after the other, and at the same time."""
    net = evt.convert(built(VITDET))
    pictures = [[VITDET.pictures(1, grid) for _ in range(4)] for grid in SMALL_GRIDS]

    def run(frames: list[Tensor]) -> list[Tensor]:
        stream = net.stream("rows", r=6)
        return [stream(frame).clone() for frame in frames]

    alone = [run(frames) for frames in pictures]
    streams = [net.stream("rows", r=6) for _ in pictures]
    in_turn = [
        [s(frame).clone() for s, frame in zip(streams, both, strict=True)]
        for both in zip(*pictures, strict=True)
    ]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, pictures * 4))
    for i, expected in enumerate(alone):
        for frame, out in enumerate(expected):
            assert torch.equal(in_turn[frame][i], out)
            assert all(torch.equal(together[i + 2 * n][frame], out) for n in range(4))


def test_few_tokens_are_updated_and_r_may_change(example: Example) -> None:
    model = built(example)
    stream = evt.convert(model).stream("rows", r=4)
    first, second = (example.pictures(1, SMALL_GRIDS[0]) for _ in range(2))
    with torch.no_grad():
        stream(first)
        with evt.count_ops() as few:
            some = stream(second)
        expected = example.features(model, second)
        assert 0.01 < relative_error(some, expected) < 1.5
        stream.policy.r = 17  # type: ignore[union-attr]
        with evt.count_ops() as all_of_them:
            assert relative_error(stream(second), expected) < TOLERANCE
    # The embedding is not counted, so that all linear layers are those of blocks.
    assert few["linear"] / all_of_them["linear"] == pytest.approx(4 / 17, rel=0.01)


def test_weights_are_shared(example: Example) -> None:
    """Whether they are changed, replaced, or of another type."""
    model = built(example)
    net = evt.convert(model)
    pointers = {x.data_ptr() for x in model.parameters()}
    assert {x.data_ptr() for x in net.parameters()} <= pointers
    picture = example.pictures(1, SMALL_GRIDS[0])
    before = net(picture)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.1
    first = next(m for m in model.modules() if isinstance(m, nn.Linear))
    first.weight = nn.Parameter(first.weight * 2)
    after = net(picture)
    assert relative_error(after, before) > 0.01
    assert relative_error(after, example.features(model, picture)) < TOLERANCE
    model.double()
    assert net(picture.double()).dtype == torch.float64


def test_original_stays_as_it_was(example: Example) -> None:
    model = built(example)
    names = list(model.state_dict())
    picture = example.pictures(1, SMALL_GRIDS[0])
    before = example.features(model, picture)
    net = evt.convert(model)
    net.train()
    net(picture)
    assert list(model.state_dict()) == names
    assert torch.equal(example.features(model, picture), before)
    assert not any(module.training for module in net.modules())


def test_streams_are_saved_and_loaded(example: Example) -> None:
    net = evt.convert(built(example))
    stream, other = (net.stream("temporal", r=5) for _ in range(2))
    first, second = (example.pictures(1, SMALL_GRIDS[0]) for _ in range(2))
    stream(first)
    other.load_state_dict(stream.state_dict())
    assert torch.equal(stream(second), other(second))


def test_settings_of_streams() -> None:
    net = evt.convert(built(PLAIN))
    with pytest.raises(ConfigError, match="no variant 'row'; there are base, "):
        net.stream("row")
    with pytest.raises(ConfigError, match=r"TopR\(3\), and TopR\(r=4\) was given"):
        net.stream("rows", evt.TopR(4), r=3)
    with pytest.raises(ConfigError, match="needs a policy"):
        net.stream("rows")


def refused(model: nn.Module) -> str:
    """What is said of a model that cannot be converted."""
    with pytest.raises(ConversionError) as error:
        evt.convert(model)
    return str(error.value)


def test_unknown_models_are_refused() -> None:
    said = refused(nn.Linear(2, 2))
    assert said.startswith(
        "a torch.nn.modules.linear.Linear cannot be converted: it is not known to be made of plain "
    )
    assert all(kind.rsplit(".", 1)[1] in said for kind in FAMILIES)


@pytest.mark.parametrize("example", REFUSED, ids=str)
def test_what_cannot_be_is_refused(example: Example) -> None:
    """With the class and the reason."""
    library(example.library)
    model = example.build()
    said = refused(model.train("training" in example.note))
    assert said.startswith(f"a {type(model).__module__}.{type(model).__name__} cannot be converted: ")
    assert "not known to be" not in said


def test_models_with_several_backbones_name_them(example: Example) -> None:
    model = built(example)
    kind = f"{type(model).__module__}.{type(model).__name__}"
    assert refused(nn.ModuleDict({"left": model, "right": built(example)})).endswith(
        f"2 of its parts can be, left (a {kind}), right (a {kind}); convert one of them, or each for itself"
    )


def test_other_parts_are_refused() -> None:
    timm = library("timm")
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    vit = timm.models.vision_transformer
    for parts, said in (
        (
            {"block_fn": vit.ParallelScalingBlock},
            "blocks.0 is a timm.models.vision_transformer.ParallelScalingBlock",
        ),
        ({"block_fn": vit.ResPostBlock}, "blocks.0 is a timm.models.vision_transformer.ResPostBlock"),
        ({"attn_layer": "diff"}, "blocks.0.attn is a timm.layers.diff_attention.DiffAttention"),
        ({"mlp_layer": timm.layers.ConvMlp}, "blocks.0.mlp"),
        (
            {"act_layer": lambda: nn.Softmax(dim=1)},
            "blocks.0.mlp.act is a torch.nn.modules.activation.Softmax: it is ",
        ),
    ):
        assert said in refused(vit.VisionTransformer(**settings, **parts).eval()), parts
    sam = timm.create_model(
        "samvit_base_patch16", pretrained=False, depth=1, use_rope=True, use_rel_pos=False
    )
    assert "blocks.0.attn is a timm.models.vision_transformer_sam.Attention: it turns" in refused(sam)
    hybrid = timm.create_model("vit_tiny_r_s16_p8_224", pretrained=False)
    assert "patch_embed is a timm.layers.hybrid_embed.HybridEmbed" in refused(hybrid.eval())


def test_parts_of_transformers_are_refused() -> None:
    transformers = library("transformers")
    config = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 32}
    residual = transformers.VitDetModel(transformers.VitDetConfig(**config, residual_block_indices=[1]))
    assert "encoder.layer.1 is a transformers.models.vitdet.modeling_vitdet.VitDetLayer: a conv" in refused(
        residual
    )
    model = built(DINOV2)
    model.config._attn_implementation = "other"
    assert "its implementation is 'other'; it must be one of eager, sdpa, " in refused(model)


def test_what_may_do_anything_is_refused(example: Example) -> None:
    model = built(example)
    block = model.get_submodule("blocks.1" if example is PLAIN else "encoder.layer.1")

    class Other(type(block)):  # type: ignore[misc]
        """A subclass."""

    block.__class__ = Other
    assert "no subclass" in refused(model)
    block.__class__ = Other.__mro__[1]
    block.forward = lambda x: x
    assert "its forward was replaced" in refused(model)
    del block.forward
    model.forward = torch.compile(model.forward, backend="eager")
    assert refused(model).endswith("cannot be converted: its forward was replaced, and may do anything")
    del model.forward
    handle = block.mlp.fc1.register_forward_hook(lambda module, args, output: output * 2)
    assert "fc1 is a torch.nn.modules.linear.Linear: it has forward hooks" in refused(model)
    handle.remove()
    evt.convert(model)

    class Model(type(model)):  # type: ignore[misc]
        """A subclass that runs its blocks by code of its own."""

        def forward(self, x: Tensor) -> Tensor:
            return x

        forward_features = forward

    if example is DINOV2:
        model.encoder.__class__ = type("Encoder", (type(model.encoder),), {})
        assert "Dinov2Encoder, and no subclass" in refused(model)
    model.__class__ = Model
    assert "and may do anything" in refused(model)


def test_blocks_that_compute_otherwise_are_refused(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of another version of a library might."""
    model = built(example)
    mlp = type(model.get_submodule("blocks.1" if example is PLAIN else "encoder.layer.1"))
    forward = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda self, x, **settings: 1.01 * forward(self, x, **settings))
    assert "does not compute what its converted block does" in refused(model)


def test_training_mode_is_refused_where_it_drops_something(example: Example) -> None:
    model = built(example)
    net = evt.convert(model.train())  # nothing is dropped
    assert not net.training
    if example is PLAIN:
        model.pos_drop.p = 0.1
        assert "pos_drop is a torch.nn.modules.dropout.Dropout: in training mode it drops 0.1" in refused(
            model
        )
    else:
        model.encoder.layer[1].attention.attention_dropout = 0.1
        assert "attention is a transformers.models.dinov2" in refused(model)
        assert "call model.eval()" in refused(model)
    evt.convert(model.eval())


def test_positions_that_cannot_be_are_refused() -> None:
    timm = library("timm")
    mixed = timm.create_model("vit_small_patch16_rope_mixed_224", pretrained=False, depth=1)
    assert "rope_type='mixed'" in refused(mixed)
    eva = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 1,
        "num_heads": 2,
        "use_rot_pos_emb": True,
    }
    shifted = timm.models.eva.Eva(**eva, rope_type="dinov3", rope_shift_coords=0.1)
    assert "in training mode its positions are random" in refused(shifted)
    grouped = timm.models.eva.Eva(**eva, attn_type="rope", qkv_fused=False, num_kv_heads=1)
    assert "several queries share a key" in refused(grouped)
    rescaled = built(next(x for x in EXAMPLES if x.name == "DINOv3ViTModel")).train()
    assert "in training mode its positions are random" in refused(rescaled)
    evt.convert(rescaled.eval())


def test_masks_are_refused(example: Example) -> None:
    model: Any = built(example)
    picture = example.pictures(1, SMALL_GRIDS[0])
    mask = torch.ones(1, 1, 17, 17, dtype=torch.bool)
    with pytest.raises(ConversionError, match="take tokens alone"), evt.convert(model).stream("rows", r=2):
        _ = (
            model.forward_features(picture, attn_mask=mask)
            if example is PLAIN
            else model(picture, attention_mask=~mask)
        )


def test_networks_are_compiled_and_exported(example: Example) -> None:
    net = evt.convert(built(example))
    picture = example.pictures(1, SMALL_GRIDS[0])
    torch._dynamo.reset()
    with torch.no_grad():
        expected = net(picture)
        compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
        assert relative_error(compiled(picture), expected) < TOLERANCE
        exported = torch.export.export(net, (picture,), strict=False).module()
        assert relative_error(exported(picture), expected) < TOLERANCE


def test_half_precision(example: Example) -> None:
    """Converted before or after, and by autocast."""
    model = built(example)
    picture = example.pictures(1, SMALL_GRIDS[0])
    before = evt.convert(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stream = before.stream("rows", r=17)
        stream(picture)
        assert relative_error(stream(2 * picture), example.features(model, 2 * picture)) < 0.05
    model.bfloat16()
    picture = picture.bfloat16()
    for net in (before, evt.convert(model)):
        assert relative_error(net(picture).float(), example.features(model, picture).float()) < 0.05


def test_operations_are_counted_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = library("timm").create_model("vit_base_patch16_224", pretrained=False)
        frame = torch.empty(1, 3, 224, 224)
    net = evt.convert(model.eval())
    with evt.count_ops() as ops:
        net(frame)
    assert ops["linear"] == 12 * 197 * 12 * 768**2
    assert ops["matmul"] == 12 * 2 * 197**2 * 768


def test_copies_are_apart(example: Example) -> None:
    net = evt.convert(built(example))
    other = copy.deepcopy(net)
    picture = example.pictures(1, SMALL_GRIDS[0])
    before = net(picture)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(net(picture), before)


def test_importing_the_package_imports_neither_torch_nor_the_libraries() -> None:
    code = "import evt, sys; assert not {'torch', 'timm', 'transformers'} & set(sys.modules); evt.convert; evt.TopR; "
    code += "assert not {'timm', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_table_of_conversions_has_every_example() -> None:
    """And errors that are as small as they must be; scripts/check_conversions.py writes it."""
    lines = (Path(__file__).parents[3] / "docs/conversions.md").read_text().splitlines()
    rows = [re.split(r" ?\| ?", line)[1:-1] for line in lines if re.match(r"\| (timm|transformers):", line)]
    assert [row[0] for row in rows] == [example.title for example in (*EXAMPLES, *REFUSED)]
    for _, _, *errors_of_row in rows[: len(EXAMPLES)]:
        assert all(float(error) < TOLERANCE for error in errors_of_row if error)
