"""Whether a camera moves decides which group of a table a video is in."""

from __future__ import annotations

import pytest
import torch

from evt.metrics.motion import shift


def picture(seed: int = 0) -> torch.Tensor:
    """A smooth one, (3, 256, 384) uint8."""
    noise = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(seed))
    return (255 * torch.nn.functional.interpolate(noise, (256, 384), mode="bicubic").clamp(0, 1)[0]).byte()


@pytest.mark.parametrize(
    ("rows", "columns", "expected"), [(0, 0, 0), (16, 0, 1 / 16), (0, -24, 1 / 16), (2, 48, 1 / 8)]
)
def test_a_picture_that_is_shifted(rows: int, columns: int, expected: float) -> None:
    """By hand: 16 of 256 rows, 24 and 48 of 384 columns."""
    moved = picture().roll((rows, columns), (1, 2))
    assert shift(picture(), moved) == pytest.approx(expected, abs=1 / 128)


def test_what_moves_alone_is_no_camera() -> None:
    still, moved = picture(), picture()
    moved[:, 60:160, 100:200] = picture(1)[:, 60:160, 100:200]
    assert shift(still, moved) == 0
