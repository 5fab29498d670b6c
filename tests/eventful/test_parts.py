"""Gates, buffers, products and attention, against hand-computed values and torch's own operators."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evt.eventful import VARIANTS, Block, Policy, Selection, Stream, Threshold, TopR, Variant, init_weights
from evt.eventful.attention import Attention, pool_selection, rel_pos_table
from evt.eventful.gate import Buffer, DeltaGate, Gate, STGTGate
from evt.eventful.groups import Groups
from evt.eventful.layout import Layout
from evt.eventful.products import AttentionValueProduct, QueryKeyProduct
from evt.models.vivit import SubModel


def column(*values: float) -> Tensor:
    """One stream of tokens of width 1."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1)


def select(*tokens: int, of: int) -> Selection:
    return Selection(torch.tensor(tokens), (len(tokens),), of)


def test_a_gate_passes_what_differs_most_from_what_last_passed() -> None:
    """Errors add up until a token passes: token 1 drifts by 1 a frame and passes when its error beats the others."""
    gate, policy = Gate(), TopR(1)
    passed, selection = gate(column(0, 0, 0), policy)
    assert selection is None
    assert passed.flatten().tolist() == [0, 0, 0]
    passed, selection = gate(column(3, 1, 0), policy)
    assert selection is not None
    assert (selection.index.tolist(), passed.tolist()) == ([0], [[3]])
    passed, selection = gate(column(4, 2, 0), policy)  # errors 1, 2, 0
    assert selection is not None
    assert (selection.index.tolist(), passed.tolist()) == ([1], [[2]])
    assert gate.u is not None
    assert gate.u.flatten().tolist() == [3, 2, 0]


def test_stgt_never_notices_a_slow_drift() -> None:
    """It compares with the previous frame: a drift of 1 a frame stays below the threshold for ever (section 5.1)."""
    stgt, gate, policy = STGTGate(), Gate(), Threshold(1.5)
    stgt_passed: list[int | None] = []
    gate_passed: list[int | None] = []
    for t in range(6):
        for passed, module in ((stgt_passed, stgt), (gate_passed, gate)):
            _, selection = module(column(float(t), 0), policy)
            passed.append(None if selection is None else len(selection.index))
    assert stgt_passed == [None, 0, 0, 0, 0, 0]
    assert gate_passed == [None, 0, 1, 0, 1, 0]


def test_a_threshold_is_strict_and_uses_the_l2_norm() -> None:
    error = torch.tensor([[[3.0, 4.0], [3.0, 4.1], [5.0, 0.0], [-5.1, 0.0]]])
    assert Threshold(5)(error).index.tolist() == [1, 3]


def test_top_r_uses_the_l2_norm() -> None:
    error = torch.tensor([[[3.0, 4.0], [3.0, 4.1], [5.5, 0.0], [2.0, 2.0]]])
    assert sorted(TopR(2)(error).index.tolist()) == [1, 2]


def test_ragged_selections_keep_streams_apart() -> None:
    """Three streams with two, no and one changed token."""
    error = torch.tensor([[2.0, 0, 2], [0, 0, 0], [0, 2, 0]]).unsqueeze(-1)
    selection = Threshold(1)(error)
    assert selection.counts == (2, 0, 1)
    assert [tokens.tolist() for tokens in selection.per_stream()] == [[0, 2], [], [1]]
    x = torch.zeros(3, 3, 1)
    selection.scatter_(x, torch.tensor([[1.0], [2.0], [3.0]]))
    assert x.squeeze(-1).tolist() == [[1, 0, 2], [0, 0, 0], [0, 3, 0]]


def test_a_buffer_keeps_the_rest() -> None:
    buffer = Buffer()
    buffer(column(1, 2, 3), None)
    assert buffer(torch.tensor([[9.0]]), select(1, of=3)).flatten().tolist() == [1, 9, 3]


def test_a_delta_gate_returns_new_value_and_change_of_the_given_columns() -> None:
    gate = DeltaGate(dim=-1)
    gate.flush(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    [(new, change)] = gate(torch.tensor([[[[9.0, 5.0], [9.0, 9.0]]]]), select(1, of=2))
    assert new.tolist() == [[[5], [9]]]
    assert change.tolist() == [[[3], [5]]]
    assert gate.u is not None
    assert gate.u.tolist() == [[[[1, 5], [3, 9]]]]


def test_the_sparse_query_key_product_is_the_product() -> None:
    """When only the selected queries and keys changed, the updated B is q k^T."""
    torch.manual_seed(0)
    q, k, product = torch.randn(1, 2, 6, 4), torch.randn(1, 2, 5, 4), QueryKeyProduct()
    product(q, k, None, None)
    q, k = q.clone(), k.clone()
    q[:, :, [1, 4]], k[:, :, [0, 3, 4]] = torch.randn(1, 2, 2, 4), torch.randn(1, 2, 3, 4)
    b = product(q, k, select(4, 1, of=6), select(3, 0, 4, of=5))
    torch.testing.assert_close(b, q @ k.transpose(-2, -1))


def test_a_key_that_is_not_selected_keeps_its_column() -> None:
    q, k, product = torch.randn(1, 1, 4, 3), torch.randn(1, 1, 4, 3), QueryKeyProduct()
    before = product(q, k, None, None).clone()
    b = product(q, k + 1, select(0, of=4), select(1, of=4))
    assert torch.equal(b[..., 1:, [0, 2, 3]], before[..., 1:, [0, 2, 3]])


def test_the_sparse_attention_value_product_is_equation_10() -> None:
    """The result is A_n v_n, where the gates hold unselected columns and values at what they last were."""
    torch.manual_seed(0)
    a, v, product = torch.rand(1, 2, 5, 6), torch.randn(1, 2, 6, 3), AttentionValueProduct()
    product(a.clone(), v, None)
    for tokens in ([1, 4], [], [0, 1, 5]):
        new_a, new_v = torch.rand_like(a), torch.randn_like(v)
        av = product(
            new_a,
            new_v,
            select(*tokens, of=6) if tokens else Selection(torch.tensor([], dtype=torch.long), (0,), 6),
        )
        a[..., tokens], v[:, :, tokens] = new_a[..., tokens], new_v[:, :, tokens]
        torch.testing.assert_close(av, a @ v)


def test_attention_is_torchs_own() -> None:
    torch.manual_seed(0)
    attn = Attention(24, 3)
    x = torch.randn(2, 10, 24)
    block = Block(24, 3)
    ours = attn(attn.qkv(x), None, block.state(Variant()).attn)
    q, k, v = (y.view(2, 10, 3, 8).transpose(1, 2) for y in attn.qkv(x).chunk(3, dim=-1))
    theirs = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(ours, theirs)


def test_windows_are_attention_over_each_window_alone() -> None:
    """A 5 x 6 grid in windows of 3 is padded by a row; a padded token has the qkv bias as q, k and v."""
    torch.manual_seed(0)
    attn = Attention(8, 2, grid=(5, 6), window_size=3)
    torch.nn.init.normal_(attn.qkv.bias)
    x = torch.randn(1, 30, 8)
    ours = attn(attn.qkv(x), None, Block(8, 2).state(Variant()).attn).view(5, 6, 8)
    padded = torch.zeros(6, 6, 8)
    padded[:5] = x.view(5, 6, 8)
    window = attn.qkv(padded[3:, 3:].reshape(9, 8))
    q, k, v = (y.view(9, 2, 4).transpose(0, 1) for y in window.chunk(3, dim=-1))
    theirs = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(3, 3, 8)
    torch.testing.assert_close(ours[3:, 3:], theirs[:2])


def test_a_layout_goes_window_by_window() -> None:
    """By hand: 2 x 3 tokens in windows of 2, the second of which holds the last column alone."""
    layout = Layout.of((2, 3), 2)
    assert layout.places((2, 3)).tolist() == [0, 1, 4, 2, 3, 5]
    assert [(window.start, window.rows, window.columns) for window in layout.windows] == [
        (0, 2, 2),
        (4, 2, 1),
    ]
    of_two_streams = [torch.tensor([3]), torch.tensor([4, 5])]
    assert Groups.touched(layout, of_two_streams).numbers == [0, 3]
    assert Layout.of((2, 3)).places((2, 3)).tolist() == [0, 1, 2, 3, 4, 5]


def test_relative_positions_depend_on_the_distance_alone() -> None:
    table = rel_pos_table(torch.arange(9.0).unsqueeze(-1), 5).squeeze(-1)
    assert table.tolist() == [[4 + i - j for j in range(5)] for i in range(5)]


def test_pooled_keys_take_the_mean_of_their_relative_positions() -> None:
    table = rel_pos_table(torch.arange(7.0).unsqueeze(-1), 4, pool=2).squeeze(-1)
    assert table[0].tolist() == [(3 + 2) / 2, (1 + 0) / 2]


def test_relative_positions_are_added_to_every_pair() -> None:
    """Against the definition, pair by pair, on a 2 x 3 grid."""
    torch.manual_seed(0)
    attn = Attention(4, 1, grid=(2, 3), rel_pos_grid=3)
    for parameter in attn.parameters():
        torch.nn.init.normal_(parameter)
    qkv = torch.randn(1, 6, 12)
    q, k, v = qkv[0].chunk(3, dim=-1)
    assert attn.rel_pos_h is not None
    assert attn.rel_pos_w is not None
    rows, columns = rel_pos_table(attn.rel_pos_h, 2), rel_pos_table(attn.rel_pos_w, 3)
    scores = torch.stack(
        [
            torch.stack(
                [q[i] @ k[j] / 2 + q[i] @ (rows[i // 3, j // 3] + columns[i % 3, j % 3]) for j in range(6)]
            )
            for i in range(6)
        ]
    )
    ours = attn(qkv, None, Block(4, 1).state(Variant()).attn)
    torch.testing.assert_close(ours[0], scores.softmax(-1) @ v)


@pytest.mark.parametrize(("grid", "expected"), [((4, 4), [0, 3]), ((5, 4), [0, 3]), ((4, 5), [0])])
def test_a_pooled_token_is_new_where_any_of_its_tokens_is(grid: tuple[int, int], expected: list[int]) -> None:
    """Tokens 1, 4 and 14; where the grid is odd the last row or column is in no pooled token, as in the pooling."""
    pooled = pool_selection(select(1, 4, 14, of=grid[0] * grid[1]), grid, 2)
    assert pooled.index.tolist() == expected
    assert pooled.n_tokens == 4


@pytest.mark.parametrize("policy", [TopR(2), Threshold(3)])
@pytest.mark.parametrize("gate", [Gate(always=1), STGTGate(always=1)])
def test_a_token_that_always_passes_is_within_the_budget(gate: Gate | STGTGate, policy: Policy) -> None:
    """By hand: token 0 does not change, token 2 changes most, and a budget of two is for these."""
    gate.u = None
    tokens = torch.zeros(1, 4, 1)
    gate(tokens, policy)
    _, selection = gate(tokens + column(0, 1, 5, 2), policy)
    assert selection is not None
    assert sorted(selection.index.tolist()) == [0, 2]


def test_with_rows_a_class_token_goes_on_attending() -> None:
    """Else ViViT's class token, whose input never changes, would answer every frame as the first one."""
    torch.manual_seed(0)
    net = SubModel(n_tokens=9, dim=24, depth=1, num_heads=3, mlp_ratio=4).apply(init_weights).eval()
    torch.nn.init.normal_(net.cls_token)
    first, second = torch.randn(2, 1, 9, 24)
    dense, stream = Stream(net, VARIANTS["base"]), Stream(net, VARIANTS["rows"], Threshold(1e-3))
    for frame in (first, second):
        out, expected = stream(frame), dense(frame)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
