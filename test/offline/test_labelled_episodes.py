"""Labelled episodes come from folders, lists and datasets; what is wrong with one of them is a sentence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from test import bags
from test.lerobot_datasets import brightness, edit_info, make_dataset
from test.scorers import Brightness
from topreward_ros.core.errors import UserError
from topreward_ros.core.events import EventType
from topreward_ros.core.frames import NS_PER_S
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.outputs import ProgressReport
from topreward_ros.core.progress import NO_SCORE
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.annotation_report import AnnotationSettings
from topreward_ros.offline.bag_video import open_part, parts_of
from topreward_ros.offline.bag_watch import BagWatch, find_sources
from topreward_ros.offline.bags import Bag
from topreward_ros.offline.camera_images import ImageReader
from topreward_ros.offline.label_checks import class_problems, generic_task_problem
from topreward_ros.offline.labelled_episodes import Labelled, Reading, joined, labelled_data, labelled_files
from topreward_ros.offline.message_types import MessageTypes
from topreward_ros.offline.raw_samples import rosbags_image
from topreward_ros.offline.score_video import Recording, score_recordings
from topreward_ros.offline.side_by_side import score_side_by_side

TASK = "make it bright"


def reading(**more: object) -> Reading:
    parameters = {**monitor_defaults(), "image_topics": ["/image"], "sample_rate": 4.0}
    return Reading(AnnotationSettings(parameters), **more)  # type: ignore[arg-type]


def write_video(path: Path, start: int = 20, frames: int = 8) -> Path:
    """A video at 4 Hz of something that grows brighter."""
    texture = np.kron(np.random.default_rng(0).integers(-15, 16, (9, 12, 1)), np.ones((8, 8, 3), int))
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=4)
        stream.width, stream.height = 96, 72
        for k in range(frames):
            picture = (texture + start + 10 * k).astype(np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        output.mux(stream.encode(None))
    return path


def write_labels(folder: Path, *lines: str, head: str = "file,task,success") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "labels.csv").write_text("\n".join([head, *lines, ""]))
    return folder


def picture(value: int) -> np.ndarray:
    """A picture that shows something, and as a whole the brighter the larger ``value``."""
    image = np.full((96, 128, 3), value, np.uint8)
    image[::8] = 255 - image[::8]
    return image


def frames_of(count: int, start: int = 30, step: int = 8) -> list[tuple[int, np.ndarray]]:
    return [(k * NS_PER_S // 4, picture(start + step * k)) for k in range(count)]


# ---- labels.csv -------------------------------------------------------------------------------------------


def test_a_folder_with_labels_gives_an_episode_per_line(tmp_path: Path) -> None:
    folder = write_labels(
        tmp_path / "runs",
        "a.mp4,open the drawer,1,1.25",
        '"b, second.mp4",open the drawer,FAILED,',
        "pictures,,,",
        head="File, Task ,success,done_s",
    )
    write_video(folder / "a.mp4")
    write_video(folder / "b, second.mp4", 40)
    (folder / "pictures").mkdir()
    for k in range(4):
        cv2.imwrite(str(folder / "pictures" / f"{k}.png"), picture(40 * k))
    write_video(folder / "stray.mp4")

    made = labelled_data(folder, reading(task="close the drawer", rate=2.0))

    assert [(it.task, it.succeeded, it.done_s) for it in made.episodes] == [
        ("open the drawer", True, 1.25),
        ("open the drawer", False, None),
        ("close the drawer", None, None),
    ]
    assert [it.duration_s for it in made.episodes] == [1.75, 1.75, 1.5]
    assert len({it.identity for it in made.episodes}) == 3
    assert made.problems == ()
    assert made.notes == (f"{folder}: stray.mp4 has no line in labels.csv and is left out",)
    with_stamps = [stamp_ns for stamp_ns, _ in made.episodes[2].open()]
    assert with_stamps == [0, 500_000_000, 1_000_000_000, 1_500_000_000]


def test_a_file_whose_line_cannot_be_used_is_not_said_to_have_none(tmp_path: Path) -> None:
    folder = write_labels(
        tmp_path / "runs", "a.mp4,open,1", "b.mp4,open,maybe", "c.mp4,open, not close,1", " ,open,1"
    )
    for name in "abcde":
        write_video(folder / f"{name}.mp4")
    made = labelled_data(folder, reading())
    assert len(made.problems) == 3
    assert made.notes == (f"{folder}: d.mp4, e.mp4 have no line in labels.csv and are left out",)


def test_films_of_one_attempt_have_something_in_common(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        folder = write_labels(
            tmp_path / name,
            *("l.mp4,open,1,run 1", "r.mp4,open,1,run 1", "other.mp4,open,1,run 2", "lone.mp4,open,1,"),
            head="file,task,success,attempt",
        )
        for k, file in enumerate(("l", "r", "other", "lone")):
            write_video(folder / f"{file}.mp4", 20 + 10 * k)
        made.append([it.attempt for it in labelled_data(folder, reading()).episodes])
    left, right, other, lone = made[0]
    assert left == right != other and lone == ""
    assert not set(made[0][:3]) & set(made[1]), "another folder's run 1 is another one"
    write_labels(folder, "l.mp4,open,1," + "x" * 201, "r.mp4,open,1,r", head="file,task,success,attempt")
    assert "line 2: attempt is 'xxx" in labelled_data(folder, reading()).problems[0]
    write_labels(folder, "l.mp4,open,1,r", "r.mp4,open,1,r", head="file,task,success,attempts")
    (said,) = labelled_data(folder, reading()).problems
    assert said.endswith("the column attempts is not used: if it is meant, call it attempt")
    write_labels(folder, "l.mp4,open,1,,t", "r.mp4,open,1,,t", head="file,task,success,done,title")
    (said,) = labelled_data(folder, reading()).problems
    assert said.endswith("the column done is not used: if it is meant, call it done_s")


def test_a_copy_tells_of_which_attempt_a_film_is_and_another_name_contradicts_it(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    head = "file,task,success,attempt"
    for other, wanted in (("", ["run 1", "run 1"]), ("run 2", ["run 1"])):
        write_labels(
            folder, f"a.mp4,open,1,{other}", "b.mp4,open,1,run 1", "copy.mp4,open,1,run 1", head=head
        )
        write_video(folder / "a.mp4")
        write_video(folder / "b.mp4", 40)
        shutil.copy(folder / "a.mp4", folder / "copy.mp4")
        made = labelled_data(folder, reading())
        assert [it.attempt.partition(" in ")[0] for it in made.episodes] == wanted
        assert ("of attempt run 2" in " ".join(made.problems)) == bool(other)


def test_the_identity_is_that_of_the_frames_wherever_they_lie(tmp_path: Path) -> None:
    one = write_labels(tmp_path / "one", "a.mp4,open,1", "b.mp4,open,0")
    write_video(one / "a.mp4")
    write_video(one / "b.mp4", 60)
    shutil.copytree(one, tmp_path / "two")
    (tmp_path / "two" / "a.mp4").rename(tmp_path / "two" / "c.mp4")
    write_labels(tmp_path / "two", "c.mp4,close,0", "b.mp4,open,0")

    first, second = (labelled_data(tmp_path / name, reading()).episodes for name in ("one", "two"))

    assert [it.identity for it in first] == [it.identity for it in second]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("missing.mp4,open,1", "line 3: there is no file or folder {folder}/missing.mp4: correct the path"),
        ("b.mp4,open,maybe", "line 3: success is 'maybe': write 1 or 0"),
        ("b.mp4,open,1,soon", "line 3: done_s is 'soon': write seconds"),
        ("b.mp4,open,0,1.0", "line 3: it says no success, and that it was done at 1 s"),
        ("b.mp4,open,1,60", "b.mp4 lasts 1.8 s, and was done at 60 s by its label"),
        ("b.mp4,open,1,,-1", "line 3: episode is '-1': write a whole number"),
        ("b.mp4,open,1,," + "9" * 5000, "line 3: episode is '9999"),
        ("~backup.mp4,open,1", "line 3: there is no file or folder {folder}/~backup.mp4: correct the path"),
        ("~nosuchuser/b.mp4,open,1", "line 3: there is no file or folder {folder}/~nosuchuser/b.mp4"),
        ("loop.mp4,open,1", "line 3: there is no file or folder {folder}/loop.mp4: correct the path"),
        ("pipe.mp4,open,1", "line 3: {folder}/pipe.mp4 is a pipe or a device, and no recording: remove"),
        ("/dev/zero,open,1", "line 3: /dev/zero is a pipe or a device, and no recording: remove the label"),
        ("piped,open,1", "line 3: {folder}/piped/1.png is no regular file: remove it"),
        ("b.mp4,open,1,,2", "b.mp4 is one episode, and episode 2 is asked for"),
        ("b.mp4,,1", "b.mp4 has no task: say it in the column task, or by --task"),
        (",open,1", "line 3: it names no file"),
        ("b.mp4,open,the drawer,1,0,7", "line 3: it has 6 fields and there are 5 columns"),
        ("short.mp4,open,1", "short.mp4 has 1 frame, and an episode needs at least 2"),
        ("broken.mp4,open,1", "broken.mp4"),
        ("empty,open,1", "empty holds no images"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_and_the_others_stay(
    line: str, problem: str, tmp_path: Path
) -> None:
    folder = write_labels(tmp_path / "runs", "a.mp4,open,1", line, head="file,task,success,done_s,episode")
    write_video(folder / "a.mp4")
    write_video(folder / "b.mp4", 60)
    write_video(folder / "short.mp4", frames=1)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "empty").mkdir()
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "piped").mkdir()
    for pipe in ("pipe.mp4", "piped/1.png"):
        os.mkfifo(folder / pipe)

    made = labelled_data(folder, reading(rate=2.0 if "empty" in line else 0.0))

    assert [Path(it.name).name for it in made.episodes] == ["a.mp4"]
    (told,) = made.problems
    assert problem.format(folder=folder) in told


@pytest.mark.parametrize("second", ["a.mp4,open,0", "copy.mp4,open,0", "copy.mp4,open,1,0.5"])
def test_labels_that_contradict_each_other_leave_the_episode_out(second: str, tmp_path: Path) -> None:
    folder = write_labels(
        tmp_path / "runs", "a.mp4,open,1,1.0", second, "b.mp4,open,0", head="file,task,success,done_s"
    )
    write_video(folder / "a.mp4")
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    write_video(folder / "b.mp4", 60)

    made = labelled_data(folder, reading())

    assert [Path(it.name).name for it in made.episodes] == ["b.mp4"]
    (told,) = made.problems
    assert "line 2" in told and "line 3" in told and "contradict each other" in told


def test_the_same_frames_twice_count_once_and_for_another_task_as_another_episode(tmp_path: Path) -> None:
    folder = write_labels(tmp_path / "runs", "a.mp4,open,1", "copy.mp4,open,1", "a.mp4,close,0")
    write_video(folder / "a.mp4")
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")

    made = labelled_data(folder, reading())

    assert [(it.task, it.succeeded) for it in made.episodes] == [("open", True), ("close", False)]
    (note,) = made.notes
    assert "copy.mp4, and counts once" in note


@pytest.mark.parametrize(
    "lines", [("a.mp4,open,1,1.0", "copy.mp4,open,,"), ("a.mp4,open,,", "copy.mp4,open,1,1.0")]
)
@pytest.mark.parametrize("third", ["a.mp4,open,1,", "a.mp4,open,,"])
def test_what_a_label_leaves_open_contradicts_no_other(
    lines: tuple[str, str], third: str, tmp_path: Path
) -> None:
    folder = write_labels(tmp_path / "runs", *lines, third, head="file,task,success,done_s")
    write_video(folder / "a.mp4")
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")

    made = labelled_data(folder, reading())

    assert [(it.succeeded, it.done_s) for it in made.episodes] == [(True, 1.0)]
    assert made.problems == ()


def test_two_spellings_of_a_task_are_one_task(tmp_path: Path) -> None:
    folder = write_labels(
        tmp_path / "runs",
        "a.mp4,open the drawer,1",
        "b.mp4,Open the  drawer.,0",
        '"c.mp4","open\nthe drawer",0',  # two stages are another task
        "d.mp4,OPEN THE DRAWER,1",
    )
    for k, name in enumerate("abcd"):
        write_video(folder / f"{name}.mp4", 20 + 30 * k)
    shutil.copy(folder / "a.mp4", tmp_path / "copy.mp4")

    made = labelled_data(folder, reading())
    other = labelled_files([], [tmp_path / "copy.mp4"], reading(task="Open the drawer."))
    together = joined(made, other)

    assert [it.task for it in made.episodes] == ["open the drawer"] * 2 + [
        "open\nthe drawer",
        "open the drawer",
    ]
    (note,) = made.notes
    assert note == (
        "'Open the drawer.', 'OPEN THE DRAWER' and 'open the drawer' are one task, which is called "
        "'open the drawer' throughout"
    )
    assert class_problems([it for it in made.episodes if "\n" not in it.task]) == []
    assert [Path(it.name).name for it in together.episodes] == ["b.mp4", "c.mp4", "d.mp4"]
    assert "contradict each other" in together.problems[-1]


def test_a_path_whose_home_nobody_has_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="~nosuchuser/runs does not exist"):
        labelled_data(Path("~nosuchuser/runs"), reading())
    with pytest.raises(UserError, match=r"there is no file or folder ~nosuchuser/a\.mp4"):
        labelled_files([Path("~nosuchuser/a.mp4")], [], reading())


def test_labels_in_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(UserError, match=r"labels.csv is a pipe or a device, and no file"):
        labelled_data(tmp_path, reading())


def test_a_truth_as_pandas_writes_it_is_read(tmp_path: Path) -> None:
    folder = write_labels(tmp_path / "runs", "a.mp4,open,1.0", "b.mp4,open,0.0")
    write_video(folder / "a.mp4")
    write_video(folder / "b.mp4", 60)
    assert [it.succeeded for it in labelled_data(folder, reading()).episodes] == [True, False]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,task\na.mp4,open\n", "has no column success: its first line must name the columns"),
        ("", "has no column file and success"),
        ("file,success\n", "has no line of labels"),
        ("file,success,success\na.mp4,1,0\n", "has the column success twice"),
        ("file,success\nmissing.mp4,1\n", "there is no file or folder"),
        ("file,success\n\0", "line 2: there is a NUL byte"),
        (
            'file,success\na.mp4,1\n"b.mp4,1\nc.mp4,0\nd.mp4,1\n',
            "line 3: from here on it is no CSV .* close each",
        ),
        ('file,success\n"b.mp4,1\n"c.mp4",0\n', "line 2: from here on it is no CSV"),
    ],
)
def test_a_file_of_labels_without_anything_to_use_is_an_error(
    text: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text(text)
    for place in (tmp_path, tmp_path / "labels.csv"):
        with pytest.raises(UserError, match=problem):
            labelled_data(place, reading())


def test_where_nothing_can_be_used_all_problems_are_told(tmp_path: Path) -> None:
    folder = write_labels(tmp_path, "a.mp4,open,1", "b.mp4,open,perhaps", "c.mp4,open,0")
    with pytest.raises(UserError, match=r"the first problem of 3: .*line 3: success is 'perhaps'") as error:
        labelled_data(folder, reading())
    assert [it.split(": ")[0][-6:] for it in error.value.lines] == ["line 2", "line 4"]


def test_a_spreadsheet_with_semicolons_and_a_mark_is_read(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    labels = tmp_path / "mine.csv"
    labels.write_bytes("\ufefffile;task;success;done_s\r\na.mp4;öffne die Schublade;1;0,5\r\n".encode())
    (episode,) = labelled_data(labels, reading()).episodes
    assert (episode.task, episode.done_s) == ("öffne die Schublade", 0.5)


def test_a_folder_without_labels_says_what_to_write(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=r"has no labels.csv: write one .* it holds a.mp4"):
        labelled_data(tmp_path, reading())
    with pytest.raises(UserError, match=r"does not exist: name a folder with labels\.csv"):
        labelled_data(tmp_path / "nowhere", reading())


# ---- lists of files ---------------------------------------------------------------------------------------


def test_lists_of_files_and_folders_of_them(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    write_video(tmp_path / "good" / "a.mp4")
    write_video(tmp_path / "good" / "b.mp4", 60)
    bad = write_video(tmp_path / "c.mp4", 90)

    made = labelled_files([tmp_path / "good"], [bad, tmp_path / "good" / "b.mp4"], reading(task=TASK))

    assert [(Path(it.name).name, it.succeeded) for it in made.episodes] == [("a.mp4", True), ("c.mp4", False)]
    (told,) = made.problems
    assert told.startswith("--success: ") and "--failure: " in told and "contradict" in told


def test_two_sources_together_are_looked_at_once_more(tmp_path: Path) -> None:
    film = write_video(tmp_path / "a.mp4")
    one = labelled_files([film], [], reading(task=TASK))
    other = labelled_files([], [film], reading(task=TASK))
    assert joined(one, other).episodes == () and len(joined(one, other).problems) == 1
    assert len(joined(one, one).episodes) == 1


# ---- LeRobot datasets -------------------------------------------------------------------------------------


def add_success(root: Path, flags: dict[int, list[bool]]) -> None:
    """Write next.success into the rows, by episode; false where none are given."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    edit_info(
        root, features={**_features(root), "next.success": {"dtype": "bool", "shape": [1], "names": None}}
    )
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        pairs = zip(table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
        column = [frame < len(flags.get(number, ())) and flags[number][frame] for number, frame in pairs]
        pq.write_table(table.append_column("next.success", pa.array(column)), path)


def _features(root: Path) -> dict[str, object]:
    import json

    return dict(json.loads((root / "meta" / "info.json").read_text())["features"])


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_the_rows_of_a_dataset_say_what_succeeded(version: str, tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "data", version)
    add_success(root, {0: [False] * 12 + [True] * 9, 2: [True]})

    made = labelled_data(root, reading())

    assert [(it.task, it.succeeded, it.done_s) for it in made.episodes] == [
        ("make it bright", True, pytest.approx(1.3)),  # the frame behind the row shows it
        ("make it white", False, None),
        ("make it bright", True, pytest.approx(0.1)),
    ]
    second = list(made.episodes[1].open())
    assert len(second) == 16
    for k, (_, read) in enumerate(made.episodes[1].open()):
        assert abs(float(read().mean()) - brightness(1, k)) < 2


def test_a_dataset_says_nothing_of_success_unless_its_labels_do(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "data")
    made = labelled_data(root, reading())
    assert [it.succeeded for it in made.episodes] == [None] * 3
    assert made.notes == (
        f"{root} does not say which episodes succeeded: add labels.csv with the columns episode,success",
    )
    write_labels(root, "1,0", "2,1", "7,1", head="episode,success")
    made = labelled_data(root, reading(camera="wrist"))
    assert [(it.task, it.succeeded) for it in made.episodes] == [("make it white", False), (TASK, True)]
    assert made.problems == (f"{root}/labels.csv, line 4: {root} has no episode 7: it has 3, counted from 0",)


def test_what_a_model_wrote_into_a_dataset_is_no_truth(tmp_path: Path) -> None:
    from topreward_ros.offline.annotate_dataset import OURS, PROGRESS_FILE
    from topreward_ros.offline.parquet_files import parquet_bytes

    root = make_dataset(tmp_path / "data")
    add_success(root, {0: [True] * 21})
    content = parquet_bytes({"index": np.arange(3)}, {OURS: '{"columns": "zero"}'})
    (root / PROGRESS_FILE).write_bytes(content)
    made = labelled_data(root, reading())
    assert [it.succeeded for it in made.episodes] == [None] * 3
    assert "what `topreward annotate` made of a model's scores" in made.notes[0]


def test_one_unknown_dataset_among_others_is_told_once(tmp_path: Path) -> None:
    make_dataset(tmp_path / "new")
    edit_info(tmp_path / "new", codebase_version="v4.0")
    folder = write_labels(
        tmp_path, "new,open,1,0", "new,open,0,1", "a.mp4,open,1,", head="file,task,success,episode"
    )
    write_video(folder / "a.mp4")
    made = labelled_data(folder, reading())
    assert len(made.episodes) == 1
    assert len(made.problems) == 2 and all("codebase_version 'v4.0'" in it for it in made.problems)


def test_a_video_of_a_dataset_stands_for_its_episodes(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "data")
    video = next(it for it in sorted((root / "videos").rglob("*.mp4")) if "wrist" in str(it))
    made = labelled_files([video], [], reading())
    assert [it.name for it in made.episodes] == [f"{root}, episode 0", f"{root}, episode 1"]
    _, read = next(iter(made.episodes[1].open()))
    assert abs(float(read().mean()) - brightness(1, 0, camera=1)) < 2


# ---- bags -------------------------------------------------------------------------------------------------

_TYPES = MessageTypes(["topreward_ros/msg/TaskEvent", "topreward_ros/msg/TaskProgress"])


def watched(path: Path, settings: AnnotationSettings, task: str) -> list[tuple[float, float, float]]:
    """What an annotation sees of a bag: time since its first score [s], log p and progress of each."""
    with Bag(path).opened(path) as opened:
        sources = find_sources(opened, settings.parameters, "", task, chosen=False)
        watch = BagWatch(
            opened, sources, settings.parameters, ImageReader(_TYPES.read, rosbags_image), lambda raw: ""
        )
        for _, outcome in score_side_by_side([watch.run(task)], Brightness(), 1):
            assert outcome is None
    reports = [it for _, it in watch.outputs if isinstance(it, ProgressReport) and it.score is not NO_SCORE]
    first_ns = reports[0].stamp.ns
    scores = {it.stamp.ns: (it.score.log_prob, it.progress) for it in reports}
    return [((ns - first_ns) / NS_PER_S, *values) for ns, values in scores.items()]


@pytest.mark.parametrize(
    "kind",
    ["plain", "file", "unstamped", "tiled"],
)
def test_the_curve_of_a_bag_is_that_of_its_annotation(kind: str, tmp_path: Path) -> None:
    frames = bags.video_frames(seconds=4.0)
    messages = [*bags.camera(frames, "/image", compressed=False, stamped=kind != "unstamped")]
    settings = reading().bags
    if kind == "tiled":
        settings = AnnotationSettings(
            {**settings.parameters, "image_topics": ["/image", "/wrist"], "camera_layout": "tile"}
        )
        late = [(ns + NS_PER_S // 50, image) for ns, image in frames if ns < 2 * NS_PER_S]
        messages += bags.camera(late, "/wrist", compressed=False)
    options = {"compression": "file"} if kind == "file" else {}
    bag = bags.write_bag(tmp_path / "bag", messages, **options)

    (part,) = parts_of(bag, settings, TASK)
    video = open_part(part, rosbags_image)
    (curve,) = score_recordings(
        [Recording("bag", TASK, lambda: video)],
        Brightness(),
        MonitorSettings.from_parameters(settings.parameters),
    )

    assert not isinstance(curve, UserError)
    seen = [(it.time_s - curve.points[0].time_s, it.score.log_prob, it.progress) for it in curve.points]
    if kind == "file":
        bag = bags.write_bag(tmp_path / "same", messages)
    assert seen == watched(bag, settings, TASK)
    assert len(seen) == (10 if kind == "tiled" else 16)
    assert len(video.info.widths) == (2 if kind == "tiled" else 0)
    assert video.info.rate == pytest.approx(20.0)


def test_the_episodes_of_a_bag_are_those_of_its_monitor_or_its_instructions(tmp_path: Path) -> None:
    settings = reading().bags
    frames = frames_of(24)
    at = [ns for ns, _ in frames]
    events = [
        bags.event(EventType.EPISODE_STARTED, "one", at[4] + 7, at[4], task="open"),
        bags.event(EventType.EPISODE_ENDED, "one", at[10] - 7, at[9], task="open"),
        bags.event(EventType.EPISODE_STARTED, "two", at[14] + 7, at[14], task="close"),
        bags.event(EventType.EPISODE_ENDED, "two", at[20] - 7, at[19], task="close"),
    ]
    bag = bags.write_bag(tmp_path / "bag", [*bags.camera(frames), *events])
    open_, close = parts_of(bag, settings)
    assert (open_.task, close.task) == ("open", "close")
    assert [stamp for stamp, _ in open_part(close, rosbags_image)] == at[:6]

    folder = write_labels(tmp_path, "bag,,1,0", "bag,,0,1", "bag,,1,", head="file,task,success,episode")
    made = labelled_data(folder, reading())
    assert [(it.task, it.succeeded) for it in made.episodes] == [("open", True), ("close", False)]
    assert made.problems == (
        f"{folder}/labels.csv, line 4: {bag} holds 2 episodes, and one label is of one: say which in the "
        "column episode, counted from 0",
    )

    told = [bags.instruction("open", at[3]), bags.instruction("", at[9]), bags.instruction("close", at[12])]
    bag = bags.write_bag(tmp_path / "told", [*bags.camera(frames), *told])
    assert [part.task for part in parts_of(bag, settings)] == ["open", "close"]
    assert [len(list(open_part(part, rosbags_image))) for part in parts_of(bag, settings)] == [6, 12]
    assert [part.task for part in parts_of(bag, settings, "stack")] == [""]  # the whole bag, for that


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        (lambda: [bags.instruction(TASK)], "has no topic /image: name the camera's topic"),
        (
            lambda: [*bags.camera(frames_of(1)), bags.instruction(TASK)],
            "has one image on /image in the episode",
        ),
        (lambda: [*bags.camera(frames_of(4))], "has no task: say it in the column task, or by --task"),
    ],
)
def test_a_bag_that_shows_nothing_is_told(
    messages: Callable[[], list[bags.Recorded]], problem: str, tmp_path: Path
) -> None:
    bags.write_bag(tmp_path / "bag", messages())
    bags.write_bag(tmp_path / "good", [*bags.camera(frames_of(6)), bags.instruction(TASK)])
    made = labelled_data(write_labels(tmp_path, "bag,,1", "good,,0"), reading())
    assert len(made.episodes) == 1 and problem in made.problems[0]
    assert "bag" in made.problems[0]


# ---- what the whole can tell ------------------------------------------------------------------------------


def made_of(*kinds: tuple[str, bool | None]) -> Labelled:
    from topreward_ros.offline.labelled_episodes import LabelledEpisode

    opener = partial(pytest.fail, "is not opened")
    return Labelled(
        tuple(
            LabelledEpisode(f"{k}.mp4", task, succeeded, None, str(k), opener, 1.0)
            for k, (task, succeeded) in enumerate(kinds)
        )
    )


def test_what_is_missing_of_a_kind_is_told_by_task() -> None:
    made = made_of(("open", True), ("open", True), ("close", True), ("close", False), ("close", None))
    assert class_problems(made.episodes) == [
        "the task 'open' has no failures among its episodes (2; the first is 0.mp4), and at least 1 failure "
        "is needed: record more, and label them by --failure or in labels.csv"
    ]
    assert [it.split(" among")[0] for it in class_problems(made.episodes, least=2)] == [
        "the task 'open' has no failures",
        "the task 'close' has 1 success",
        "the task 'close' has 1 failure",
    ]


def test_a_text_that_says_nothing_is_told() -> None:
    made = made_of(("Complete the task.", True), ("Complete the task.", False))
    assert "'Complete the task.', is the task of all 2 episodes" in generic_task_problem(made.episodes)
    mixed = (*made.episodes, replace(made.episodes[0], task="open the drawer"))
    assert generic_task_problem(mixed) == ""
    assert generic_task_problem(made_of(("open the drawer", True)).episodes) == ""
