"""What is shown of a bag: episodes as they were recorded, images evenly over them, and what is not."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from test import bags
from test.bags import START_NS, Recorded
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.outputs import State
from topreward_ros.offline.bag_episodes import EVENT, INFO, PROGRESS, REWARD, read_content
from topreward_ros.offline.bags import BagError
from topreward_ros.offline.message_definitions import definition
from topreward_ros.offline.task_messages import time_fields
from topreward_ros.views.report import report
from topreward_ros.views.terminal import RANDOM_WARNING

TOPICS = {PROGRESS: "task_progress", REWARD: "task_reward", EVENT: "task_event", INFO: "monitor/info"}
NUMBERS = ("int", "uint", "float")


@cache
def store() -> Any:
    made = get_typestore(Stores.ROS2_JAZZY)
    for kind in TOPICS:
        types = get_types_from_msg(definition(kind).text, kind)
        made.register({name: it for name, it in types.items() if name not in made.types})
    return made


def message(kind: str, **fields: Any) -> Any:
    """A message with ``fields``; the others are zero or empty."""
    values = {}
    for name, (node, about) in store().fielddefs[kind][1]:
        of_kind = str(about[0] if node == 1 else about)
        empty: Any = 0 if of_kind.startswith(NUMBERS) else False if of_kind == "bool" else ""
        if node == 2:
            values[name] = message(str(about), **fields.get(name, {}))
        else:
            values[name] = fields.get(name, [] if node > 2 else empty)
    return store().types[kind](**values)


def said(kind: str, at_s: float, namespace: str = "", **fields: Any) -> Recorded:
    """A message on its topic, of a frame ``at_s`` after the start."""
    stamp_ns = START_NS + round(at_s * NS_PER_S)
    header = {"stamp": time_fields(fields.pop("stamp_ns", stamp_ns)), "frame_id": "camera"}
    data = store().serialize_cdr(message(kind, header=header, **fields), kind)
    return Recorded(stamp_ns + 20_000_000, f"{namespace}/{TOPICS[kind]}", kind, bytes(data))


def episode(name: str, start_s: float, scores: int = 5, namespace: str = "") -> Iterator[Recorded]:
    """An episode at 2 Hz that succeeds with its last score; each score is repeated as a heartbeat."""
    of_it: dict[str, Any] = {"episode_id": name, "instruction": "open it"}
    yield said(EVENT, start_s, namespace, type=int(EventType.EPISODE_STARTED), **of_it)
    for k in range(scores):
        at_s, last = start_s + k / 2, k == scores - 1
        report = said(
            PROGRESS, at_s, namespace, task="open it", progress=k / 10, log_prob=-1.0 / (k + 1),
            log_prob_false=-0.5, log_prob_static=-4.0, num_frames=k + 1,
            state=int(State.SUCCEEDED if last else State.RUNNING), **of_it,
        )  # fmt: skip
        yield report
        yield Recorded(report.time_ns + 200_000_000, report.topic, report.type, report.data)
        yield said(REWARD, at_s, namespace, reward=0.1 * k, episode_id=name)
    yield said(EVENT, at_s, namespace, type=int(EventType.SUCCESS), message="held", **of_it)
    yield said(EVENT, at_s, namespace, type=int(EventType.EPISODE_ENDED), **of_it)


def pictures(seconds: float, rate: float = 10.0, width: int = 64) -> list[tuple[int, np.ndarray]]:
    """A camera's frames: picture k is of grey value k."""
    count = int(seconds * rate) + 1
    return [(round(k * NS_PER_S / rate), np.full((48, width, 3), k, np.uint8)) for k in range(count)]


def grey_of(jpeg: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(jpeg))).mean())


def test_episodes_with_their_scores_events_and_images(tmp_path: Path) -> None:
    info = said(INFO, 0.0, model_id="m", random_weights=True, camera_names=["/image", "/wrist"])
    bag = bags.write_bag(
        tmp_path / "run",
        [
            *(info, *episode("e1", 0.5, 5), *episode("e2", 4.0, 9), *bags.camera(pictures(10.0))),
            *bags.camera(pictures(10.0, width=1000), "/wrist", compressed=False),
            *bags.camera(pictures(1.0), "/other"),
        ],
    )
    content = read_content(bag, frames=20, width=320)
    assert content.cameras == ("/image", "/wrist") and content.random_weights and "m (" in content.model
    first, second = content.episodes
    assert (first.name, first.task, first.state) == ("e1", "open it", "SUCCEEDED")
    assert [event.type for event in second.events] == ["EPISODE_STARTED", "SUCCESS", "EPISODE_ENDED"]
    assert (second.start_ns - START_NS, second.end_ns - START_NS) == (4 * NS_PER_S, 8 * NS_PER_S)
    assert [score.stamp_ns - START_NS for score in first.scores] == [
        round((0.5 + k / 2) * NS_PER_S) for k in range(5)
    ]
    assert [score.reward for score in first.scores] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert [score.progress for score in first.scores] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert second.scores[-1].log_prob_static == -4.0 and second.scores[1].log_prob == -0.5
    for shown in (first, second):
        for camera in content.cameras:
            frames = shown.frames[camera]
            times = [frame.stamp_ns for frame in frames]
            assert times[0] == shown.start_ns and times[-1] == shown.end_ns, "first and last are there"
            assert [grey_of(frame.jpeg) for frame in frames] == pytest.approx(
                [(time - START_NS) / NS_PER_S * 10 for time in times], abs=1.5
            ), "each image is the one of its time"
    assert len(first.frames["/image"]) == 7 and len(second.frames["/image"]) == 13  # 20 over 2 s and 4 s
    size = Image.open(io.BytesIO(first.frames["/wrist"][0].jpeg)).size
    assert size == (320, 15)


def test_cameras_are_chosen_and_a_wrong_one_is_named_with_what_is_there(tmp_path: Path) -> None:
    many = [it for k in range(6) for it in bags.camera(pictures(0.3), f"/c{k}")]
    bag = bags.write_bag(tmp_path / "run", [*many, *bags.camera(pictures(0.3), "/monitor/debug_image")])
    content = read_content(bag)
    assert content.cameras == ("/c0", "/c1", "/c2", "/c3") and "4 of 6 cameras" in " ".join(content.notes)
    assert read_content(bag, ["c5", "/c1"]).cameras == ("/c5", "/c1")
    spoken = bags.write_bag(tmp_path / "spoken", [*episode("e1", 0.0), *many[:4], *bags.chatter(0.3)])
    with pytest.raises(BagError, match=r"no images on /nowhere; there are /c0 \(\S+CompressedImage, 4\)$"):
        read_content(spoken, ["/nowhere"])
    silent = bags.write_bag(tmp_path / "silent", [*episode("e1", 0.0), *bags.chatter(0.3)])
    with pytest.raises(BagError, match="no images on /nowhere, nor on another topic; there are /chatter"):
        read_content(silent, ["/nowhere"])


def test_why_an_episode_waited_is_a_note_only_while_it_waits(tmp_path: Path) -> None:
    begun = said(EVENT, 0.0, type=int(EventType.EPISODE_STARTED), episode_id="e1", instruction="open it")
    messages, notes = [begun], []
    reports = [
        (State.WAITING_FOR_IMAGES, "no frame of this episode yet"),
        (State.RUNNING, ""),
        (State.RUNNING, "the prefix began anew"),
        (State.STALE, "no image since noon; the prefix began anew"),
        (State.SUCCEEDED, ""),
    ]
    for k, (state, text) in enumerate(reports):
        messages.append(said(PROGRESS, k, state=int(state), message=text, num_frames=k, episode_id="e1"))
        (only,) = read_content(bags.write_bag(tmp_path / f"run{k}", messages)).episodes
        notes.append(only.message)
    assert notes == [*(text for _, text in reports[:-1]), "the prefix began anew"]


def test_a_bag_without_our_topics_is_shown_whole(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "run", bags.camera(pictures(3.0), stamped=False))
    content = read_content(bag, frames=7)
    (whole,) = content.episodes
    assert not whole.name and len(whole.frames["/image"]) == 7
    assert (whole.end_ns - whole.start_ns) == 3 * NS_PER_S, "the time of receipt stands in"
    assert "topreward annotate" in content.notes[0]


def test_a_bag_without_images_has_curves(tmp_path: Path) -> None:
    content = read_content(bags.write_bag(tmp_path / "run", episode("e1", 0.0)))
    assert len(content.episodes[0].scores) == 5 and not content.episodes[0].frames
    assert content.notes == ["No images in this bag."]


def test_two_robots_in_a_bag(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "run", [*episode("e", 0.0), *episode("e", 1.0, 3, "/arm")])
    assert [(it.namespace, len(it.scores)) for it in read_content(bag).episodes] == [("", 5), ("/arm", 3)]


def test_each_robot_has_its_own_cameras_and_model(tmp_path: Path) -> None:
    robots = {"/arm0": "good", "/arm1": "bad"}
    messages = []
    for name, model in robots.items():
        about = {"model_id": model, "camera_names": [f"{name}/image"], "random_weights": model == "bad"}
        messages += [said(INFO, 0.0, name, **about), *episode(f"e{name[1:]}", 0.5, 4, name)]
        messages += [
            *bags.camera(pictures(3.0), f"{name}/image"),
            *bags.camera(pictures(3.0), f"{name}/debug"),
        ]
    content = read_content(bags.write_bag(tmp_path / "run", messages))
    assert [(list(it.frames), it.model.split()[0], it.random_weights) for it in content.episodes] == [
        (["/arm0/image"], "good", False),
        (["/arm1/image"], "bad", True),
    ]
    assert (content.model, content.random_weights) == ("", False), "it is that of no page"
    page = report(content)
    assert page.count("model good") == page.count("model bad") == 1
    assert page.index("model good") < page.index("model bad") < page.index(RANDOM_WARNING)
    unnamed = [it for it in messages if it.type != INFO]
    shown = read_content(bags.write_bag(tmp_path / "unnamed", unnamed)).episodes
    assert [set(it.frames) for it in shown] == [{f"{name}/image", f"{name}/debug"} for name in robots]


def test_an_episode_in_several_namespaces_is_one(tmp_path: Path) -> None:
    moved = {PROGRESS: "/arm/progress", REWARD: "/learner/reward", EVENT: "/bt/event"}
    messages = [
        Recorded(it.time_ns, moved[it.type], it.type, it.data)
        for it in [*episode("e1", 0.5), *episode("e2", 5.0)]
    ]
    bag = bags.write_bag(tmp_path / "run", [*messages, *bags.camera(pictures(8.0))])
    shown = read_content(bag).episodes
    assert [(it.name, len(it.scores), len(it.events)) for it in shown] == [("e1", 5, 3), ("e2", 5, 3)]
    assert [score.reward for score in shown[1].scores] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("stamp_of", "score_stamp_of", "said_of_it"),
    [
        (lambda ns: ns - 10**18, lambda ns: ns, "Stamps that do not fit each other in e1"),  # another clock
        (lambda ns: ns, lambda ns: 0, "Scores without a stamp in e1"),
        (*[lambda ns: ns - 3600 * NS_PER_S * (ns > START_NS + 2 * NS_PER_S)] * 2, "A clock that jumps in e1"),
    ],
)
def test_where_stamps_do_not_fit_the_time_of_receipt_stands_in(
    stamp_of: Any, score_stamp_of: Any, said_of_it: str, tmp_path: Path
) -> None:
    images = [
        Recorded(it.time_ns, it.topic, it.type, bags.jpeg_image(picture, stamp_of(START_NS + ns)))
        for it, (ns, picture) in zip(bags.camera(pictures(5.0)), pictures(5.0), strict=True)
    ]
    scores = [
        said(
            PROGRESS, k / 2, episode_id="e1", task="t", num_frames=k + 1, progress=k / 10,
            state=int(State.RUNNING), stamp_ns=score_stamp_of(START_NS + k * NS_PER_S // 2),
        )
        for k in range(9)
    ]  # fmt: skip
    at_receipt = [
        Recorded(START_NS + k * NS_PER_S // 2 + 20_000_000, it.topic, it.type, it.data)
        for k, it in enumerate(scores)
    ]
    content = read_content(bags.write_bag(tmp_path / "run", [*images, *at_receipt]), frames=20)
    (only,) = content.episodes
    assert len(only.scores) == 9 and len(only.frames["/image"]) >= 19
    assert only.end_ns - only.start_ns == 4 * NS_PER_S
    assert [grey_of(it.jpeg) for it in only.frames["/image"]] == pytest.approx(
        [(it.stamp_ns - START_NS) / NS_PER_S * 10 for it in only.frames["/image"]], abs=1.5
    )
    assert len([note for note in content.notes if said_of_it in note]) == 1


def test_a_jump_of_all_clocks_costs_few_images(tmp_path: Path) -> None:
    def late(ns: int) -> int:
        return ns + 3600 * NS_PER_S

    after = [(late(ns), picture) for ns, picture in pictures(5.0)]
    ends = [said(PROGRESS, at_s, episode_id="e1", num_frames=k) for k, at_s in enumerate((0.0, 3605.0), 1)]
    messages = [*ends, *bags.camera([*pictures(5.0), *after])]
    (only,) = read_content(bags.write_bag(tmp_path / "run", messages), frames=20).episodes
    assert len(only.frames["/image"]) == 20


def test_a_second_camera_on_another_clock_is_shown(tmp_path: Path) -> None:
    wrist = [
        Recorded(it.time_ns, it.topic, it.type, bags.jpeg_image(picture, 5 + ns))
        for it, (ns, picture) in zip(bags.camera(pictures(4.0), "/wrist"), pictures(4.0), strict=True)
    ]
    both = [*bags.camera(pictures(4.0)), *wrist]
    content = read_content(bags.write_bag(tmp_path / "run", [*episode("e1", 0.5), *both]), frames=20)
    (only,) = content.episodes
    assert only.start_ns == START_NS + NS_PER_S // 2, "the scores' clock stays"
    for frames in only.frames.values():
        assert len(frames) >= 19  # the last one is received behind the last score
        assert [grey_of(it.jpeg) for it in frames] == pytest.approx(
            [(it.stamp_ns - START_NS) / NS_PER_S * 10 for it in frames], abs=2.5
        )
    assert "images on /wrist do not fit those of the scores in e1" in " ".join(content.notes)
    whole = read_content(bags.write_bag(tmp_path / "plain", both), frames=20).episodes[0]
    assert [len(frames) for frames in whole.frames.values()] == [20, 20]


def test_what_has_nothing_to_show_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"neither images nor .* there are /chatter"):
        read_content(bags.write_bag(tmp_path / "talk", bags.chatter(1.0)))
    with pytest.raises(BagError, match="no messages at all"):
        read_content(bags.write_bag(tmp_path / "empty", []))


def test_damaged_messages_are_counted_and_the_next_image_stands_in(tmp_path: Path) -> None:
    good = list(bags.camera(pictures(2.0), compressed=False))
    cut = [Recorded(it.time_ns, it.topic, it.type, it.data[:-9]) for it in good[:3]]
    progress = list(episode("e1", 0.0))
    broken = [Recorded(it.time_ns, it.topic, it.type, it.data[:30]) for it in progress if it.type == PROGRESS]
    bag = bags.write_bag(tmp_path / "run", [*cut, *good[3:], *progress, *broken])
    content = read_content(bag, frames=5)
    assert grey_of(content.episodes[0].frames["/image"][0].jpeg) == pytest.approx(3, abs=1)
    notes = " ".join(content.notes)
    assert "10 messages on /task_progress could not be read" in notes
    assert "3 images on /image could not be read" in notes


def test_numbers_and_names_of_another_version(tmp_path: Path) -> None:
    of_it: dict[str, Any] = {"episode_id": "e", "instruction": "open it"}
    bag = bags.write_bag(
        tmp_path / "run",
        [
            said(PROGRESS, 1.0, progress=nan, log_prob=nan, num_frames=1, state=77, **of_it),
            said(EVENT, 1.0, type=99, stamp_ns=0, **of_it),
            said(PROGRESS, 2.0, state=int(State.IDLE), num_frames=0),
        ],
    )
    (only,) = read_content(bag).episodes
    assert only.state == "state 77" and only.events[0].type == "event 99" and only.events[0].stamp_ns == 0
    assert isnan(only.scores[0].progress) and isnan(only.scores[0].reward)
    assert only.start_ns == only.end_ns == START_NS + NS_PER_S


def test_more_episodes_than_a_page_has_room_for(tmp_path: Path) -> None:
    messages = [it for k in range(50) for it in episode(f"e{k:02}", 3.0 * k, 2)]
    content = read_content(bags.write_bag(tmp_path / "run", messages))
    assert [it.name for it in content.episodes] == [f"e{k:02}" for k in range(40)]
    assert "The first 40 of 50 episodes are shown." in content.notes
