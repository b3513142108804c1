"""What labelled episodes can tell as a whole, and what is missing for it: sentences for people.

Whether a thing is an error or a remark is decided by who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from topreward_ros.core.printable import printable
from topreward_ros.core.stages import on_one_line
from topreward_ros.offline.labelled_episodes import LabelledEpisode
from topreward_ros.offline.labels import LABELS

# Words that say nothing of what is to be done: a task of these alone is a placeholder.
_SAYS_NOTHING = frozenset(
    word
    for line in (
        "a an the this that your my it some any of for with in on to and or no do does doing please",
        "perform performing execute complete completing finish run manipulate teleoperate record test",
        "task tasks job work action actions instruction instructions description prompt goal manipulation",
        "teleoperation teleop robot arm robotic demo demos demonstration demonstrations example examples",
        "testing episode episodes trajectory data dataset recording video something anything thing things",
        "single untitled unnamed unknown undefined default placeholder todo tbd none null nan na n",
        "lerobot so100 so101 koch aloha franka panda ur5 xarm",
    )
    for word in line.split()
)


def by_task(episodes: Iterable[LabelledEpisode]) -> dict[str, list[LabelledEpisode]]:
    """The episodes of each task, in order."""
    groups: dict[str, list[LabelledEpisode]] = {}
    for episode in episodes:
        groups.setdefault(episode.task, []).append(episode)
    return groups


def class_problems(episodes: Sequence[LabelledEpisode], least: int = 1) -> list[str]:
    """What is missing of successes and failures, by task: a sentence for each that has too few of a kind.

    ``least``: so many of each kind are needed.
    """
    problems = []
    for task, group in by_task(episodes).items():
        for succeeded, plural, one in ((True, "successes", "success"), (False, "failures", "failure")):
            count = sum(it.succeeded is succeeded for it in group)
            if count < least:
                there = f"{count or 'no'} {one if count == 1 else plural}"
                needed = f"{one} is" if least == 1 else f"{plural} are"
                problems.append(
                    f"the task '{printable(on_one_line(task), 100)}' has {there} among its episodes "
                    f"({len(group)}; the first is {group[0].name}), and at least {least} {needed} needed: "
                    f"record more, and label them by --{one} or in {LABELS}"
                )
    return problems


def generic_task_problem(episodes: Sequence[LabelledEpisode]) -> str:
    """What to say where one text that means no task in particular stands for all episodes; else empty."""
    tasks = {episode.task for episode in episodes}
    if len(tasks) != 1:
        return ""
    (task,) = tasks
    if not says_nothing(task):
        return ""
    return (
        f"one generic text, '{printable(on_one_line(task), 100)}', is the task of all {len(episodes)} "
        "episodes: it does not say what is to be done, so that scores against it tell nothing; give the task "
        "in words by --task or in the column task"
    )


def says_nothing(task: str) -> bool:
    """Whether no word of a task says what is to be done.

    >>> says_nothing("Perform the task."), says_nothing("task_1"), says_nothing("open the drawer")
    (True, True, False)
    """
    words = "".join(char if char.isalnum() else " " for char in task.casefold()).split()
    return all(word.isdecimal() or word in _SAYS_NOTHING for word in words)
