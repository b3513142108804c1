"""A warning is logged once until its subject is forgotten."""

from __future__ import annotations

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
