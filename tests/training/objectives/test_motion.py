"""How the cells of a clip move, and how a model is taught it: held against loops and numbers written here."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evt.data.sprites import SpriteClips
from evt.eventful import VARIANTS
from evt.models.videomae import VideoMAE
from evt.models.views import Views
from evt.tokens import Merge, RunLength
from evt.training.objectives.cells import BACKGROUND_WEIGHT
from evt.training.objectives.motion import (
    CELLS,
    SCALE,
    ClipModel,
    MotionLearner,
    MotionSample,
    MotionSamples,
    motion_losses,
)
from tests.models.foreign.test_convert import library
from tests.vivit import small_vivit


def small_videomae() -> VideoMAE:
    torch.manual_seed(0)
    model = VideoMAE(32, 5, 1, 4, 1, 1, (2, 8, 8), 24, 2, 3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


class Numbers(nn.Module):
    """Stands for a model of clips of 2 steps of 2 x 3 tokens, of which it sees some; a token is its number."""

    def __init__(self) -> None:
        super().__init__()
        self.views = Views(4, 48, 1, 1, 1)
        self.steps, self.grid = 2, (2, 3)
        self.head = nn.Linear(1, 5)
        self.seen = torch.ones(1, 2, 2, 3, dtype=torch.bool)
        self.seen[0, 1, 0, 2] = False

    def normalise(self, views: Tensor) -> Tensor:
        return views

    def features(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        numbers = torch.arange(1.0, 13).view(1, 2, 2, 3)
        return torch.zeros(1, 5), numbers[self.seen].unsqueeze(-1), self.seen


def test_motions_lie_where_their_cells_do_and_nowhere_else() -> None:
    """x and y of each token's four cells at the token's place in its step: else a shuffled clip is learned."""
    learner = MotionLearner(Numbers())
    with torch.no_grad():
        learner.motion.weight.fill_(100)
        learner.motion.bias.copy_(torch.arange(8.0))
        _, motion, seen = learner(torch.zeros(1, 4, 3, 48, 48))
    assert motion.shape == (1, 2, 2, 4, 6)
    assert seen.shape == (1, 2, 1, 4, 6)
    for step in range(2):
        for row in range(4):
            for column in range(6):
                number = 1 + step * 6 + row // 2 * 3 + column // 2
                there = number != 9  # what Numbers does not see
                assert seen[0, step, 0, row, column] == there
                for xy in range(2):
                    value = 100 * number + 4 * xy + 2 * (row % 2) + column % 2
                    assert motion[0, step, xy, row, column] == (value if there else 0)


def test_the_loss_leaves_out_what_is_not_known_or_not_seen() -> None:
    """Actors count ten times as much as the rest; two pixels a frame are 1."""
    learner = MotionLearner(Numbers())
    nn.init.zeros_(learner.motion.weight)
    nn.init.zeros_(learner.motion.bias)
    motion, actors = torch.full((2, 2, 4, 6), 3.0), torch.zeros(2, 4, 6, dtype=torch.bool)
    motion[0, :, 0, 0] = torch.nan  # beyond a cut
    motion[0, :, 3, 3], actors[0, 3, 3] = torch.tensor([-7.0, 1.0]), True
    motion[1, :, :2, 4:], actors[1, :2, 4:] = 1e6, True  # the token that is not seen
    losses = motion_losses(learner, [MotionSample(torch.zeros(4, 3, 48, 48), 2, motion, actors)])
    assert losses["cross_entropy"].item() == pytest.approx(math.log(5))
    others = 2 * 4 * 6 - 1 - 1 - 4  # of which x and y count alike
    weighted = BACKGROUND_WEIGHT * others * 2 * 3 + 7 + 1
    assert losses["motion"].item() == pytest.approx(
        weighted / SCALE / (BACKGROUND_WEIGHT * others * 2 + 2), rel=1e-5
    )


def test_samples_are_whole_clips_and_how_their_cells_move() -> None:
    data, model = SpriteClips(4, 4, (64, 64), setting="static"), small_videomae()
    model.views = Views(4, 64, 1, 1, 1)
    samples = MotionSamples(data, model)
    assert len(samples) == 4
    moved = 0
    for i in range(4):
        sample = samples.sample(i, torch.Generator())
        assert sample.label == data[i].label
        assert torch.equal(sample.view, data[i][[0, 1, 2, 3]].float() / 255)
        for step in range(2):
            motion, actors = data[i].motion(2 * step)
            for row in range(4 * CELLS):
                for column in range(4 * CELLS):
                    y, x = 8 * row + 4, 8 * column + 4
                    assert torch.equal(sample.motion[step, :, row, column], motion[:, y, x])
                    assert sample.actors[step, row, column] == actors[y, x]
            moved += int(actors.any())
    assert moved


def test_features_are_those_that_the_models_classify_by() -> None:
    vivit, videomae = small_vivit(1, 1), small_videomae()
    views = torch.rand(3, 4, 3, 32, 32)
    views[:, :, :, :16] = views[:, :1, :, :16]  # the upper half of which stands still
    with torch.no_grad():
        logits, tokens, seen = vivit.features(views)
        spatial = vivit.run_spatial(views, VARIANTS["base"])
        torch.testing.assert_close(logits, vivit.classify(spatial), rtol=0, atol=1e-5)
        assert tokens.shape == (3 * 2 * 16, 24)
        assert seen.shape == (3, 2, 4, 4)
        assert seen.all()
        rlt = RunLength(0.1)
        for reduction in (None, rlt):
            logits, tokens, seen = videomae.features(views, reduction)
            torch.testing.assert_close(logits, videomae(views, reduction), rtol=0, atol=1e-5)
            assert tokens.shape == (int(seen.sum()), 24)
        _, tokens, everywhere = videomae.features(views, Merge(9))
        assert everywhere.all()
        assert tokens.shape == (3 * 32, 24)
        assert [len(of_view.unique(dim=0)) for of_view in tokens.view(3, 32, 24)] == [32 - 2 * 9] * 3
        assert seen[:, 0].all()
        assert not seen[:, 1, :2].any()
        assert seen[:, 1, 2:].all()


def test_labels_are_smoothed_as_by_timm() -> None:
    smoothing = library("timm.loss").LabelSmoothingCrossEntropy(0.3)
    torch.manual_seed(1)
    learner, motion = MotionLearner(small_videomae()), torch.randn(2, 2, 4 * CELLS, 4 * CELLS)
    sample = MotionSample(torch.rand(4, 3, 32, 32), 2, motion, motion[:, 0] > 0)
    with torch.no_grad():
        logits, _, _ = learner(learner.model.normalise(sample.view.unsqueeze(0)))
        plain, smooth = (motion_losses(learner, [sample], x)["cross_entropy"] for x in (0, 0.3))
    torch.testing.assert_close(smooth, smoothing(logits, torch.tensor([2])))
    assert smooth != plain


@pytest.mark.parametrize("build", [lambda: small_vivit(1, 1), small_videomae])
def test_losses_are_found_in_bfloat16_too(build) -> None:  # type: ignore[no-untyped-def]
    """As `train.precision=bfloat16` does: a layer then gives other numbers than those around it."""
    model: ClipModel = build()
    torch.manual_seed(1)
    learner = MotionLearner(model)
    motion = torch.randn(2, 2, 4 * CELLS, 4 * CELLS)
    batch = [MotionSample(torch.rand(4, 3, 32, 32), 2, motion, motion[:, 0] > 0)]
    exact = motion_losses(learner, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = motion_losses(learner, batch)
    for name, loss in exact.items():
        assert F.l1_loss(rough[name].float(), loss) < 0.1 * loss, name
