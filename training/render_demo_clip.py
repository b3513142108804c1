"""Render media/open_drawer.mp4: a simulated Sawyer arm opens a drawer.

Metaworld's drawer-open task and its scripted expert, slowed down to the speed of a real robot. The arm
first stands still, then works, then stands still again, so that a monitor sees an idle robot, progress and
a success that lasts. Frames are taken in simulated time. Fails when the simulator says that the drawer is
not open at the end. The same seed gives the same frames.

    sudo apt install libosmesa6
    python3 -m venv clip && clip/bin/pip install -r training/requirements-demo-clip.txt
    clip/bin/python training/render_demo_clip.py media/open_drawer.mp4
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "osmesa")  # no screen and no GPU needed; read when mujoco is imported

import av
import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import SawyerDrawerOpenV3Policy
from metaworld.sawyer_xyz_env import SawyerXYZEnv

RATE = 20  # [Hz] frames per simulated second
WIDTH, HEIGHT = 480, 360  # [px]
SPEED = 0.25  # of the expert's full speed of 0.8 m/s
SETTLING = 2.0  # [s] after a reset the arm swings; not filmed
STILL_BEFORE, STILL_AFTER = 1.5, 4.0  # [s]
LONGEST = 12.0  # [s] of work; the expert needs less, or has failed


def drawer(seed: int) -> SawyerXYZEnv:
    """The task with the drawer where ``seed`` puts it."""
    env = ALL_V3_ENVIRONMENTS["drawer-open-v3"]()
    env._set_task_called = True  # how Metaworld's own single-task constructors prepare it
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env.max_path_length = 10_000
    env.seed(seed)
    return env


class Camera:
    """Looks over the table from the front right; the task's goal marker is not shown."""

    def __init__(self, env: SawyerXYZEnv) -> None:
        self._env = env
        self._renderer = mujoco.Renderer(env.model, HEIGHT, WIDTH)
        self._view = mujoco.MjvCamera()
        self._view.lookat[:] = (0.03, 0.74, 0.17)
        self._view.distance, self._view.azimuth, self._view.elevation = 1.05, 128.0, -28.0
        self._options = mujoco.MjvOption()
        self._options.sitegroup[:] = 0

    def frame(self) -> np.ndarray:
        """(HEIGHT, WIDTH, 3) uint8 RGB."""
        self._renderer.update_scene(self._env.data, self._view, self._options)
        return self._renderer.render().copy()


def episode(seed: int) -> Iterator[np.ndarray]:
    """Frames of the whole clip, one per 1 / RATE seconds of simulated time."""
    env = drawer(seed)
    observation, _ = env.reset()
    camera, expert = Camera(env), SawyerDrawerOpenV3Policy()
    still = np.array([0.0, 0.0, 0.0, -1.0], np.float32)
    steps_per_frame = round(1 / (RATE * env.dt))

    def steps(seconds: float) -> range:
        return range(round(seconds / env.dt))

    for _ in steps(SETTLING):
        observation, *_ = env.step(still)
    count = 0
    opened_at = None
    for count in steps(STILL_BEFORE + LONGEST + STILL_AFTER):
        working = count >= len(steps(STILL_BEFORE)) and opened_at is None
        action = expert.get_action(observation) if working else still
        action = np.clip(action, -1, 1) * (SPEED, SPEED, SPEED, 1)
        observation, _, _, _, info = env.step(action.astype(np.float32))
        if count % steps_per_frame == 0:
            yield camera.frame()
        if working and info["success"]:
            opened_at = count
        if opened_at is not None and count - opened_at >= len(steps(STILL_AFTER)):
            break
    if not info["success"]:
        raise SystemExit(f"the drawer is not open after {count * env.dt:.1f} s; try another seed than {seed}")


def write_h264(path: Path, frames: Iterator[np.ndarray], crf: int) -> None:
    """Write frames as H.264, with the index in front so that a player can start at once."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryslow", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    """Render from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path, help="the .mp4 to write")
    parser.add_argument("--seed", type=int, default=3, help="where the drawer stands (%(default)s)")
    parser.add_argument("--crf", type=int, default=26, help="H.264 quality, lower is better (%(default)s)")
    arguments = parser.parse_args()
    write_h264(arguments.path, episode(arguments.seed), arguments.crf)
    print(f"{arguments.path}: {arguments.path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
