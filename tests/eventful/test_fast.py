"""The fast path of attention, held to the reference path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from evt.eventful import (
    VARIANTS,
    Threshold,
    TopR,
    Variant,
    count_ops,
    init_weights,
    precision,
    torch_attention,
)
from evt.eventful import fast as fast_module
from evt.eventful.attention import Attention, AttentionState
from evt.eventful.policy import Selection
from tests.common import WithClassToken, small_frames, small_vit
from tests.eventful.led import Follower, Leader
from tests.eventful.test_mechanism import run

# The fast path is exact in q, k and v. So are dense attention on the buffered tokens (token-wise gating) and, of
# pooled keys, the sparse query-key product without equation 10.
REFERENCE = {
    "base": VARIANTS["base"],
    "temporal": VARIANTS["tokenwise"],
    "temporal_qk_only": VARIANTS["tokenwise"],
    "temporal_gate_before_norm": replace(VARIANTS["tokenwise"], gate_before_norm=True),
    "tokenwise": VARIANTS["tokenwise"],
    "stgt": VARIANTS["stgt"],
    "spatial": VARIANTS["spatial"],
    "spatiotemporal": replace(VARIANTS["tokenwise"], pool=2),
}
grids = st.sampled_from([(6, 6), (5, 7), (8, 4)])


def on_fast_path(name: str) -> Variant:
    return replace(VARIANTS[name], fast=True)


@pytest.fixture(autouse=True, scope="module")
def _updates_of_few_keys() -> Iterator[None]:
    """The models of these tests are small, and would be computed anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_module, "FEW_KEYS", 0)
        yield


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(REFERENCE)),
    grid=grids,
    seed=st.integers(0, 100),
    policy=st.sampled_from([TopR(0), TopR(3), TopR(20), Threshold(1.5)]),
    batch=st.integers(1, 2),
)
def test_it_equals_dense_attention_on_the_buffered_tokens(
    name: str, grid: tuple[int, int], seed: int, policy: TopR | Threshold, batch: int
) -> None:
    """Else it would be another method, not a faster way to compute this one."""
    net, frames = small_vit(grid, seed), small_frames(5, grid, batch, changed=4, seed=seed)
    gated = VARIANTS[name].gate is not None
    leader = Leader(policy)
    theirs = run(net.stream(REFERENCE[name], leader if gated else None), frames)
    ours = run(net.stream(on_fast_path(name), Follower(leader) if gated else None), frames)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


class PairBias(nn.Module):
    """Random biases, large enough to matter."""

    def __init__(self, heads: int, n: int) -> None:
        super().__init__()
        self.biases = nn.Parameter(2 * torch.randn(heads, n, n))

    def forward(self) -> torch.Tensor:
        return self.biases


@pytest.mark.parametrize("r", [0, 5, 30])
@pytest.mark.parametrize("name", ["base", "temporal", "tokenwise"])
def test_biases_of_pairs_of_tokens_are_part_of_it(name: str, r: int) -> None:
    """As BEiT's heads have them: of the keys that changed, and of the queries that are computed afresh."""
    torch.manual_seed(0)
    net = WithClassToken((6, 6), patch_size=4)
    attn: Any = net.blocks[0].attn
    attn.pair_bias = PairBias(2, 37)
    policy = TopR(r) if VARIANTS[name].gate else None
    frames = small_frames(4, changed=9)
    ours, theirs = (run(net.stream(v, policy), frames) for v in (on_fast_path(name), REFERENCE[name]))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    with count_ops() as fast, torch.no_grad():
        net.stream(on_fast_path("base"))(frames[0])
    with count_ops() as reference, torch.no_grad():
        net(frames[0])
    assert fast == reference


def random_attention(n: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, n, 8, generator=generator, dtype=torch.float64) for _ in range(3))


def test_attention_is_torchs_own() -> None:
    q, k, v = random_attention(40)
    out, lse = torch_attention.attend(q, k, v, None, 1)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v, scale=1))
    torch.testing.assert_close(lse, (q @ k.transpose(1, 2)).logsumexp(-1))
    turned_q, turned_k, turned_v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    torch.testing.assert_close(torch_attention.attend(turned_q, turned_k, turned_v, None, 1)[0], out)


def test_an_update_is_attention_anew() -> None:
    """Also with blocks of queries that do not divide their number."""
    q, k, v = random_attention(300)
    generator = torch.Generator().manual_seed(1)
    by_row, by_column = (torch.randn(2, 300, n, dtype=torch.float64, generator=generator) for n in (15, 20))
    rel = by_row, by_column
    out, lse = torch_attention.attend(q, k, v, rel, 1)
    keys = torch.tensor([0, 7, 151, 299])
    new_k, new_v = k.clone(), v.clone()
    new_k[:, keys] += 0.5
    new_v[:, keys] -= 1
    old, new = (k[:, keys], v[:, keys]), (new_k[:, keys], new_v[:, keys])
    lost = torch_attention.update(out, lse, q, rel, old, new, keys, 1)
    expected, expected_lse = torch_attention.attend(q, new_k, new_v, rel, 1)
    assert not lost.any()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(lse, expected_lse)


@pytest.mark.parametrize("size", [30.0, 1e4])
def test_a_query_that_looked_at_what_changed_is_computed_afresh(size: float) -> None:
    """Else taking away nearly all of its attention would leave rounding errors, or nothing at all."""
    q, k, v = (x.float() for x in random_attention(50))
    k[:, 3] = (
        size * q[:, 10] / q[:, 10].norm(dim=-1, keepdim=True)
    )  # query 10 looks at key 3 and nothing else
    out, lse = torch_attention.attend(q, k, v, None, 1)
    new_k = k.clone()
    new_k[:, 3] = 0
    keys = torch.tensor([3])
    lost = torch_attention.update(
        out, lse, q, None, (k[:, keys], v[:, keys]), (new_k[:, keys], v[:, keys]), keys, 1
    )
    assert lost[:, 10].all()
    expected, _ = torch_attention.attend(q, new_k, v, None, 1)
    reliable = ~lost
    torch.testing.assert_close(out[reliable], expected[reliable], atol=1e-4, rtol=1e-3)


def test_errors_do_not_pile_up_over_many_frames() -> None:
    """800 frames in which few tokens change, so that most results are only ever updated."""
    net = small_vit((6, 6), seed=3)
    ours = net.stream(on_fast_path("temporal"), TopR(2))
    theirs = net.stream(VARIANTS["tokenwise"], TopR(2))
    still = small_frames(1)[0]
    generator = torch.Generator().manual_seed(0)
    worst = []
    for _ in range(800):
        frame = still + 0.1 * torch.randn(still.shape, generator=generator)
        worst.append(float((ours(frame) - theirs(frame)).abs().max()))
    assert max(worst[-100:]) < 10 * max(worst[:100]) < 1e-4


def test_with_few_keys_nothing_is_kept_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else short sequences, as ViViT's, would be slower than without the fast path."""
    net, frames = small_vit((6, 6)), small_frames(3)
    updated = net.stream(on_fast_path("temporal"), TopR(5))
    expected = run(updated, frames)
    monkeypatch.setattr(fast_module, "FEW_KEYS", 37)
    anew = net.stream(on_fast_path("temporal"), TopR(5))
    for a, b in zip(run(anew, frames), expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)
    assert anew.nbytes < updated.nbytes


@pytest.mark.parametrize("units", [False, True], ids=["without_units", "with_units"])
def test_half_precision_does_not_drift_before_it_is_refreshed(
    units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else bfloat16, which halves the state, could not be left on over a long video.

    units: of the processor, for products of bfloat16; these are then not widened, which any processor can imitate.
    """
    if units and precision._ASKED and not precision._SUPPORTED:
        pytest.skip("this processor has units that torch was told not to use, and its kernel looks for them")
    monkeypatch.setattr(torch_attention, "wide", (lambda x: x) if units else torch.Tensor.float)
    q, k, v = (x.to(torch.bfloat16) for x in random_attention(300))
    out, lse = torch_attention.attend(q, k, v, None, 1)
    first = off(out, q, k, v)
    generator = torch.Generator().manual_seed(0)
    for _ in range(fast_module.REFRESH[torch.bfloat16]):
        keys = torch.randperm(300, generator=generator)[:10]
        old = k[:, keys], v[:, keys]
        for x in (k, v):
            x[:, keys] = torch.randn(2, 10, 8, generator=generator, dtype=torch.float64).to(x.dtype)
        lost = torch_attention.update(out, lse, q, None, old, (k[:, keys], v[:, keys]), keys, 1).any(0)
        out[:, lost], lse[:, lost] = torch_attention.attend(q[:, lost], k, v, None, 1)
    assert off(out, q, k, v) < 12 * first < 0.05
    expected = (q.double() @ k.double().transpose(1, 2)).logsumexp(-1)
    # An error of the log is a relative one of every weight: a quarter of bfloat16's resolution where products are
    # of bfloat16, and next to nothing where they are of float32.
    torch.testing.assert_close(lse.double(), expected, atol=2**-10 if units else 1e-4, rtol=0)


def off(out: torch.Tensor, *qkv: torch.Tensor) -> float:
    """How far a result is from attention in double precision."""
    q, k, v = (x.double() for x in qkv)
    true = F.scaled_dot_product_attention(q, k, v, scale=1)
    return float((out - true).norm() / true.norm())


@pytest.mark.parametrize("pool", [1, 2])
def test_rows_leaves_queries_that_did_not_change_as_they_were(pool: int) -> None:
    """What the variant says that it does: changed rows are dense attention's, the others the last frame's."""
    variant = replace(VARIANTS["rows"], pool=pool)
    attention = Attention(24, 3, (6, 6), rel_pos_grid=6)
    torch.manual_seed(0)
    attention.apply(init_weights)
    qkv, new = torch.randn(1, 36, 72), torch.randn(3, 72)
    state = AttentionState(variant)
    chosen = torch.tensor([1, 8, 30])
    with torch.no_grad():
        before = attention(qkv, None, state).clone()
        after = attention(new, Selection(chosen, (3,), 36), state)
        qkv[0, chosen] = new
        dense = Variant(pool=pool)
        expected = before.clone()
        expected[0, chosen] = attention(qkv, None, AttentionState(dense))[0, chosen]
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-4)


def test_a_window_in_which_nothing_changed_is_not_attended_again() -> None:
    """Else most of the time that windows take on a still camera would be wasted."""
    variant = on_fast_path("temporal").windowed()
    attention = Attention(24, 3, (8, 8), window_size=4, rel_pos_grid=4)
    torch.manual_seed(0)
    attention.apply(init_weights)
    qkv, new = torch.randn(2, 64, 72), torch.randn(2, 72)
    state, dense = AttentionState(variant), Variant()
    chosen = torch.tensor([0, 64 + 63])  # the first window of one stream, the last of the other
    with torch.no_grad():
        attention(qkv, None, state)
        with count_ops() as ops:
            after = attention(new, Selection(chosen, (1, 1), 64), state)
        qkv[0, 0], qkv[1, 63] = new
        expected = attention(qkv, None, AttentionState(dense))
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-4)
    assert ops["matmul"] == 2 * (2 * 16 * 16 * 24)


def test_a_saved_stream_continues_where_it_stopped() -> None:
    """Also what was kept of results, and when they are due to be refreshed."""
    net, frames = small_vit(), small_frames(5, changed=10)
    stream, copy = (net.stream(on_fast_path("temporal"), TopR(5)) for _ in range(2))
    run(stream, frames[:3])
    copy.load_state_dict(stream.state_dict())
    assert copy.nbytes == stream.nbytes
    for frame in frames[3:]:
        assert torch.equal(copy(frame), stream(frame))


def test_a_saved_stream_can_be_a_file_and_is_of_its_variant(tmp_path: Path) -> None:
    """The fast path of another variant keeps the same tensors, and would go on with them to wrong results."""
    net = small_vit()
    stream = net.stream(on_fast_path("temporal"), TopR(5))
    run(stream, small_frames(2))
    save_file(stream.state_dict(), tmp_path / "stream.safetensors")
    saved = load_file(tmp_path / "stream.safetensors")
    net.stream(on_fast_path("temporal"), TopR(5)).load_state_dict(saved)
    with pytest.raises(ValueError, match="the saved stream is of another variant"):
        net.stream(on_fast_path("spatiotemporal"), TopR(5)).load_state_dict(saved)
    del saved["header"]
    with pytest.raises(ValueError, match="does not say what it is of"):
        net.stream(on_fast_path("temporal"), TopR(5)).load_state_dict(saved)


def test_a_dense_model_keeps_nothing() -> None:
    net = small_vit()
    stream = net.stream(on_fast_path("base"))
    stream(small_frames(1)[0])
    assert stream.nbytes == 0


def test_it_keeps_no_matrix_of_all_tokens() -> None:
    """Else a stream at 1024 would need gigabytes."""
    net = small_vit((12, 12))
    stream, reference = (
        net.stream(on_fast_path("temporal"), TopR(5)),
        net.stream(VARIANTS["temporal"], TopR(5)),
    )
    for frame in small_frames(2, (12, 12)):
        stream(frame)
        reference(frame)
    n, heads = 144, 3
    assert reference.nbytes - stream.nbytes > 1.5 * heads * n * n * 4
