"""Each parameter has one meaning, one default and a check that says how to fix a wrong value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from topreward_ros.nodes.parameters import MONITOR_PARAMETERS, Parameter, ParameterError, declare, for_others

pytest.importorskip("docs", reason="docs/ is not installed with the package")

from docs.parameter_comments import CONFIG, FILES, with_comments


@pytest.fixture
def ros_reads() -> Callable[[Path, str], bool]:
    """Whether ROS 2 gives a node something of a parameter file."""
    rclpy = pytest.importorskip("rclpy")
    from rclpy.context import Context
    from rclpy.node import Node

    def reads(file: Path, name: str) -> bool:
        context = Context()
        rclpy.init(args=["--ros-args", "--params-file", str(file)], context=context)
        try:
            namespace, _, node_name = name.rpartition("/")
            node = Node(
                node_name,
                namespace=namespace,
                context=context,
                start_parameter_services=False,
                automatically_declare_parameters_from_overrides=True,
            )
            return node.has_parameter("a")
        finally:
            rclpy.shutdown(context=context)

    return reads


OF_NAME = {parameter.name: parameter for parameter in MONITOR_PARAMETERS}


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_every_default_and_the_descriptions_as_comments(name: str) -> None:
    text = (CONFIG / name).read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert list(defaults) == [parameter.name for parameter in FILES[name]]
    for parameter in FILES[name]:
        assert parameter.problem_with(defaults[parameter.name]) == ""
    assert with_comments(text, FILES[name]) == text, "run .venv/bin/python -m docs.parameter_comments"


@pytest.mark.parametrize("name", FILES)
def test_a_description_names_every_choice(name: str) -> None:
    for parameter in FILES[name]:
        assert all(choice in parameter.description for choice in parameter.choices), parameter.name


def test_comments_are_written_anew_and_nothing_else() -> None:
    parameters = (
        Parameter("task", "What to do, " + "said at length, " * 10),
        Parameter("topics", "One per camera"),
    )
    text = """# A heading
/**:
  ros__parameters:
    # What to watch
    task: "a # b"  # an old comment
                                        # that goes on
    topics: ["image", "wrist"]
"""
    commented = with_comments(text, parameters)
    assert with_comments(commented, parameters) == commented
    assert yaml.safe_load(commented) == yaml.safe_load(text)
    assert "old comment" not in commented and "goes on" not in commented
    assert "# A heading\n" in commented and "    # What to watch\n" in commented
    assert '    topics: ["image", "wrist"]          # One per camera\n' in commented
    assert commented.count("said ") == 10 and max(map(len, commented.splitlines())) <= 118


@pytest.mark.parametrize(
    ("node", "sections", "meant"),
    [
        ("/monitor", "/**: {P: {a: 1}}", ""),
        ("/monitor", "/*: {P: {a: 1}}", ""),
        ("/monitor", "monitor: {P: {a: 1}}", ""),
        ("/monitor", "{/camera: {P: {a: 1}}, /monitor: {P: {a: 1}}}", ""),
        ("/robot/monitor", "/robot/monitor: {P: {a: 1}}", ""),
        ("/robot/monitor", "robot: {monitor: {P: {a: 1}}}", ""),
        ("/robot/monitor", "/**/monitor: {P: {a: 1}}", ""),
        ("/robot/monitor", "/robot/*: {P: {a: 1}}", ""),
        ("/robot/monitor", "monitor: {P: {a: 1}}", "/monitor"),
        ("/robot/monitor", "/*: {P: {a: 1}}", "/*"),
        ("/monitor", "robot: {monitor: {P: {a: 1}}}", "/robot/monitor"),
        ("/monitor", "moniter: {P: {a: 1}}", "/moniter"),
        (
            "/monitor",
            "{/camera: {P: {a: 1}}, /video_player: {P: {a: 1}}, /moniter: {P: {}}}",
            "/moniter and 2 more",
        ),
    ],
)
def test_a_file_that_has_nothing_for_the_node_is_named(node, sections, meant, tmp_path, ros_reads) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(sections.replace("P:", "ros__parameters:"))
    said = for_others(["monitor", "--ros-args", "--params-file", str(file), "-p", "x:=1"], node)
    if meant:
        (warning,) = said
        assert f"{file} has no parameters for {node}: it has some for {meant}; name the section" in warning
    else:
        assert said == []
    assert ros_reads(file, node) == (not meant), "what ROS 2 itself takes from the file"


ARMS = ("/monitors", "/arm1/monitor", "/lab/arm2/monitor")


@pytest.mark.parametrize(
    ("company", "section", "meant"),
    [
        (ARMS, "/amr1/monitor", "/arm1/monitor"),
        (ARMS, "/lab/arm3/monitor", "/lab/arm2/monitor"),
        (ARMS, "/lab/arm2", "/lab/arm2/monitor"),
        (ARMS, "/lab/arm2/moniter", "/lab/arm2/monitor"),
        (ARMS, "/amr1/*", "/arm1/monitor"),
        (ARMS, "/arm2/monitor", "/lab/arm2/monitor"),
        (ARMS, "/monitor", "/arm1/monitor"),
        (ARMS, "/monitors", ""),
        (ARMS, "/lab/**", ""),
        (ARMS, "/arm1/supervisor", ""),
        (ARMS, "/arm1/motor", ""),
        (("/arm1/monitor",), "/arm2/monitor", ""),
        (("/arm1/monitor",), "/*/moniter", "/arm1/monitor"),
        (("/arm1/monitor",), "/arm1", "/arm1/monitor"),
        (("/arm1/monitor",), "/arm1/Monitor", "/arm1/monitor"),
        (("/arm1/left_monitor",), "/arm1/left", ""),
        (("/arm1/monitor2",), "/arm1/monitor1", ""),
    ],
)
def test_a_section_that_seems_misspelt_is_told_once_by_the_closest_node(
    company: tuple[str, ...], section: str, meant: str, tmp_path: Path
) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(yaml.safe_dump({name: {"ros__parameters": {"a": 1}} for name in ("/**", section)}))
    monitors = [name for name in company if name != "/monitors"]
    several = company if len(company) > 1 else ()
    said = [text for name in monitors for text in for_others(["--params-file", str(file)], name, several)]
    told = f"{file}: the section {section} is of no node of this process and changes nothing: did you mean "
    assert said == ([f"{told}{meant}?"] if meant else [])


@pytest.mark.parametrize(
    "text", ["", "# none\n", "stale_timeout 9", "#!/bin/sh\nset -e\n", "- a\n", "a: 1\n", "12"]
)
def test_a_file_that_has_parameters_for_nobody_is_named(text: str, tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    (warning,) = for_others(["monitor", "--ros-args", "--params-file", str(file)], "/robot/monitor")
    assert f"{file} has no parameters at all: begin a section with /robot/monitor:" in warning


def test_a_file_that_cannot_be_read_is_left_to_ros(tmp_path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    arguments = ["--params-file", str(tmp_path / "bad.yaml"), "--params-file", "/nowhere", "--params-file"]
    assert for_others(arguments, "/monitor") == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("max_frames", 7, "max_frames = 7: must be even, as 8: a model merges two frames into one patch"),
        ("max_frames", 2, "max_frames = 2: must lie between 4 and 4096"),
        ("image_topics", [], "image_topics = []: name at least one topic, none of them empty or twice"),
        ("image_topics", ["a", ""], "image_topics = ['a', '']: name at least one topic"),
        ("image_topics", ["a", "a"], "image_topics = ['a', 'a']: name at least one topic"),
        ("window", "round", "window = 'round': must be one of episode, sliding"),
        ("compile", True, ""),
        ("compile", False, ""),
        ("compile", "true", ""),
        ("compile", "always", "compile = 'always': must be one of auto, true, false"),
        ("compile", 1, "compile = '1': must be one of auto, true, false"),
        ("image_topics", ["a", "b"], ""),
        ("max_frames", 4, ""),
    ],
)
def test_a_value_that_cannot_be_is_named_with_the_way_out(name: str, value: Any, problem: str) -> None:
    said = OF_NAME[name].problem_with(value)
    assert said.startswith(problem) and bool(said) == bool(problem)


@pytest.mark.parametrize(
    ("name", "default", "given", "said"),
    [
        ("sample_rate", 2.0, 4, "parameter sample_rate = 4: takes a number with a point; write 4.0"),
        (
            *("sample_rate", 2.0, 70),
            "parameter sample_rate = 70: takes a number with a point; must lie between 0.01 and 60",
        ),
        ("max_frames", 32, 64.0, "parameter max_frames = 64.0: takes a whole number; write 64"),
        ("max_frames", 32, 25.0, "parameter max_frames = 25.0: takes a whole number; write 26"),
        (
            *("max_frames", 32, 2.0),
            "parameter max_frames = 2.0: takes a whole number; must lie between 4 and 4096",
        ),
        ("max_frames", 32, float("nan"), "parameter max_frames = nan: takes something like 32"),
        ("image_topics", ["image"], "/eye", "parameter image_topics = /eye: takes a list; write [/eye]"),
        (
            *("camera_fixed", True, 1),
            "parameter camera_fixed = 1: takes true or false, without quotes",
        ),
        ("model", "", 5, "parameter model = 5: takes text; quote it twice, as in \"'5'\""),
        ("window", "episode", 5, "parameter window = 5: takes one of episode, sliding"),
        ("sample_rate", 2.0, "fast", "parameter sample_rate = fast: takes something like 2.0"),
        ("success_threshold", -1.0, 0.3, "parameter success_threshold = 0.3: must lie between -100 and 0"),
        ("max_frames", 32, 5000, "parameter max_frames = 5000: must lie between 4 and 4096"),
        (
            "success_threshold",
            -1.0,
            float("nan"),
            "parameter success_threshold = nan: must lie between -100 and 0",
        ),
        (
            "max_frames",
            32,
            25,
            "parameter max_frames = 25: must be even, as 26: a model merges two frames into one patch",
        ),
    ],
)
def test_a_value_that_a_node_is_given_is_refused_in_short_with_one_that_is_right(
    name: str, default: Any, given: Any, said: str
) -> None:
    assert refusal({name: default}, {name: given}) == said


def test_all_values_that_cannot_be_are_refused_at_once() -> None:
    said = refusal(
        {"max_frames": 32, "sample_rate": 2.0, "window": "episode", "task": ""},
        {"max_frames": 25, "sample_rate": 4, "task": "lift"},
    )
    assert said == (
        "parameter max_frames = 25: must be even, as 26: a model merges two frames into one patch; "
        "parameter sample_rate = 4: takes a number with a point; write 4.0"
    )


def refusal(defaults: dict[str, Any], given: dict[str, Any]) -> str:
    """What is said of parameters of a monitor that is given these."""
    rclpy = pytest.importorskip("rclpy")
    from rclpy.context import Context
    from rclpy.node import Node
    from rclpy.parameter import Parameter as Given

    context = Context()
    rclpy.init(args=[], context=context)
    try:
        node = Node(
            "monitor",
            context=context,
            start_parameter_services=False,
            enable_rosout=False,
            parameter_overrides=[Given(name, value=value) for name, value in given.items()],
        )
        with pytest.raises(ParameterError) as error:
            declare(node, tuple(OF_NAME[name] for name in defaults), defaults)
    finally:
        rclpy.shutdown(context=context)
    return str(error.value)
