"""Run-length tokenization: which tokens go, and that the model does with the rest what it would do alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evt.models.videomae import VideoMAE, published
from evt.tokens import Merge, Packed, RandomDrop, Reduction, RunLength
from evt.tokens.random_drop import random_mask
from evt.tokens.run_length import keep_mask, run_lengths

TUBELET = (2, 8, 8)


def tiny(**others: Any) -> VideoMAE:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "size": 32,
        "view_frames": 8,
        "classes": 5,
        "dim": 24,
        "depth": 2,
        "num_heads": 3,
    }
    return VideoMAE(**settings, tubelet=TUBELET, **others).eval()


def test_of_a_clip_that_stands_still_only_the_first_tubelets_are_kept() -> None:
    clips = torch.randn(2, 1, 3, 32, 32).expand(-1, 8, -1, -1, -1)
    keep = keep_mask(clips, TUBELET, 0.0).unflatten(1, (4, 16))
    assert keep[:, 0].all()
    assert not keep[:, 1:].any()
    assert (run_lengths(keep.flatten(1), 4)[:, :16] == 4).all()


def test_of_noise_nothing_is_dropped() -> None:
    assert keep_mask(torch.randn(2, 8, 3, 32, 32), TUBELET, 0.1).all()


def test_a_change_keeps_its_own_token_and_that_when_it_goes() -> None:
    """By hand: the last frame of a tubelet against the first of the one before."""
    clips = torch.zeros(1, 8, 3, 32, 32)
    clips[0, 3, :, 8:16, 16:24] = 1  # the last frame of step 1, in row 1, column 2
    keep = keep_mask(clips, TUBELET, 0.5).unflatten(1, (4, 4, 4))
    expected = torch.zeros(4, 4, 4, dtype=torch.bool)
    expected[0] = True
    expected[1, 1, 2] = True
    assert torch.equal(keep[0], expected)
    lengths = run_lengths(keep.flatten(1), 4).unflatten(1, (4, 4, 4))
    assert (lengths[0, 0, 1, 2], lengths[0, 1, 1, 2], lengths[0, 0, 0, 0]) == (1, 3, 4)
    assert lengths.sum() == 64  # every token is stood for once


def test_the_threshold_itself_does_not_keep() -> None:
    clips = torch.zeros(1, 4, 3, 8, 8)
    clips[0, 2:] = 0.25
    assert not keep_mask(clips, TUBELET, 0.25)[0, 1]
    assert keep_mask(clips, TUBELET, 0.2499)[0, 1]


@settings(deadline=None, max_examples=20)
@given(threshold=st.floats(0, 2), seed=st.integers(0, 50))
def test_a_clip_does_not_depend_on_its_batch(threshold: float, seed: int) -> None:
    """Else an accuracy would change with the batch size."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randn(3, 8, 3, 32, 32, generator=generator) * torch.tensor([0.1, 1, 3]).view(3, 1, 1, 1, 1)
    model, keep, rlt = tiny(), keep_mask(clips, TUBELET, threshold), RunLength(threshold)
    with torch.no_grad():
        together = model(clips, rlt)
        for i in range(3):
            assert torch.equal(keep_mask(clips[i : i + 1], TUBELET, threshold)[0], keep[i])
            torch.testing.assert_close(model(clips[i : i + 1], rlt)[0], together[i], atol=1e-5, rtol=1e-4)


def test_keeping_all_is_the_dense_model() -> None:
    clips = torch.randn(2, 8, 3, 32, 32)
    model = tiny()
    with torch.no_grad():
        dense = model(clips)
        for reduction in (RunLength(0.0), RandomDrop(0.0), Merge(0)):
            torch.testing.assert_close(model(clips, reduction), dense, atol=1e-5, rtol=1e-4)


def test_run_lengths_are_added_where_the_model_has_learned_them() -> None:
    model = tiny(length_embedding=True)
    still = torch.randn(1, 1, 3, 32, 32).expand(-1, 8, -1, -1, -1)
    with torch.no_grad():
        without = model(still, RunLength(0.1))
        assert torch.equal(model(still, RunLength(0.1, lengths=True)), without)  # zero before it has learned
        model.length_embed[0, 3] = torch.randn(24)  # type: ignore[index]  # every token stands for 4
        assert not torch.allclose(model(still, RunLength(0.1, lengths=True)), without)
    with pytest.raises(ValueError, match=r"model.length_embedding must be true"):
        tiny()(still, RunLength(0.1, lengths=True))


def test_weights_that_rlt_has_trained_are_read(tmp_path: Path) -> None:
    """A row of `length_embed` for each length from 1 on, in a file of PyTorch Lightning."""
    model = tiny(length_embedding=True)
    rows = torch.randn(1, 4, 24)
    trained = {f"model.{name}": x for name, x in {**published(model), "length_embed": rows}.items()}
    torch.save({"state_dict": trained}, tmp_path / "last.ckpt")
    assert model.load([str(tmp_path / "last.ckpt")]) == []
    still = torch.randn(2, 1, 3, 32, 32).expand(-1, 8, -1, -1, -1).clone()
    still[0, 4:, :, :8, :8] += (
        1  # the first token of the first clip runs over two steps, and then another one
    )
    keep = RunLength(0.1).keep(still, TUBELET)
    x = RunLength(0.1, lengths=True).embed(torch.zeros(int(keep.sum()), 24), keep, model)
    first, second = x.split(keep.sum(1).tolist())
    # Step by step: 16 tokens of the first, which are of 4 steps but for the first one, and that one again.
    assert torch.equal(first, rows[0, [1, *[3] * 15, 1]])
    assert torch.equal(second, rows[0, 3].expand(16, -1))


def test_random_dropping_keeps_as_many_whatever_the_batch() -> None:
    like = torch.rand(3, 64, generator=torch.Generator().manual_seed(0)) > 0.6
    mask = random_mask(like)
    assert torch.equal(mask.sum(1), like.sum(1))
    assert torch.equal(random_mask(like[1:2])[0], mask[1])


@pytest.mark.parametrize(
    ("clips", "threshold", "sentence"),
    [
        (torch.zeros(2, 7, 3, 32, 32), 0.1, "frames of a clip: 7; it must be a multiple of the tubelet's 2"),
        (torch.zeros(2, 8, 3, 30, 32), 0.1, "height of a clip: 30; it must be a multiple of the tubelet's 8"),
        (torch.zeros(2, 8, 3, 32, 32), -0.1, "threshold is -0.1; it must be a finite number, 0 or more"),
        (torch.zeros(2, 8, 3, 32, 32), float("nan"), "threshold is nan"),
        (torch.zeros(0, 8, 3, 32, 32), 0.1, "with B at least 1"),
    ],
)
def test_what_cannot_be_tokenized_is_refused(clips: torch.Tensor, threshold: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        keep_mask(clips, TUBELET, threshold)


@pytest.mark.parametrize("tubelet", [(2, 8), (2, 0, 8), (2, 8, 8.0)])
def test_a_tubelet_is_three_whole_numbers(tubelet: tuple[int, ...]) -> None:
    sentence = "it must be three whole numbers of at least 1"
    with pytest.raises(ValueError, match=sentence):
        keep_mask(torch.zeros(1, 8, 3, 32, 32), tubelet, 0.1)
    with pytest.raises(ValueError, match=sentence):
        VideoMAE(size=32, view_frames=8, tubelet=tubelet)


def test_run_lengths_are_of_whole_steps() -> None:
    for steps in (0, 7):
        with pytest.raises(ValueError, match=f"steps is {steps}; it must be a divisor of the 64 tokens"):
            run_lengths(torch.ones(1, 64, dtype=torch.bool), steps)


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        (
            RunLength,
            {"threshold": "high"},
            "policy.threshold is 'high'; it must be a finite number, 0 or more",
        ),
        (RandomDrop, {"threshold": float("inf")}, "policy.threshold is inf"),
        (RandomDrop, {"seed": -1}, "policy.seed is -1; it must be a whole number, 0 or more"),
        (Merge, {"r": 1.5}, "policy.r is 1.5; it must be a whole number, 0 or more"),
        (Merge, {"r": [3, -1]}, "policy.r is -1; it must be a whole number, 0 or more"),
        (Merge, {"r": 3, "inflect": 1.5}, "policy.inflect is 1.5; it must be from -1 to 1"),
        (Merge, {"r": [3, 1], "inflect": -1}, "policy.r is a list, .*; inflect must be 0"),
    ],
)
def test_what_is_no_reduction_is_refused(kind: Any, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        kind(**settings)


class EveryOther(Reduction):
    """Drops every other token before the blocks, and after the first attention the last of each clip."""

    def keep(self, views: Tensor, tubelet: tuple[int, int, int]) -> Tensor:
        return (torch.arange(64) % 2 == 0).expand(len(views), -1)

    def between(self, tokens: Packed, qkv: Tensor, block: int, depth: int) -> Packed:
        if block:
            return tokens
        x = torch.cat([part[:-1] for part in tokens.x.split(list(tokens.lengths))])
        return Packed(x, [n - 1 for n in tokens.lengths])


def test_a_reduction_of_ones_own_needs_nothing_but_itself() -> None:
    """Of a clip whose odd tokens are dropped the model sees what it sees of one without their embeddings."""
    model, views = tiny(), torch.randn(2, 8, 3, 32, 32)
    first, second = cast(list[Any], model.blocks)
    with torch.no_grad():
        ours = model(views, EveryOther())
        x = (model.patch_embed(views).flatten(1, 2) + model.pos_embed)[:, ::2]
        qkv = first.attn.qkv(first.norm1(x)).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
        x = (x + first.attn.proj(attended))[:, :-1]
        x = second(x + first.mlp(first.norm2(x)))
        torch.testing.assert_close(ours, model.head(model.fc_norm(x.mean(1))), atol=1e-5, rtol=1e-4)
    assert model.share_kept(views, EveryOther()) == 0.5


def test_what_a_model_cannot_do_is_refused() -> None:
    Merge(32).check(tiny())
    with pytest.raises(ValueError, match=r"policy\.r is 33, .* 64; it must be at most 32"):
        Merge(33).check(tiny())
    Merge([32, 16]).check(tiny())
    with pytest.raises(
        ValueError, match=r"policy\.r is 17, .* block 2 of 2 is given 32; it must be at most 16"
    ):
        Merge((32, 17)).check(tiny())
    with pytest.raises(
        ValueError, match=r"policy\.r is 20 and policy\.inflect -1, so that block 1 is to merge 40, .* has 64"
    ):
        Merge(20, inflect=-1).check(tiny())
    with pytest.raises(ValueError, match=r"policy\.r has 3 numbers, but the model has 2 blocks"):
        Merge((1, 1, 1)).check(tiny())
    RunLength().check(tiny())
    with pytest.raises(ValueError, match=r"model\.length_embedding must be true"):
        RunLength(lengths=True).check(tiny())


def test_a_model_takes_reductions_alone() -> None:
    """A name in the place of one would otherwise run the dense model."""
    with pytest.raises(TypeError, match="reduction is 'rlt'; it must be a RunLength"):
        tiny()(torch.zeros(1, 8, 3, 32, 32), "rlt")
    with pytest.raises(TypeError, match="reduction is 'rlt'; it must be a RunLength"):
        tiny().share_kept(torch.zeros(1, 8, 3, 32, 32), "rlt")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 6, 3, 32, 32), (1, 8, 3, 32, 40), (0, 8, 3, 32, 32)])
def test_a_model_refuses_clips_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="clips have shape"):
        tiny()(torch.zeros(shape))
