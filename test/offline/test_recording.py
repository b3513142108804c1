"""The thread that writes bags: what it leaves out, how bags are named, and what a failure leaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from rosbags.highlevel import AnyReader

from topreward_ros.core.episode_bags import Received
from topreward_ros.core.output_files import left_folders
from topreward_ros.offline.recording import BagOptions, BagThread, RecordingError, TopicOffer

START = 1_700_000_000_000_000_000


def string(number: int, length: int = 0, type_name: str = "std_msgs/msg/String") -> Received:
    text = f"{number} ".encode() + b"x" * length + b"\0"
    data = b"\0\1\0\0" + len(text).to_bytes(4, "little") + text
    return Received("/said", type_name, data, START + number, number)


def texts(bag: Path) -> list[int]:
    with AnyReader([bag]) as reader:
        read = [reader.deserialize(raw, link.msgtype).data for link, _, raw in reader.messages()]
    return [int(text.partition(" ")[0]) for text in read]


def custom_data(bag: Path) -> dict[str, str]:
    said: dict[str, str] = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"][
        "custom_data"
    ]
    return said


@contextmanager
def held_up(thread: BagThread, said: threading.Event) -> Iterator[None]:
    """The disk does not answer within this: the thread waits in what it tells."""
    thread.begin("held", "held")
    thread.write("held", string(0, type_name="nowhere_msgs/msg/None"))
    yield
    said.set()


def test_what_the_disk_does_not_keep_up_with_is_left_out_and_counted(tmp_path: Path) -> None:
    said = threading.Event()
    thread = BagThread(BagOptions(tmp_path), 1_000_000, lambda _: said.wait(30) and None)
    thread.begin("a", "bag")
    with held_up(thread, said):
        taken = [thread.write("a", string(number, 100_000)) for number in range(20)]
        assert taken == [True] * 9 + [False] * 11, "nine of 100 kB fit beside what waits"
        assert thread.write("a", string(20)), "small ones go on"
        assert thread.waiting_bytes <= 1_000_000
    thread.finish("a", "bag_done", {"outcome": "success"})
    thread.finish("held", None, {})
    assert thread.stop(30.0)
    finished = {each.key: each for each in thread.finished()}
    assert finished["a"].path == tmp_path / "bag_done" and dict(finished["a"].dropped) == {"/said": 11}
    assert texts(tmp_path / "bag_done") == [*range(9), 20]
    assert custom_data(tmp_path / "bag_done") == {"outcome": "success", "messages_dropped": "11 of /said"}
    assert [path.name for path in tmp_path.iterdir()] == ["bag_done"], "what is discarded leaves nothing"


def test_two_recorders_in_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    threads = [BagThread(BagOptions(tmp_path), 1_000_000, lambda _: None) for _ in range(3)]
    for number, thread in enumerate(threads):
        thread.begin("a", "bag")
        thread.write("a", string(number))
    for thread in threads:
        thread.finish("a", "bag_success", {})
        assert thread.stop(30.0) and not thread.failed
    bags = sorted(path.name for path in tmp_path.iterdir())
    assert bags == ["bag_success", "bag_success_2", "bag_success_3"]
    assert sorted(texts(tmp_path / bag)[0] for bag in bags) == [0, 1, 2]


def test_what_cannot_be_written_in_time_at_the_end_is_said(tmp_path: Path) -> None:
    said = threading.Event()
    thread = BagThread(BagOptions(tmp_path), 1_000_000, lambda _: said.wait(30) and None)
    with held_up(thread, said):
        assert not thread.stop(0.1, cut_off=lambda: True), "a second signal does not wait for the disk"
    thread = BagThread(BagOptions(tmp_path), 1_000_000, lambda _: None)
    thread.offer(TopicOffer("/said", "std_msgs/msg/String"))
    thread.begin("b", "late")
    thread.write("b", string(1))
    thread._given_up = True  # the time is over before the thread comes to it, or after
    thread.write("b", string(2))
    thread.finish("b", "late", {})
    assert thread.stop(30.0)
    (bag,) = thread.finished()
    assert len(texts(tmp_path / "late")) < 2 and "did not keep up" in bag.problem
    assert custom_data(tmp_path / "late")["complete"].startswith("false")


def test_a_folder_that_is_taken_away_fails_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(RecordingError, match="no bag can be written"):
        BagThread(BagOptions(Path("/proc/nowhere")), 1_000_000, said.append)
    folder = tmp_path / "folder"
    thread = BagThread(BagOptions(folder), 1_000_000, said.append)
    folder.rmdir()
    folder.write_text("a file")
    thread.begin("a", "bag")
    thread.write("a", string(0))
    thread.finish("a", "bag", {})
    assert thread.stop(30.0) and thread.failed
    (bag,) = thread.finished()
    assert bag.path is None and bag.problem and "is not recorded" in said[0]
    assert not left_folders(tmp_path)
