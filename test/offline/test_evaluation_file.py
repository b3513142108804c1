"""An evaluation that was damaged, or is of another version, gives a table or a sentence, and no traceback."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from test.offline.test_evaluation import calibrated, data, scored, scorers
from topreward_ros.cli.main import main
from topreward_ros.core import evaluation_difference
from topreward_ros.core.errors import UserError
from topreward_ros.core.evaluation_difference import differences
from topreward_ros.core.intervals import Interval, bootstrap_interval
from topreward_ros.offline.evaluation_report import make_evaluation, read_evaluation, to_json
from topreward_ros.offline.labelled_episodes import Labelled
from topreward_ros.views.evaluation_models import models_table
from topreward_ros.views.evaluation_page import page
from topreward_ros.views.evaluation_tables import about, differences_table

__all__ = ["data", "scorers"]  # fixtures

#: What stands in the place of a value: every kind of JSON, and numbers at the ends of what there is.
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 0.5, 5, 1e308, -1e308, 10**400, float("nan"), "", "text\x1b[2J\n|", "log_prob", "auc",
    [], [[]], [1e308], [None], {}, {"a": {}}, [{"a": 1}],
)  # fmt: skip
MUTATIONS = 120


@pytest.fixture
def good(data: Labelled, scorers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a small evaluation, with a calibration."""

    def few_draws(*strata: Any, draws: int) -> Interval:
        assert draws
        return bootstrap_interval(*strata, draws=3)

    monkeypatch.setattr(evaluation_difference, "bootstrap_interval", few_draws)
    chosen = calibrated("calibration.yaml", -0.3)
    made, _ = scored(data, tmp_path / "films", chosen)
    file = tmp_path / "good.json"
    file.write_text(to_json(make_evaluation("runs", data, made, chosen, ["a note"])))
    return file


def paths_in(content: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every value, of lists to the first and the last item."""
    if isinstance(content, dict):
        inner = list(content.items())
    elif isinstance(content, list):
        inner = [(place, content[place]) for place in {0, len(content) - 1} if content]
    else:
        return
    for key, value in inner:
        yield (key,)
        yield from ((key, *more) for more in paths_in(value))


def mutated(content: Any, path: tuple[Any, ...], change: Any) -> Any:
    """A copy in which ``change`` of what holds the value has been made."""
    made = copy.deepcopy(content)
    place = made
    for key in path[:-1]:
        place = place[key]
    change(place, path[-1])
    return made


def use(file: Path, other: Path) -> None:
    """All that is made of a file by `--compare` and beside it."""
    first, second = read_evaluation(file), read_evaluation(other)
    thresholds = first.threshold, second.threshold
    found = differences(first.measures, second.measures, (first.episodes, second.episodes), thresholds)
    differences_table(found, 1)
    models_table({"one": first, "two": first})
    about(first)
    page(first)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numbers at the ends of what there is
def test_any_damage_gives_a_table_or_a_sentence(good: Path, tmp_path: Path) -> None:
    content = json.loads(good.read_text())
    draw = random.Random(8)
    paths = list(paths_in(content))
    bad, refused = tmp_path / "bad.json", 0

    def replaced(holder: Any, key: Any) -> None:
        holder[key] = value

    def removed(holder: Any, key: Any) -> None:
        del holder[key]

    for _ in range(MUTATIONS):
        path, value = draw.choice(paths), draw.choice(VALUES)
        change = removed if draw.random() < 0.1 else replaced
        bad.write_text(json.dumps(mutated(content, path, change)))
        try:
            use(bad, good)
        except UserError as error:
            refused += 1
            assert "bad.json is no evaluation of `topreward evaluate` (" in str(error)
            assert str(error).isprintable() and len(str(error)) < 500
        except Exception as error:
            pytest.fail(f"{path} {change.__name__} {value!r:.40}: {error!r:.300}")
    assert 0.3 * MUTATIONS < refused < MUTATIONS, "most of what is not there, or of another kind, is refused"


FIELDS: tuple[tuple[tuple[Any, ...], Any, str], ...] = (
    (("model",), {}, "model.model_id is missing"),
    (("settings", "monitor"), None, "settings.monitor is null, and must be an object"),
    (("settings", "controls"), "idle", "settings.controls is 'idle', and must be a list"),
    (("settings", "calibration"), 5, "settings.calibration is 5, and must be an object"),
    (("threshold",), 10**400, "threshold is inf, and must be a finite number"),
    (("measures", 0, "value"), "high", "measures[0].value is 'high', and must be a finite number"),
    (("measures", 0, "mode"), [], "measures[0].mode is [], and must be a text"),
    (("measures", 0, "scope"), None, "measures[0].scope is null, and must be a text"),
    (("episodes", 1, "done"), "late", "episodes[1].done is 'late', and must be a finite number"),
    (("episodes", 0, "plain", "stages", 0), 1e308, "plain.stages[0] is 1e+308, and must be a whole"),
    (("episodes", 0, "plain", "stages", 0), 2, "episodes[0].plain: the stage 2 does not lie between 1"),
    (("episodes", 0, "plain", "progress", 1), 7.0, "episodes[0].plain: the progress 7 does not lie"),
    (("episodes", 0, "plain", "log_prob", 1), 5.0, "episodes[0].plain: score 1: the scorer gave 5.0"),
    (("episodes", 0, "plain", "log_prob"), [-1.0], "its columns are of different lengths"),
    (("episodes", 0, "plain", "times"), [2, 1.5, 1, 0.5, 0], "its times must be numbers that increase"),
    (("episodes", 0, "plain", "duration"), 0.5, "its times reach from 0 to 2 s of a film of 0.5 s"),
    (("format",), "topreward_evaluation/2", "format is 'topreward_evaluation/2', and must be topreward"),
)


def test_the_field_is_named(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.json"
    for path, value, said in FIELDS:

        def replaced(holder: Any, key: Any, value: Any = value) -> None:
            holder[key] = value

        bad.write_text(json.dumps(mutated(json.loads(good.read_text()), path, replaced)))
        assert main(["evaluate", "--compare", str(good), str(bad)]) == 1
        error = capsys.readouterr().err
        assert said in error and "bad.json is no evaluation" in error


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format":' + "9" * 401 + "}", b"\xff\xfe\x00\xd8"])
def test_what_is_no_json_of_ours_is_refused(text: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=r"evaluation\.json"):
        read_evaluation(file)
