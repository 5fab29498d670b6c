"""The kernel of attention, held to torch's operators; where no compiler is found, what is said and done instead."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evt.eventful import kernel, torch_attention
from evt.eventful.gate import Gate
from evt.eventful.groups import Groups
from evt.eventful.layout import Layout, pooled
from evt.eventful.policy import Past, Selection, TopR
from evt.eventful.positions import Biases, Positions, Vectors

SERVED = kernel.serves(torch.empty(1))
served = pytest.mark.skipif(not SERVED, reason="no C++ compiler, or a processor without AVX2")
BEST = set(kernel.FLAGS[kernel._levels()[0]]) if SERVED else set()
LEVELS = [level for level, flags in kernel.FLAGS.items() if set(flags) <= BEST]
TYPES = [torch.float32, torch.bfloat16]
sizes = st.sampled_from([1, 5, 8, 24, 64, 80])


def random_positions(
    kind: str, layout: Layout, pool: int, heads: int, d: int, dtype: torch.dtype = torch.float32
) -> Positions | None:
    (rows, columns), (key_rows, key_columns) = layout.grid, layout.keys(pool)
    torch.manual_seed(1)
    if kind == "vectors":
        by_row, by_column = torch.randn(rows, key_rows, d), torch.randn(columns, key_columns, d)
        return Vectors(by_row.to(dtype), by_column.to(dtype))
    pairs = torch.randn(heads, rows * columns, key_rows * key_columns)
    return Biases(pairs.to(dtype)) if kind == "pairs" else None


@pytest.fixture(scope="module", params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[None]:
    """As on a processor that has no more than this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "_levels", lambda: [request.param])
        kernel._library.cache_clear()
        yield
    kernel._library.cache_clear()


@served
@settings(deadline=None, max_examples=60)
@given(
    grid=st.tuples(st.integers(2, 21), st.integers(2, 21)),
    window=st.sampled_from([None, 3, 7]),
    pool=st.sampled_from([1, 2]),
    kind=st.sampled_from(["none", "vectors", "pairs"]),
    d=sizes,
    streams=st.integers(1, 2),
    few=st.booleans(),
    dtype=st.sampled_from(TYPES),
    seed=st.integers(0, 99),
)
def test_attention_is_torchs_own(
    level: None,
    grid: tuple[int, int],
    window: int | None,
    pool: int,
    kind: str,
    d: int,
    streams: int,
    few: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    """Of windows and without, padded ones, pooled keys, some queries or all, two streams, all that is added."""
    torch.manual_seed(seed)
    layout, heads = Layout.of(grid, window), 2
    if window:
        pool, kind = 1, "vectors" if kind == "pairs" else kind  # what is added to pairs has no windows
    n, scale = streams * layout.n, 1 / math.sqrt(d)
    q, k, v = _rounded(dtype, torch.randn(3, heads, n, d))
    if pool > 1:
        k, v = (pooled(x.reshape(-1, layout.n, d), grid, pool).reshape(heads, -1, d) for x in (k, v))
        k, v = _rounded(dtype, torch.stack([k, v]))
    positions, pad = random_positions(kind, layout, pool, heads, d), _rounded(dtype, torch.randn(2, heads, d))
    groups = Groups(layout, pool, list(range(streams * len(layout.windows))))
    if few and pool == 1:
        groups = Groups.of(
            layout, 1, [torch.randperm(layout.n)[: 1 + i + layout.n // 3] for i in range(streams)]
        )
    out, lse = torch.full((heads, n, d), 7.0, dtype=dtype), torch.full((heads, n), 7.0)
    theirs = torch.full((heads, n, d), 7.0), torch.full((heads, n), 7.0)
    own = [x.to(dtype) for x in (q, k, v, pad)]
    kernel.attend(own[0], own[1], own[2], out, lse, groups, positions, scale, own[3])
    torch_attention.attend_groups(q, k, v, *theirs, groups, positions, scale, pad)
    half = dtype == torch.bfloat16  # of 8 bits, to which weights and results are rounded
    torch.testing.assert_close(
        out.float(), theirs[0], atol=1e-2 if half else 2e-5, rtol=1e-2 if half else 1e-4
    )
    torch.testing.assert_close(lse, theirs[1], atol=2e-5, rtol=1e-4)


def _rounded(dtype: torch.dtype, x: Tensor) -> Tensor:
    """Numbers that are of this type, in single precision."""
    return x.to(dtype).float()


@served
@pytest.mark.parametrize("size", [1.0, 100.0, 1e4])
def test_it_is_as_exact_as_torch(level: None, size: float) -> None:
    """Scores of thousands neither overflow nor lose more than float32 must."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 300, 64)
    q *= size
    out, lse = torch.empty(2, 300, 64), torch.empty(2, 300)
    kernel.attend(q, k, v, out, lse, Groups(Layout.of((1, 300)), 1, [0]), None, 0.125, None)
    true = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), scale=0.125)
    torchs = F.scaled_dot_product_attention(q, k, v, scale=0.125)
    assert (out - true).abs().max() < 3 * (torchs - true).abs().max() + 1e-6
    expected = (0.125 * q.double() @ k.double().transpose(1, 2)).logsumexp(-1)
    torch.testing.assert_close(lse.double(), expected, atol=1e-6 * size, rtol=1e-6)


@served
@pytest.mark.parametrize("dtype", TYPES)
def test_keys_that_are_masked_count_for_nothing_and_what_is_no_number_is_seen(
    level: None, dtype: torch.dtype
) -> None:
    """Else a NaN in a frame would be hidden, or a mask would let through."""
    torch.manual_seed(0)
    layout = Layout.of((1, 300))
    q, k, v = torch.randn(3, 2, 300, 8, dtype=dtype)
    bias = torch.full((2, 300, 300), -math.inf)
    bias[:, :, 290:295] = 0  # long after the first that are looked at
    out = torch.empty(2, 300, 8, dtype=dtype)
    kernel.attend(q, k, v, out, None, Groups(layout, 1, [0]), Biases(bias), 1.0, None)
    own = q.float(), k[:, 290:295].float(), v[:, 290:295].float()
    expected = F.scaled_dot_product_attention(*own, scale=1.0)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=tolerance)
    k[1, 3] = math.nan
    kernel.attend(q, k, v, out, None, Groups(layout, 1, [0]), None, 1.0, None)
    assert out[0].isfinite().all()
    assert out[1].isnan().all()


@served
@settings(deadline=None, max_examples=30)
@given(
    grid=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    kind=st.sampled_from(["none", "vectors", "pairs"]),
    d=sizes,
    counts=st.tuples(st.integers(0, 4), st.integers(1, 4) | st.just(140)),
    dtype=st.sampled_from(TYPES),
    seed=st.integers(0, 99),
)
def test_an_update_is_attention_anew(
    level: None,
    grid: tuple[int, int],
    kind: str,
    d: int,
    counts: tuple[int, int],
    dtype: torch.dtype,
    seed: int,
) -> None:
    """Of two streams, in which different numbers of keys changed."""
    layout, heads = Layout.of(grid), 3
    n, scale = layout.n, 1 / math.sqrt(d)
    positions = random_positions(kind, layout, 1, heads, d, dtype)
    torch.manual_seed(seed)
    q, k, v = torch.randn(3, heads, 2 * n, d, dtype=dtype)
    groups = Groups(layout, 1, [0, 1])
    out, lse = torch.empty(heads, 2 * n, d, dtype=dtype), torch.empty(heads, 2 * n)
    kernel.attend(q, k, v, out, lse, groups, positions, scale, None)
    keys = [torch.randperm(n)[:count] for count in counts]
    places = torch.cat([keys[0], keys[1] + n])
    old = k[:, places], v[:, places]
    k[:, places], v[:, places] = torch.randn(2, heads, len(places), d, dtype=dtype)
    new = k[:, places], v[:, places]
    theirs = out.clone(), lse.clone()
    lost = kernel.update(out, lse, q, old, new, keys, groups, positions, scale)
    torchs = torch_attention.update_groups(*theirs, q, old, new, keys, groups, positions, scale)
    anew = torch.empty(heads, 2 * n, d), torch.empty(heads, 2 * n)
    exact = positions and type(positions)(*(x.float() for x in vars(positions).values()))
    q, k, v = q.float(), k.float(), v.float()
    torch_attention.attend_groups(q, k, v, *anew, groups, exact, scale, None)
    assert (lost != torchs).float().mean() < 0.05  # on either side of the share that decides, by rounding
    half = dtype == torch.bfloat16
    rtol = 2e-2 if half else 1e-3
    for ours, expected, atol in zip((out, lse), anew, (4e-2 if half else 2e-4, 2e-4), strict=True):
        torch.testing.assert_close(ours[:, ~lost].float(), expected[:, ~lost], atol=atol, rtol=rtol)


@served
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("d", [1, 50, 64, 200])
def test_distances_are_torchs_own(level: None, dtype: torch.dtype, d: int) -> None:
    """Else gates would let through other tokens than those that changed most."""
    torch.manual_seed(0)
    a, b = torch.randn(2, 2, 300, d, dtype=dtype)
    b[0, 7] = a[0, 7]
    b[1, 3, 0] = math.nan
    expected = torch.linalg.vector_norm(a.double() - b.double(), dim=-1, keepdim=True).float()
    found = kernel.distances(a, b)
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-6, equal_nan=True)
    assert found[0, 7] == 0


@served
@pytest.mark.parametrize("says", [True, False])
def test_a_policy_is_given_norms_only_if_it_says_that_they_are_enough(says: bool) -> None:
    """A policy of a user's own, which knows of no norms, is given whole errors; what passes is the same."""
    torch.manual_seed(0)
    seen = []

    class Own(TopR):
        def __call__(self, error: Tensor, past: Past | None = None) -> Selection:
            seen.append(error.shape)
            return super().__call__(error, past)

    class Saying(Own):
        by_norm = True

    gate, plain = Gate(always=1, fast=True), Gate(always=1)
    for x in torch.randn(3, 1, 20, 8):
        _, own = gate(x, (Saying if says else Own)(5))
        _, expected = plain(x, TopR(5))
        assert (own is None) == (expected is None)
        assert own is None or set(own.index.tolist()) == set(expected.index.tolist())  # type: ignore[union-attr]
    assert seen == [torch.Size((1, 20, 1 if says else 8))] * 2


@served
@pytest.mark.parametrize("dtype", TYPES)
def test_a_query_that_looked_at_what_changed_is_lost(level: None, dtype: torch.dtype) -> None:
    """Else taking away nearly all of its attention would leave rounding errors, or nothing at all."""
    torch.manual_seed(0)
    layout = Layout.of((1, 50))
    q, k, v = torch.randn(3, 2, 50, 8, dtype=dtype)
    k[:, 3] = 1e4 * q[:, 10] / q[:, 10].norm(dim=-1, keepdim=True)  # query 10 looks at key 3 and nothing else
    out, lse, groups = torch.empty(2, 50, 8, dtype=dtype), torch.empty(2, 50), Groups(layout, 1, [0])
    kernel.attend(q, k, v, out, lse, groups, None, 1.0, None)
    old, new = (k[:, 3:4], v[:, 3:4]), (torch.zeros(2, 1, 8, dtype=dtype), v[:, 3:4])
    assert kernel.update(out, lse, q, old, new, [torch.tensor([3])], groups, None, 1.0)[10]


@pytest.fixture
def built_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As on a machine that has not built the kernel yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("EVT_KERNEL", raising=False)
    kernel._library.cache_clear()
    yield
    kernel._library.cache_clear()


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_a_line_says_so_and_torch_does_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, built_anew: None, compiler: str
) -> None:
    """Else a user without one could not run anything, or would wonder why it is slow."""
    if torch.backends.cpu.get_cpu_capability() not in kernel.FLAGS:
        pytest.skip("no kernel is built for this processor")
    monkeypatch.setenv("CXX", compiler)
    assert not kernel.serves(torch.empty(1))
    assert not kernel.serves(torch.empty(1))  # which says nothing more
    (line,) = caplog.messages
    assert line.startswith(
        "attention and gates run on torch's operators, which is slower: no kernel was built ("
    )
    assert compiler in line


@served
def test_a_compiler_that_knows_no_matrix_units_builds_for_what_is_below(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, built_anew: None
) -> None:
    """Else all of attention would be torch's with a compiler of a few years ago."""
    monkeypatch.setattr(kernel, "_levels", lambda: ["AMX", "AVX2"])
    monkeypatch.setitem(kernel.FLAGS, "AMX", ("-no-such-flag",))
    assert kernel.serves(torch.empty(1))
    assert not caplog.messages


@served
def test_a_cache_that_cannot_be_written_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, built_anew: None, tmp_path: Path
) -> None:
    """As in a container without a home."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert not kernel.serves(torch.empty(1))
    assert "no kernel was built" in caplog.text


@served
def test_it_is_built_once(monkeypatch: pytest.MonkeyPatch, built_anew: None, tmp_path: Path) -> None:
    assert kernel.serves(torch.empty(1))
    (built,) = (tmp_path / "evt").iterdir()
    kernel._library.cache_clear()
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("it was built again"))
    assert kernel.serves(torch.empty(1))
    assert list((tmp_path / "evt").iterdir()) == [built]


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch, built_anew: None) -> None:
    monkeypatch.setenv("EVT_KERNEL", "off")
    assert not kernel.serves(torch.empty(1))


@pytest.mark.parametrize("x", [torch.empty(1, dtype=torch.float16), torch.empty(1, device="meta")])
def test_other_types_and_devices_are_torchs(x: Tensor) -> None:
    """The kernel would read what is not there."""
    assert not kernel.serves(x)
