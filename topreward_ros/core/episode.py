"""The state machine of a watched task: stamps, frames and scores in; progress, rewards, events out.

It owns the schedule, the buffer, the detectors and the reward of an episode, and decides when one
begins and ends. It reads no clock and starts no thread: the caller passes stamps of capture (for
everything that must come out the same live and from a bag) and arrival times (only to notice that
images stopped). Every method returns what is to be published, in order.

Images whose stamp is out of order or out of line (stamps.py), and frames of another shape (shapes.py), are
not used, but counted. Once several in a row agree, time has gone back or the picture has changed. Pictures
that show nothing are not used either, and where another scene is seen the prefix begins anew (scene.py).

How an episode runs: it begins with the first frame after an instruction was set (EPISODE_STARTED),
and ends with SUCCESS (unless told to go on), FAILURE, TIMEOUT or ABORTED, each followed by EPISODE_ENDED.
What else is noticed meanwhile (detectors/) ends nothing: STALL makes the state STALLED until progress goes
on, while COVERED_IMAGES or a camera that is frozen for sure lasts no score is believed and progress is NaN.
After an end nothing is scored until a new task, a reset, or stamps that go back (a bag played again). Stamps
that go back and a picture that changes end a running episode with ABORTED; the next one begins at once.

A stage that has a calibration is watched with the detector that was fitted to it, in place of the settings'
(core/calibration/task.py); one that has none says so, and so do frames of another size than its episodes had.

A task with several stages (stages.py) is watched as one episode per stage: SUBTASK_SUCCESS ends the episode
of a stage that others follow, and the next image begins that of the next stage. A new task begins with its
first stage, or with the one that is asked for. Whatever else begins an episode goes on with the stage that
is not done yet: a reset, images that are watched again, stamps that go back; after SUCCESS that is the first.

An image that can be used is one whose stamp was believed and whose picture became a frame. The time since the
last of these, by arrival, is the silence: it makes the state STALE, whatever the images lacked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, isfinite, isnan, nan

from topreward_ros.core.calibration.task import TaskCalibration
from topreward_ros.core.detectors.of_progress import failed
from topreward_ros.core.detectors.sample import Finding, Sample
from topreward_ros.core.episode_ids import EpisodeIds
from topreward_ros.core.events import EventType, NewDetector, SuccessDetector, SuccessSettings
from topreward_ros.core.frames import (
    NO_STAMP,
    NS_PER_S,
    Frame,
    Stamp,
)
from topreward_ros.core.goal import ERRORS_IN_A_ROW
from topreward_ros.core.instruction import clean_task
from topreward_ros.core.looks import Look, LookSchedule
from topreward_ros.core.monitor_settings import NO_OVERRIDES, MonitorSettings, Overrides, calibrated_settings
from topreward_ros.core.outputs import Event, Output, ProgressReport, Reward, State
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import (
    PrefixScore,
    ProgressMode,
    live_progress,
    looks_finished_at_start,
)
from topreward_ros.core.running_episode import RunningEpisode
from topreward_ros.core.scene import Sight
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.core.shapes import View, size_text
from topreward_ros.core.silence import Silence
from topreward_ros.core.stages import Stages
from topreward_ros.core.stamps import Judgement, MissingStamps, StampJudge

_AT_WORK = (State.RUNNING, State.STALLED)
_LATE_NS = NS_PER_S // 2  # by how much the way of an image may take longer than that of another
_NO_FRAME = "no frame of this episode yet"


@dataclass(frozen=True, slots=True)
class IgnoredImages:
    """How many images were not used so far, by reason; each reason is a fault of the camera or its driver."""

    out_of_order: int  #: stamps a little earlier than the newest one, or repeated
    out_of_line: int  #: stamps far from those before and after
    other_shape: int  #: lone pictures of another shape than the episode's others
    not_pictures: int = 0  #: of one colour or noise
    frozen: int = 0  #: the same again, of a camera that is frozen for sure

    def counts(self) -> dict[str, int]:
        """How many, by the words for the reason; reasons that there are not are left out."""
        named = {
            "out of order": self.out_of_order,
            "with a stamp out of line": self.out_of_line,
            "of another shape": self.other_shape,
            "of one colour or noise": self.not_pictures,
            "of a frozen camera": self.frozen,
        }
        return {reason: count for reason, count in named.items() if count}


class TaskMonitor:
    """Watches one instruction at a time, episode after episode. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        settings: MonitorSettings,
        new_episode_id: Callable[[], str],
        interval_ns: int | None = None,
        *,
        judge_scene: bool = True,
        new_detector: NewDetector = SuccessDetector,
    ) -> None:
        """``new_episode_id`` names an episode whose caller gave no name. ``interval_ns``: between two images,
        where it is known beforehand. ``judge_scene``: False where the caller has chosen the frames, so that
        all are used, whatever they show. ``new_detector``: where detectors are compared."""
        self._settings = settings
        self._new_detector = new_detector
        self._new_episode_id = new_episode_id
        self._episode: RunningEpisode | None = None
        self._stages: Stages | None = None  # what the next episode is of; None: there is no task
        self._overrides = NO_OVERRIDES
        self._spent_ns = 0  # age of the earlier episodes of the task
        self._enabled = True
        self._report = ProgressReport(state=State.IDLE)
        self._events = 0
        self._stamps = StampJudge(interval_ns)
        self._missing_stamps = MissingStamps()
        self._other_shapes = 0
        self._given_ids = EpisodeIds()
        self._silence = Silence()
        self._silent_ns = 0  # by the last look at the clock
        self._hang = ""  # that the scorer has not answered for too long; empty: it does
        self._look = Look.NONE  # why the image that was observed last would be scored
        self._not_pictures = 0
        self._frozen = 0
        self._judge_scene = judge_scene

    @property
    def report(self) -> ProgressReport:
        """The newest report, for heartbeats and questions."""
        return self._report

    @property
    def enabled(self) -> bool:
        """Whether images are looked at."""
        return self._enabled

    @property
    def ignored(self) -> IgnoredImages:
        """Images that were not used since this object was made."""
        return IgnoredImages(
            self._stamps.out_of_order,
            self._stamps.out_of_line,
            self._other_shapes,
            self._not_pictures,
            self._frozen,
        )

    @property
    def watching(self) -> bool:
        """Whether an episode waits for images or uses them."""
        return self._episode is not None and not self._episode.ended

    @property
    def stale_reason(self) -> str:
        """Why no image can be used; empty while images can be used or nobody watches them."""
        return self._current.stale if self.watching else ""

    @property
    def silent_s(self) -> float:
        """For how long no image could be used [s], by the last `check_clock`; NaN while nobody watches."""
        return self._silent_ns / NS_PER_S if self.watching else nan

    @property
    def blind_reason(self) -> str:
        """Why no score is believed, though pictures come; empty: they are, or nobody watches."""
        return self._current.pictures.why if self.watching else ""

    @property
    def newest_stamp_ns(self) -> int | None:
        """The newest stamp that could be believed; None before the first."""
        return self._stamps.newest_ns

    @property
    def settings(self) -> MonitorSettings:
        """The settings in force.

        New thresholds and timeouts of events and `end_episode_on_success` act at once, the rest from the
        next episode on.
        """
        return self._settings

    @settings.setter
    def settings(self, settings: MonitorSettings) -> None:
        self._settings = settings
        if self._episode is not None:
            in_force = self.settings_in_force
            self._episode.success.settings = in_force.success
            self._episode.progress.settings = in_force.progress
            self._episode.pictures.settings = in_force.pictures

    @property
    def settings_in_force(self) -> MonitorSettings:
        """The settings, with the detector of the present stage's calibration, and the threshold that the
        present task has of its own."""
        calibration = self._calibration
        settings = self._settings if calibration is None else calibrated_settings(self._settings, calibration)
        return self._overrides.of(settings)

    @property
    def calibrated(self) -> bool:
        """Whether the threshold in force comes from a calibration of the present stage that is not weak."""
        calibration = self._calibration
        return calibration is not None and not calibration.weak and self._overrides.success_threshold is None

    def _who_decides(self, calibration: TaskCalibration) -> str:
        """What to say of that where a calibration is weak."""
        return "" if self._overrides.success_threshold is not None else calibration.who_decides

    @property
    def uncalibrated(self) -> str:
        """Why the running episode has no calibration though there is a file; empty: it has one, or there is
        none."""
        return "" if self._episode is None else self._episode.uncalibrated

    @property
    def _calibration(self) -> TaskCalibration | None:
        """That of the present stage, if it holds for the frames of the episode."""
        if self._episode is not None:
            return self._episode.calibration
        return None if self._stages is None else self._settings.calibrations.of(self._stages.current)

    def _lay_aside(self, why: str) -> None:
        """Go on without the calibration of the episode, before its first score."""
        episode = self._current
        episode.calibration, episode.uncalibrated = None, why
        settings = self.settings_in_force
        episode.success.settings, episode.progress.settings = settings.success, settings.progress
        self._report = replace(self._report, calibrated=self.calibrated)

    @property
    def time_limit(self) -> float:
        """How long the present task may take [s]; where it has no limit of its own, each of its episodes;
        0: no limit."""
        return self._overrides.timeout or self._settings.episode_timeout

    def set_task(
        self,
        task: str,
        episode_id: str = "",
        why: str = "new task",
        *,
        stage: int = 0,
        overrides: Overrides = NO_OVERRIDES,
        now_ns: int | None = None,
    ) -> list[Output]:
        """End the current episode and wait for the first frame of a new one; empty: go idle.

        ``task``: its stages, one per line. ``episode_id``: the name of the first episode, printable and new;
        empty: one is made. ``stage``: the number of the first one, from 1; 0: 1. ``overrides``: hold until a
        task is set, reset or disabled. ``now_ns``: when that is, by the clock of ``arrival_ns``: a silence
        counts from then; None: from the next `check_clock`. Raises `InstructionError` for text that cannot be
        a task, `StageError` and `EpisodeIdError`, and then changes nothing.
        """
        task = clean_task(task)
        stages = Stages.of(task, stage) if task else None
        if episode_id:
            self._given_ids.give(episode_id)
        return self._begin(stages, episode_id, why, overrides, now_ns=now_ns)

    def reset(self, why: str = "reset", *, now_ns: int | None = None) -> list[Output]:
        """End the current episode and begin a new one with the same stage, or after SUCCESS the first one.
        ``now_ns``: see `set_task`."""
        return self._begin(self._stages, "", why, now_ns=now_ns)

    def set_enabled(self, enabled: bool, *, now_ns: int | None = None) -> list[Output]:
        """Stop looking at images, or look again, in a new episode. The task is kept, and its stage.
        ``now_ns``: see `set_task`."""
        if enabled == self._enabled:
            return []
        self._enabled = enabled
        why = "the monitor was enabled" if enabled else "the monitor was disabled"
        return self._begin(self._stages, "", why, now_ns=now_ns)

    def filled_stamp(self, stamp_ns: int, now_ns: int) -> int:
        """The stamp to observe an image with: its own, or the time of arrival where it has none.

        ``now_ns``: the clock that stamps belong to.
        """
        return self._missing_stamps.filled(stamp_ns, now_ns)

    def observe(
        self, stamp_ns: int, arrival_ns: int | None = None, *, trusted: bool = False
    ) -> tuple[bool, list[Output]]:
        """Register an image of the primary camera before it is decoded.

        ``stamp_ns``: its stamp of capture; ``arrival_ns``: any steady clock, or None where images do not
        arrive, as those of a file. An image whose stamp cannot be believed is ignored (`StampJudge`); stamps
        that agree that time went back end the episode and begin another. Returns whether the image should be
        decoded and passed to `add_frame`, because it is due, or SUCCESS waits for its confirmation, or nobody
        has looked at one for a while. One that
        cannot be decoded is passed to `frame_failed` instead, and the next one stands in for it.
        ``trusted``: the caller knows that the stamp is right, because it chose the image by it.
        """
        if trusted:
            self._stamps.restart()
        before_ns = self._stamps.newest_ns
        judgement = self._stamps.judge(stamp_ns)
        if judgement is Judgement.JUMPED:
            self._note_jump(before_ns or 0, stamp_ns, arrival_ns)
        outputs: list[Output] = []
        episode = self._episode
        began_anew = judgement is Judgement.BEGAN_ANEW
        if began_anew and episode and not episode.ended:
            self._episode = episode.anew(self.settings_in_force, self._new_detector)
        elif judgement is Judgement.WENT_BACK or (began_anew and self._stamps.moved_ns < 0):
            outputs += self._begin_again(
                f"image stamps went back by {-self._stamps.moved_ns / NS_PER_S:.3f} s", arrival_ns
            )
        elif not judgement.usable:
            self._disbelieve(stamp_ns, arrival_ns, judgement)
            return False, []
        return self._take(stamp_ns, arrival_ns, outputs)

    @property
    def unsettled(self) -> bool:
        """Whether the image that was observed last would be due by its stamp only if others confirmed it."""
        return self._stamps.unsettled

    def finish(self, arrival_ns: int | None = None) -> tuple[bool, list[Output]]:
        """The stream has ended. Returns what `observe` would have of its last image, where that came after
        a pause and no other could confirm its stamp."""
        stamp_ns = self._stamps.settle()
        return (False, []) if stamp_ns is None else self._take(stamp_ns, arrival_ns, [])

    def _take(
        self, stamp_ns: int, arrival_ns: int | None, outputs: list[Output]
    ) -> tuple[bool, list[Output]]:
        """Whether the image of a stamp that can be believed is to be decoded."""
        episode = self._episode
        if episode is None or episode.ended:
            return False, outputs
        self._silence.believed(arrival_ns or 0)
        episode.arrival_ns = arrival_ns
        if episode.first_frame is not None and (
            ended := self._time_is_up(episode.age_ns(stamp_ns), "by the stamps of the images")
        ):
            return False, [*outputs, *ended]
        rate = episode.success.confirm_rate
        self._look = episode.looks.observe(stamp_ns, arrival_ns, confirm_rate=rate)
        arrives = arrival_ns is not None
        if self._look is not Look.NONE or (
            arrives and self._silence.wants_a_look(self._settings.stale_timeout)
        ):
            return True, outputs
        return False, [*outputs, *self._note_usable()]

    def _disbelieve(self, stamp_ns: int, arrival_ns: int | None, judgement: Judgement) -> None:
        """Note why an image is not used, for its stamp."""
        newest_ns = self._stamps.newest_ns
        why = f"the stamp of the newest image is {judgement.value}"
        if stamp_ns == newest_ns:
            why = "the stamp of the newest image is that of the one before, as where a clock stands still"
        elif arrival_ns is not None and self._goes_with_time(stamp_ns, arrival_ns):
            why = "the newest image follows a pause, and the next ones are to confirm its stamp"
            if not self.stale_reason:
                self._silence.put_off(arrival_ns)
        elif judgement is Judgement.OUT_OF_LINE:  # a clock that was set, a bag played again or slowly
            why += ", unless the next ones confirm it"
        self._silence.disbelieved(why)

    def _goes_with_time(self, stamp_ns: int, arrival_ns: int) -> bool:
        """Whether an image came as much later than the newest one whose stamp was believed as its stamp says:
        it follows a pause, or the camera is slow."""
        episode, newest_ns = self._episode, self._stamps.newest_ns
        if episode is None or episode.arrival_ns is None or newest_ns is None or stamp_ns <= newest_ns:
            return False
        return abs(stamp_ns - newest_ns - (arrival_ns - episode.arrival_ns)) <= _LATE_NS

    def _note_jump(self, before_ns: int, stamp_ns: int, arrival_ns: int | None) -> None:
        """The stamps have jumped ahead, from that of the last image that was believed."""
        episode = self._episode
        if episode is not None and episode.arrival_ns is not None and arrival_ns is not None:
            by_ns = stamp_ns - before_ns - (arrival_ns - episode.arrival_ns)
            if by_ns > 0:
                episode.jumps.append((stamp_ns, by_ns))

    def frame_failed(self, why: str) -> None:
        """The image that was just observed, and that `observe` asked for, cannot be used. ``why``: for a
        human."""
        self._silence.failed(why)

    def add_frame(self, frame: Frame) -> tuple[ScoreRequest | None, list[Output]]:
        """Take the frame that was just observed, and that `observe` asked for.

        A frame of another shape is ignored, as if it could not be decoded; several in a row end the episode
        and begin another. So is one that shows nothing. Where the scene is another, the prefix begins anew.
        Returns the prefix to score, unless the frame is ignored or the episode is over.
        """
        episode = self._episode
        if episode is None or episode.ended:
            return None, []
        outputs: list[Output] = []
        shape = frame.image.shape[:2]
        view = episode.view.judge(shape)
        if view is View.OTHER:
            self._other_shapes += 1
            first = size_text(episode.view.first or shape)
            self.frame_failed(f"the newest picture is {size_text(shape)}, and the first one was {first}")
            return None, []
        if view is View.CHANGED:
            first = size_text(episode.view.first or shape)
            outputs += self._begin_again(
                f"the picture changed from {first} to {size_text(shape)}: another shape is another view"
            )
            episode = self._current
            episode.view.judge(shape)
            self._look = episode.looks.observe(frame.stamp_ns, episode.arrival_ns)
        if self._look is not Look.DUE:
            fault = episode.scene.why_not_used(frame.image, frame.widths) if self._judge_scene else ""
            if fault := fault or episode.pictures.why:
                self.frame_failed(fault)
                return None, outputs
            outputs += self._note_usable(looked=True)
            if self._look is Look.NONE:
                return None, outputs
            return episode.look(frame, judge_scene=self._judge_scene), outputs
        sight = Sight()
        if self._judge_scene:
            sight = episode.scene.judge(frame.stamp_ns, frame.image, frame.widths)
            outputs += self._look_at_pictures(frame, sight)
        if not sight.used:
            self._not_pictures += 1
            self.frame_failed(sight.message)
            return None, outputs
        if episode.pictures.all_frozen and not sight.anew:
            self._frozen += 1
            self.frame_failed(episode.pictures.why)
            return None, outputs
        episode.looks.take(Look.DUE)
        episode.last_frame = frame
        if episode.first_frame is None:
            if not episode.started:
                episode.started_with = frame
                outputs.append(self._event(EventType.EPISODE_STARTED, _watching_text(episode.stages)))
            episode.first_frame = frame
            if episode.calibration and (why := episode.calibration.why_not_for(*shape)):
                self._lay_aside(f"the calibration of this task does not hold here: {why}")
            stays_stale = bool(episode.stale and episode.pictures.why)
            if self._report.state is not State.RUNNING and not episode.success.fired and not stays_stale:
                outputs += self._enter(State.RUNNING)
            found, episode.found_early = episode.found_early, []
            outputs += self._tell_of_pictures(found, frame)
        if why := episode.pictures.why:
            episode.blind[frame.stamp_ns] = why
            self.frame_failed(why)  # it is scored, and nobody believes it
        else:
            outputs += self._note_usable(looked=True)
        episode.see(frame, sight)
        return ScoreRequest(episode.instruction, episode.buffer.copy(), episode.episode_id), outputs

    def _look_at_pictures(self, frame: Frame, sight: Sight) -> list[Output]:
        """Ask the detectors that look at pictures. What they find before the episode begins is told then."""
        episode = self._current
        was_blind = episode.pictures.why
        scene = episode.scene
        found = episode.pictures.update(frame.stamp_ns, scene.images, scene.pictures, sight.fault)
        if not episode.started:
            episode.found_early = [*episode.found_early, *found] if episode.pictures.why else found
            return []
        outputs = self._tell_of_pictures(found, frame)
        if was_blind and not episode.pictures.why and self._report.trouble == was_blind:
            seen = "the pictures show something again: progress is known with the next score"
            self._say_in_report(seen)
            outputs.append(self._report)
        return outputs

    def _tell_of_pictures(self, found: list[Finding], frame: Frame) -> list[Output]:
        """Say what was found in pictures, and that progress is not known while no score is believed."""
        outputs: list[Output] = []
        if why := self._current.pictures.why:
            outputs += self._unknown(why) if found or self._report.trouble != why else []
        return [*outputs, *(self._event(it.kind, it.message, it.threshold, frame) for it in found)]

    def _say_in_report(self, trouble: str) -> None:
        """Let the report say ``trouble`` alone."""
        self._report = replace(self._report, trouble=trouble, news="", standing="")

    def _unknown(self, why: str) -> list[Output]:
        """Report that progress is not known, and ``why``."""
        self._report = replace(self._report, progress=nan, stage_progress=nan)
        self._say_in_report(why)
        return [self._report]

    def add_score(self, request: ScoreRequest, score: PrefixScore) -> list[Output]:
        """Take the score of a request, in order of stamps. One of an earlier episode says nothing."""
        episode = self._asked(request)
        if episode is None:
            return []
        newest = request.prefix[-1]
        episode.looks.answered(newest.stamp_ns)
        episode.failures = 0
        if newest in episode.wrong_frames or episode.is_of_the_past(request):
            return []
        if request.extra:
            return self._add_extra(episode, newest, score)
        success, stages = self.settings_in_force.success, episode.stages
        doubts, blind = episode.doubts(newest.stamp_ns)
        succeeded = episode.succeeds(newest.stamp_ns, score, doubts)
        notes = [score.note, episode.note, _broken_off_message(episode.success)]
        episode.note = ""
        if looks_finished_at_start(score, success.threshold):
            notes.append(_finished_at_start_message(score, success))
        calibration = episode.calibration
        said = [calibration.weakness, self._who_decides(calibration)] if calibration else []
        standing = "; ".join(filter(None, [episode.uncalibrated, *said]))
        probability = calibration.probability if calibration else None
        progress = (
            nan
            if blind
            else live_progress(score, self._settings.progress_mode, success.threshold, probability)
        )
        baseline = live_progress(score, ProgressMode.STATIC_BASELINE, success.threshold)
        found = [] if episode.success.fired else self._look_at_progress(newest, progress, baseline, score)
        failure = failed(found)
        state = self._state_of_score(succeeded and stages.is_last, failure is not None)
        self._report = replace(
            self._report,
            state=state,
            waits=episode.stale if state is State.STALE else "",
            stamp=newest.stamp,
            progress=stages.whole(progress),
            stage_progress=progress,
            score=score,
            elapsed_ns=episode.age_ns(newest.stamp_ns),
            trouble=blind,
            news="; ".join(filter(None, notes)),
            standing=standing,
            calibrated=self.calibrated,
        )
        reward = episode.rewards.step(score.success_log_prob, progress)
        terminated = (succeeded and self._ends_with_success) or failure is not None
        outputs: list[Output] = [self._report, self._reward(reward, newest, terminated=terminated)]
        outputs += [self._event(it.kind, it.message, it.threshold, newest) for it in found]
        if succeeded:
            outputs += self._succeed(newest, score)
        elif failure is not None:
            outputs += self._end("failure", newest)
        if not terminated and not blind and (why := episode.pictures.why):
            outputs += self._unknown(why)  # the score was late: what it says is of before that
        return outputs

    def _add_extra(self, episode: RunningEpisode, newest: Frame, score: PrefixScore) -> list[Output]:
        """Show the score of an extra look to the detector. Progress and rewards stay as they are; only where
        SUCCESS ends the episode a last reward, 0, marks its end."""
        doubts, _ = episode.doubts(newest.stamp_ns)
        succeeded = episode.succeeds(newest.stamp_ns, score, doubts)
        if not succeeded:  # the next report tells of it
            episode.note = "; ".join(filter(None, [episode.note, _broken_off_message(episode.success)]))
            return []
        outputs: list[Output] = []
        if episode.stages.is_last:
            outputs += self._enter(State.SUCCEEDED)
        if self._ends_with_success:
            outputs.append(self._reward(episode.rewards.close(), newest, terminated=True))
        return [*outputs, *self._succeed(newest, score)]

    @property
    def _ends_with_success(self) -> bool:
        return self._settings.end_episode_on_success or not self._current.stages.is_last

    def _succeed(self, newest: Frame, score: PrefixScore) -> list[Output]:
        """Say that the detector has fired, and end the episode unless told to go on."""
        episode, threshold = self._current, self.settings_in_force.success.threshold
        stages, ends = episode.stages, self._ends_with_success
        kind = EventType.SUCCESS if stages.is_last else EventType.SUBTASK_SUCCESS
        message = _success_message(episode.success, stages)
        if score.states_progress:  # who has no log p thinks in probabilities
            what = "progress" if isnan(score.success_probability) else "probability of success"
            stated = f"{what} {exp(score.success_log_prob):.3f}, at or above {exp(threshold):.3f}"
            message = f"{stated}; its logarithm: {message}"
        outputs: list[Output] = [self._event(kind, message, threshold, newest, score.success_log_prob)]
        self._stages = stages.following()
        if ends:
            outputs += self._end("success" if stages.is_last else "success of a stage", newest)
        if not stages.is_last:
            outputs += self._next_episode(episode, "")
        return outputs

    def _look_at_progress(
        self, newest: Frame, progress: float, baseline: float, score: PrefixScore
    ) -> list[Finding]:
        """Ask the detectors that follow progress, as published and against the static ``baseline``, where it
        is sure what the score means."""
        episode = self._current
        if episode.is_unsure or not isfinite(progress):
            progress = baseline = nan
        age_ns = episode.age_ns(newest.stamp_ns)
        since_ns = 0 if episode.first_frame is None else episode.first_frame.stamp_ns
        sample = Sample(since_ns + age_ns, age_ns / NS_PER_S, progress)
        if score.states_progress:
            sample = replace(sample, what="progress, as the model states it,")
        return episode.progress.update(sample, baseline)

    def _state_of_score(self, succeeded: bool, failed: bool) -> State:
        """The state once a score has been taken; one that was late does not end a silence."""
        if succeeded:
            return State.SUCCEEDED
        if failed:
            return State.FAILED
        return self._state_at_work() if self._report.state in _AT_WORK else self._report.state

    def _state_at_work(self) -> State:
        return State.STALLED if self._current.progress.stalled else State.RUNNING

    def leave_out(self, request: ScoreRequest) -> None:
        """An extra look is not scored, because the scorer has other work or would be busy for too long."""
        episode = self._asked(request)
        if episode is not None:
            episode.looks.answered(request.prefix[-1].stamp_ns)
            episode.looks.hold()

    def scorer_failed(self, request: ScoreRequest, message: str) -> list[Output]:
        """Report that a prefix could not be scored; the episode goes on with the next frame.

        The report says it until there is a score. The event comes for the first `ERRORS_IN_A_ROW`, and then
        whenever their number has doubled: a server that is asked twice a second may be away for an hour.
        """
        episode = self._asked(request)
        newest = request.prefix[-1]
        if episode is None or newest in episode.wrong_frames:
            return []
        episode.looks.answered(newest.stamp_ns)
        if request.extra:
            episode.looks.hold()
        age_s = episode.age_ns(newest.stamp_ns) / NS_PER_S
        episode.failures += 1
        count = episode.failures
        self._say_in_report(f"no score: {message}")
        if count > ERRORS_IN_A_ROW and count.bit_count() > 1:
            return [self._report]
        where = f"{age_s:.1f} s into the episode, {len(request.prefix)} frames"
        if count > 1:
            where += f", {count} times in a row"
        return [self._report, self._event(EventType.SCORER_ERROR, f"{message} ({where})", frame=newest)]

    def note_hang(self, hang: str) -> list[Output]:
        """Take that the scorer has not answered for too long (for a human); empty: it answers, or is not
        asked.

        To be called several times a second. The event comes once per hang in every episode that has frames
        to score; the report says it for as long as it lasts.
        """
        before, self._hang = self._hang, hang
        episode = self._episode
        if episode is None or not episode.started:
            return []
        if hang or (before and self._report.trouble == before):
            self._say_in_report(hang)
        told, episode.told_of_hang = episode.told_of_hang, bool(hang)
        if not hang or told or episode.ended:
            return []
        return [self._report, self._event(EventType.SCORER_ERROR, f"{hang}: no score comes until it does")]

    def break_off(self, why: str) -> None:
        """The images to come do not belong to those before, though their stamps and pictures may: the dwell
        for SUCCESS begins anew. ``why``: for a human."""
        if self._episode is not None:
            self._episode.success.break_off(why)

    def check_clock(
        self,
        now_ns: int,
        silence: Callable[[], str] | None = None,
        *,
        stopped_ns: int = 0,
        paused_ns: int = 0,
        stands_ns: int = 0,
    ) -> list[Output]:
        """Look at the clock (the one of ``arrival_ns``): have images that can be used stopped, is time up?

        ``silence`` says why no image comes at all, where it knows; else what was wrong with the newest one is
        told. For so long since the last call this process was stopped (``stopped_ns``), which says nothing
        about the camera. For so long simulated time stood still, in which an episode grows no older: in
        pauses that are over by now (``paused_ns``), and up to now in one that is not (``stands_ns``).
        """
        self._silent_ns = self._silence.check(now_ns, stopped_ns, paused_ns)
        episode = self._episode
        if episode is None or episode.ended:
            return []
        outputs: list[Output] = []
        timeout_s = self._settings.stale_timeout
        was_stale = bool(episode.stale)
        if self._silent_ns >= timeout_s * NS_PER_S:
            why = (silence() if silence else "") or self._silence.why() or "no image comes"
            episode.stale = f"no image that can be used for more than {timeout_s:g} s (stale_timeout): {why}"
        elif was_stale:  # somebody allows more now
            outputs += self._end_silence()
        if episode.stale and not was_stale:
            outputs.append(self._event(EventType.STALE_IMAGES, episode.stale, timeout_s))
            # A success that was fired stays the state of its episode.
            if not episode.success.fired:
                outputs += self._enter(State.STALE, episode.stale)
        elif self._report.state is State.STALE and self._report.waits != episode.stale:
            outputs += self._enter(State.STALE, episode.stale)  # the reason is another one now
        # While images come their stamps tell how old the episode is, however fast a bag is played.
        newest_ns = self._stamps.newest_ns
        if episode.stale and episode.first_frame is not None and newest_ns is not None:
            elapsed_ns = episode.age_ns(newest_ns) + self._silence.behind_ns(now_ns, stands_ns)
            outputs += self._time_is_up(elapsed_ns, "by the wall clock, as no image comes that can be used")
        return outputs

    def _time_is_up(self, elapsed_ns: int, by: str) -> list[Output]:
        """End the episode if it is older than it may be; ``by`` which clock, for the message."""
        timeout_s = self.time_limit
        whole_ns = self._spent_ns + elapsed_ns
        if not 0.0 < timeout_s <= (whole_ns if self._overrides.timeout else elapsed_ns) / NS_PER_S:
            return []
        whose = "the timeout of this task" if self._overrides.timeout else "episode_timeout"
        limit = f"{whose} = {timeout_s:g} s, {by}"
        if self._current.success.fired:
            return self._cut(None, State.SUCCEEDED, f"it was watched beyond its success for {limit}")
        outputs = self._cut(EventType.TIMEOUT, State.FAILED, f"no success within {limit}", timeout_s)
        return [
            replace(output, elapsed_ns=whole_ns)
            if isinstance(output, Event) and output.type is EventType.TIMEOUT
            else output
            for output in outputs
        ]

    def _note_usable(self, *, looked: bool = False) -> list[Output]:
        """Note that the image that was observed last can be used: images are there, or there again.

        ``looked``: its picture was seen, and not only its stamp.
        """
        self._silence.usable(looked=looked)
        return self._end_silence()

    def _end_silence(self) -> list[Output]:
        episode = self._current
        episode.stale = ""
        if self._report.state is not State.STALE:
            return []
        if episode.first_frame:
            return self._enter(self._state_at_work())
        return self._enter(State.WAITING_FOR_IMAGES, _NO_FRAME)

    def _asked(self, request: ScoreRequest) -> RunningEpisode | None:
        """The episode that a request is of, while it lasts."""
        episode = self._episode
        if episode is None or episode.ended or request.episode_id not in ("", episode.episode_id):
            return None
        return episode

    def _begin(
        self,
        stages: Stages | None,
        episode_id: str,
        why: str,
        overrides: Overrides = NO_OVERRIDES,
        *,
        now_ns: int | None = None,
    ) -> list[Output]:
        """End the current episode because somebody said so, and wait for another where there is a task. Its
        images may have any stamps.

        The report keeps the task, also while the monitor is disabled.
        """
        self._stamps.restart()
        self._missing_stamps = MissingStamps()
        self._silence = Silence(now_ns)
        outputs = self._abort(why)
        self._stages, self._overrides, self._spent_ns = stages, overrides, 0
        return [*outputs, self._wait_for_images(episode_id)]

    def _begin_again(self, why: str, arrival_ns: int | None = None) -> list[Output]:
        """End the current episode because the stream is another now, and begin one of the same task with it.

        An episode that has no frame yet just goes on waiting.
        """
        episode = self._episode
        if episode is None:
            return []
        if episode.first_frame is None:
            episode.looks = LookSchedule(self._settings.sample_rate)
            return []
        if episode.ended:
            self._silence = Silence(arrival_ns)  # nobody looked at images since then
        return self._next_episode(episode, why)

    def _next_episode(self, episode: RunningEpisode, why: str) -> list[Output]:
        """Begin another episode of the same wish behind one, which is cut because of ``why`` if it lasts."""
        outputs = self._abort(why)
        if episode.first_frame and episode.last_frame:
            self._spent_ns += episode.age_ns(episode.last_frame.stamp_ns)
        return [*outputs, self._wait_for_images(self._given_ids.after(episode.episode_id))]

    def _wait_for_images(self, episode_id: str) -> ProgressReport:
        """Wait for the first frame of an episode of the stage that is next, where there is one."""
        stages, self._episode = self._stages, None
        self._report = ProgressReport(state=State.IDLE)
        if stages is None:
            return self._report
        self._report = replace(
            self._report,
            instruction=stages.current,
            task=stages.task,
            stage=stages.number,
            stages=stages.count,
        )
        if not self._enabled:
            self._report = replace(self._report, waits="the monitor is disabled")
            return self._report
        episode_id = episode_id or self._new_episode_id()
        if stages.count > 1:
            self._given_ids.adopt(episode_id)
        self._episode = RunningEpisode(
            episode_id,
            stages,
            self.settings_in_force,
            self._new_detector,
            self._settings.calibrations.of(stages.current),
        )
        self._report = replace(
            self._report,
            state=State.WAITING_FOR_IMAGES,
            waits=_NO_FRAME,
            episode_id=episode_id,
            calibrated=self.calibrated,
        )
        return self._report

    def _abort(self, why: str) -> list[Output]:
        """Cut the current episode if it has begun and not ended; otherwise publish nothing."""
        episode = self._episode
        if episode is None or episode.ended or not episode.started:
            return []
        return self._cut(EventType.ABORTED, State.IDLE, why)

    def _cut(
        self, cause: EventType | None, state: State, message: str, threshold: float = nan
    ) -> list[Output]:
        """End an episode early: publish the cause, a last reward marked truncated, and EPISODE_ENDED.

        None: what ends it is no failure, and needs no event of its own.
        """
        episode = self._current
        # Once SUCCESS has fired, SUCCEEDED stays the state of its episode, however the episode ends.
        report = self._enter(State.SUCCEEDED if episode.success.fired else state)
        reward = self._reward(episode.rewards.close(), episode.last_frame, truncated=True)
        causes = [] if cause is None else [self._event(cause, message, threshold)]
        return [*report, reward, *causes, *self._end(message)]

    def _end(self, why: str, frame: Frame | None = None) -> list[Output]:
        self._current.ended = True
        return [self._event(EventType.EPISODE_ENDED, why, frame=frame)]

    def _enter(self, state: State, waits: str = "") -> list[Output]:
        """Change the state, in which nothing is scored for the reason ``waits``, if any, and report it.

        Everything else in the report stays as it was.
        """
        self._report = replace(self._report, state=state, waits=waits)
        return [self._report]

    def _reward(
        self, reward: float, frame: Frame | None, *, terminated: bool = False, truncated: bool = False
    ) -> Reward:
        """Make the output for the reward that the episode's stream has just counted."""
        episode = self._current
        return Reward(
            episode_id=episode.episode_id,
            stamp=_stamp_of(frame),
            step=episode.rewards.steps - 1,
            type=episode.rewards.type,
            reward=reward,
            episode_return=episode.rewards.episode_return,
            terminated=terminated,
            truncated=truncated,
        )

    def _event(
        self,
        kind: EventType,
        message: str,
        threshold: float = nan,
        frame: Frame | None = None,
        log_prob: float | None = None,
    ) -> Event:
        """Make the next event, with the stamp of ``frame`` or else of the newest frame of the episode, and
        with ``log_prob`` or else that of the newest report."""
        episode = self._current
        self._events += 1
        return Event(
            type=kind,
            sequence=self._events,
            episode_id=episode.episode_id,
            instruction=episode.instruction,
            stamp=_stamp_of(frame or episode.last_frame),
            progress=self._report.progress,
            log_prob=self._report.score.success_log_prob if log_prob is None else log_prob,
            threshold=threshold,
            message=message,
            stage=episode.stages.number,
            stages=episode.stages.count,
            calibrated=self.calibrated,
        )

    @property
    def _current(self) -> RunningEpisode:
        assert self._episode is not None, "called only while there is an episode"
        return self._episode


def _stamp_of(frame: Frame | None) -> Stamp:
    return frame.stamp if frame else NO_STAMP


def _watching_text(stages: Stages) -> str:
    which = f" stage {stages.number} of {stages.count}" if stages.count > 1 else ""
    return f"watching for{which}: {stages.current}"


def _success_message(success: SuccessDetector, stages: Stages) -> str:
    text = success.success_text()
    if stages.is_last:
        return text
    following = printable(stages.following().current, 200)
    return f"stage {stages.number} of {stages.count} is done, now comes '{following}': {text}"


def _broken_off_message(success: SuccessDetector) -> str:
    return success.broken_off and f"{success.broken_off}: the dwell for SUCCESS starts anew"


def _finished_at_start_message(score: PrefixScore, success: SuccessSettings) -> str:
    return (
        f"the first frame, held still, already reads as success (r_static = {score.log_prob_static:.3f} nat, "
        f"success_threshold = {success.threshold:g} nat): progress is NaN, and SUCCESS waits until the score "
        f"was below {success.lower_threshold:g} nat {success.min_scores} times in a row; reset the scene or "
        "check the task"
    )
