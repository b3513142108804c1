"""What a `TaskMonitor` keeps of the episode that it watches, and how frames and scores change it."""

from __future__ import annotations

from collections import deque
from math import isnan

from topreward_ros.core.calibration.task import TaskCalibration
from topreward_ros.core.detectors.of_pictures import PictureDetectors
from topreward_ros.core.detectors.of_progress import ProgressDetectors
from topreward_ros.core.detectors.sample import Finding
from topreward_ros.core.events import NewDetector, SuccessDetector
from topreward_ros.core.frames import EpisodeBuffer, Frame
from topreward_ros.core.looks import Look, LookSchedule
from topreward_ros.core.monitor_settings import MonitorSettings
from topreward_ros.core.progress import PrefixScore
from topreward_ros.core.rewards import RewardStream
from topreward_ros.core.scene import AGREEING, SceneJudge, Sight
from topreward_ros.core.score_request import ScoreRequest
from topreward_ros.core.shapes import ViewJudge
from topreward_ros.core.stages import Stages


class RunningEpisode:
    """The state of one episode; the next one gets a new object."""

    def __init__(
        self,
        episode_id: str,
        stages: Stages,
        settings: MonitorSettings,
        new_detector: NewDetector,
        calibration: TaskCalibration | None = None,
    ) -> None:
        """``settings``: those in force, with ``calibration``, the one of this stage."""
        self.episode_id = episode_id
        self.stages = stages
        self.instruction = stages.current
        self.calibration = calibration
        self.uncalibrated = settings.calibrations.why_not(stages.current)  # why; empty: there is no file
        self.looks = LookSchedule(settings.sample_rate)
        self.buffer = EpisodeBuffer(settings.max_frames, settings.window)
        self.success = new_detector(settings.success, 1.0 / settings.sample_rate)
        self.progress = ProgressDetectors(settings.progress)
        self.pictures = PictureDetectors(settings.pictures, fixed=settings.camera_fixed)
        self.found_early: list[Finding] = []  # in pictures, before EPISODE_STARTED
        self.blind: dict[int, str] = {}  # why no score is believed, by stamp of frames that have none yet
        self.rewards = RewardStream(settings.reward)
        self.started_with: Frame | None = None  # the frame that EPISODE_STARTED was said of
        self.first_frame: Frame | None = None
        self.last_frame: Frame | None = None
        self.view = ViewJudge()
        self.scene = SceneJudge(fixed=settings.camera_fixed)
        self.newest: deque[Frame] = deque(maxlen=AGREEING)
        self.unsure: dict[int, str] = {}  # why, by stamp of frames that have no score yet
        self.note = ""  # what was seen, for the next report
        self.before_change: EpisodeBuffer | None = None  # the buffer, before what is not sure yet
        self.other_view: tuple[SuccessDetector, EpisodeBuffer] | None = None  # what is known of the last one
        self.prefix_since_ns = 0  # stamp of the frame with which the prefix became another one
        self.wrong_frames: tuple[Frame, ...] = ()  # the first ones so far, if their stamps were wrong
        self.is_unsure = False  # what the newest score means
        self.stale = ""  # why no image can be used; empty: one can
        self.told_of_hang = False  # that the scorer does not answer
        self.failures = 0  # scores in a row that could not be computed
        self.arrival_ns: int | None = None  # of the newest image whose stamp was believed
        self.jumps: list[tuple[int, int]] = []  # stamps that jumped ahead of the time of arrival, by how much
        self.ended = False

    @property
    def started(self) -> bool:
        """Whether EPISODE_STARTED was said, so that the episode needs an end."""
        return self.started_with is not None

    def age_ns(self, stamp_ns: int) -> int:
        """How old the episode is at a stamp. Time in which nothing arrived is no more than that, whatever
        the stamps say: a clock was set, or somebody else publishes now."""
        if self.first_frame is None:
            return 0
        first_ns = self.first_frame.stamp_ns
        return stamp_ns - first_ns - sum(by_ns for ns, by_ns in self.jumps if first_ns < ns <= stamp_ns)

    def see(self, frame: Frame, sight: Sight) -> None:
        """Take a frame into the prefix. Where another scene is seen, the prefix and what is known of its
        scores begin anew."""
        self.newest.append(frame)
        if sight.sure:
            self.note = sight.message or self.note
        if not sight.anew:
            if sight.sure:
                self.before_change = None
            else:
                self.before_change = self.before_change or self.buffer.copy()
                self.unsure[frame.stamp_ns] = sight.message
            self.buffer.append(frame)
            return
        kept = list(self.newest)[-sight.anew :]
        other = self.other_view
        # Without the frames since the change, which are of the view that comes now.
        self.other_view = self.success, self.before_change or self.buffer
        if sight.back and other is not None:
            self.success, self.buffer = other
            self.success.interrupt(sight.message)
            newest = self.other_view[0]
            self.success.settings, self.success.fired = newest.settings, newest.fired
            for frame_of_it in kept:
                self.buffer.append(frame_of_it)
        else:
            self.buffer = EpisodeBuffer.holding(kept, self.buffer.max_frames, self.buffer.window)
            self.success = self.success.anew()
        self.progress.begin_anew()
        self.prefix_since_ns, self.unsure, self.before_change = frame.stamp_ns, {}, None

    def look(self, frame: Frame, *, judge_scene: bool) -> ScoreRequest | None:
        """The request for an extra look at a frame that is not kept; None where it is not sure that it shows
        the scene of the prefix."""
        if self.pictures.why:
            return None
        if judge_scene:
            sight = self.scene.would_judge(frame.stamp_ns, frame.image, frame.widths)
            if not sight.used or not sight.sure or sight.anew:
                return None
        self.looks.take(Look.EXTRA)
        buffer = self.buffer.copy()
        buffer.append(frame)
        left_s = self.looks.time_left_s()
        return ScoreRequest(self.instruction, buffer, self.episode_id, extra=True, time_left_s=left_s)

    def is_of_the_past(self, request: ScoreRequest) -> bool:
        """Whether a request was made before the prefix became another one."""
        return request.prefix[-1].stamp_ns < self.prefix_since_ns

    def doubts(self, stamp_ns: int) -> tuple[list[str], str]:
        """Why what was seen up to a scored frame is not sure, and why its score is not believed, if it is
        not; frames that were scored by now, or never will be, are forgotten."""
        doubts = [*self.unsure.items(), *self.blind.items()]
        whys = [why for ns, why in sorted(doubts) if ns <= stamp_ns]
        blind = self.blind.get(stamp_ns, "")
        self.is_unsure = stamp_ns in self.unsure or bool(blind)
        self.unsure = {ns: why for ns, why in self.unsure.items() if ns > stamp_ns}
        self.blind = {ns: why for ns, why in self.blind.items() if ns > stamp_ns}
        return whys, blind

    def succeeds(self, stamp_ns: int, score: PrefixScore, doubts: list[str]) -> bool:
        """Show a score to the detector, if it is sure what it means; True at the one moment of success."""
        for why in doubts:
            self.success.interrupt(why)
        # A score that is not told is as good as a low one where it cannot be high.
        is_low = score.log_prob_bound < self.success.settings.lower_threshold
        told = score.success_log_prob
        log_prob = score.log_prob_bound if is_low and isnan(told) else told
        return not self.is_unsure and self.success.add(stamp_ns, log_prob, score.log_prob_static)

    def anew(self, settings: MonitorSettings, new_detector: NewDetector) -> RunningEpisode:
        """The same episode without its frames so far, because their stamps were wrong. Until there is another
        one, what is said has the stamp of EPISODE_STARTED."""
        episode = RunningEpisode(self.episode_id, self.stages, settings, new_detector, self.calibration)
        episode.rewards, episode.stale = self.rewards, self.stale
        episode.told_of_hang, episode.uncalibrated = self.told_of_hang, self.uncalibrated
        episode.failures = self.failures
        episode.started_with = episode.last_frame = self.started_with
        episode.success.fired = self.success.fired
        episode.wrong_frames = (*self.wrong_frames, *self.buffer.prefix())
        return episode
