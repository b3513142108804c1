"""What is told from a picture at a glance."""

import numpy as np
import pytest

from topreward_ros.core.pictures import Picture, examine, likeness

from .scenes import flat, lit, noise, scene, shifted

ROWS, COLUMNS = np.indices((480, 640))


def looked_at(image: np.ndarray) -> Picture:
    picture = examine(image)
    assert picture is not None
    return picture


@pytest.mark.parametrize("value", [0, 3, 128, 255])
@pytest.mark.parametrize("sigma", [0.0, 3.0, 10.0])
def test_one_colour_shows_nothing_whatever_the_sensor_adds(value: int, sigma: float) -> None:
    assert looked_at(flat(value, sigma)).fault == "nearly one colour"


def test_a_smooth_gradient_shows_nothing() -> None:
    """Such as a hand on the lens."""
    light = np.exp(-((ROWS - 200) ** 2 + (COLUMNS - 300) ** 2) / 2e5)[..., None]
    assert looked_at((light * (220, 170, 140)).astype(np.uint8)).fault == "nearly one colour"


@pytest.mark.parametrize("size", [(96, 128), (240, 320), (480, 640), (1080, 1920)])
@pytest.mark.parametrize("cell", [1, 2, 4])
def test_noise_is_noise_at_any_size(size: tuple[int, int], cell: int) -> None:
    assert looked_at(noise(cell=cell, size=size)).fault == "noise"


def test_grey_noise_is_noise() -> None:
    image = np.random.default_rng(0).normal(128, 40, (480, 640, 1)).clip(0, 255)
    assert looked_at(np.repeat(image, 3, axis=2).astype(np.uint8)).fault == "noise"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gain", [0.1, 0.3, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_a_scene_is_a_picture_in_any_light(seed: int, gain: float, sigma: float) -> None:
    assert looked_at(lit(scene(seed), gain, sigma)).fault == ""


def test_a_scene_that_can_hardly_be_seen_shows_nothing() -> None:
    assert looked_at(lit(scene(), 0.01, 1.0)).fault == "nearly one colour"


def test_a_robot_before_a_white_wall_is_a_picture() -> None:
    wall = flat(245, 2.0)
    wall[100:150, 120:180] = scene(size=(50, 60))
    assert looked_at(wall).fault == ""


def test_what_is_too_small_is_not_judged() -> None:
    assert examine(flat(0, size=(71, 200))) is None and examine(flat(0, size=(200, 95))) is None
    assert examine(flat(0, size=(72, 96))) is not None


def test_a_scene_is_like_itself_at_another_resolution_and_in_another_light() -> None:
    small, large = (looked_at(np.kron(scene(), np.ones((k, k, 1), np.uint8))) for k in (1, 3))
    assert likeness(small, large).stays > 0.95
    seen = likeness(looked_at(lit(scene(), 0.5)), looked_at(scene()))
    assert seen.stays > 0.95 and seen.gain == pytest.approx(2.0, rel=0.02)
    assert likeness(looked_at(lit(scene(), 1, 5)), looked_at(scene())).stays > 0.8


def test_a_part_that_moves_leaves_the_rest() -> None:
    seen = likeness(looked_at(scene(arm=0.0)), looked_at(scene(arm=0.5)))
    assert 0.4 < seen.stays < 0.85 and seen.gain == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("other", [scene(1), scene(2), noise(), noise(cell=16), np.roll(scene(), 20, axis=1)])
def test_nothing_stays_of_another_scene(other: np.ndarray) -> None:
    assert likeness(looked_at(scene()), looked_at(other)).stays < 0.15


# Blocks are about 5 px; a tenth of one, half of one and two of them.
@pytest.mark.parametrize("down, right", [(0.5, 0), (0, -0.5), (2.4, 2.4), (-2.5, 5), (9.5, 0), (-4.9, -9.8)])
def test_a_camera_that_trembles_shows_the_same(down: float, right: float) -> None:
    other = looked_at(shifted(scene(arm=0.2), down, right))
    assert likeness(looked_at(scene(arm=0.2)), other).stays > 0.9
    seen = likeness(looked_at(scene(arm=0.8)), other)
    assert 0.4 < seen.stays < 0.85 and seen.gain == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("down, right", [(16, 0), (0, -20), (30, 30)])
def test_a_camera_that_moves_farther_does_not(down: float, right: float) -> None:
    assert likeness(looked_at(scene()), looked_at(shifted(scene(), down, right))).stays < 0.5


@pytest.mark.parametrize("gain, sigma", [(0.6, 25.0), (1.0, 15.0), (0.1, 1.0), (0.05, 0.0)])
def test_noise_and_little_contrast_do_not_change_what_a_picture_shows(gain: float, sigma: float) -> None:
    rng = np.random.default_rng(3)
    one, other = (
        looked_at((picture * gain + 20 + rng.normal(0, sigma, picture.shape)).clip(0, 255).astype(np.uint8))
        for picture in (scene(arm=0.2), scene(arm=0.8))
    )
    assert not one.fault and not other.fault
    assert 0.35 < likeness(one, other).stays < 0.9
    stranger = looked_at(lit(scene(3), gain, sigma))
    assert likeness(one, stranger).stays < 0.3


def test_one_colour_is_like_one_colour_and_unlike_a_scene() -> None:
    dark, bright = looked_at(flat(0)), looked_at(flat(255))
    assert likeness(dark, bright).stays == 1.0
    assert likeness(dark, looked_at(scene())).stays == likeness(looked_at(scene()), dark).stays == 0.0
