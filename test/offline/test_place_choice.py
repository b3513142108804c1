"""Which place of a camera is read: one that pauses is not left, one that was killed soon is, none in turn."""

from __future__ import annotations

import random

import pytest

from topreward_ros.offline.image_topics import ImageTopic
from topreward_ros.offline.place_choice import PlaceChoice

RAW = ImageTopic("/cam", "Image")
SAME = ImageTopic("/cam", "CompressedImage")
JPEG = ImageTopic("/cam/compressed", "CompressedImage")
PLACES = [RAW, SAME, JPEG]
PERIOD_S = 0.2


class World:
    """Drivers, the graph that tells of them, and a choice that is asked every 0.2 s."""

    def __init__(self, **published: set[bytes]) -> None:
        self.now_s = 100.0
        self.published: dict[ImageTopic, set[bytes]] = {place: set() for place in PLACES}
        self.respawns: dict[ImageTopic, tuple[float, float, int]] = {}  # of drivers that never send
        self.sends: set[ImageTopic] = set()  # where images come
        self.newest_s: float | None = None
        self.taken_s = self.now_s
        self.choice = PlaceChoice(PLACES, self.published, self.now_s)
        self.moves: list[ImageTopic] = []

    def known(self) -> dict[ImageTopic, set[bytes]]:
        """All publishers. A driver of `respawns` is there for ``up`` of each ``period`` [s]; ``killed`` of
        those before it are known still."""
        found = dict(self.published)
        for place, (period, up, killed) in self.respawns.items():
            number, since_s = divmod(self.now_s, period)
            newest = int(number) + (since_s < up)
            found[place] = found[place] | {
                b"respawned %d" % it for it in range(newest - killed - (since_s < up), newest)
            }
        return found

    def run(self, seconds: float) -> ImageTopic:
        """Let time pass; returns the place that is read then."""
        for _ in range(round(seconds / PERIOD_S)):
            self.now_s += PERIOD_S
            if self.choice.place in self.sends:
                self.newest_s = self.now_s
            if self.choice.trial in self.sends:
                self.choice.note_image_of_trial(self.now_s)
            silent = self.now_s - (self.taken_s if self.newest_s is None else self.newest_s) > 1.0
            if self.choice.look(self.known(), self.now_s, newest_image_s=self.newest_s, is_silent=silent):
                self.moves.append(self.choice.place)
                self.newest_s, self.taken_s = None, self.now_s
        return self.choice.place

    def reads(self, place: ImageTopic) -> World:
        """A driver ``first`` is there, and read."""
        self.published[place] = {b"first"}
        self.sends = {place}
        self.run(2.0)
        assert self.choice.place == place
        self.moves.clear()
        return self


@pytest.mark.parametrize(("before", "after"), [(RAW, JPEG), (JPEG, RAW), (RAW, SAME), (SAME, JPEG)])
def test_a_driver_that_was_killed_and_is_back_elsewhere_is_read_though_the_graph_knows_both(
    before: ImageTopic, after: ImageTopic
) -> None:
    world = World().reads(before)
    world.sends = set()
    world.run(0.6)
    world.published[after] = {b"second"}
    world.sends = {after}
    assert world.run(2.0) == after
    world.sends = set()
    world.run(0.6)
    world.published[before] = {b"first", b"third"}
    world.sends = {before}
    assert world.run(2.0) == before, "and the other way round, while the graph knows all three"
    assert world.moves == [after, before]
    world.run(60.0)
    world.published = {place: set() for place in PLACES} | {before: {b"third"}}
    world.run(60.0)
    assert world.moves == [after, before], "those that were left do not matter, nor does that they go"


def test_a_better_place_is_taken_once_images_come_there() -> None:
    world = World().reads(RAW)
    world.sends = set()
    world.run(0.6)
    world.published[JPEG] = {b"second"}
    world.sends = {JPEG}
    assert world.run(60.0) == JPEG
    world.published[RAW] = {b"first", b"third"}
    assert world.run(60.0) == JPEG and world.choice.trial == RAW, "images come, and none there"
    world.sends = {JPEG, RAW}
    assert world.run(2.0) == RAW


# Of a driver: the time from one start to the next, how long it lives, and how many before it are known still.
RESPAWNS = [(1.0, 0.6, 0), (2.2, 0.4, 9), (4.0, 2.0, 0), (6.0, 3.0, 3), (5.6, 5.0, 3), (20.0, 10.0, 1)]


@pytest.mark.parametrize("respawn", RESPAWNS)
@pytest.mark.parametrize("place", PLACES)
def test_a_camera_that_sends_is_not_left_for_a_driver_that_dies_before_its_first_image(
    place: ImageTopic, respawn: tuple[float, float, int]
) -> None:
    world = World().reads(place)
    world.respawns = dict.fromkeys(PLACES, respawn)
    world.run(120.0)
    assert not world.moves
    world.sends = set()
    world.run(30.0)
    world.sends = {place}
    assert world.run(12.0) == place, "nor for long after a pause"
    world.moves.clear()
    world.run(120.0)
    assert not world.moves


@pytest.mark.parametrize("respawn", RESPAWNS)
@pytest.mark.parametrize("place", PLACES)
def test_a_camera_that_sends_is_found_beside_drivers_that_die_before_their_first_image(
    place: ImageTopic, respawn: tuple[float, float, int]
) -> None:
    world = World()
    world.respawns = dict.fromkeys(PLACES, respawn)
    world.run(30.0)
    world.published[place] = {b"sends"}
    world.run(1.0)
    world.sends = {place}
    world.run(70.0)
    assert world.choice.place == place
    world.moves.clear()
    world.run(60.0)
    assert not world.moves


def test_a_camera_that_pauses_is_not_left_for_one_that_sends_nothing() -> None:
    world = World().reads(RAW)
    world.sends = set()
    world.run(0.6)
    world.published[JPEG] = {b"republisher"}
    for _ in range(3):
        world.sends = set()
        world.run(10.0)
        assert world.choice.trial == JPEG, "it is listened for"
        world.sends = {RAW, JPEG}  # of what the camera sends
        assert world.run(10.0) == RAW and world.choice.trial is None
    assert not world.moves


def test_who_goes_on_elsewhere_is_read_after_a_while() -> None:
    """As the driver of which one that is killed made raw images."""
    world = World().reads(JPEG)
    world.published[RAW] = {b"republisher"}
    world.sends = {JPEG, RAW}
    world.run(10.0)
    assert world.moves == [RAW]
    world.sends = {JPEG}
    assert world.run(2.6) == RAW
    assert world.run(1.4) == JPEG
    world.run(60.0)
    assert world.moves == [RAW, JPEG]


@pytest.mark.parametrize("other", [SAME, JPEG])
def test_who_was_left_is_read_again_where_the_other_falls_silent(other: ImageTopic) -> None:
    world = World().reads(RAW)
    world.published[other] = {b"other"}
    world.sends = {RAW, other}
    world.run(10.0)
    for left, taken in ((RAW, other), (other, RAW), (RAW, other)):
        world.sends = {taken}
        assert world.run(4.0) == taken, "the one that is read pauses"
        world.sends = {left, taken}
        assert world.run(60.0) == taken, "it sends again, which is no reason to go back"
    assert world.moves == [other, RAW, other]


@pytest.mark.parametrize("place", [SAME, JPEG])
def test_who_publishes_and_never_sends_is_left_for_one_that_does(place: ImageTopic) -> None:
    world = World()
    world.published = {RAW: {b"silent"}, SAME: set(), JPEG: set()} | {place: {b"sends"}}
    world.sends = {place}
    assert world.run(6.0) == place
    world.run(60.0)
    assert world.choice.place == place and len(world.moves) == 1


def test_all_that_may_send_are_listened_to_in_turns() -> None:
    world = World().reads(JPEG)
    world.published |= {RAW: {b"raw"}, SAME: {b"jpeg"}}
    world.run(6.0)
    assert not world.moves and world.choice.trial is not None, "those at better places may send"
    for place in (SAME, RAW, SAME):
        world.sends = {place}
        assert world.run(12.0) == place
        world.sends = {JPEG}
        assert world.run(12.0) == JPEG


def test_a_camera_that_pauses_is_left_seldom_for_another_type_of_its_topic() -> None:
    world = World().reads(RAW)
    world.sends = set()
    world.run(0.6)
    world.published[SAME] = {b"other"}
    world.run(6.0)
    assert world.moves == [SAME, RAW], "one topic cannot be listened to as of two types"
    for _ in range(30):
        world.sends = set()
        world.run(10.0)
        world.sends = {RAW}
        world.run(10.0)
        assert world.choice.place == RAW
    assert len(world.moves) <= 2 * 12, "once a minute in the end"
    world.published[RAW] = set()  # it was killed after all
    assert world.run(2.0) == SAME


def test_a_publisher_of_the_same_place_is_waited_for() -> None:
    """A driver of both is killed and back: what comes first of it is chance."""
    world = World().reads(RAW)
    world.published[JPEG] = {b"first, too"}
    world.sends = set()
    world.run(0.6)
    world.published[RAW], world.published[JPEG] = {b"first", b"second"}, {b"first, too", b"second, too"}
    world.sends = {JPEG}
    world.run(3.0)
    world.sends = {RAW, JPEG}
    assert world.run(3.0) == RAW and not world.moves


@pytest.mark.parametrize("seed", range(200))
def test_whatever_comes_and_goes_it_moves_seldom_and_finds_the_images(seed: int) -> None:
    chance = random.Random(seed)
    world, changes = World(), 0
    for number in range(60):
        what = chance.randrange(5)
        place = chance.choice(PLACES)
        if what == 0:
            world.published[place] = world.published[place] | {b"%d" % number}
            changes += 1
        elif what == 1:
            world.published[place] = set()
            changes += 1
        elif what == 2:
            world.respawns.pop(place, None)
            if chance.random() < 0.7:
                world.respawns[place] = chance.choice(RESPAWNS)
            changes += 1
        else:
            world.sends = set(chance.sample(PLACES, chance.randrange(4)))
        world.sends = {it for it in world.sends if world.published[it]}
        world.run(chance.choice((0.2, 1.0, 3.0, 8.0)))
    assert len(world.moves) <= 2 * changes + 2 * (world.now_s - 100.0) / 20.0
    settled = len(world.moves)
    world.run(70.0)
    assert len(world.moves) <= settled + 7, "one that was due, and three readings as of the other type"
    assert not world.sends or world.choice.place in world.sends, "what comes is found"
    settled = len(world.moves)
    world.run(300.0)
    assert len(world.moves) == settled or (not world.sends and len(world.moves) <= settled + 2 * 6)


@pytest.mark.parametrize("other", [SAME, JPEG])
def test_a_monitor_that_rested_goes_on_where_it_was(other: ImageTopic) -> None:
    world = World().reads(other)
    world.published[RAW] = {b"silent"}
    world.now_s += 1000.0
    world.newest_s, world.taken_s = None, world.now_s
    world.choice.resume(world.published, world.now_s)
    world.run(60.0)
    assert world.choice.place == other and not world.moves
