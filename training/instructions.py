"""What the simulated robot can be told: tasks of Metaworld, and the wordings of each.

A wording is a template filled with a verb phrase. Every fifth wording of a task is held out: the evaluation
asks with words that were trained, in combinations that were not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One thing to do in one simulated scene."""

    name: str  #: also the name of the Metaworld environment, less its version
    phrases: tuple[str, ...]  #: what to do; the first is the instruction itself
    opposite: str = ""  #: name of the task that undoes it

    @property
    def instruction(self) -> str:
        return self.phrases[0]

    @property
    def wordings(self) -> tuple[str, ...]:
        """All wordings, the instruction first."""
        made = [template.format(phrase) for template in _TEMPLATES for phrase in self.phrases]
        return tuple(dict.fromkeys(made))

    @property
    def held_out(self) -> tuple[str, ...]:
        """Wordings that training never sees. Bare phrases are always trained."""
        return tuple(
            wording
            for number, wording in enumerate(self.wordings)
            if number >= len(self.phrases) and number % 5 == 2
        )

    @property
    def trained(self) -> tuple[str, ...]:
        held_out = set(self.held_out)
        return tuple(wording for wording in self.wordings if wording not in held_out)


_TEMPLATES = (
    "{}",
    "please {}",
    "the robot should {}",
    "the arm has to {}",
    "your task is to {}",
    "use the gripper to {}",
    "now {}",
)

TASKS = (
    Task(
        "drawer-open",
        (
            "open the drawer",
            "pull the drawer open",
            "pull open the drawer",
            "slide the drawer out",
            "open the green drawer",
            "pull the green drawer open",
        ),
        opposite="drawer-close",
    ),
    Task(
        "drawer-close",
        (
            "close the drawer",
            "push the drawer closed",
            "push the drawer shut",
            "slide the drawer in",
            "close the green drawer",
            "push the green drawer closed",
        ),
        opposite="drawer-open",
    ),
    Task(
        "window-open",
        (
            "open the window",
            "slide the window open",
            "push the window open",
            "slide open the window",
            "open the sliding window",
            "push open the sliding window",
        ),
        opposite="window-close",
    ),
    Task(
        "window-close",
        (
            "close the window",
            "slide the window closed",
            "push the window closed",
            "slide the window shut",
            "close the sliding window",
            "push the sliding window shut",
        ),
        opposite="window-open",
    ),
    Task(
        "faucet-open",
        (
            "open the faucet",
            "turn on the faucet",
            "turn the faucet on",
            "open the tap",
            "turn on the tap",
            "turn the tap on",
        ),
        opposite="faucet-close",
    ),
    Task(
        "faucet-close",
        (
            "close the faucet",
            "turn off the faucet",
            "turn the faucet off",
            "close the tap",
            "turn off the tap",
            "turn the tap off",
        ),
        opposite="faucet-open",
    ),
    Task(
        "handle-press",
        (
            "press the handle",
            "press the handle down",
            "push the handle down",
            "press down the handle",
            "press the red handle",
            "push the red handle down",
        ),
        opposite="handle-pull",
    ),
    Task(
        "handle-pull",
        (
            "pull the handle",
            "pull the handle up",
            "lift the handle",
            "lift the handle up",
            "pull the red handle up",
            "lift the red handle",
        ),
        opposite="handle-press",
    ),
    Task(
        "door-open",
        (
            "open the door",
            "pull the door open",
            "pull open the door",
            "swing the door open",
            "open the cabinet door",
            "pull the cabinet door open",
        ),
    ),
    Task(
        "button-press-topdown",
        (
            "press the button",
            "push the button",
            "press the button down",
            "push the button down",
            "press the red button",
            "push the red button down",
        ),
    ),
    Task(
        "coffee-button",
        (
            "start the coffee machine",
            "turn on the coffee machine",
            "press the coffee machine button",
            "push the button of the coffee machine",
            "switch on the coffee machine",
            "press the button of the coffee machine",
        ),
    ),
)

BY_NAME = {task.name: task for task in TASKS}
