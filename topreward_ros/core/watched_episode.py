"""What a supervisor knows of the episode that it watches."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_MISSING = 1000  #: numbers of events that are remembered as skipped


@dataclass(slots=True)
class WatchedEpisode:
    """The episode that is watched."""

    base: str  #: the name that the monitor gave back
    begun_ns: int
    asked_ns: int
    episode_id: str = ""  #: the present one: base, or base.2, base.3 ...
    number: int = 1
    instruction: str = ""
    stage: int = 0  #: the newest that was heard of; 0: not known
    resumed: bool = False  #: from a file: what happened meanwhile is not known
    heard: set[int] = field(default_factory=set)  #: sequence numbers
    ending: bool = False  #: its rule was to end it, and it is told to
    fired: set[str] = field(default_factory=set)  #: conditions whose rule is `nothing`
    held: str = ""  #: why a SUCCESS did not count
    succeeded: bool = False  #: SUCCESS was heard; the monitor may watch on beyond it
    over_ns: int | None = None  #: the first report in a row of an end of which no event was heard
    ended_unheard: bool = False  #: ended by such reports
    ended_ns: int | None = None
    end_due_ns: int | None = None  #: when the rule of EPISODE_ENDED is asked; None: it was, or need not be
    ended_by: str = ""
    reported_ns: int = 0  #: the newest report
    silent_ns: int | None = None  #: since when there are no images
    lost_ns: int | None = None  #: the first report in a row that does not name it

    def missing(self) -> list[int]:
        """Numbers that were skipped: the events of an episode have consecutive ones."""
        newest = max(self.heard, default=0)
        oldest = max(min(self.heard, default=0), newest - MOST_MISSING)
        return [number for number in range(oldest, newest) if number not in self.heard]

    def part(self, episode_id: str) -> int:
        """1 for the episode itself, 2 for NAME.2 ...; 0: another one."""
        if episode_id == self.base:
            return 1
        number = episode_id.removeprefix(f"{self.base}.")
        is_part = number != episode_id and number.isascii() and number.isdecimal() and len(number) < 10
        return int(number) if is_part and int(number) > 1 else 0

    def go_to(self, part: int, episode_id: str) -> None:
        """Follow the episode on as its later ``part``: what ended the one before is over."""
        self.number, self.episode_id = part, episode_id
        self.ended_ns = self.end_due_ns = self.silent_ns = self.over_ns = None
        self.held, self.succeeded, self.ended_unheard = "", False, False

    def excuse(self, ns: int, now_ns: int) -> None:
        """Count ``ns``, during which nothing could be heard, as no silence of the monitor."""
        self.reported_ns = min(now_ns, self.reported_ns + ns)
        if self.silent_ns is not None:
            self.silent_ns = min(now_ns, self.silent_ns + ns)
        if self.over_ns is not None:
            self.over_ns = min(now_ns, self.over_ns + ns)
