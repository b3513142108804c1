"""A warning is logged once until its subject is forgotten."""

from __future__ import annotations

import pytest

from topreward_ros.nodes import say_once as module
from topreward_ros.nodes.say_once import SayOnce


class Log:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time [s], for tests to change."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_each_subject_is_warned_of_once(now: list[float]) -> None:
    log = Log()
    say_once = SayOnce(log)
    for number in range(3):
        say_once.warn("loss", f"lost {number}".format)
        say_once.warn(("silence", "wrist"), f"silent {number}".format)
    assert log.warnings == ["lost 0", "silent 0"]
    say_once.forget(("silence", "wrist"))
    say_once.forget("what was never warned of")
    now[0] += 10.0
    say_once.warn("loss", "lost again".format)
    say_once.warn(("silence", "wrist"), "silent again".format)
    assert log.warnings == ["lost 0", "silent 0", "silent again"]


def test_an_empty_text_is_no_warning_and_asked_for_again() -> None:
    log = Log()
    say_once = SayOnce(log)
    texts = iter(["", "", "two publishers"])
    for _ in range(5):
        say_once.warn("publishers", lambda: next(texts))
    assert log.warnings == ["two publishers"]


def test_what_comes_and_goes_is_warned_of_every_ten_seconds_at_most(now: list[float]) -> None:
    """A camera that sends an image every two seconds, stamps that lie about a second in the future."""
    log = Log()
    say_once = SayOnce(log)
    for second in range(30):
        now[0] = 100.0 + second
        say_once.warn("camera", f"silent at {second}".format)
        if second % 2:
            say_once.forget("camera")
        say_once.warn_of_news("other", "nobody publishes", f"other at {second}".format)
        say_once.forget("other")
    silent, other = ([it for it in log.warnings if it.startswith(kind)] for kind in ("silent", "other"))
    assert silent == ["silent at 0", "silent at 10", "silent at 20"]
    assert other == ["other at 0", "other at 10", "other at 20"]


def test_other_advice_is_news_where_it_has_stayed_so(now: list[float]) -> None:
    """What others are there is discovered by and by: the first advice may be wrong."""
    log = Log()
    say_once = SayOnce(log)

    def news(advice: str, begin: float, end: float) -> list[str]:
        for tenth in range(round(begin * 10), round(end * 10)):
            now[0] = 100.0 + tenth / 10
            say_once.warn_of_news("camera", advice, f"at {tenth / 10:g} s: {advice}".format)
        taken, log.warnings = log.warnings, []
        return taken

    assert news("nobody", 0.0, 2.0) == ["at 0 s: nobody"]
    assert news("on /other", 2.0, 20.0) == ["at 10 s: on /other"]
    for begin in range(20, 60, 8):  # nodes that come and go
        assert news("on /other, /third", begin, begin + 4) == news("on /other", begin + 4, begin + 8) == []
    assert news("on /third", 60.0, 70.0) == ["at 65 s: on /third"]
    say_once.forget("camera")  # images came
    assert news("nobody", 71.0, 90.0) == ["at 75 s: nobody"], "but 10 s after the last line"


def test_what_somebody_else_told_is_the_first_line(now: list[float]) -> None:
    log = Log()
    say_once = SayOnce(log)
    assert not say_once.has_told("camera")
    say_once.note_advice("camera", "nobody".format)
    say_once.note_advice("camera", "somebody".format)  # the first counts
    assert say_once.has_told("camera")
    for tenth in range(200):
        now[0] = 100.0 + tenth / 10
        say_once.warn_of_news("camera", "nobody" if tenth < 150 else "on /other", f"at {tenth}".format)
    assert log.warnings == []
    now[0] = 120.0
    say_once.warn_of_news("camera", "on /other", "at last".format)
    assert log.warnings == ["at last"]
    say_once.forget("camera")
    assert not say_once.has_told("camera")


def test_what_changes_is_warned_of_where_it_changes_and_every_ten_seconds_at_most(now: list[float]) -> None:
    log = Log()
    say_once = SayOnce(log)
    for _ in range(100):
        say_once.warn_of_change("progress", "dark")
        now[0] += 1.0
    assert log.warnings == ["dark"]
    for number in range(20):
        say_once.warn_of_change("progress", f"dark by {number}")
        now[0] += 1.0
    assert log.warnings == ["dark", "dark by 0", "dark by 10"]
    for text in ("", "dark by 10"):
        say_once.warn_of_change("progress", text)
        now[0] += 1.0
    assert log.warnings[3:] == ["dark by 10"]  # it was over in between
