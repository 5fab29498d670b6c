"""Results are reported by disturbance, so each must be what its name says, and alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from evt.data.sprites import DISTURBANCES, MIXED, SpriteVideos
from evt.data.sprites.detection import SpriteVideo
from evt.data.sprites.filming import Camera
from evt.data.sprites.settings import Disturbance, Script, disturbance_of
from evt.errors import DataError

SIZE = (128, 128)


def video(setting: str, n_frames: int = 60, number: int = 0) -> SpriteVideo:
    return SpriteVideos(number + 1, n_frames, SIZE, 11, "val", setting)[number]


def image(video: SpriteVideo, i: int) -> np.ndarray:
    return video.render(i)[0].astype(np.float64)


def displacement(before: np.ndarray, after: np.ndarray, reach: int) -> tuple[int, int]:
    """The whole-pixel (x, y) by which `after` shows what lies further on in `before`, by trying all."""
    inner = after[reach:-reach, reach:-reach]
    height, width = inner.shape[:2]
    tried = {
        (x, y): np.median(abs(inner - before[reach + y : reach + y + height, reach + x : reach + x + width]))
        for x in range(-reach, reach + 1)
        for y in range(-reach, reach + 1)
    }
    return min(tried, key=lambda place: tried[place])


def test_a_static_camera_changes_nothing_but_objects() -> None:
    still = video("static")
    (before, ids_before, _), (after, ids_after, _) = still.render(10), still.render(11)
    background = (ids_before < 0) & (ids_after < 0)
    assert background.mean() > 0.3
    assert np.array_equal(before[background], after[background])
    assert not np.array_equal(before, after)
    # A resting object changes nothing either.
    assert (before == after).all(-1).mean() > background.mean()


def test_a_pan_moves_the_scene_at_its_speed() -> None:
    panned = video("pan")
    x, y = displacement(image(panned, 0), image(panned, 16), 18)
    assert np.hypot(x, y) == pytest.approx(16 * DISTURBANCES["pan"].pan, abs=1)
    x_later, y_later = displacement(image(panned, 16), image(panned, 32), 18)
    assert (x_later, y_later) == pytest.approx((x, y), abs=1)


def test_jitter_shakes_around_a_place() -> None:
    camera = [Camera(np.random.default_rng(seed), Disturbance(jitter=2)) for seed in range(100)]
    places = np.array([[c.place(t) for t in range(0, 200, 7)] for c in camera])
    assert places.std() == pytest.approx(2, rel=0.05)
    assert abs(places.mean()) < 0.1
    assert abs(places).max() < camera[0].margin
    shaken = video("jitter")
    expected = shaken._filming.camera.place(9) - shaken._filming.camera.place(0)
    assert displacement(image(shaken, 0), image(shaken, 9), 10) == pytest.approx(tuple(expected), abs=0.75)


def test_noise_is_new_normal_noise_of_its_strength() -> None:
    still, noisy = video("static"), video("noise")
    noise = [image(noisy, i) - image(still, i) for i in (3, 4)]
    grey = (image(still, 3) > 40) & (image(still, 3) < 215) & (image(still, 4) > 40) & (image(still, 4) < 215)
    sigma = DISTURBANCES["noise"].noise
    a, b = noise[0][grey], noise[1][grey]
    assert a.mean() == pytest.approx(0, abs=0.1)
    assert a.std() == pytest.approx(sigma, rel=0.03)
    assert (abs(a) < sigma).mean() == pytest.approx(0.683, abs=0.07)  # whole grey levels make it coarse
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02
    for x in noise:  # nor are pixels, or colours of one, alike
        assert abs(np.corrcoef(x[:, 1:].ravel(), x[:, :-1].ravel())[0, 1]) < 0.02
        assert abs(np.corrcoef(x[..., 0].ravel(), x[..., 1].ravel())[0, 1]) < 0.02


def test_light_drifts_slowly_and_far() -> None:
    still, lit = video("static", 240), video("light", 240)
    at = [0, 1, 40, 41, 80, 81, 120, 121, 160, 161, 200, 201]
    # Over mid greys, which the brightest light does not clip.
    gain = []
    for i in at:
        plain = image(still, i)
        grey = (plain > 80) & (plain < 170)
        gain.append(image(lit, i)[grey].mean() / plain[grey].mean())
    for i in range(0, len(at), 2):
        assert abs(gain[i + 1] - gain[i]) < 0.0105
    assert max(gain) - min(gain) > 1.5 * DISTURBANCES["light"].light
    assert 0.6 < min(gain) < max(gain) < 1.4


def test_a_cut_shows_another_scene_at_once() -> None:
    cut = video("cuts", 100)
    every = DISTURBANCES["cuts"].cut_every
    cuts = cut.cuts()
    assert [b - a for a, b in pairwise(cuts)] == [every] * (len(cuts) - 1)
    assert 0 < cuts[0] <= every
    for i in cuts:
        within = abs(image(cut, i - 1) - image(cut, i - 2))
        across = abs(image(cut, i) - image(cut, i - 1))
        assert np.median(within) == 0
        assert np.median(across) > 8


def test_settings_show_the_same_objects() -> None:
    """Else a difference between settings could be one of objects."""
    still, cut = video("static"), video("cuts")
    assert np.array_equal(image(still, 0), image(cut, 0))
    boxes = [video(setting).render(0)[2] for setting in ("static", "noise", "light", "cuts")]
    assert len(boxes[0].labels) > 1
    assert all(target.boxes.tolist() == boxes[0].boxes.tolist() for target in boxes)


def test_mixed_draws_each_disturbance() -> None:
    drawn = [disturbance_of(MIXED, Script((0, 0, i), 1, SIZE, MIXED).rng(2)) for i in range(400)]

    def share(name: str) -> float:
        return float(np.mean([getattr(disturbance, name) > 0 for disturbance in drawn]))

    expected = {"pan": 1 / 3, "jitter": 1 / 3, "noise": 1 / 2, "light": 1 / 2, "cut_every": 1 / 4}
    assert {name: share(name) for name in expected} == pytest.approx(expected, abs=0.08)
    assert not any(disturbance.pan and disturbance.jitter for disturbance in drawn)
    assert video("static")._filming.disturbance == Disturbance()


def test_impossible_disturbances_are_refused() -> None:
    with pytest.raises(DataError, match=r"noise of a disturbance is -1; it must be 0 \(none\) or more"):
        Disturbance(noise=-1)
    with pytest.raises(DataError, match="light of a disturbance is 1; it must be below 1"):
        Disturbance(light=1)
