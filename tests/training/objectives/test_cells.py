"""What the cells of a picture show, and how a Transformer learns it: held against loops and formulas written here."""

from __future__ import annotations

import math

import torch
from torch import nn

from evt.data.sprites import CLASSES, SpriteVideos
from evt.training.objectives.cells import BACKGROUND_WEIGHT, CELLS, CellClassifier, CellSamples, cell_losses
from tests.common import small_detector

CLASSES_AND_BACKGROUND = len(CLASSES) + 1


class Given(nn.Identity):
    """Stands for a Transformer: the tokens are given."""

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid


def test_a_cell_is_of_the_class_that_its_middle_shows() -> None:
    """And picture and cells are mirrored together, half of the time."""
    videos = SpriteVideos(3, 2, (64, 96))
    samples = CellSamples(videos, (2, 3))
    mirrored = 0
    for seed in range(20):
        i = seed % 3
        image, cells = samples.sample(i, torch.Generator().manual_seed(seed))
        whole, classes = videos[i].class_map(1)
        if not torch.equal(image, whole):
            assert torch.equal(image, whole.flip(-1))
            classes, mirrored = classes.flip(-1), mirrored + 1
        assert cells.shape == (2 * CELLS, 3 * CELLS)
        for row in range(2 * CELLS):
            for column in range(3 * CELLS):
                assert cells[row, column] == classes[8 * row + 4, 8 * column + 4]
    assert 4 < mirrored < 16
    assert any(len(samples.sample(i, torch.Generator())[1].unique()) > 1 for i in range(3))


def test_logits_lie_where_their_cells_do() -> None:
    """Each token's sixteen cells at its place in the picture: else the Transformer learns a shuffled one."""
    classifier = CellClassifier(small_detector())
    rows, columns = classifier.net.grid
    with torch.no_grad():
        classifier.head.weight.zero_()
        classifier.head.bias.copy_(torch.arange(float(CELLS**2 * CLASSES_AND_BACKGROUND)))
        logits = classifier(torch.randn(2, 3, 64, 64))
        assert logits.shape == (2, rows * CELLS, columns * CELLS, CLASSES_AND_BACKGROUND)
        for row in range(rows * CELLS):
            for column in range(columns * CELLS):
                cell = row % CELLS * CELLS + column % CELLS
                assert logits[1, row, column].tolist() == [
                    cell * CLASSES_AND_BACKGROUND + k for k in range(CLASSES_AND_BACKGROUND)
                ]
        # And where another of the tokens is another.
        tokens = torch.zeros(1, rows * columns, classifier.net.dim)
        classifier.net = Given((rows, columns))  # type: ignore[assignment]
        classifier.head.weight.normal_()
        still = classifier(tokens)
        tokens[0, columns + 2] = torch.randn(tokens.shape[-1])
        changed = (classifier(tokens) != still).any(-1)[0]
    expected = torch.zeros_like(changed)
    expected[CELLS : 2 * CELLS, 2 * CELLS : 3 * CELLS] = True
    assert torch.equal(changed, expected)


def test_the_loss_is_a_mean_in_which_background_counts_a_tenth() -> None:
    classifier = CellClassifier(small_detector())
    rows, columns = (n * CELLS for n in classifier.net.grid)
    logits = [0.5 * k for k in range(CLASSES_AND_BACKGROUND)]
    with torch.no_grad():
        classifier.head.weight.zero_()
        classifier.head.bias.copy_(torch.tensor(logits * CELLS**2))
    cells = torch.full((rows, columns), len(CLASSES))
    cells[0, :5] = 3
    (loss,) = cell_losses(classifier, [(torch.zeros(3, 64, 64, dtype=torch.uint8), cells)]).values()
    total = math.log(sum(map(math.exp, logits)))
    background = rows * columns - 5
    expected = 5 * (total - logits[3]) + BACKGROUND_WEIGHT * background * (total - logits[-1])
    assert math.isclose(loss.item(), expected / (5 + BACKGROUND_WEIGHT * background), rel_tol=1e-5)
