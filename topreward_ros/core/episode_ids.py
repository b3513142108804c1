"""Names of episodes: those that callers give, and those that are made of them."""

from __future__ import annotations

from itertools import count

from topreward_ros.core.errors import UserError
from topreward_ros.core.printable import printable

LONGEST = 200  #: characters of a name that a caller gives
_KEPT = 10_000  # names that are known to have been given


class EpisodeIdError(UserError):
    """A caller gave an episode a name that it cannot have."""


class EpisodeIds:
    """The names that callers gave to episodes so far.

    >>> ids = EpisodeIds()
    >>> ids.give("pick-7")
    >>> ids.after("pick-7"), ids.after("pick-7.2"), ids.after("one of ours")
    ('pick-7.2', 'pick-7.3', '')
    """

    def __init__(self) -> None:
        self._given: dict[str, str] = {}  # name of an episode -> the name that a caller gave, oldest first

    def give(self, episode_id: str) -> None:
        """Take a name that a caller gives. Raises `EpisodeIdError`, and then does not know it."""
        problem = ""
        if len(episode_id) > LONGEST:
            problem = f"it has {len(episode_id)} characters, and may have {LONGEST}"
        elif not episode_id.isprintable():
            wrong = next(letter for letter in episode_id if not letter.isprintable())
            problem = f"it holds {wrong!a}, which cannot be printed"
        elif episode_id != episode_id.strip():
            problem = "a space at its begin or end makes it look like another one"
        if problem:
            raise EpisodeIdError(
                f"episode_id '{printable(episode_id, 60)}': {problem}; choose another, or leave it empty and "
                f"the monitor makes one"
            )
        if episode_id in self._given:
            raise EpisodeIdError(
                f"episode_id '{episode_id}' was given before, and two episodes of one name cannot be told "
                f"apart: choose another, or leave it empty and the monitor makes one"
            )
        self._note(episode_id, episode_id)

    def adopt(self, episode_id: str) -> None:
        """Take a name that was made, so that `after` names those that go on behind it, too."""
        if episode_id not in self._given:
            self._note(episode_id, episode_id)

    def after(self, episode_id: str) -> str:
        """The name of the episode that goes on behind another one: the given name and a number.

        Empty where no caller gave the name.
        """
        given = self._given.get(episode_id)
        if given is None:
            return ""
        following = next(f"{given}.{k}" for k in count(2) if f"{given}.{k}" not in self._given)
        self._note(following, given)
        return following

    def _note(self, episode_id: str, given: str) -> None:
        self._given[episode_id] = given
        if len(self._given) > _KEPT:
            del self._given[next(iter(self._given))]
