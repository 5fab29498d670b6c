"""VideoMAE: its parameters and positions are the published ones."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from evt.models.videomae import VideoMAE, sine_cosine

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


def test_parameters_have_the_published_names_and_shapes() -> None:
    """Else no official checkpoint would load."""
    lines = (CHECKPOINTS / "videomae_b_kinetics400.txt").read_text().splitlines()
    with torch.device("meta"):
        ours = {name: "x".join(map(str, x.shape)) for name, x in VideoMAE().state_dict().items()}
    assert ours == dict(line.split("\t") for line in lines)


def test_positions_by_hand() -> None:
    """Pairs of a sine and a cosine, slower from pair to pair; no checkpoint holds them."""
    table = sine_cosine(5, 4)
    expected = [math.sin(3), math.cos(3), math.sin(3 / 100), math.cos(3 / 100)]
    torch.testing.assert_close(table[3], torch.tensor(expected))
    assert table[0].tolist() == [0, 1, 0, 1]
