"""The parameters of our nodes: meaning, unit, range, and whether they may change while the node runs.

The meaning of a parameter is written here and nowhere else: `ros2 param describe` shows it, and the comments
in config/*.yaml are generated from it (docs/parameter_comments.py). Defaults are in config/*.yaml and nowhere
else; a test checks that both list the same parameters. ROS 2 is imported only to declare parameters, because
`topreward score` checks the same ranges without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topreward_ros.core.errors import UserError
from topreward_ros.core.frames import FEWEST_FRAMES, Window
from topreward_ros.core.instruction import InstructionError, clean_task
from topreward_ros.core.nearest import closest, misspelt, nearest
from topreward_ros.core.printable import printable
from topreward_ros.core.progress import ProgressMode
from topreward_ros.core.rewards import RewardType
from topreward_ros.core.rules import LONGEST_TIME_S, MOST_RETRIES, REASONS, Condition
from topreward_ros.offline.yaml_text import parsed_yaml

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor
    from rclpy.node import Node


_MISSPELT = 0.85  # how alike names of nodes are: moniter is the monitor, motor may be another node


class ParameterError(UserError):
    """A parameter has a value that it cannot have."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a user is told about a parameter, and what its value must satisfy."""

    name: str
    description: str
    low: float | None = None  #: smallest value, when numeric
    high: float | None = None  #: largest value, when numeric
    choices: tuple[str, ...] = ()  #: allowed values, when there are few
    live: bool = False  #: may change while the node runs; the others need a restart
    check: Callable[[Any], str] | None = None  #: what else is wrong with a value; empty: nothing
    or_bool: bool = False  #: text whose choices true and false may be written without quotes
    or_list: bool = False  #: text that may be a list of texts as well: its lines

    def problem_with(self, value: Any) -> str:
        """Why the parameter cannot have ``value``; empty when it can."""
        shown = printable(str(value), 200)
        problem = self.requirement(value)
        return f"{self.name} = {repr(shown) if self.choices else shown}: {problem}" if problem else ""

    def requirement(self, value: Any) -> str:
        """What ``value``, which is of the right type, fails to be; empty: nothing."""
        if self.or_list and not _is_text_or_list(value):
            return "takes text or a list of texts"
        if self.or_bool and isinstance(value, bool):
            value = str(value).lower()
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}"
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            return f"must lie between {self.low:g} and {self.high:g}"
        return self.check(value) if self.check is not None else ""

    def descriptor(self, default: Any) -> ParameterDescriptor:
        """Meaning and range for ``ros2 param describe`` and graphical tools; ``default`` tells the type."""
        from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

        descriptor = ParameterDescriptor(
            description=self.description,
            read_only=not self.live,
            dynamic_typing=self.or_list or self.or_bool,
        )
        if self.choices:
            descriptor.additional_constraints = f"one of: {', '.join(self.choices)}"
        if self.low is not None and self.high is not None:
            if isinstance(default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=self.low, to_value=self.high)
                ]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)
                ]
        return descriptor


def _is_text_or_list(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, Sequence) and all(isinstance(item, str) for item in value)
    )


def _readable(task: str | Sequence[str]) -> str:
    try:
        clean_task(task, "the text")
    except InstructionError as error:
        return str(error)
    return ""


def _even(value: int) -> str:
    return f"must be even, as {value + 1}: a model merges two frames into one patch" if value % 2 else ""


def _length(value: int) -> str:
    return f"must be at least {FEWEST_FRAMES}, or 0 for none" if 0 < value < FEWEST_FRAMES else _even(value)


def _distinct_names(value: list[str]) -> str:
    named = value and all(value) and len(set(value)) == len(value)
    return "" if named else "name at least one topic, none of them empty or twice"


_TRANSPORTS = ("raw", "compressed")

# What the rule of each event or condition is for; how a rule is written stands at the head of the section.
_REASONS = {
    **{reason: f"Event {reason} of task_event" for reason in REASONS},
    **{c.name: f"{c.value[:1].upper()}{c.value[1:]}" for c in Condition},
}

MONITOR_PARAMETERS = (
    Parameter(
        "task",
        "Instruction in natural language, also where topic, service or action set it; a list of texts, or "
        "lines: stages, one after the other; empty: idle until one comes",
        live=True,
        check=_readable,
        or_list=True,
    ),
    Parameter(
        "image_topics",
        "One topic per camera, as `ros2 topic list` shows it: TOPIC or TOPIC/compressed; the first is the "
        "primary camera, whose stamps count",
        check=_distinct_names,
    ),
    Parameter(
        "image_transport",
        "Which images of TOPIC are read where both are published, raw (sensor_msgs/Image) or compressed "
        "(sensor_msgs/CompressedImage on TOPIC/compressed); of one alone, that one is",
        choices=_TRANSPORTS,
    ),
    Parameter(
        "camera_layout",
        "With several cameras: primary scores the first one only, tile puts all side by side in one frame",
        choices=("primary", "tile"),
    ),
    Parameter(
        "camera_max_skew",
        "With camera_layout tile: longest time between the stamps of two cameras' images in a frame, and for "
        "which the primary's waits for the other [s]",
        0.001,
        3600.0,
        live=True,
    ),
    Parameter(
        "camera_fixed",
        "The camera stands still: where the picture changes as a whole and stays so, watching begins anew. "
        "false for one that moves with the robot (wrist): no cut is noticed then",
        live=True,
    ),
    Parameter(
        "model",
        "'embedded', a Hugging Face hub id, the folder of a checkpoint, or the URL of a server: "
        "http://host:8100 (docs/fleet.md), http://host:8000/v1#NAME (docs/served_models.md)",
    ),
    Parameter(
        "adapter",
        "Folder of a LoRA adapter for a dense Qwen3-VL, merged at load; needs peft (docs/models.md); empty: "
        "none",
    ),
    Parameter("device", "Torch device of the scorer: auto, cpu, cuda, cuda:1 ..."),
    Parameter(
        "dtype",
        "Precision of the weights: float32, bfloat16, float16, or auto (bfloat16 on a GPU, float16 on a GPU "
        "without it, float32 on a CPU)",
        choices=("auto", "float32", "bfloat16", "float16"),
    ),
    Parameter(
        "quantization",
        "The language model's weights in 8 bits, less exact: int8 for small GPUs, slower, needs torchao; fp8 "
        "for GPUs from Ada and Hopper on, not measured on one yet; or none",
        choices=("none", "int8", "fp8"),
    ),
    Parameter(
        "cuda_graphs",
        "On a GPU, capture ticks of Qwen3-VL as CUDA graphs and replay them; false: kernel by kernel, slower",
    ),
    Parameter(
        "compile",
        "On a GPU, choose the fastest kernel of attention and compile what lies between the matrix products "
        "of a layer: auto where Triton and a C compiler are there, true (a warning where not), false; not "
        "measured on a GPU yet",
        choices=("auto", "true", "false"),
        or_bool=True,
    ),
    Parameter(
        "max_pixels", "Pixels of one frame as the model sees it; larger frames are shrunk", 1024, 16777216
    ),
    Parameter("scorer_threads", "CPU threads of the scorer; 0: all cores but one", 0, 1024),
    Parameter(
        "prompts",
        "File of templates, a question with {instruction} per line, whose log-probabilities are averaged; "
        "ten_prompts.txt ships; a preset with other answers than True and False: roboreward, yes_no "
        "(docs/models.md); a soft prompt, .safetensors (docs/prompts.md); empty: the paper's question alone",
    ),
    Parameter(
        "layout",
        "Token stream as of transformers v4.57 (up to 5.9), which the method's authors used, or v5.10 (and "
        "later)",
        choices=("v4.57", "v5.10"),
    ),
    Parameter(
        "chat_template",
        "Close the question as a chat: TOPReward's ablation, far worse there; not advised. prompts with a "
        "reply, as roboreward, are asked so anyway",
    ),
    Parameter(
        "contrastive",
        "Score True against False alone, log p(True) - log p(False) as a log-probability; it did worse "
        "wherever it was compared",
    ),
    Parameter("sample_rate", "Frames taken per second of stamp time [Hz]", 0.01, 60.0),
    Parameter(
        "max_frames",
        "Most frames that a prefix may have (its budget), even; with Qwen3-VL they share the pixels of "
        "a video, so that of very many each is smaller, which is warned of",
        4,
        4096,
        check=_even,
    ),
    Parameter(
        "window",
        "When the budget is full: episode drops every second pair of frames; sliding drops the oldest pair, "
        "loses the start, and costs a pass over the whole window every other frame",
        choices=tuple(window.value for window in Window),
    ),
    Parameter(
        "front_padding",
        "Copies of the first frame before every prefix, even, so that the model's bias to longer videos is "
        "over before the robot moves; 0: none. docs/length_bias.md says when",
        0,
        256,
        check=_even,
    ),
    Parameter(
        "fixed_length",
        "Frames to which every prefix is resampled, even, with fixed times, so that no length is left to "
        "read; each score then costs a pass over all of them; 0: prefixes as they are",
        0,
        4096,
        check=_length,
    ),
    Parameter(
        "progress_mode",
        "How a score becomes progress: static_baseline (1 - r / r_static), raw_probability (exp r; of "
        "prompts with values the expected share of their scale: for roboreward what it states), or "
        "calibrated (how likely it is that the task is done, by the file calibration)",
        choices=tuple(mode.value for mode in ProgressMode),
    ),
    Parameter(
        "reward_type",
        "What task_reward carries: log_prob, progress, progress_delta or advantage_weight; a change acts "
        "from the next episode on",
        choices=tuple(kind.name.lower() for kind in RewardType),
        live=True,
    ),
    Parameter("advantage_tau", "tau of the advantage weight (TOPReward eq. 3)", 0.0, 100.0, live=True),
    Parameter("advantage_max", "delta_max of the advantage weight (TOPReward eq. 3)", 0.0, 100.0, live=True),
    Parameter(
        "calibration",
        "File that `topreward calibrate` wrote: the detectors of the tasks in it stand in place of the "
        "parameters success_*; empty: none",
    ),
    Parameter(
        "accept_calibration",
        "Use a calibration that was made for another setup (model, rate, cameras ...) all the same",
    ),
    Parameter(
        "success_threshold",
        "Log-probability that counts as success [nat]; 0 never fires. It depends on task, cameras and model: "
        "calibrate it. The default is that of the embedded model, by docs/success.md. Of prompts with values "
        "it is ln of a share of their scale: -0.22 is 80 % of it, 4.2 of 5 for roboreward",
        -100.0,
        0.0,
        live=True,
    ),
    Parameter(
        "success_hysteresis",
        "SUCCESS can fire only after scores, or readings of the first frame held still, were this far below "
        "the threshold [nat]; once it can, only the threshold counts. 0.5: several times what a score wavers "
        "by",
        0.0,
        100.0,
        live=True,
    ),
    Parameter(
        "success_dwell",
        "How long the score must stay at or above the threshold until SUCCESS [s]; a score below it, a gap "
        "or a jump of the picture starts it anew. More delays SUCCESS by as much, and outlasts longer "
        "look-alikes",
        0.0,
        3600.0,
        live=True,
    ),
    Parameter(
        "success_min_scores",
        "Scores that SUCCESS needs during the dwell, extra looks included, and of those before it that were "
        "far enough below. 3: two in a row may be one flicker",
        1,
        1000,
        live=True,
    ),
    Parameter(
        "success_smoothing",
        "Span of the exponential moving average over scores; 1: none. An average of nats that begins low "
        "rises late: a span of 3 costs 1.5 s",
        1,
        1000,
        live=True,
    ),
    Parameter(
        "confirm_rate",
        "Extra looks: while the newest score is at or above the threshold and SUCCESS waits, the newest "
        "frame is scored at up to this rate [Hz], for SUCCESS alone; none at or below sample_rate, or "
        "without time for it",
        0.0,
        60.0,
        live=True,
    ),
    Parameter(
        "end_episode_on_success",
        "End the episode at SUCCESS; false: go on scoring until a reset or a new task",
        live=True,
    ),
    Parameter(
        "episode_timeout",
        "Longest episode [s], by stamps, and by the wall clock once images are stale; 0: no limit",
        0.0,
        86400.0,
        live=True,
    ),
    Parameter(
        "stale_timeout",
        "Time without an image that can be used until STALE_IMAGES and advice in the log [s]",
        0.1,
        3600.0,
        live=True,
    ),
    Parameter(
        "stall_after",
        "STALL when progress has made no new best for so long [s]; a robot may wait for some seconds before "
        "it grasps; 0: never",
        0.0,
        86400.0,
        live=True,
    ),
    Parameter(
        "stall_rise",
        "Rise of progress above the best so far that makes a new best; while nothing happens it drifts by "
        "less",
        0.0,
        1.0,
        live=True,
    ),
    Parameter(
        "stall_slope",
        "Progress that rises by as much is not stalled, new best or not [1/s]: a second attempt after a fall",
        0.0,
        100.0,
        live=True,
    ),
    Parameter(
        "nominal_duration",
        "How long a success of this task usually takes [s]: STALL waits for a quarter of it, where that is "
        "longer than stall_after; 0: not known",
        0.0,
        86400.0,
        live=True,
    ),
    Parameter(
        "regression_sigma",
        "REGRESSION when falls of sqrt(progress) add up to 5 sigma: what it flickers by from score to score "
        "while nothing happens, measured by training/detectors.py; 0: never",
        0.0,
        1.0,
        live=True,
    ),
    Parameter(
        "regression_dwell",
        "How long a fall must last until REGRESSION [s]; an arm that passes hides what was done for a second "
        "or two",
        0.0,
        3600.0,
        live=True,
    ),
    Parameter(
        "failure_threshold",
        "FAILURE, which ends the episode, when progress stays below it for failure_dwell, not before "
        "failure_after; 0: never, as no value fits all tasks and models",
        0.0,
        1.0,
        live=True,
    ),
    Parameter(
        "failure_after",
        "Age of the episode, from its last cut on, before which failure_threshold says nothing [s]: progress "
        "is low in every episode at first",
        1.0,
        86400.0,
        live=True,
    ),
    Parameter(
        "failure_dwell",
        "How long progress must stay below failure_threshold until FAILURE [s], in three scores at least",
        0.0,
        3600.0,
        live=True,
    ),
    Parameter(
        "frozen_timeout",
        "FROZEN_IMAGES when the picture has been the same for so long [s]; a simulator shows that at rest, "
        "set 0 there: never",
        0.0,
        3600.0,
        live=True,
    ),
    Parameter(
        "covered_timeout",
        "COVERED_IMAGES when pictures were nearly one colour, or noise, for so long [s]; 0: never",
        0.0,
        3600.0,
        live=True,
    ),
    Parameter("autostart", "Configure and activate at start, without a lifecycle manager"),
    Parameter(
        "heartbeat_rate", "Rate at which task_progress is repeated when nothing new came [Hz]", 0.01, 100.0
    ),
    Parameter("diagnostics_rate", "Rate of /diagnostics [Hz]", 0.01, 100.0),
)

#: The same by name.
MONITOR = {parameter.name: parameter for parameter in MONITOR_PARAMETERS}

MONITORS_PARAMETERS = (
    Parameter(
        "namespaces",
        "Namespaces of the monitors of the process, one each: a list, or text with spaces between; without a "
        "leading slash below the process' own",
        or_list=True,
    ),
)

VIDEO_PLAYER_PARAMETERS = (
    Parameter("video", "Video file or folder of images"),
    Parameter("rate", "Frames per second [Hz]; 0: the file's own (a folder has none)", 0.0, 1000.0),
    Parameter("loop", "Start again after the last frame; false: exit with status 0"),
    Parameter(
        "image_transport",
        "raw: sensor_msgs/Image on TOPIC; compressed: sensor_msgs/CompressedImage on TOPIC/compressed",
        choices=_TRANSPORTS,
    ),
    Parameter("jpeg_quality", "Quality of the JPEG images of image_transport compressed", 1, 100),
    Parameter("frame_id", "header.frame_id of every image"),
    Parameter(
        "wait_for_subscriber",
        "Longest time that the first frame waits for a subscriber [s]; 0: it does not wait",
        0.0,
        3600.0,
    ),
    Parameter(
        "reset_service",
        "std_srvs/Trigger that is called before the first frame, so that a monitor begins a new episode "
        "(monitor/reset); empty: none",
    ),
)

_CALLS = (
    ("start", "When an episode has begun (start the policy)"),
    ("end", "When an episode is decided (stop the policy); made before any reset"),
    ("reset", "Before the next episode (put the scene back)"),
    ("stop", "When supervising stops (hold the robot)"),
)

SUPERVISOR_PARAMETERS = (
    Parameter(
        "dry_run",
        "true: nothing is called, published or begun, and the log says what would be; episodes of others "
        "are followed",
    ),
    Parameter(
        "tasks",
        "What to do, one task after the other, each in natural language, with a line per stage where it has "
        "some; empty texts are left out",
    ),
    Parameter("repeat_tasks", "Begin the list again when it is over; false: done then"),
    Parameter("max_episodes", "Episodes to begin until it is done; 0: no limit", 0, 1_000_000_000),
    Parameter("autostart", "Begin at once; false: wait for a call of ~/start"),
    Parameter("reset_first", "Make the reset_calls before the first episode, too"),
    Parameter(
        "act_on_uncalibrated",
        "Act on a SUCCESS whose threshold was not calibrated for this task and setup; false: a person "
        "decides",
    ),
    *(Parameter(f"on.{reason}", _REASONS[reason]) for reason in REASONS),
    *(
        Parameter(
            f"{purpose}_calls",
            f"{when}; empty texts are left out",
        )
        for purpose, when in _CALLS
    ),
    Parameter(
        "call_timeout",
        "Time for a service to answer [s] ('timeout S' of a call). One that has not is never called again",
        0.0,
        LONGEST_TIME_S,
    ),
    Parameter(
        "call_wait",
        "Time for a service, or for a subscriber of a topic, to be there [s] ('wait S' of a call)",
        0.0,
        LONGEST_TIME_S,
    ),
    Parameter(
        "call_retries",
        "How often a service that refuses is called again ('retries N' of a call)",
        0,
        MOST_RETRIES,
    ),
    Parameter(
        "call_failure",
        "What a call that failed leads to ('else ...' of a call): stop, or go_on with the next step",
        choices=("stop", "go_on"),
    ),
    Parameter(
        "event_max_age",
        "Oldest event that counts, from its publication (by the clock of its publisher) to its receipt [s]",
        0.01,
        LONGEST_TIME_S,
    ),
    Parameter(
        "monitor_timeout", "Time without task_progress until MONITOR_VANISHED [s]", 0.1, LONGEST_TIME_S
    ),
    Parameter(
        "monitor_wait",
        "Longest time for the monitor to take a task, until supervising stops [s]",
        0.0,
        LONGEST_TIME_S,
    ),
    Parameter(
        "images_timeout",
        "Time for which the monitor is STALE, or waits for images, until IMAGES_SILENT [s]",
        0.1,
        LONGEST_TIME_S,
    ),
    Parameter("episode_limit", "Time from the begin of an episode until OVERDUE [s]", 0.1, LONGEST_TIME_S),
    Parameter(
        "undecided_wait",
        "Time from the end of an episode on which no rule acted until OVERDUE [s]",
        0.1,
        LONGEST_TIME_S,
    ),
    Parameter(
        "state_file",
        "File that keeps tasks, attempts and steps under way, so that a supervisor that is started again "
        "goes on; empty: none, it starts afresh",
    ),
    Parameter("diagnostics_rate", "Rate of /diagnostics [Hz]", 0.01, 100.0),
)


def for_others(arguments: Sequence[str], node: str, company: Collection[str] = ()) -> list[str]:
    """What to say of each ``--params-file`` among the arguments of a process that has nothing for ``node``,
    and of each section that looks like ``node`` misspelt. ROS 2 reads both without a word.

    ``node``: its name with its namespace, such as /robot/monitor. ``company``: all nodes of a process that
    has several; a file that has something for one of them is right. Robots may share a file, so a section of
    another namespace is another robot's, but where the process has monitors in several namespaces: then it is
    told by the node that is closest. What is wrong with the file itself ROS 2 says, so that this does not.
    """
    said = []
    for option, path in pairwise(arguments):
        if option != "--params-file":
            continue
        try:
            sections = _sections(parsed_yaml(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError):  # the last of sections that hold each other
            continue
        lost = [name for name in sections if not any(_covers(name, each) for each in {node, *company})]
        if not sections:
            said.append(
                f"{printable(path, 200)} has no parameters at all: begin a section with {node}:, or /**: for "
                "every node, and ros__parameters: below it, see config/monitor.yaml"
            )
        elif lost == sections:
            close = printable(closest(node, sections), 200)
            more = f" and {len(sections) - 1} more" if len(sections) > 1 else ""
            said.append(
                f"{printable(path, 200)} has no parameters for {node}: it has some for {close}{more}; "
                f"name the section {node}, or /** for every node"
            )
        else:
            said += [
                f"{printable(path, 200)}: the section {printable(name, 200)} is of no node of this process "
                f"and changes nothing: did you mean {node}?"
                for name in lost
                if _is_misspelt(name, node, company)
            ]
    return said


def _is_misspelt(section: str, node: str, company: Collection[str]) -> bool:
    """Whether a section that fits no node of the process seems to be meant for ``node``."""
    namespace, _, name = section.rpartition("/")
    own_namespace, _, own = node.rpartition("/")
    same = [each for each in company if each.rpartition("/")[2] == own]
    if same and closest(section, same) != node:
        return False
    if section == own_namespace:
        return True
    if not (same or _covers(f"{namespace}/*", node)):
        return False
    if _covers(f"/{name}", f"/{own}"):
        return True
    is_another = re.sub(r"\d", "", name) == re.sub(r"\d", "", own)  # monitor1 and monitor2
    return not is_another and bool(misspelt(name, [own], _MISSPELT))


def _sections(value: Any, name: str = "") -> list[str]:
    """The nodes that a parameter file speaks of, as ROS 2 reads their names: without a slash they have no
    namespace, and what is indented below a namespace belongs to it."""
    if not isinstance(value, dict):
        return []
    found = [name] if name and "ros__parameters" in value else []
    for key, inner in value.items():
        if isinstance(key, str) and key != "ros__parameters":
            found += _sections(inner, f"{name}/{key.strip('/')}")
    return found


def _covers(section: str, node: str) -> bool:
    """Whether a section of a parameter file is for ``node``: * stands for one part of a name, ** for any."""
    wild = {"*": "/[^/]+", "**": "(/[^/]+)*"}
    pattern = "".join(wild.get(part, re.escape(f"/{part}")) for part in section[1:].split("/"))
    return re.fullmatch(pattern, node) is not None


def unknown(node: Node, image_topics: Collection[str] | None = ()) -> dict[str, str]:
    """What to say of each parameter that ``node`` was given and has not declared, by its name.

    rclpy keeps them without a word; they are misspelt, or meant for another node of the same file.
    ``image_topics``: may have QoS overrides that are not declared yet; None: any topic may.
    """
    given = overrides_of(node)
    declared = node.get_parameters_by_prefix("")
    later = (
        ["qos_overrides."] if image_topics is None else [f"qos_overrides.{name}." for name in image_topics]
    )
    said = {}
    for name in sorted(set(given) - set(declared)):
        if name.startswith(tuple(later)):
            continue
        close = nearest(name, declared)
        meant = f"did you mean {close}?" if close else "is it another node's?"
        said[name] = (
            f"parameter {printable(name, 200)} is none of {node.get_fully_qualified_name()} and changes "
            f"nothing: {meant}"
        )
    return said


def overrides_of(node: Node) -> dict[str, Any]:
    """The parameters that a node was given, by name; rclpy has no public way to ask for them."""
    overrides: dict[str, Any] = getattr(node, "_parameter_overrides", {})
    return overrides


def mend_of_type(parameter: Parameter, default: Any, given: Any) -> str:
    """What a parameter with ``default`` takes, where ``given`` is of another type: a value that it can have.

    >>> rate = Parameter("rate", "", 0.1, 60.0)
    >>> mend_of_type(rate, 2.0, 4), mend_of_type(rate, 2.0, 70)
    ('a number with a point; write 4.0', 'a number with a point; must lie between 0.1 and 60')
    >>> mend_of_type(Parameter("frames", "", check=_even), 32, 25.0)
    'a whole number; write 26'
    """
    if parameter.choices:
        return f"one of {', '.join(parameter.choices)}"
    if isinstance(default, str):
        return "text; quote it twice, as in \"'5'\""
    if isinstance(default, float) and type(given) is int:
        return _kind_and_value(parameter, "a number with a point", [float(given)])
    if type(default) is int and isinstance(given, float) and isfinite(given):
        return _kind_and_value(parameter, "a whole number", [round(given), round(given) + 1])
    if isinstance(default, list) and isinstance(given, str):
        return f"a list; write [{printable(given)}]"
    if isinstance(default, bool):
        return "true or false, without quotes"
    return f"something like {default!r}"


def _kind_and_value(parameter: Parameter, kind: str, values: Sequence[float]) -> str:
    """What a parameter takes, and the first of ``values`` that it can have, or what they fail to be."""
    right = [value for value in values if not parameter.requirement(value)]
    return f"{kind}; write {right[0]}" if right else f"{kind}; {parameter.requirement(values[0])}"


def declare(node: Node, parameters: tuple[Parameter, ...], defaults: dict[str, Any]) -> dict[str, Any]:
    """Declare ``parameters`` on ``node`` and return their values by name.

    Raises `ParameterError`, which tells of all that have a value that they cannot have.
    """
    from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

    values, problems = {}, []
    for parameter in parameters:
        default = defaults[parameter.name]
        try:
            declared = node.declare_parameter(parameter.name, default, parameter.descriptor(default))
        except InvalidParameterTypeException:
            wrong = overrides_of(node)[parameter.name].value
            mend = mend_of_type(parameter, default, wrong)
            problems.append(f"{parameter.name} = {printable(str(wrong))}: takes {mend}")
            continue
        except InvalidParameterValueException as error:
            wrong = overrides_of(node)[parameter.name].value
            problems.append(parameter.problem_with(wrong) or f"{parameter.name}: {error}")
            continue
        # An empty list has no type, so rclpy gives None for it.
        value = list(declared.value or []) if isinstance(default, list) else declared.value
        if problem := parameter.problem_with(value):
            problems.append(problem)
        values[parameter.name] = value
    if problems:
        raise ParameterError("; ".join(f"parameter {problem}" for problem in problems))
    return values
