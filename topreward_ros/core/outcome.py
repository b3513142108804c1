"""How an episode ended, in a word: in the names of bags and in their metadata.

Without numpy, so that a command can offer the words in its help.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How an episode ended; the values stand in the names of bags."""

    SUCCESS = "success"
    SUBTASK_SUCCESS = "subtask_success"  #: of a stage behind which others come
    FAILURE = "failure"
    TIMEOUT = "timeout"
    ABORTED = "aborted"
    ENDED = "ended"  #: EPISODE_ENDED without a reason that we know
    MONITOR_LOST = "monitor_lost"  #: the monitor was killed, fell silent, or went on without saying the end
    STOPPED = "stopped"  #: the recorder was ended first
