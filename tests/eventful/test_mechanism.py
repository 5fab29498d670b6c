"""What the mechanism promises whatever the weights, frames and budgets are."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evt.eventful import VARIANTS, Block, Policy, Refresh, Stream, Threshold, TopR, Variant
from evt.eventful.policy import Norm, Past
from evt.models.vit import ViT
from tests.common import policy_for, small_frames, small_vit

GATED = {name: variant for name, variant in VARIANTS.items() if variant.gate is not None}
GRIDS = [(6, 6), (5, 7), (8, 4)]

grids = st.sampled_from(GRIDS)
seeds = st.integers(0, 1000)
variants = st.sampled_from(sorted(GATED))


def dense_counterpart(variant: Variant) -> Variant:
    return Variant(pool=variant.pool)


def run(stream: Stream, frames: list[Tensor]) -> list[Tensor]:
    return [stream(frame) for frame in frames]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", sorted(GATED))
@pytest.mark.parametrize("policy", ["top_r", "threshold"])
def test_updating_all_tokens_is_the_dense_model(name: str, grid: tuple[int, int], policy: str) -> None:
    """Else a user who raises the budget to the full would still lose accuracy."""
    net, frames = small_vit(grid), small_frames(4, grid, changed=grid[0] * grid[1])
    everything: Policy = TopR(grid[0] * grid[1]) if policy == "top_r" else Threshold(0)
    out = run(net.stream(GATED[name], everything), frames)
    dense = run(net.stream(dense_counterpart(GATED[name])), frames)
    for ours, theirs in zip(out, dense, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@settings(deadline=None, max_examples=25)
@given(name=variants, grid=grids, r=st.integers(0, 28), seed=seeds)
def test_a_frame_that_does_not_change_changes_nothing(
    name: str, grid: tuple[int, int], r: int, seed: int
) -> None:
    """Else a still camera would see its detections wander."""
    net = small_vit(grid, seed)
    frame = small_frames(1, grid, seed=seed)[0]
    stream = net.stream(GATED[name], TopR(r))
    first = stream(frame).clone()
    for _ in range(3):
        torch.testing.assert_close(stream(frame), first, atol=2e-5, rtol=1e-4)


@settings(deadline=None, max_examples=15)
@given(name=variants, r=st.integers(1, 20), seed=seeds)
def test_streams_on_the_same_weights_do_not_touch_each_other(name: str, r: int, seed: int) -> None:
    """Else one camera's picture would leak into another's result."""
    net = small_vit(seed=seed)
    one, other = small_frames(4, seed=seed), small_frames(4, seed=seed + 1)
    alone = [out.clone() for out in run(net.stream(GATED[name], TopR(r)), one)]
    stream, beside = net.stream(GATED[name], TopR(r)), net.stream(GATED[name], TopR(r))
    for frame, noise, expected in zip(one, other, alone, strict=True):
        out = stream(frame)
        beside(noise)
        assert torch.equal(out, expected)


@settings(deadline=None, max_examples=25)
@given(
    name=variants,
    grid=grids,
    seed=seeds,
    policy=st.sampled_from([TopR(5), TopR(20), Threshold(1.5), Threshold(4)]),
)
def test_a_batch_of_streams_equals_its_members_alone(
    name: str, grid: tuple[int, int], seed: int, policy: TopR | Threshold
) -> None:
    """Else results would depend on what else a server happens to run; a threshold's selections differ in number."""
    net = small_vit(grid, seed)
    still = small_frames(1, grid, seed=seed + 1)[0]
    batches = small_frames(4, grid, batch=2, seed=seed)
    batches = [
        torch.cat([frames, still]) for frames in batches
    ]  # a stream without any change beside two with
    together = run(net.stream(GATED[name], policy), batches)
    for member in range(3):
        alone = run(net.stream(GATED[name], policy), [frames[member : member + 1] for frames in batches])
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[member : member + 1], theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(GATED))
def test_a_smaller_budget_computes_less_and_errs_more(name: str) -> None:
    """Else r would not steer what it is for."""
    net, frames = small_vit(), small_frames(6, changed=20)
    dense = run(net.stream(dense_counterpart(GATED[name])), frames)
    errors = []
    for r in (36, 18, 2):
        out = run(net.stream(GATED[name], TopR(r)), frames)
        errors.append(sum(float((a - b).norm()) for a, b in zip(out, dense, strict=True)))
    assert errors[0] < errors[1] < errors[2]


def test_the_budget_may_change_before_any_frame() -> None:
    """Else a system under load could not lower it; the last frame, at full budget, must be exact again."""
    net, frames = small_vit(), small_frames(4, changed=10)
    stream = net.stream(VARIANTS["tokenwise"], TopR(2))
    for r, frame in zip((2, 5, 0, 36), frames, strict=True):
        assert isinstance(stream.policy, TopR)
        stream.policy.r = r
        out = stream(frame)
    torch.testing.assert_close(out, net.stream(VARIANTS["base"])(frames[-1]), atol=2e-5, rtol=1e-4)


def test_the_policy_may_be_exchanged_before_any_frame() -> None:
    """Else a running system could not go from a budget to a threshold."""
    net, frames = small_vit(), small_frames(3, changed=10)
    stream = net.stream(VARIANTS["temporal"], TopR(2))
    run(stream, frames[:2])
    stream.policy = Threshold(0)
    changed = stream(frames[2])
    stream = net.stream(VARIANTS["temporal"], TopR(2))
    run(stream, frames[:2])
    assert not torch.equal(stream(frames[2]), changed)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_reset_forgets_all_frames(name: str) -> None:
    """Else the first frame after a cut would be computed from the scene before it."""
    net, frames = small_vit(), small_frames(3, changed=36)
    policy = policy_for(VARIANTS[name], 3)
    stream = net.stream(VARIANTS[name], policy)
    run(stream, frames[:2])
    stream.reset()
    assert stream.nbytes == 0
    assert torch.equal(stream(frames[2]), net.stream(VARIANTS[name], policy)(frames[2]))


@pytest.mark.parametrize("name", sorted(GATED))
def test_a_saved_stream_continues_where_it_stopped(name: str) -> None:
    """Else a service could not move a camera to another machine without a flush."""
    net, frames = small_vit(), small_frames(4, changed=10)
    stream = net.stream(GATED[name], TopR(5))
    run(stream, frames[:2])
    copy = net.stream(GATED[name], TopR(5))
    copy.load_state_dict({key: x.clone() for key, x in stream.state_dict().items()})
    assert copy.nbytes == stream.nbytes
    for frame in frames[2:]:
        assert torch.equal(copy(frame), stream(frame))


def test_a_saved_state_does_not_change_with_the_stream() -> None:
    """Else what was saved at one frame would be restored as of another."""
    net, frames = small_vit(), small_frames(4)
    stream = net.stream(VARIANTS["temporal"], TopR(5))
    run(stream, frames[:2])
    saved = stream.state_dict()
    expected = stream(frames[2])
    stream(frames[3])
    other = net.stream(VARIANTS["temporal"], TopR(5))
    other.load_state_dict(saved)
    assert torch.equal(other(frames[2]), expected)


def test_a_stream_of_another_variant_is_not_loaded() -> None:
    net = small_vit()
    stream = net.stream(VARIANTS["tokenwise"], TopR(5))
    stream(small_frames(1)[0])
    with pytest.raises(ValueError, match="of another variant, Variant"):
        net.stream(VARIANTS["temporal"], TopR(5)).load_state_dict(stream.state_dict())


def other_weights(tensors: dict[str, Tensor]) -> ViT:
    return small_vit(seed=1)


def other_type(tensors: dict[str, Tensor]) -> ViT:
    return small_vit().double()


def emptied(tensors: dict[str, Tensor]) -> ViT:
    tensors["blocks.1.mlp_buffer.b"] = torch.empty(0)
    return small_vit()


def missing(tensors: dict[str, Tensor]) -> ViT:
    del tensors["blocks.1.mlp_buffer.b"]
    return small_vit()


def added(tensors: dict[str, Tensor]) -> ViT:
    tensors["blocks.1.mlp_buffer.c"] = torch.ones(1)
    return small_vit()


def of_another_type(tensors: dict[str, Tensor]) -> ViT:
    tensors["blocks.1.mlp_buffer.b"] = tensors["blocks.1.mlp_buffer.b"].half()
    return small_vit()


def altered(tensors: dict[str, Tensor]) -> ViT:
    tensors["blocks.1.mlp_buffer.b"][0, 0, 0] = float("nan")
    return small_vit()


def no_tensor(tensors: dict[str, Any]) -> ViT:
    tensors["blocks.1.mlp_buffer.b"] = [1.0]
    return small_vit()


def without_header(tensors: dict[str, Tensor]) -> ViT:
    tensors["header"] = tensors["header"][:20]
    return small_vit()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_weights, "of another network: its weights are not"),
        (other_type, "of another network: its weights are not"),
        (
            emptied,
            r"damaged: blocks.1.mlp_buffer.b was torch.float32 \[1, 36, 24\] .* and is torch.float32 \[0\] now",
        ),
        (missing, "damaged: blocks.1.mlp_buffer.b was .* and is not there now"),
        (added, "damaged: blocks.1.mlp_buffer.c was not there"),
        (of_another_type, r"and is torch.float16 \[1, 36, 24\] now"),
        (altered, "damaged: its numbers are not those that were saved"),
        (no_tensor, "damaged: blocks.1.mlp_buffer.b is no tensor but a list"),
        (without_header, "does not say what it is of"),
    ],
)
def test_what_does_not_fit_is_not_loaded(change: Callable[[dict[str, Tensor]], ViT], message: str) -> None:
    """Else a service would go on to wrong results; the stream that refuses keeps what it had."""
    stream = small_vit().stream(VARIANTS["temporal"], TopR(5))
    frames = small_frames(3)
    run(stream, frames[:2])
    tensors = stream.state_dict()
    net = change(tensors)
    frames = [frame.to(net.pos_embed.dtype) for frame in frames]
    other, kept = (net.stream(VARIANTS["temporal"], TopR(5)) for _ in range(2))
    other(frames[0]), kept(frames[0])
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(tensors)
    assert torch.equal(other(frames[1]), kept(frames[1]))


@pytest.mark.parametrize("name", sorted(GATED))
def test_no_tensor_of_the_state_is_forgotten(name: str) -> None:
    """Else a new one would be missing from a saved stream, and from its bytes; pickle finds them all by itself."""
    found = []

    class Finder(pickle.Pickler):
        def persistent_id(self, x: object) -> str | None:
            if isinstance(x, Tensor):
                found.append(x)
                return "a tensor"
            return None

    stream = small_vit().stream(GATED[name], TopR(5))
    run(stream, small_frames(2))
    Finder(io.BytesIO()).dump(stream.states)
    assert found
    assert len(found) == len(stream.state_dict()) - 1  # the header
    assert stream.nbytes == sum(x.numel() * x.element_size() for x in found)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_frame_with_a_value_that_is_not_finite_is_refused(name: str, bad: float) -> None:
    """Else it would stay in references and buffers, and every later frame would be NaN."""
    net, frames = small_vit(), small_frames(4, changed=10)
    policy = policy_for(VARIANTS[name], 5)
    stream, undisturbed = (net.stream(VARIANTS[name], policy) for _ in range(2))
    run(stream, frames[:2])
    run(undisturbed, frames[:2])
    broken = frames[2].clone()
    broken[0, 1, 2, 3] = bad
    with pytest.raises(ValueError, match="1 of the frame's 1728 values are NaN or infinite"):
        stream(broken)
    assert torch.equal(stream(frames[3]), undisturbed(frames[3]))


@pytest.mark.parametrize("policy", [TopR(5), Threshold(1.0)])
def test_a_frame_that_overflows_does_not_stay(policy: Policy) -> None:
    """Numbers can be finite and too large: the stream says so and flushes, whichever policy hid them from a gate."""
    net, frames = small_vit(), small_frames(4, changed=10)
    stream = net.stream(VARIANTS["temporal"], policy)
    run(stream, frames[:2])
    with pytest.raises(
        ValueError, match=r"the network makes .* whose largest is 3e[+]38; the stream was reset"
    ):
        stream(torch.full_like(frames[2], 3e38))
    assert torch.equal(stream(frames[3]), net.stream(VARIANTS["base"])(frames[3]))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (torch.zeros(1, 3, 24, 28), r"shape \(1, 3, 24, 28\) .* takes .* shape \(B, 3, 24, 24\)"),
        (torch.zeros(1, 1, 24, 24), r"shape \(B, 3, 24, 24\)"),
        (torch.zeros(3, 24, 24), r"shape \(B, 3, 24, 24\)"),
        (
            torch.zeros(1, 3, 24, 24, dtype=torch.uint8),
            "the frame is of torch.uint8; it must be of floating-point numbers",
        ),
        (torch.zeros(1, 3, 24, 24, dtype=torch.float64), "type torch.float64; .* takes torch.float32"),
    ],
)
def test_a_first_frame_that_the_network_was_not_built_for_is_told(frame: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_vit().stream(VARIANTS["temporal"], TopR(5))(frame)


def test_the_caller_may_reuse_its_frame_and_the_output() -> None:
    """Else writing the next frame into the same memory would hide its changes from the gates."""
    for name, variant in GATED.items():
        net, frames = small_vit(), small_frames(4, changed=10)
        expected = [out.clone() for out in run(net.stream(variant, TopR(5)), [f.clone() for f in frames])]
        stream, memory = net.stream(variant, TopR(5)), torch.empty_like(frames[0])
        for frame, wanted in zip(frames, expected, strict=True):
            out = stream(memory.copy_(frame))
            assert torch.equal(out, wanted), name
            out.fill_(7)


def test_a_frame_of_another_shape_needs_a_reset() -> None:
    net = small_vit()
    stream = net.stream(VARIANTS["temporal"], TopR(5))
    stream(small_frames(1)[0])
    with pytest.raises(
        ValueError, match=r"shape \(1, 3, 24, 24\) and was given one of shape \(2, 3, 24, 24\)"
    ):
        stream(small_frames(1, batch=2)[0])


def test_a_frame_that_fails_leaves_a_stream_that_flushes() -> None:
    """Else half of the gates would hold a frame that the others never saw."""
    net, frames = small_vit(), small_frames(3, changed=10)
    stream = net.stream(VARIANTS["temporal"], TopR(5))
    stream(frames[0])
    assert isinstance(stream.policy, TopR)
    stream.policy.r = 100
    with pytest.raises(ValueError, match=r"policy.r is 100, but a frame has 36 tokens"):
        stream(frames[1])
    stream.policy.r = 5
    assert torch.equal(stream(frames[2]), net.stream(VARIANTS["base"])(frames[2]))


@pytest.mark.parametrize(
    ("name", "policy", "message"),
    [
        ("base", TopR(3), "takes no policy"),
        ("spatial", Threshold(1), "takes no policy"),
        ("temporal", None, "needs a policy"),
    ],
)
def test_gates_and_policies_go_together(name: str, policy: Policy | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_vit().stream(VARIANTS[name], policy)


@pytest.mark.parametrize(("r", "n_tokens"), [(0.125, 4), (0.5, 18), (0.01, 1), (0.375, 14), (1.0, 36)])
@pytest.mark.parametrize(
    "policy", [TopR, partial(Refresh, every=3), partial(Refresh, every=3, staggered=True)]
)
def test_a_share_is_the_number_of_tokens_nearest_to_it(
    policy: Callable[[float], Policy], r: float, n_tokens: int
) -> None:
    """A share must do on every frame what the number does that it stands for, a half up, and at least one token."""
    grid = (3, 12) if r != 0.125 else (5, 6)  # 0.125 of 30 is 3.75
    net, frames = small_vit(grid), small_frames(5, grid, changed=8)
    share = run(net.stream(VARIANTS["rows"], policy(r)), frames)
    number = run(net.stream(VARIANTS["rows"], policy(n_tokens)), frames)
    assert all(torch.equal(a, b) for a, b in zip(share, number, strict=True))


def test_tokens_are_told_apart_by_the_norm_that_is_asked_for() -> None:
    """By hand: of these errors the first has the largest sum, the second the largest L2 norm, the third a value."""
    error = torch.tensor([[[2.0, 2.0, 2.0], [3.3, 1.2, 0.0], [3.4, 0.0, 0.0]]])
    sizes: list[tuple[Norm, float]] = [("l1", 6.0), ("l2", (3.3**2 + 1.2**2) ** 0.5), ("max", 3.4)]
    for token, (norm, size) in enumerate(sizes):
        for policy in (TopR(1, norm), Refresh(1, 9, norm=norm), Threshold(size - 0.01, norm)):
            assert policy(error, Past()).index.tolist() == [token]
        assert Threshold(size + 0.01, norm)(error).index.tolist() == []
    with pytest.raises(ValueError, match=r"policy\.norm is 'l3'; it must be l1, l2, max"):
        TopR(1, "l3")  # type: ignore[arg-type]


@pytest.mark.parametrize("r", [-1, 1.5, 1.0001, 64.0, 0.0, -0.5, float("nan"), float("inf"), True, "3", None])
def test_an_impossible_budget_is_refused(r: object) -> None:
    with pytest.raises(
        ValueError, match=r"policy\.r is .*; it must be a whole number of at least 0, or a share"
    ):
        TopR(r)  # type: ignore[arg-type]


@pytest.mark.parametrize("h", [-0.1, float("nan"), float("inf"), True, "3", None])
def test_an_impossible_threshold_is_refused(h: object) -> None:
    with pytest.raises(ValueError, match=r"policy\.h is"):
        Threshold(h)  # type: ignore[arg-type]


def test_a_sparse_product_needs_a_gate() -> None:
    with pytest.raises(ValueError, match="without a gate"):
        Variant(sparse_qk=True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_attention_value_product_alone_may_be_in_half_precision(dtype: Any) -> None:
    """As torch multiplies the same numbers; and what is kept for it takes half of the memory."""
    half = getattr(torch, dtype)
    block, qkv = Block(24, 3), torch.randn(2, 9, 72, generator=torch.Generator().manual_seed(0))
    q, k, v = qkv.unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    a = (q @ k.transpose(2, 3) / 8**0.5).softmax(-1)
    expected = (a.to(half).float() @ v.to(half).float()).transpose(1, 2).flatten(2)
    out = block.attn(qkv, None, block.state(Variant(av_dtype=dtype)).attn)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected.to(half).float(), atol=2e-3, rtol=1e-2)
    assert 0 < (out - F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).abs().max() < 0.02

    net, frames = small_vit(), small_frames(4)
    whole, cast = (replace(VARIANTS["temporal"], av_dtype=x) for x in (None, dtype))
    stream, exact = net.stream(cast, TopR(9)), net.stream(whole, TopR(9))
    for ours, theirs in zip(run(stream, frames), run(exact, frames), strict=True):
        assert 0 < (ours - theirs).norm() / theirs.norm() < 0.03
    states: Any = stream.states
    kept = [x.attn.attention_value for x in states.blocks if x.attn.attention_value is not None]
    assert kept
    assert all(x.av.dtype == x.a_gate.u.dtype == x.v_gate.u.dtype == half for x in kept)
    assert stream.nbytes < exact.nbytes
    with pytest.raises(ValueError, match=f"av_dtype is {dtype}, .* it must be null, or fast false"):
        replace(cast, fast=True)


def test_windowed_blocks_gate_token_wise_operations_only() -> None:
    """The paper leaves attention in windows dense (section 5.1)."""
    assert VARIANTS["spatiotemporal"].windowed() == VARIANTS["tokenwise"]


def test_pooling_needs_a_grid() -> None:
    block = Block(24, 3, grid=None)
    with pytest.raises(ValueError, match="form no grid"):
        block(torch.randn(1, 9, 24), block.state(VARIANTS["spatial"]))
