"""What is warned of through Python's loggers stands in the log of the node that it is of."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy")

from topreward_ros.nodes import python_log
from topreward_ros.nodes.log import logger_named


@pytest.fixture
def pythons_own_records() -> Iterator[None]:
    """Those of a program, which a test before may have begun with, have no line breaks."""
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.usefixtures("pythons_own_records")
def test_what_no_node_says_has_the_level_and_the_name_of_one(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "lastResort", None)
    python_log.hear_python(logger_named("monitors"))
    record = logging.getLogger("topreward_ros.scoring").makeRecord
    assert logging.lastResort is not None

    def say(level: int, text: str) -> None:
        assert logging.lastResort is not None
        logging.lastResort.handle(record("topreward_ros.scoring", level, "", 0, text, (), None))

    def of_arm() -> None:
        python_log._of_thread.set(logger_named("arm.monitor"))
        say(logging.WARNING, "compile: true has no effect")
        say(logging.ERROR, "unexpected error\n    Traceback")

    thread = threading.Thread(target=of_arm)
    thread.start()
    thread.join()
    say(logging.WARNING, "of nobody")
    assert logging.lastResort.level == logging.WARNING, "what is below that is for who debugs"
    said = [line.partition("] [") for line in capfd.readouterr().err.splitlines()]
    assert [(level, rest.partition("] [")[2]) for level, _, rest in said] == [
        ("[WARN", "arm.monitor]: compile: true has no effect"),
        ("[ERROR", "arm.monitor]: unexpected error"),
        ("[ERROR", "arm.monitor]:     Traceback"),
        ("[WARN", "monitors]: of nobody"),
    ]
