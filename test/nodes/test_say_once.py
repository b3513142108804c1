"""A warning is logged once until its subject is forgotten."""

from __future__ import annotations

from topreward_ros.nodes import say_once as module
from topreward_ros.nodes.say_once import SayOnce


class Log:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def test_each_subject_is_warned_of_once() -> None:
    log = Log()
    say_once = SayOnce(log)
    for number in range(3):
        say_once.warn("loss", f"lost {number}".format)
        say_once.warn(("silence", "wrist"), f"silent {number}".format)
    assert log.warnings == ["lost 0", "silent 0"]
    say_once.forget(("silence", "wrist"))
    say_once.forget("what was never warned of")
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


def test_other_advice_is_news_but_not_at_once(monkeypatch) -> None:
    """What others are there is discovered by and by: the first advice may be wrong."""
    log, now = Log(), [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    say_once = SayOnce(log)

    def news(seconds: float, advice: str) -> list[str]:
        now[0] = 100.0 + seconds
        say_once.warn_of_news("camera", advice, f"after {seconds:g} s: {advice}".format)
        taken, log.warnings = log.warnings, []
        return taken

    assert news(0, "nobody") == []  # nothing was told that this differs from
    say_once.note_advice("camera", "nobody".format)
    say_once.note_advice("camera", "somebody".format)  # the first counts
    assert news(9, "nobody") == []
    assert news(9, "on /other") == ["after 9 s: on /other"]
    assert news(9.2, "on /other, /third") == []  # not so soon after the last
    assert news(12.1, "on /other, /third") == ["after 12.1 s: on /other, /third"]
    assert news(60, "on /other, /third") == []
    say_once.forget("camera")  # images came
    assert news(70, "nobody") == []
    say_once.note_advice("camera", "nobody".format)
    assert news(71, "on /other") == []
    assert news(73.1, "on /other") == ["after 73.1 s: on /other"]


def test_what_changes_is_warned_of_where_it_changes_and_every_ten_seconds_at_most(monkeypatch) -> None:
    log, now = Log(), [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
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
    say_once.forget("progress")
    say_once.warn_of_change("progress", "dark by 10")
    assert len(log.warnings) == 5
