"""The file of calibrations: read and written, refused where it is damaged or of another setup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from test.core.calibrations import BASE, RATE, calibration, drawn, setup
from test.scorers import scorer_info
from topreward_ros.core.calibration.fit import CalibrationError, fit_task
from topreward_ros.core.calibration.task import Calibrations
from topreward_ros.core.episode import MonitorSettings
from topreward_ros.core.errors import UserError
from topreward_ros.defaults import monitor_defaults
from topreward_ros.offline.calibration_file import (
    calibrations_for,
    check_setup,
    read_calibrations,
    setup_of,
    write_calibrations,
)
from topreward_ros.scoring.base import ScorerSettings


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
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_calibrations(str(path))


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
