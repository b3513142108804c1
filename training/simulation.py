"""Successful and failed attempts of Metaworld's robot arm: joint positions by physics, and pictures of them.

`Simulator.trajectory` runs the physics and records the progress of the task at every step;
`Simulator.render` draws steps of it from a camera. The scripted experts of Metaworld succeed, and often the
hand is drawn back afterwards. Failures are experts that are stopped, many of them just short of the goal,
sent back or told a wrong place of the object, and arms that shake or do nothing.

Without a screen, set MUJOCO_GL to osmesa (the default here) or egl. Each process and task needs a `Simulator`
of its own.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

os.environ.setdefault("MUJOCO_GL", "osmesa")  # read when mujoco is imported
warnings.filterwarnings("ignore", module="gymnasium")

import metaworld.policies  # noqa: E402
import mujoco  # noqa: E402
import numpy as np  # noqa: E402
from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # noqa: E402

SUCCESS, STOP, RETREAT, MISS, NOISE, IDLE = KINDS = ("success", "stop", "retreat", "miss", "noise", "idle")

#: Azimuth and elevation [degrees] of the cameras, before jitter: from the right, from the far right, and
#: nearer to the work from between them.
_ANGLES = {"right": (122.0, -28.0), "side": (156.0, -32.0), "close": (138.0, -30.0)}

_LOOK_AT = (0.02, 0.69, 0.15)  # [m], over the table
_DISTANCE, _CLOSE_DISTANCE = 0.92, 0.68  # [m]
_SETTLING = 120  # steps after a reset, until the arm no longer swings
_LONGEST = 260  # steps of an expert at full speed; one that needs more has failed
_TRIES = 200  # a window that is left half closed is a clear failure in one of some five tries
RESTING = 40  # steps after the work, until nothing moves any more
#: Of the successes, share in which the hand is drawn back after the work.
_WITHDRAWN = 0.4

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION

# Shares of progress before success: approaching the object, and moving it. See Trajectory.progress.
_APPROACH, _MOVING = 0.35, 0.45
#: A failure moves the object by at most this share of the way, so that it looks like a failure, too. A handle
#: is lifted in steps of a fifth of its way. A coffee machine counts as started as soon as its button is
#: touched, so a failure does not touch it.
_CLEAR_FAILURE = {"handle-pull": 0.6, "coffee-button": 0.1}
_CLEAR_FAILURE_OF_OTHERS = 0.8
#: Tasks whose object goes back by itself when the hand leaves it. What was done stays done.
SPRUNG = ("button-press-topdown", "coffee-button")
_STILL_DONE = 0.97  # share of its way at which any other object has to be left when the hand is drawn back


@dataclass(frozen=True)
class Camera:
    """Where the camera stands and what it looks at. Angles in degrees, lengths in metres."""

    azimuth: float
    elevation: float
    distance: float = _DISTANCE
    look_at: tuple[float, float, float] = _LOOK_AT

    @classmethod
    def of_view(
        cls,
        view: str,
        rng: np.random.Generator | None = None,
        work_at: np.ndarray | None = None,
        freedom: float = 1.0,
    ) -> Camera:
        """The camera of a view; ``rng``, if given, moves it a little, in proportion to ``freedom``.

        ``work_at`` (3,) [m] is where a close camera looks.
        """
        azimuth, elevation = _ANGLES[view]
        distance, look_at = _DISTANCE, np.asarray(_LOOK_AT)
        if view == "close":
            distance, look_at = _CLOSE_DISTANCE, look_at if work_at is None else work_at
        if rng is not None:
            azimuth += freedom * rng.uniform(-12, 12)
            elevation += freedom * rng.uniform(-6, 6)
            distance += freedom * rng.uniform(-0.08, 0.08)
            look_at = look_at + freedom * rng.uniform(-0.04, 0.04, 3)
        x, y, z = (float(place) for place in look_at)
        return cls(azimuth, elevation, distance, (x, y, z))


@dataclass(frozen=True)
class Trajectory:
    """What happened, step by step; step 0 is the scene before anything moves."""

    kind: str
    bodies: np.ndarray  #: (bodies, 7) position and quaternion of the fixed parts of this scene
    joints: np.ndarray  #: (steps, positions) joint positions
    hand: np.ndarray  #: (steps, 3) [m]
    thing: np.ndarray  #: (3,) [m] where the object is at first
    #: (steps,) 0 to 0.8 before success: 0.35 for the approach, 0.45 for the object's way
    progress: np.ndarray
    moved: np.ndarray  #: (steps,) 0 to 1, share of the object's way to success
    success: np.ndarray  #: (steps,) bool, by the simulator; stays True once it was
    pace: float  #: share of the expert's full speed

    @property
    def steps(self) -> int:
        return len(self.joints)

    @property
    def work_at(self) -> np.ndarray:
        """(3,) [m] the middle between hand and object at first, where the work is seen."""
        return np.asarray((self.hand[0] + self.thing) / 2)


class Simulator:
    """The scenes of one task. One renderer draws them all, as it takes the scene from the trajectory."""

    def __init__(self, task: str, height: int = 128, width: int = 128, smooth: bool = False) -> None:
        self.task = task
        self._expert = getattr(metaworld.policies, f"Sawyer{task.title().replace('-', '')}V3Policy")
        self._model = self._scene(0).model
        self._data = mujoco.MjData(self._model)
        self._model.vis.quality.offsamples = 4 if smooth else 0
        self._renderer = mujoco.Renderer(self._model, height, width)
        self._options = mujoco.MjvOption()
        self._options.sitegroup[:] = 0  # the mark of the goal is not shown
        self._view = mujoco.MjvCamera()

    def close(self) -> None:
        self._renderer.close()

    def _scene(self, seed: int) -> Any:
        env = ALL_V3_ENVIRONMENTS[f"{self.task}-v3"]()
        env._set_task_called = True  # how Metaworld's own single-task constructors prepare it
        env._freeze_rand_vec = False
        env.seeded_rand_vec = True
        env.max_path_length = 100_000
        env.seed(seed)
        env.reset()
        return env

    def trajectory(self, kind: str, seed: int) -> Trajectory:
        """Run one attempt. The same arguments give the same steps.

        A failure that comes too close to success and an expert that fails are discarded and tried again.
        Raises `RuntimeError` after `_TRIES` tries.
        """
        for attempt in range(_TRIES):
            rng = np.random.default_rng([seed, attempt, crc32(f"{self.task} {kind}".encode())])
            run = _Run(self.task, self._scene(int(rng.integers(1 << 30))), self._expert(), kind, rng)
            made = run.trajectory()
            if made is not None:
                return made
        raise RuntimeError(f"{self.task}: no {kind} in {_TRIES} attempts with seed {seed}")

    def render(self, trajectory: Trajectory, steps: np.ndarray, camera: Camera) -> np.ndarray:
        """Pictures (N, height, width, 3) uint8 RGB of N steps."""
        self._model.body_pos[:] = trajectory.bodies[:, :3]
        self._model.body_quat[:] = trajectory.bodies[:, 3:]
        self._view.lookat[:] = camera.look_at
        self._view.distance, self._view.azimuth, self._view.elevation = (
            camera.distance,
            camera.azimuth,
            camera.elevation,
        )
        flags = self._renderer.scene.flags
        pictures: dict[int, np.ndarray] = {}
        for step in np.unique(steps):
            self._data.qpos[:] = trajectory.joints[step]
            mujoco.mj_forward(self._model, self._data)
            self._renderer.update_scene(self._data, self._view, self._options)
            # Rendering without these is ten times as fast.
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
            pictures[step] = self._renderer.render().copy()
        return np.stack([pictures[step] for step in steps])


class _Reference:
    """The paths of hand and object when the expert works at full speed; progress is measured along them."""

    def __init__(self, hand: np.ndarray, thing: np.ndarray) -> None:
        """``hand``, ``thing``: (steps, 3) [m], up to success."""
        self.steps = len(hand)
        self._things = thing
        # By distance, as a handle that trembles while it is lifted covers a long way.
        distances = np.linalg.norm(thing - thing[0], axis=1)
        self._thing_share = np.maximum.accumulate(np.clip(distances / max(distances[-1], 1e-9), 0, 1))
        contact = int(np.argmax(self._thing_share > 0.03))
        self._hands = hand
        self._hand_share = np.ones(len(hand))
        self._hand_share[: contact + 1] = _share_of_way(hand[: contact + 1])
        self._reach = max(0.05, float(np.linalg.norm(hand[contact] - hand[0])))

    def approach(self, hand: np.ndarray) -> float:
        """How near the hand is to where it moves the object, 0 to 1; less when it is off the path."""
        distances = np.linalg.norm(self._hands - hand, axis=1)
        nearest = int(np.argmin(distances))
        return float(np.clip(self._hand_share[nearest] - distances[nearest] / self._reach, 0, 1))

    def moved(self, thing: np.ndarray) -> float:
        """The object's share of its way to success, 0 to 1."""
        nearest = int(np.argmin(np.linalg.norm(self._things - thing, axis=1)))
        return float(self._thing_share[nearest])


def _share_of_way(points: np.ndarray) -> np.ndarray:
    """Share of the length of a path (steps, 3) that is covered at each step: (steps,), 0 to 1."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return np.asarray(lengths / max(lengths[-1], 1e-9))


class _Run:
    """One attempt in one scene: the expert at full speed for reference, then an attempt of ``kind``."""

    def __init__(self, task: str, env: Any, expert: Any, kind: str, rng: np.random.Generator) -> None:
        self._task, self._env, self._expert, self._kind, self._rng = task, env, expert, kind, rng
        self._most_moved = _CLEAR_FAILURE.get(task, _CLEAR_FAILURE_OF_OTHERS)

    def trajectory(self) -> Trajectory | None:
        for _ in range(_SETTLING):
            self._act(np.zeros(3), -1)
        start = np.empty(mujoco.mj_stateSize(self._env.model, _STATE))
        mujoco.mj_getState(self._env.model, self._env.data, start, _STATE)
        reference = self._reference()
        if reference is None:
            return None
        mujoco.mj_setState(self._env.model, self._env.data, start, _STATE)
        mujoco.mj_forward(self._env.model, self._env.data)
        self._reference_way = reference
        thing = self._observe()[4:7].copy()
        self._steps: list[tuple[np.ndarray, np.ndarray, float, float, bool]] = []
        self._record(success=False)
        self._pace = float(self._rng.uniform(0.35, 0.9))
        getattr(self, f"_{self._kind}")()
        for _ in range(RESTING):
            self._act(np.zeros(3), self._gripper)
            self._record()
        joints, hands, progress, moved, success = (
            np.array(column) for column in zip(*self._steps, strict=True)
        )
        succeeded = bool(success.any())
        if succeeded != (self._kind == SUCCESS) or (not succeeded and moved.max() > self._most_moved):
            return None
        if succeeded and self._task not in SPRUNG and moved[-1] < _STILL_DONE:
            return None  # the hand has taken the object along
        model = self._env.model
        bodies = np.concatenate([model.body_pos, model.body_quat], axis=1)
        return Trajectory(
            kind=self._kind,
            bodies=bodies,
            joints=joints,
            hand=hands,
            thing=thing,
            progress=progress,
            moved=moved,
            success=np.maximum.accumulate(success),
            pace=self._pace,
        )

    def _reference(self) -> _Reference | None:
        hands, things = [], []
        for _ in range(_LONGEST):
            observation = self._observe()
            hands.append(observation[:3])
            things.append(observation[4:7])
            action = np.clip(self._expert.get_action(observation), -1, 1)
            self._act(action[:3], action[3])
            if self._succeeded:
                return _Reference(np.array(hands), np.array(things))
        return None

    # ---- what the arm does, by kind -----------------------------------------------------------------

    def _success(self) -> None:
        """The expert succeeds and finishes its movement; then the hand may be drawn back."""
        self._follow_expert(until=lambda: self._steps[-1][4])
        after = int(self._rng.integers(6, 16) / self._pace)  # steps until the expert has finished
        self._follow_expert(until=lambda: False, steps=after)
        if self._rng.random() < _WITHDRAWN:
            hand = self._steps[-1][1]
            self._move_to(
                hand + np.array([*self._rng.uniform(-0.04, 0.04, 2), self._rng.uniform(0.05, 0.12)])
            )
            self._move_to(self._about_start())

    def _stop(self) -> None:
        """The expert stops on its way, before or after it has begun to move the object; often just short of
        the object or of the goal."""
        just_short = self._rng.random() < 0.5
        if self._most_moved < 0.2 or self._rng.random() < 0.35:
            share = self._rng.uniform(0.8, 0.97) if just_short else self._rng.uniform(0.1, 0.95)
            self._follow_expert(until=lambda: self._approach >= share)
        else:
            most = self._most_moved - 0.1  # it goes on a little
            share = self._rng.uniform(0.6 * most, most) if just_short else self._rng.uniform(0.08, most)
            self._follow_expert(until=lambda: self._steps[-1][3] >= share)

    def _retreat(self) -> None:
        """The expert stops as in `_stop`, and the hand goes back to about where it came from."""
        self._stop()
        self._move_to(self._about_start())

    def _about_start(self) -> np.ndarray:
        return np.asarray(self._steps[0][1] + self._rng.uniform(-0.06, 0.06, 3))

    def _move_to(self, goal: np.ndarray) -> None:
        """Move the hand straight to about ``goal`` (3,) [m]."""
        for _ in range(int(100 / self._pace)):
            way = goal - self._steps[-1][1]
            if np.linalg.norm(way) < 0.02:
                break
            self._act(np.clip(way * 10, -1, 1) * self._pace, self._gripper)
            self._record()

    def _miss(self) -> None:
        """The expert is told a place beside the object."""
        angle, length = self._rng.uniform(0, 2 * np.pi), self._rng.uniform(0.07, 0.16)
        offset = np.array([np.cos(angle), np.sin(angle), self._rng.uniform(-0.2, 0.6)]) * length
        steps = int(self._reference_way.steps * self._rng.uniform(0.8, 1.3) / self._pace)
        self._follow_expert(until=lambda: False, steps=steps, offset=offset)

    def _noise(self) -> None:
        """The arm moves at random."""
        wander = np.zeros(3)
        for _ in range(int(self._rng.integers(60, 160))):
            wander = 0.93 * wander + self._rng.normal(0, 0.25, 3)
            self._act(np.clip(wander, -1, 1) * self._pace, -1)
            self._record()

    def _idle(self) -> None:
        """The arm stands still or trembles."""
        trembling = self._rng.random() < 0.4
        for _ in range(60):
            self._act(self._rng.normal(0, 0.04, 3) if trembling else np.zeros(3), -1)
            self._record()

    def _follow_expert(
        self, until: Callable[[], bool], steps: int | None = None, offset: np.ndarray | None = None
    ) -> None:
        """Follow the expert for at most ``steps`` steps: at the pace of this run, and less steadily.

        ``until`` ends it earlier; ``offset`` [m] is added to the place of the object as the expert sees it.
        """
        unsteady = float(self._rng.choice([0.0, 0.1, 0.25]))
        wander = np.zeros(3)
        for _ in range(int(_LONGEST / self._pace) if steps is None else steps):
            observation = self._observe().copy()
            if offset is not None:
                observation[4:7] += offset
            action = np.clip(self._expert.get_action(observation), -1, 1)
            wander = 0.9 * wander + self._rng.normal(0, unsteady, 3)
            self._act((action[:3] + wander * np.abs(action[:3]).max()) * self._pace, action[3])
            self._record()
            if until():
                break

    # ---- the simulator ------------------------------------------------------------------------------

    def _act(self, move: np.ndarray, gripper: float) -> None:
        self._gripper = float(gripper)
        action = np.array([*move, gripper], np.float32)
        _, _, _, _, info = self._env.step(action)
        self._succeeded = bool(info["success"])

    def _observe(self) -> np.ndarray:
        return np.asarray(self._env._get_obs())

    def _record(self, success: bool | None = None) -> None:
        observation = self._observe()
        hand, thing = observation[:3].copy(), observation[4:7]
        self._approach = self._reference_way.approach(hand)
        moved = self._reference_way.moved(thing)
        success = self._succeeded if success is None else success
        progress = _APPROACH * self._approach + _MOVING * moved
        self._steps.append((self._env.data.qpos.copy(), hand, progress, moved, success))
