"""A dataset annotated: what stands in which row, what a killed run leaves, and what is never touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from test.lerobot_datasets import CAMERAS, LENGTHS, TASKS, edit_info, edit_rows, make_dataset
from topreward_ros.core.errors import UserError
from topreward_ros.core.events import SuccessSettings
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.output_files import OutputFileError, kept_folder
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.rewards import Imputation, RabcSettings, RewardSettings, RewardType
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline import annotate_dataset as work
from topreward_ros.offline import dataset_weights
from topreward_ros.offline.lerobot import Dataset, DatasetError, open_dataset
from topreward_ros.offline.score_video import score_video
from topreward_ros.offline.workers import Workers
from topreward_ros.scoring.base import ScorerError, ScorerInfo, ScorerSettings, SequentialScorer

ROWS = "data/chunk-000/file-000.parquet"
SETTINGS = work.AnnotationSettings(
    model="embedded",
    monitor=replace(
        MonitorSettings.from_parameters(monitor_defaults()),
        end_episode_on_success=False,
        success=SuccessSettings(threshold=-0.3, hysteresis=0.2, dwell=0.5, min_scores=2, smoothing=1),
    ),
    scorer=ScorerSettings.from_parameters(monitor_defaults()),
    camera=CAMERAS[0],
)


class Brightness(SequentialScorer):
    """The brighter the newest frame, the surer: from -4 nat for black to 0 for white."""

    info = ScorerInfo("brightness", "1", False, "cpu", "float32", "0" * 16, 4096)
    asked: list[str] = []  # noqa: RUF012 - of all of them

    def score_one(self, request: ScoreRequest) -> PrefixScore:
        self.asked.append(request.instruction)
        newest, first = (
            float(frame.image.mean()) / 255.0 for frame in (request.prefix[-1], request.prefix[0])
        )
        if newest > 0.95:
            raise ScorerError("too bright")
        return PrefixScore(-4.0 * (1.0 - newest), -1.0, -4.0 * (1.0 - first), num_frames=len(request.prefix))

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def brightness_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    Brightness.asked.clear()
    monkeypatch.setattr(work, "load_scorer", lambda *_: Brightness())


def annotated(
    dataset: Dataset,
    settings: work.AnnotationSettings = SETTINGS,
    output: Path | None = None,
    on_note: Callable[[str], None] = pytest.fail,
) -> tuple[work.Annotation, dict[str, np.ndarray]]:
    """Annotate, write the file of progress, and read it again."""
    path = output or dataset.root / work.PROGRESS_FILE
    made = work.annotate(
        dataset,
        settings,
        lambda scores, key: path.write_bytes(work.progress_file(dataset, settings, scores, key)),
        work.work_folder(path),
        lambda: None,
        on_note,
    )
    table = pq.read_table(path)
    return made, {name: table[name].to_numpy() for name in table.column_names}


def hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_a_row_has_the_progress_of_the_newest_score_at_or_before_it(version: str, tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d", version))
    made, columns = annotated(dataset)
    schema = pq.read_schema(dataset.root / work.PROGRESS_FILE)
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        "index": "int64",
        "episode_index": "int64",
        "frame_index": "int64",
        "progress_sparse": "float",
        "raw_logprob": "float",
        "scored": "bool",
    }
    assert schema.metadata[b"vlm_name"] == schema.metadata[b"reward_model_path"] == b"embedded"
    assert b"pandas" not in schema.metadata
    assert columns["index"].tolist() == list(range(sum(LENGTHS)))
    assert columns["episode_index"].tolist() == [0] * 21 + [1] * 16 + [2] * 11
    assert columns["frame_index"].tolist() == [*range(21), *range(16), *range(11)]
    assert np.flatnonzero(columns["scored"]).tolist() == [0, 5, 10, 15, 20, 21, 26, 31, 36, 37, 42, 47]
    assert Brightness.asked == [TASKS[0]] * 5 + [TASKS[1]] * 4 + [TASKS[2]] * 3
    for row in range(48):
        newest = max(k for k in np.flatnonzero(columns["scored"]) if k <= row)
        assert columns["progress_sparse"][row] == columns["progress_sparse"][newest]
        assert columns["raw_logprob"][row] == columns["raw_logprob"][newest]
    start, end = columns["raw_logprob"][0], columns["raw_logprob"][20]
    assert columns["progress_sparse"][20] == pytest.approx(1 - end / start, abs=1e-6)
    assert columns["progress_sparse"][[0, 21, 37]].tolist() == [0.0] * 3
    assert columns["progress_sparse"].max() < 1.0
    assert [scores.success_row for scores in made.scores] == [-1, -1, -1]
    assert not work.work_folder(dataset.root / work.PROGRESS_FILE).exists()


def test_the_curve_is_that_of_the_episodes_own_video(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d", "v2.1"))
    _, columns = annotated(dataset)
    for episode in dataset.episodes:
        film = dataset.root / episode.videos[CAMERAS[0]].file
        curve = score_video(film, episode.tasks[0], Brightness(), SETTINGS.monitor)
        rows = [episode.first_index + point.video_frames - 1 for point in curve.points]
        assert columns["progress_sparse"][rows] == pytest.approx(
            np.array([point.progress for point in curve.points]), abs=1e-6
        )


def test_what_is_not_known_is_nan(tmp_path: Path) -> None:
    """The first episode ends by timeout, the others start as if they were finished."""
    dataset = open_dataset(make_dataset(tmp_path / "d", lengths=(21, 16, 16)))
    monitor = replace(
        SETTINGS.monitor, episode_timeout=1.0, success=replace(SETTINGS.monitor.success, threshold=-2.6)
    )
    made, columns = annotated(dataset, replace(SETTINGS, monitor=monitor))
    progress = columns["progress_sparse"]
    assert not np.isnan(progress[:10]).any() and np.isnan(progress[11:21]).all()
    assert np.isnan(columns["raw_logprob"][11:21]).all()
    assert np.isnan(progress[21:37]).all(), "its first frame is above the threshold"
    assert not np.isnan(columns["raw_logprob"][21:26]).any()
    assert np.isnan(progress[37:]).all() and made.scores[2].success_row == -1


def test_an_episode_that_fails_is_nan_and_the_others_are_scored(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d", lengths=(21, 44, 11)))
    made, columns = annotated(dataset)
    assert made.scores[1].error == "too bright" and not made.scores[1].rows
    assert np.isnan(columns["progress_sparse"][21:65]).all()
    assert not columns["scored"][21:65].any()
    assert not np.isnan(columns["progress_sparse"][:21]).any()


def test_where_nothing_can_be_scored_nothing_is_written(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "d", lengths=(5,), tasks=TASKS[:1])
    (root / f"videos/{CAMERAS[0]}/chunk-000/file-000.mp4").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"no episode of .* could be scored; the first: .*is not a video"):
        annotated(open_dataset(root))
    assert not (root / work.PROGRESS_FILE).exists()
    assert not work.work_folder(root / work.PROGRESS_FILE).exists(), "there is nothing to go on with"


def test_a_model_that_cannot_be_loaded_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ScorerError("no memory")

    monkeypatch.setattr(work, "load_scorer", fails)
    dataset = open_dataset(make_dataset(tmp_path / "d"))
    with pytest.raises(ScorerError, match="no memory"):
        annotated(dataset)
    assert not list(tmp_path.rglob(".*"))


def test_the_lines_of_a_task_are_stages_each_with_an_episode_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(Brightness):
        """The second stage needs more light."""

        def score_one(self, request: ScoreRequest) -> PrefixScore:
            score, less = super().score_one(request), 1.5 * (request.instruction == "make it light")
            return replace(
                score, log_prob=score.log_prob - less, log_prob_static=score.log_prob_static - less
            )

    monkeypatch.setattr(work, "load_scorer", lambda *_: Later())
    tasks = ("make it grey\nmake it light", *TASKS[1:])
    dataset = open_dataset(make_dataset(tmp_path / "d", tasks=tasks, lengths=(41, 16, 11)))
    assert work.tasks_of(dataset, "") == list(tasks)
    monitor = replace(SETTINGS.monitor, success=replace(SETTINGS.monitor.success, threshold=-2.0))
    made, columns = annotated(dataset, replace(SETTINGS, monitor=monitor))
    asked = Brightness.asked
    assert list(dict.fromkeys(asked)) == ["make it grey", "make it light", *TASKS[1:]]
    first = asked.index("make it light")
    row = made.scores[0].rows[first]
    assert columns["progress_sparse"][:row].max() < 0.5 <= columns["progress_sparse"][row:41].min()


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d"))
    calls = 0

    def killed() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    output = dataset.root / work.PROGRESS_FILE
    folder = work.work_folder(output)
    with pytest.raises(KeyboardInterrupt):
        work.annotate(
            dataset, SETTINGS, lambda *_: pytest.fail("it is not whole"), folder, killed, pytest.fail
        )
    assert not output.exists() and len(list(folder.glob("*.json"))) == 2
    (folder / "2.json").write_text("{")  # as if the disk had been full
    changed = json.loads((folder / "0.json").read_text())
    changed["progress"][0] = 7.0
    (folder / "0.json").write_text(json.dumps(changed))
    Brightness.asked.clear()
    notes: list[str] = []
    made, columns = annotated(dataset, on_note=notes.append)
    assert made.resumed == 1 and set(Brightness.asked) == {TASKS[0], TASKS[2]}
    assert notes == [f"what {folder} keeps of 2 episodes was damaged: they are scored again"]
    _, afresh = annotated(dataset, output=tmp_path / "afresh.parquet")
    assert all(np.array_equal(columns[name], afresh[name]) for name in columns)


def test_what_was_kept_for_other_settings_is_not_taken(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d"))
    folder = work.work_folder(dataset.root / work.PROGRESS_FILE)

    def killed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work.annotate(dataset, SETTINGS, lambda *_: None, folder, killed, pytest.fail)
    made, _ = annotated(dataset, replace(SETTINGS, task="another task"))
    assert made.resumed == 0 and set(Brightness.asked[1:]) >= {"another task"}


def test_the_key_is_of_all_that_the_scores_depend_on(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d"))
    key = work.annotation_key(dataset, SETTINGS)
    others = [
        replace(SETTINGS, camera=CAMERAS[1]),
        replace(SETTINGS, task="x"),
        replace(SETTINGS, monitor=replace(SETTINGS.monitor, sample_rate=4.0)),
        replace(SETTINGS, scorer=replace(SETTINGS.scorer, max_pixels=4096)),
    ]
    assert len({key, *(work.annotation_key(dataset, other) for other in others)}) == 5
    assert work.annotation_key(dataset, replace(SETTINGS, workers=Workers(2))) == key


def test_two_annotators_do_not_work_on_one_file(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d"))
    with (
        kept_folder(work.work_folder(dataset.root / work.PROGRESS_FILE)),
        pytest.raises(OutputFileError, match="another process works in"),
    ):
        annotated(dataset)


def test_tasks_come_from_the_rows_and_are_told_where_one_serves_all(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d"))
    assert work.tasks_of(dataset, "") == list(TASKS)
    assert work.tasks_of(dataset, "x") == ["x"] * 3
    assert not any("one task serves" in text for text in work.warnings_on(dataset, SETTINGS, TASKS))
    same = work.warnings_on(dataset, SETTINGS, ["a \x1b[2J"] * 3)
    assert any("one task serves all 3 episodes" in text for text in same)
    written = work.warnings_on(dataset, SETTINGS, [r"a\nb", *TASKS[1:]])
    assert any(r"'a\nb' has a backslash and an n, which are no line break" in text for text in written)
    given = work.warnings_on(dataset, replace(SETTINGS, task="a"), ["a"] * 3)
    assert not any("one task serves" in text for text in given)
    assert any("has 2 cameras" in text and "observation.images.front is looked at" in text for text in same)
    edit_rows(dataset.root / ROWS, "task_index", [0] * 10 + [1] * 27)
    with pytest.raises(
        DatasetError, match="episode 0 have several tasks, 'make it bright' and 'make it white'"
    ):
        work.tasks_of(open_dataset(dataset.root), "")


def test_a_copy_has_rewards_and_the_source_is_as_it_was(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d"))
    before = hashes(dataset.root)
    made = work.annotate(
        dataset,
        SETTINGS,
        lambda scores, key: work.write_copy(
            dataset,
            tmp_path / "copy",
            work.reward_columns(dataset, scores, Imputation.ZERO),
            work.progress_file(dataset, SETTINGS, scores, key),
        ),
        work.work_folder(tmp_path / "copy"),
        lambda: None,
        pytest.fail,
    )
    assert hashes(dataset.root) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "d"]
    copy = open_dataset(tmp_path / "copy")
    assert copy.fingerprint == dataset.fingerprint, "the progress of one is that of the other"
    dataset_weights.read_progress(copy.root / work.PROGRESS_FILE)
    features = copy.info["features"]
    assert features["next.reward"] == {"dtype": "float32", "shape": [1], "names": None}
    assert features["next.done"] == features["next.success"] == {"dtype": "bool", "shape": [1], "names": None}
    assert {name: features[name] for name in dataset.info["features"]} == dataset.info["features"]
    tables = [pq.read_table(copy.root / file) for file in copy.data_files]
    described = json.loads(tables[0].schema.metadata[b"huggingface"])["info"]["features"]
    assert set(described) == set(tables[0].column_names)
    rewards = np.concatenate([table["next.reward"].to_numpy() for table in tables])
    for episode, scores in zip(dataset.episodes, made.scores, strict=True):
        own = rewards[episode.first_index :][: episode.length]
        assert np.flatnonzero(own).tolist() == [row - 1 for row in scores.rows[1:]]
        assert own.sum() == pytest.approx(scores.progress[-1], abs=1e-6)
    done = np.concatenate([table["next.done"].to_numpy(zero_copy_only=False) for table in tables])
    assert np.flatnonzero(done).tolist() == [20, 36, 47]
    for file in dataset.data_files:
        old, new = pq.read_table(dataset.root / file), pq.read_table(copy.root / file)
        assert new.select(old.column_names).equals(old)
    key = work.annotation_key(dataset, SETTINGS)
    assert not work.is_copy(copy.root, key, Imputation.ZERO), "it does not say how rewards were imputed"
    videos = [name for name in before if name.startswith("videos") or name.startswith("meta/e")]
    assert {name: hashes(copy.root)[name] for name in videos} == {name: before[name] for name in videos}


def test_success_is_true_from_the_action_that_brought_it_on() -> None:
    class Two:
        episodes = [type("Episode", (), {"length": 6, "first_index": 0})()]  # noqa: RUF012

    scores = work.EpisodeScores((0, 2, 4), (-3.0, -2.0, -1.0), (0.0, 0.3, 0.6), (0.0, 0.3, 0.3), 6, 4)
    columns = work.reward_columns(Two(), [scores], Imputation.ZERO)  # type: ignore[arg-type]
    assert columns["next.success"].tolist() == [False, False, False, True, True, True]
    assert columns["next.reward"].tolist() == pytest.approx([0, 0.3, 0, 0.3, 0, 0])
    assert columns["next.done"].tolist() == [False] * 5 + [True]
    ended = work.reward_columns(Two(), [replace(scores, end=5)], Imputation.DUPLICATE)  # type: ignore[arg-type]
    assert ended["next.reward"].tolist() == pytest.approx([0.3, 0.3, 0.3, 0.3, 0, 0]), "0 after the end"


@pytest.mark.parametrize("spoil", ["features", "inside", "there"])
def test_a_copy_that_cannot_be_is_refused_and_nothing_left(spoil: str, tmp_path: Path) -> None:
    root, target = make_dataset(tmp_path / "d"), tmp_path / "copy"
    if spoil == "features":
        info = json.loads((root / "meta/info.json").read_text())
        edit_info(root, features={**info["features"], "next.done": {"dtype": "bool"}})
    elif spoil == "inside":
        target = root / "copy"
    else:
        target.mkdir()
    dataset = open_dataset(root)
    before = hashes(tmp_path)
    with pytest.raises(UserError, match=r"has next.done already|lies in|is there already"):
        work.write_copy(dataset, target, {}, b"")
    assert hashes(tmp_path) == before and not list(tmp_path.glob(".*"))


def test_a_full_disk_leaves_no_part_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("topreward_ros.core.output_files.shutil.copyfile", full)
    with pytest.raises(OutputFileError, match="make room"):
        work.write_copy(dataset, tmp_path / "copy", {}, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_progress_of_episodes_that_were_renumbered_since_is_refused(tmp_path: Path) -> None:
    """Two episodes of one length change places: every count agrees, and the progress is that of others."""
    dataset = open_dataset(make_dataset(tmp_path / "d", lengths=(16, 16, 11)))
    annotated(dataset)
    path = dataset.root / work.PROGRESS_FILE
    dataset_weights.read_progress(path)
    actions = pq.read_table(dataset.root / ROWS)["action"].to_pylist()
    edit_rows(dataset.root / ROWS, "action", actions[16:] + actions[:16])
    with pytest.raises(DatasetError, match="they were renumbered, removed or changed since"):
        dataset_weights.read_progress(path)
    shorter = make_dataset(tmp_path / "shorter", lengths=(16, 11), tasks=TASKS[:2])
    (shorter / work.PROGRESS_FILE).write_bytes(path.read_bytes())
    with pytest.raises(DatasetError, match="belongs to other episodes than"):
        dataset_weights.read_progress(shorter / work.PROGRESS_FILE)


def test_weights_and_values_of_an_annotated_dataset(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d"))
    made, _ = annotated(dataset)
    progress = dataset_weights.read_progress(dataset.root / work.PROGRESS_FILE)
    reward = RewardSettings(RewardType.PROGRESS_DELTA, 2.0, 2.0)
    values = dataset_weights.ValueSettings(reward, 0.9, Imputation.ZERO)
    columns, _ = dataset_weights.weight_columns(progress, RabcSettings(chunk_size=5), reward, values)
    scores = made.scores[0]
    expected = sum(0.9**row * value for row, value in zip(scores.rows, scores.rewards, strict=True))
    assert columns["value"][0] == pytest.approx(expected, abs=1e-6)
    assert columns["value"][20] == pytest.approx(scores.rewards[-1], abs=1e-6)
    assert columns["awr_weight"][:20].tolist() == [2.0] * 20 and columns["awr_weight"][20] == 1.0
    assert columns["rabc_weight"][:16].tolist() == [1.0] * 16
    log_prob = replace(values, reward=replace(reward, type=RewardType.LOG_PROB), impute=Imputation.DUPLICATE)
    made_values = dataset_weights.value_columns(progress, log_prob)
    assert made_values["reward"][:5] == pytest.approx(np.full(5, scores.log_probs[0]), abs=1e-6)


def test_a_head_that_a_file_lacks_is_said_to_be_missing(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d"))
    path = tmp_path / "progress.parquet"
    annotated(dataset, output=path)
    with pytest.raises(DatasetError, match=r"has no progress of the head dense: .* give --head sparse"):
        dataset_weights.read_progress(path, "dense")
    table = pq.read_table(path)
    names = ["progress_dense" if name == "progress_sparse" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names), path)
    assert len(dataset_weights.read_progress(path, "dense").index) == 48
    with pytest.raises(DatasetError, match=r"has no progress of the head sparse: .* give --head dense"):
        dataset_weights.read_progress(path)


def change(name: str, row: int, value: float) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        values: list[Any] = pq.read_table(path)[name].to_pylist()
        values[row] = value
        edit_rows(path, name, values)

    return do


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change("index", 3, 4), "has the index 4 twice"),
        (change("progress_sparse", 3, 1.5), "has the progress 1.5: it must be from 0 to 1"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "cannot be read as parquet"),
        (
            lambda path: pq.write_table(pq.read_table(path).drop_columns(["progress_sparse"]), path),
            "has no column progress_sparse, but index",
        ),
        (lambda path: pq.write_table(pq.read_table(path).slice(0, 0), path), "has no rows"),
    ],
)
def test_a_damaged_file_of_progress_is_named(
    spoil: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    dataset = open_dataset(make_dataset(tmp_path / "d"))
    path = tmp_path / "progress.parquet"
    annotated(dataset, output=path)
    spoil(path)
    with pytest.raises(UserError, match=said):
        dataset_weights.read_progress(path)
