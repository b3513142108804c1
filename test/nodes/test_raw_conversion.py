"""cv_bridge, where it works, and rosbags-image give the same pixels; a cv_bridge that breaks is not used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from topreward_ros.nodes import raw_conversion
from topreward_ros.nodes.debug_image import image_message
from topreward_ros.nodes.images import decode
from topreward_ros.offline.raw_samples import BYTES_PER_PIXEL, PLANAR, Converter, rgb_by_rosbags_image

SIZES = [(6, 8), (2, 2), (34, 66)]


@pytest.fixture
def fresh_choice() -> Iterator[None]:
    """The choice of a converter is made anew, and again by whoever comes next."""
    raw_conversion.converter.cache_clear()
    yield
    raw_conversion.converter.cache_clear()


def message(encoding: str, height: int, width: int, padding: int, big_endian: bool) -> Image:
    rows = height * 3 // 2 if encoding in PLANAR else height
    step = width * (BYTES_PER_PIXEL.get(encoding) or int(encoding[-1])) + padding
    data = np.random.default_rng(height * padding + big_endian).integers(0, 256, rows * step, np.uint8)
    msg = Image(encoding=encoding, height=height, width=width, step=step, is_bigendian=int(big_endian))
    msg.data = data.tobytes()
    return msg


def test_the_same_pixels(monkeypatch: pytest.MonkeyPatch, fresh_choice: None) -> None:
    """Over all encodings, paddings and byte orders, wherever cv_bridge is installed and works."""
    pytest.importorskip("cv_bridge")
    chosen = raw_conversion.converter()
    if chosen.problem:
        pytest.skip(chosen.problem)
    assert chosen.name == "cv_bridge"
    other = Converter("rosbags-image", "", rgb_by_rosbags_image)
    for encoding in [*BYTES_PER_PIXEL, "8UC1", "8UC3", "8UC4"]:
        for height, width in SIZES:
            for padding in (0, 3, 8):
                for big_endian in (False, True):
                    raw = serialize_message(message(encoding, height, width, padding, big_endian))
                    seen = []
                    for converter in (chosen, other):
                        monkeypatch.setattr("topreward_ros.nodes.images.converter", lambda it=converter: it)
                        seen.append(decode(raw, Image).rgb)
                    case = (encoding, height, width, padding, big_endian)
                    assert seen[0].dtype == seen[1].dtype == np.uint8, case
                    assert np.array_equal(*seen), case


def test_without_cv_bridge(fresh_choice) -> None:
    if (chosen := raw_conversion.converter()).name == "cv_bridge":
        pytest.skip("cv_bridge is installed and works")
    assert chosen.name == "rosbags-image"
    assert bool(chosen.problem) == (find_spec("cv_bridge") is not None)


#: What stands for cv_bridge in each case, and what is then said.
BROKEN = {
    "it crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "exit status -11"),
    "it crashes after numpy's words": (
        "import os, signal, sys\n"
        "print('A module that was compiled using NumPy 1.x cannot be run in', file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSEGV)",
        f"another major version of numpy than {np.__version__}.*'numpy<2'",
    ),
    "it does not import": (
        "raise ImportError('libopencv_core.so.406: cannot open')",
        "libopencv_core.so.406",
    ),
    "it has no CvBridge": ("", "CvBridge"),
    "it lacks encodings": (
        "class CvBridge:\n"
        "    def imgmsg_to_cv2(self, message, encoding): raise TypeError('unknown ' + message.encoding)",
        "unknown mono8",
    ),
    "it gives other pixels": (
        "import numpy as np\n"
        "class CvBridge:\n"
        "    def imgmsg_to_cv2(self, message, encoding): return np.zeros((6, 8, 3), np.uint8)",
        "other pixels than rosbags-image for mono8",
    ),
    "it makes other messages": (
        "from topreward_ros.nodes.raw_conversion import rgb_by_rosbags_image\n"
        "from sensor_msgs.msg import Image\n"
        "class CvBridge:\n"
        "    def imgmsg_to_cv2(self, message, encoding): return rgb_by_rosbags_image(message)\n"
        "    def cv2_to_imgmsg(self, picture, encoding): return Image(encoding=encoding, step=24)",
        "another message of a picture",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_cv_bridge_that_breaks_is_not_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_choice
) -> None:
    """It cannot take this process with it, and one sentence says why it is not used."""
    text, says = BROKEN[name]
    (tmp_path / "cv_bridge.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    chosen = raw_conversion.converter()
    assert chosen.name == "rosbags-image"
    assert chosen.to_rgb is rgb_by_rosbags_image
    assert re.search(says, chosen.problem), chosen.problem
    assert "rosbags-image converts instead. To use cv_bridge" in chosen.problem
    assert "\n" not in chosen.problem


def test_a_picture_is_sent_by_the_cv_bridge_that_works_and_the_message_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_choice
) -> None:
    """What stands for cv_bridge makes the messages as it does, and notes in frame_id that it was asked."""
    picture = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    by_hand = image_message(picture)
    assert (by_hand.height, by_hand.width, by_hand.step, by_hand.encoding) == (5, 7, 21, "rgb8")
    assert bytes(by_hand.data) == picture.tobytes()
    (tmp_path / "cv_bridge.py").write_text(
        "import numpy as np\n"
        "from sensor_msgs.msg import Image\n"
        "from topreward_ros.nodes.raw_conversion import rgb_by_rosbags_image\n"
        "class CvBridge:\n"
        "    def imgmsg_to_cv2(self, message, encoding): return rgb_by_rosbags_image(message)\n"
        "    def cv2_to_imgmsg(self, picture, encoding):\n"
        "        height, width = picture.shape[:2]\n"
        "        made = Image(height=height, width=width, encoding=encoding, step=3 * width)\n"
        "        made.data, made.header.frame_id = picture.tobytes(), 'asked'\n"
        "        return made\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    raw_conversion.converter.cache_clear()
    raw_conversion._bridge.cache_clear()
    try:
        assert raw_conversion.converter().name == "cv_bridge", raw_conversion.converter().problem
        made = image_message(picture)
    finally:
        raw_conversion._bridge.cache_clear()
    assert made.header.frame_id == "asked"
    made.header.frame_id = ""
    assert made == by_hand


def test_a_trial_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_choice
) -> None:
    (tmp_path / "cv_bridge.py").write_text("import time; time.sleep(60)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(raw_conversion, "_TRIAL_SECONDS", 0.2)
    assert "could not be tried" in raw_conversion.converter().problem


def test_a_failed_trial_is_not_said_on_our_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_choice, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cv_bridge.py").write_text(
        "import sys; print('noise', file=sys.stderr); raise ImportError('x')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert raw_conversion.converter().name == "rosbags-image"
    assert capfd.readouterr().err == ""
