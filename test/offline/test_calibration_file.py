"""The file of calibrations: read and written, refused where it is damaged or of another setup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from test.core.calibrations import BASE, RATE, calibration, drawn, setup
from test.scorers import scorer_info
from topreward_ros.core.calibration.fit import CalibrationError, fit_task
from topreward_ros.core.calibration.task import Calibrations
from topreward_ros.core.errors import UserError
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.calibration_file import (
    _Loader,
    calibrations_for,
    check_before_loading,
    check_setup,
    read_calibrations,
    setup_of,
    write_calibrations,
)
from topreward_ros.scoring.base import ScorerError, ScorerSettings
from topreward_ros.scoring.checkpoint.checkpoint import open_checkpoint


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "calibration.yaml"
    fit = fit_task("drück den Knopf: 'rot'", drawn(20, 10), BASE, RATE, 0.02)
    written = Calibrations(setup(), (fit.calibration, calibration("yes", -0.5)), str(path))
    write_calibrations(path, written)
    read = read_calibrations(str(path))
    assert read.setup == written.setup and read.tasks[1] == written.tasks[1]
    assert read.tasks[0].success == fit.calibration.success and read.tasks[0].bands == fit.calibration.bands
    before = path.read_bytes()
    write_calibrations(path, read)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "c.yaml is no calibration"),
        (b"{", "no YAML that can be read"),
        (b"a: 1\na: 2\n", "line 2: the key a stands there twice"),
        (b"a: &x [1]\nb: *x\n", "line 2: aliases"),
        (b"a: !!python/object:os.system {}\n", "no YAML that can be read"),
        (b"? [1, 2]\n: 3\n", "no YAML that can be read|lacks the key format"),
        (b"[" * 5000, "no YAML that can be read"),
        (b"a: 2026-99-99\n", "no YAML that can be read"),
        (b"\xff\xfe\x00", "c.yaml"),
        (b"just text", "it holds just text"),
        (b"a: 1\nwanted: !!bool x\n", "line 2: wanted: x is no bool"),
        (b"since: !!timestamp x\n", "line 1: since: x is no timestamp"),
        (b"a: [1, !!int '']\n", "line 1:  is no int"),
        (b"a: !!float ''\n", "line 1: a:  is no float"),
        (b"a: !!float " + b"9:" * 400 + b"9\n", "line 1: a: 9:9:.* is no float"),
        (b"!!bool x: 1\n", "line 1: x is no bool"),
        (b"a: " + b"9" * 5000, "line 1: a: 999.* is no int"),
        ((b"? 0x" + b"f" * 5000 + b"\n: 1\n") * 2, "line 3: the key 0xff.* stands"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_calibrations(str(path))


def test_a_key_is_not_compared_with_every_other() -> None:
    """A file of 20 MiB may have a million of them."""
    compared = 0

    class Key(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    class Counting(_Loader):
        """Of which every text is a key that counts."""

    Counting.add_constructor("tag:yaml.org,2002:str", lambda _, node: Key(node.value))
    assert len(yaml.load("{" + ", ".join(f"key{number}: 1" for number in range(300)) + "}", Counting)) == 300
    assert compared < 3000


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_calibrations(str(tmp_path / "none.yaml"))
    with pytest.raises(UserError, match="is a folder"):
        read_calibrations(str(tmp_path))
    assert not read_calibrations("")


def test_calibrated_progress_needs_a_file() -> None:
    with pytest.raises(
        CalibrationError, match="progress_mode = 'calibrated' needs the parameter calibration"
    ):
        calibrations_for(monitor_defaults() | {"progress_mode": "calibrated"})


def test_another_setup_is_refused_with_every_field() -> None:
    parameters = monitor_defaults() | {"sample_rate": 4.0}
    here = setup_of(
        scorer_info("embedded", revision="abc", prompt_hash="0123", max_pixels=307200),
        MonitorSettings.from_parameters(parameters),
        ScorerSettings.from_parameters(parameters),
        "tile",
        ("front", "wrist"),
    )
    made = Calibrations(setup(cameras=("front",)), (calibration("t", -0.5),), "c.yaml")
    with pytest.raises(CalibrationError) as error:
        check_setup(made, here)
    for part in (
        "sample_rate was 2 and is 4 here",
        "camera_layout was 'primary' and is 'tile' here",
        "cameras was front and is front wrist here",
        "accept_calibration",
    ):
        assert part in str(error.value)
    assert "sample_rate was 2 and is 4 here" in check_setup(replace(made, accepted=True), here)
    assert not check_setup(replace(made, setup=here), here)
    assert not check_setup(Calibrations(), here)


def test_what_is_known_of_a_setup_is_refused_before_a_model_is_loaded() -> None:
    parameters = monitor_defaults()
    monitor, scorer = MonitorSettings.from_parameters(parameters), ScorerSettings.from_parameters(parameters)
    checkpoint = open_checkpoint("embedded", "")
    own = setup(revision=checkpoint.revision, model="elsewhere/it", prompt_hash="not known yet")
    check_before_loading(Calibrations(own), "embedded", monitor, scorer, "primary", ["image"])
    check_before_loading(Calibrations(), "/no/such/model", monitor, scorer, "tile")
    other = Calibrations(replace(own, model="org/other", revision="123"), source="c.yaml")
    with pytest.raises(CalibrationError, match="model was 'org/other' and is 'embedded' here; revision was"):
        check_before_loading(other, "embedded", monitor, scorer, "primary")
    check_before_loading(replace(other, accepted=True), "embedded", monitor, scorer, "primary")
    for unknown in ("http://127.0.0.1:9", "plugin:theirs"):
        check_before_loading(other, unknown, monitor, scorer, "primary")
        with pytest.raises(CalibrationError, match="camera_layout was 'primary' and is 'tile' here"):
            check_before_loading(other, unknown, monitor, scorer, "tile")
    with pytest.raises(ScorerError, match="/no/such/model"):
        check_before_loading(other, "/no/such/model", monitor, scorer, "primary")
