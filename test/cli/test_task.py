"""What `topreward task` takes for which call, and what it refuses before ROS 2 starts."""

from __future__ import annotations

import pytest

from topreward_ros.cli.main import _parser, main
from topreward_ros.cli.task import _call
from topreward_ros.core.monitor_call import MonitorCall


@pytest.mark.parametrize(
    ("arguments", "service", "values"),
    [
        (["open the  drawer"], "set_task", {"instruction": "open the drawer", "episode_id": ""}),
        (["open", "close\n\nopen "], "set_task", {"instruction": "open\nclose\nopen", "episode_id": ""}),
        (["open", "--episode-id", "take-7"], "set_task", {"instruction": "open", "episode_id": "take-7"}),
        ([""], "set_task", {"instruction": "", "episode_id": ""}),
        (["--reset"], "reset", {}),
        (["--enable"], "enable", {"data": True}),
        (["--disable"], "enable", {"data": False}),
    ],
)
def test_options_stand_for_one_call(arguments: list[str], service: str, values: dict[str, object]) -> None:
    assert _call(_parser().parse_args(["task", *arguments])) == MonitorCall(service, values)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no task: say what the robot is to do"),
        (["--episode-id", "take-7"], "no task: say what the robot is to do"),
        (["open", "--reset"], "TASK and --reset are two commands"),
        (["", "--disable"], "TASK and --disable are two commands"),
        (["--reset", "--episode-id", "take-7"], "--episode-id and --reset are two commands"),
        (["x" * 3000], "at most 2,000 are taken"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["task", *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("topreward: ") and said in shown.err
    assert len(shown.err.splitlines()) == 1


def test_two_commands_at_once_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["task", "--enable", "--disable"])
    assert "not allowed with" in capsys.readouterr().err
