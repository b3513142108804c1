"""Which of the places of a camera is read, by who publishes where and by where images come.

What is known of publishers comes late: one that was killed stays known for 20 s (Fast DDS). So where no image
comes any more and somebody publishes at another place, images are listened for there, too; the place is taken
once they come and none comes here. One topic cannot be read as of two types at once: of the other type it is
read for a while, seldom, instead. A camera that only pauses goes on where it was, and no two places are taken
in turn: who was left is no reason to go back while images come. Nothing subscribes here; times are by any
steady clock [s].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from math import inf

from topreward_ros.offline.image_topics import ImageTopic

# For so long a place stays the one that is read, though nobody publishes there and somebody does at another:
# a camera's publishers are discovered one after the other.
PATIENCE_S = 1.0
# For so long images have come at another place and none here: one that pauses goes on at all of them at once.
_OURS_MAY_FOLLOW_S = 0.3
# For so long no image has come here, where those who published elsewhere all along are listened to.
_ALL_ALONG_S = 3.0
# For so long a place is tried before it is another one's turn.
_TURN_S = 5.0
# So long it is at most from one reading as of the other type to the next. Such a reading may cost a camera
# that goes on then its images of a turn.
_MOST_WAIT_S = 60.0

#: Who publishes at each place, by their global ids.
Published = Mapping[ImageTopic, Set[bytes]]
_NOBODY: Set[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class _Turn:
    """When a place was tried last, and how long it is not read as of another type after that [s]."""

    begun_s: float = -inf
    wait_s: float = 0.0


class PlaceChoice:
    """Chooses among ``places``, which are in order of preference.

    >>> raw, jpeg = ImageTopic("/cam", "Image"), ImageTopic("/cam/compressed", "CompressedImage")
    >>> choice = PlaceChoice([raw, jpeg], {raw: {b"killed"}}, 0.0)
    >>> now = {raw: {b"killed"}, jpeg: {b"back"}}
    >>> choice.look(now, 10.0, newest_image_s=8.0, is_silent=True)
    False
    >>> choice.note_image_of_trial(10.5)
    >>> choice.look(now, 11.0, newest_image_s=8.0, is_silent=True), str(choice.place)
    (True, '/cam/compressed (CompressedImage)')
    """

    def __init__(self, places: Sequence[ImageTopic], published: Published, now_s: float) -> None:
        """``published``: by now."""
        self._places = places
        # Since when each publisher has been known.
        self._discovered_s = {gid: -inf for gids in published.values() for gid in gids}
        self._left: Set[bytes] = frozenset()  # those that sent nothing when their place was left
        self._turns: dict[ImageTopic, _Turn] = {}
        self._elsewhere_since_s: float | None = None  # there have been publishers at another place alone
        self._heard_s: float | None = None  # when the trial's first image came
        self._back_to: ImageTopic | None = None  # of the same topic, until an image came at this one
        self._taken_s = now_s  # when `place` became it
        #: Another place, on another topic, where images are to be listened for.
        self.trial: ImageTopic | None = None
        self.place = self._best(published) or places[0]  #: which is to be read

    def note_image_of_trial(self, now_s: float) -> None:
        """An image came at ``trial``."""
        if self._heard_s is None:
            self._heard_s = now_s

    def look(
        self, published: Published, now_s: float, *, newest_image_s: float | None, is_silent: bool
    ) -> bool:
        """Choose anew; returns whether ``place`` is another one now.

        A better place is taken at once where somebody publishes there, another one after a while in which
        nobody published here. ``newest_image_s``: of the place that is read; None before the first.
        ``is_silent``: whether none has come for longer than its camera has let one wait lately.
        """
        known = {gid for gids in published.values() for gid in gids}
        self._discovered_s = {gid: self._discovered_s.get(gid, now_s) for gid in known}
        if newest_image_s is not None:
            self._left -= published.get(self.place, _NOBODY)
            if self._back_to is not None:
                self._back_to = None
                self._turns.clear()
        found = self._best(published)
        if found is not None and found != self.place:
            return self._leave_for(found, now_s)
        self._elsewhere_since_s = None
        if not is_silent:
            self._end_trial()
            return False
        if self.trial is not None and self._is_heard(now_s):
            return self._take(self.trial, published, now_s)
        since_s = self._silent_since_s(published, newest_image_s)
        self._listen(published, since_s, now_s)
        if self._back_to is not None:
            return self._goes_back(self._back_to, published, now_s)
        return self._visit(published, since_s, now_s)

    def _best(self, published: Published) -> ImageTopic | None:
        """The first place where somebody publishes who was not left, else the first where somebody does."""
        return next((it for it in self._places if published.get(it, _NOBODY) - self._left), None) or next(
            (it for it in self._places if published.get(it)), None
        )

    def _leave_for(self, found: ImageTopic, now_s: float) -> bool:
        """Go to a place by what is known of publishers alone, if it is time."""
        if self._elsewhere_since_s is None:
            self._elsewhere_since_s = now_s
        is_better = self._places.index(found) < self._places.index(self.place)
        if not is_better and now_s - self._elsewhere_since_s < PATIENCE_S:
            return False
        self._go(found, now_s)
        return True

    def _is_heard(self, now_s: float) -> bool:
        """Whether images come at `trial`, and this place had its chance to go on with them."""
        return self._heard_s is not None and now_s - self._heard_s >= _OURS_MAY_FOLLOW_S

    def _silent_since_s(self, published: Published, newest_image_s: float | None) -> float:
        """Since when somebody publishes here and nothing comes."""
        begun_s = self._taken_s if newest_image_s is None else newest_image_s
        here = published.get(self.place, _NOBODY)
        return max([begun_s, *(self._discovered_s[gid] for gid in here)])

    def _listen(self, published: Published, since_s: float, now_s: float) -> None:
        """Listen for images on another topic: where somebody has just begun to publish, else in turns."""
        if self.trial is not None and not published.get(self.trial):
            self._end_trial()
        is_due = self._back_to is not None or now_s - since_s > _ALL_ALONG_S
        is_over = self.trial is None or now_s - self._turn(self.trial).begun_s >= _TURN_S
        others = [it for it in self._places if it.name != self.place.name and published.get(it)]
        new = [it for it in others if self._has_new(it, published, since_s)]
        due = new or (others if is_due and is_over else [])
        tried = min(due, key=lambda place: self._turn(place).begun_s, default=self.trial)
        if tried is not None and (tried in new or is_over):
            self._turns[tried] = _Turn(now_s)
        if tried != self.trial:
            self._end_trial()
            self.trial = tried

    def _visit(self, published: Published, since_s: float, now_s: float) -> bool:
        """Read this topic as of the other type for a turn, if it is time; returns whether it does."""
        visited = next((it for it in self._places if it.name == self.place.name and it != self.place), None)
        if visited is None or not published.get(visited):
            return False
        turn = self._turn(visited)
        is_due = now_s - since_s > _ALL_ALONG_S and now_s - turn.begun_s >= turn.wait_s
        if not is_due and not self._has_new(visited, published, since_s):
            return False
        before = self.place
        self._turns[visited] = _Turn(now_s, min(max(2 * turn.wait_s, 2 * _TURN_S), _MOST_WAIT_S))
        self._take(visited, published, now_s)
        self._back_to = before
        return True

    def _turn(self, place: ImageTopic) -> _Turn:
        return self._turns.get(place, _Turn())

    def _has_new(self, place: ImageTopic, published: Published, since_s: float) -> bool:
        """Whether somebody has begun to publish there since, and was not listened to yet."""
        after_s = max(since_s, self._turn(place).begun_s)
        return any(self._discovered_s[gid] > after_s for gid in published[place])

    def _take(self, place: ImageTopic, published: Published, now_s: float) -> bool:
        """Go to a place because none comes here."""
        self._left = {gid for gids in published.values() for gid in gids} - published[place]
        self._go(place, now_s)
        return True

    def _goes_back(self, before: ImageTopic, published: Published, now_s: float) -> bool:
        """Go back from a type of which no image came, to a publisher that may only have paused."""
        if now_s - self._taken_s < _TURN_S or not published.get(before):
            return False
        return self._take(before, published, now_s)

    def _go(self, place: ImageTopic, now_s: float) -> None:
        self.place = place
        self._taken_s = now_s
        self._back_to = self._elsewhere_since_s = None
        if self.trial is not None and self.trial.name == place.name:
            self._end_trial()

    def _end_trial(self) -> None:
        self.trial = self._heard_s = None
