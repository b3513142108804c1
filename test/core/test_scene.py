"""When an episode waits for a picture, when it begins anew, and what it takes for a robot's own work."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.scene import PATIENCE, SceneJudge, Sight

from .scenes import flat, lit, noise, scene, shifted


def judged(
    pictures: Iterable[np.ndarray], period_s: float = 0.5, judge: SceneJudge | None = None
) -> list[Sight]:
    judge = judge or SceneJudge()
    return [judge.judge(round(k * period_s * NS_PER_S), picture) for k, picture in enumerate(pictures)]


def kinds(pictures: Iterable[np.ndarray], period_s: float = 0.5) -> str:
    """A letter for each frame: r(efused), u(nsure), A(new), . (nothing out of the ordinary)."""
    return kinds_of(judged(pictures, period_s))


def kinds_of(sights: Iterable[Sight]) -> str:
    return "".join(
        "A" if sight.anew else "r" if not sight.used else "." if sight.sure else "u" for sight in sights
    )


STILL = [scene()] * 8  #: 4 s, after which the opening is over
WORK = [scene(arm=k / 7) for k in range(8)]


def test_a_robot_that_works_is_nothing_out_of_the_ordinary() -> None:
    assert kinds(STILL + WORK + WORK[::-1] + STILL) == "." * 32
    assert kinds(WORK + STILL) == "." * 16


@pytest.mark.parametrize("bad", [flat(0), flat(255), flat(128, 3.0), noise(), noise(cell=4)])
def test_an_episode_waits_for_a_picture(bad: np.ndarray) -> None:
    assert kinds([bad] * 3 + STILL) == "rrr" + "." * 8


@pytest.mark.parametrize("bad", [flat(0), noise()])
def test_it_does_not_wait_for_ever_and_begins_anew_when_there_is_more_to_be_seen(bad: np.ndarray) -> None:
    sights = judged([bad] * 12 + STILL)
    assert [sight.used for sight in sights] == [False] * 6 + [True] * 14
    assert f"for {PATIENCE:g} s" in sights[6].message and "look at the camera" in sights[6].message
    assert [k for k, sight in enumerate(sights) if sight.anew] == [12] and sights[12].anew == 1
    assert "were n" in sights[12].message and "begins anew" in sights[12].message


def test_a_dark_laboratory_is_watched_as_it_is() -> None:
    assert kinds([flat(2, 1.0)] * 30) == "r" * 6 + "." * 24


@pytest.mark.parametrize("bad", [flat(0), noise(), flat(255)])
@pytest.mark.parametrize("frames", [1, 4, 40])
def test_pictures_that_show_nothing_are_left_out_later_however_many(bad: np.ndarray, frames: int) -> None:
    assert kinds(STILL + [bad] * frames + STILL) == "." * 8 + "r" * frames + "." * 8


@pytest.mark.parametrize("hand", [scene(5), lit(scene(5), 0.5, 3.0), noise(cell=24)])
def test_a_start_that_was_something_else_is_replaced(hand: np.ndarray) -> None:
    assert kinds([hand] * 2 + STILL) == "..uuA....."


def test_a_hand_that_covers_half_of_the_start() -> None:
    half = scene()
    half[:, :190] = scene(5)[:, :190]
    assert kinds([half] * 2 + STILL) == "..uuA....."


@pytest.mark.parametrize("gains", [[0.2, 0.6], [0.1, 0.3, 0.6, 0.9], [0.4, 0.6, 0.8]])
def test_a_start_whose_exposure_settles_is_replaced(gains: list[float]) -> None:
    seen = kinds([lit(scene(), gain) for gain in gains] + STILL)
    assert seen.count("A") == 1 and seen.index("A") >= len(gains)
    assert seen.endswith("....")


def test_an_exposure_that_takes_long_to_settle() -> None:
    seen = kinds([lit(scene(), k / 12) for k in range(2, 12)] + STILL)
    assert seen.rindex("A") >= 10 and seen.endswith(".....")


def test_an_exposure_that_hunts_is_nothing() -> None:
    assert kinds([lit(scene(), 0.6 * (1 + 0.4 * np.sin(k * np.pi / 3))) for k in range(24)]) == "." * 24


def test_light_that_flickers_a_little_is_nothing() -> None:
    assert kinds([lit(scene(), 1 + 0.1 * (-1) ** k) for k in range(20)]) == "." * 20


@pytest.mark.parametrize("before", [STILL, STILL + WORK])
def test_a_cut_to_another_scene_begins_anew_once_it_lasts(before: list[np.ndarray]) -> None:
    sights = judged(before + [scene(3)] * 6)
    new = sights[len(before) :]
    assert [sight.sure for sight in new[:2]] == [False, False] and new[
        0
    ].message == "the picture jumped as a whole"
    assert new[2].anew == 3 and "begins anew" in new[2].message
    assert all(sight == Sight() for sight in new[3:])


def test_the_light_that_is_switched_on_later_begins_anew() -> None:
    assert kinds([lit(scene(), 0.3)] * 8 + STILL) == "........uuA....."


def test_daylight_that_changes_slowly_does_not() -> None:
    assert kinds([lit(scene(), 0.4 + 0.01 * k) for k in range(60)]) == "." * 60


@pytest.mark.parametrize("glitch", [[scene(3)], [scene(3), scene(4)]])
def test_lone_pictures_of_something_else_do_not(glitch: list[np.ndarray]) -> None:
    seen = kinds(STILL + glitch + STILL)
    assert "A" not in seen and seen.count("u") == len(glitch) + 1


@pytest.mark.parametrize("cover", [scene(3), lit(scene(), 0.2)])
def test_after_a_cover_that_lasts_the_view_is_back(cover: np.ndarray) -> None:
    sights = judged(STILL + [cover] * 5 + [scene(arm=0.5)] * 5)
    assert [(k, sight.back) for k, sight in enumerate(sights) if sight.anew] == [(10, False), (15, True)]
    assert "begins anew" in sights[10].message and "goes on" in sights[15].message


@pytest.mark.parametrize("arm", [None, 0.5])
def test_a_camera_that_trembles_is_nothing(arm: float | None) -> None:
    rng = np.random.default_rng(0)
    trembling = [shifted(scene(arm=arm), *rng.normal(0, 1.5, 2)) for _ in range(20)]
    assert kinds(trembling) == "." * 20


def test_a_camera_that_is_nudged_is_nothing() -> None:
    assert kinds([*STILL, *WORK, *[shifted(picture, 2, 4) for picture in WORK[::-1] + STILL]]) == "." * 32


def fade(one: np.ndarray, other: np.ndarray, frames: int) -> list[np.ndarray]:
    return [(one * (1 - k / frames) + other * (k / frames)).astype(np.uint8) for k in range(1, frames)]


def wipe(one: np.ndarray, other: np.ndarray, frames: int) -> list[np.ndarray]:
    edges = [one.shape[1] * k // frames for k in range(1, frames)]
    return [np.concatenate([other[:, :edge], one[:, edge:]], axis=1) for edge in edges]


def tear(one: np.ndarray, other: np.ndarray, frames: int) -> list[np.ndarray]:
    return [np.concatenate([one[:120], other[120:]])] * frames


@pytest.mark.parametrize("change", [fade, wipe, tear])
@pytest.mark.parametrize("frames", [2, 4, 8])
def test_a_cut_that_takes_seconds_begins_anew_with_what_came_of_it(
    change: Callable[[np.ndarray, np.ndarray, int], list[np.ndarray]], frames: int
) -> None:
    on_the_way = change(scene(), scene(3), frames)
    begun = len(STILL) + len(on_the_way)  # the first frame of the new scene
    sights = judged(STILL + on_the_way + [scene(3)] * 10)
    anew = [k for k, sight in enumerate(sights) if sight.anew]
    assert len(anew) == 1 and begun + 2 <= anew[0] <= begun + 5
    assert not any(sight.sure for sight in sights[begun : anew[0]])
    assert all(sight == Sight() for sight in sights[anew[0] + 1 :])


def test_a_camera_that_was_unplugged_early_shows_the_robot_farther_on() -> None:
    """Half of the picture is another one than in the opening, which is over."""
    judge = SceneJudge()
    assert kinds_of(judged([scene()] * 2, judge=judge)) == ".."
    half = scene()
    half[:, :190] = scene(5)[:, :190]
    sights = [judge.judge((14 + k) * NS_PER_S // 2, half) for k in range(8)]
    assert "A" not in kinds_of(sights)


def test_what_passes_by_slowly_is_no_cut() -> None:
    passing = wipe(scene(), scene(3), 4)
    assert "A" not in kinds(STILL + passing + [scene(3)] + passing[::-1] + STILL)


def test_a_start_that_zooms_out_is_replaced_once_it_stands_still() -> None:
    whole = scene(size=(480, 640))
    zooms = [whole[k : 480 - k, 4 * k // 3 : 640 - 4 * k // 3] for k in range(90, 0, -10)]
    assert kinds(zooms + [whole] * 8).count("A") == 1


BESIDE = [320, 320]


def tiled(left: list[np.ndarray], right: list[np.ndarray]) -> str:
    """The kinds of the frames of two cameras."""
    judge = SceneJudge()
    sights = [
        judge.judge(k * NS_PER_S // 2, np.concatenate(pair, axis=1), BESIDE)
        for k, pair in enumerate(zip(left, right, strict=True))
    ]
    return "".join(
        "B" if s.back else "A" if s.anew else "r" if not s.used else "." if s.sure else "u" for s in sights
    )


def test_each_of_two_cameras_is_judged() -> None:
    other, cut = [scene(2)] * 14, STILL + [scene(3)] * 6
    assert tiled(other, cut) == tiled(cut, other) == tiled(cut, cut) == "." * 8 + "uuA..."
    assert tiled(other, other) == "." * 14


def test_watching_begins_when_both_cameras_show_something() -> None:
    other = [scene(2)] * 11
    assert tiled(other, [flat(0)] * 3 + STILL) == "rrr" + "." * 8
    assert tiled([noise()] * 3 + STILL, other) == "rrr" + "." * 8


def test_one_of_two_cameras_that_shows_nothing_later() -> None:
    dark = STILL + [flat(0)] * 3 + STILL
    assert tiled([scene(2)] * 19, dark) == "." * 8 + "uuu" + "." * 8
    assert tiled(dark, dark) == "." * 8 + "rrr" + "." * 8


def test_the_view_is_back_when_it_is_that_of_both_cameras() -> None:
    away = STILL + [scene(3)] * 5 + STILL
    longer = STILL + [scene(3)] * 7 + STILL[:6]
    assert tiled([scene(2)] * 21, away) == "." * 8 + "uuA..uuB....."
    assert tiled(away, longer) == "." * 8 + "uuA..uuAuB..."


def test_what_is_said_of_two_cameras_names_them() -> None:
    judge = SceneJudge()
    both = np.concatenate([scene(), flat(0)], axis=1)
    said = judge.judge(0, both, BESIDE).message
    assert said == judge.why_not_used(both, BESIDE) == "camera 2: the newest picture is nearly one colour"


def test_a_second_cut_is_not_back() -> None:
    sights = judged(STILL + [scene(3)] * 5 + [scene(4)] * 5)
    assert [(k, sight.back) for k, sight in enumerate(sights) if sight.anew] == [(10, False), (15, False)]


def test_what_to_do_about_a_camera_that_moves_is_said_once_of_its_cuts() -> None:
    sights = judged(STILL + [scene(3)] * 5 + [scene(4)] * 5)
    first, second = (sight.message for sight in sights if sight.anew)
    assert first.endswith(
        "begins anew with what is seen since (for a camera that moves, set camera_fixed: false)"
    )
    assert second.endswith("begins anew with what is seen since")


def test_a_change_of_light_is_not_taken_for_a_camera_that_moves() -> None:
    sights = judged(STILL + [lit(scene(), 0.4)] * 5 + [scene(3)] * 5)
    light, cut = (sight.message for sight in sights if sight.anew)
    assert light.startswith("the light changed") and "camera_fixed" not in light
    assert "camera_fixed: false" in cut


def test_a_camera_that_moves_is_not_sure_and_not_anew() -> None:
    moving: Callable[[int], np.ndarray] = lambda k: np.roll(scene(), 40 * k, axis=1)  # noqa: E731
    sights = judged(STILL + [moving(k) for k in range(1, 8)] + [moving(7)] * 4)
    assert kinds_of(sights) == "." * 8 + "u" * 7 + "...."
    assert ["camera_fixed: false" in sight.message for sight in sights[8:15]] == [False] * 4 + [True] * 3


@pytest.mark.parametrize("width", [40, 90])
def test_a_robot_before_a_white_wall_may_move_as_it_likes(width: int) -> None:
    """All that has texture moves; the wall stays."""

    def at(left: int) -> np.ndarray:
        picture = flat(240, 1.0)
        picture[60:140, left : left + width] = scene(1)[60:140, :width]
        return picture

    assert kinds([at(20)] * 3 + [at(60 + 15 * k) for k in range(8)] + [at(200)] * 8) == "." * 19


def test_a_few_things_that_move_before_a_plain_wall_are_no_change_of_light() -> None:
    def at(k: int) -> np.ndarray:
        """A block that is pushed by a long thin arm."""
        picture = flat(110)
        picture[150:180, 60 + 12 * k : 90 + 12 * k] = (200, 40, 40)
        for row in range(150):
            left = 160 + (60 + 12 * k - 160) * row // 150
            picture[row, left - 3 : left + 3] = 220
        return picture

    assert kinds([at(min(k, 14)) for k in range(24)]) == "." * 24


def test_small_pictures_are_not_judged() -> None:
    assert kinds([np.zeros((48, 64, 3), np.uint8)] * 3) == "..."


def test_a_slow_camera_comes_to_an_end_of_its_patience_too() -> None:
    assert kinds([flat(0)] * 4, period_s=10.0) == "r..."


def test_frames_of_a_camera_that_moves_are_not_compared() -> None:
    moving = [scene(seed=k) for k in range(1, 7)]
    assert kinds([scene()] * 8 + moving) == "." * 8 + "u" * 6  # what it says of them else
    sights = judged([noise(), *moving, flat(0), *moving], judge=SceneJudge(fixed=False))
    assert [sight.used for sight in sights] == [False, *[True] * 6, False, *[True] * 6]
    assert all(sight.sure and not sight.anew for sight in sights if sight.used)
