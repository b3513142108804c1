"""What is said of losses is true of the newest minute."""

from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.losses import Losses


def test_what_was_lost_long_ago_is_no_loss_of_today() -> None:
    losses = Losses()
    losses.note(0, lost=1000)
    for k in range(1, 30 * 30):
        losses.note(k * NS_PER_S // 30)
    assert losses.share() > 0.5
    for k in range(30 * 30, 70 * 30):
        losses.note(k * NS_PER_S // 30)
    assert losses.share() == 0.0


def test_a_slow_camera_is_judged_by_as_many_messages() -> None:
    losses = Losses()
    for k in range(20):
        losses.note(k * 5 * NS_PER_S, lost=2)
    assert losses.share() > 0.6
    for k in range(20, 60):
        losses.note(k * 5 * NS_PER_S)
    assert losses.share() == 0.0


def test_a_few_messages_tell_nothing() -> None:
    losses = Losses()
    losses.note(0, lost=20)
    assert losses.share() == 0.0


def test_late_gaps_are_those_of_this_process() -> None:
    losses = Losses()
    for k in range(90):
        losses.note(k * NS_PER_S // 3, lost=1, late=k % 3 > 0)
    assert losses.came_late()
    losses.forget()
    for k in range(90):
        losses.note(k * NS_PER_S // 3, lost=1, late=k % 3 == 0)
    assert not losses.came_late()
