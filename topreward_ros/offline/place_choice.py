"""Which of the places of a camera is read, by who publishes where and by where images come.

What is known of publishers says little: one that was killed stays known for 20 s (Fast DDS), and one that is
there may never send. So a place where somebody publishes is left for images alone. They are listened for at
another place, too, by a trial: at a better one always, elsewhere where no image comes here any more. The
place is taken once they come there. One topic cannot be read as of two types at once: of the other type it is
read for a while, seldom, instead, and only while no image comes. A camera that only pauses goes on where it
was, and no two places are taken in turn: who fell silent when it was read is no reason to go back while
images come. Nothing subscribes here; times are by any steady clock [s].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import inf

from topreward_ros.offline.image_topics import ImageTopic

# For so long a place stays the one that is read, though nobody publishes there and somebody does at another:
# a camera's publishers are discovered one after the other. And for so long images have come at a better place
# before it is taken: one that sends a single image and dies is not worth a pause.
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
        self._left: Set[bytes] = frozenset()  # those that had sent, and did so no more when they were left
        self._turns: dict[ImageTopic, _Turn] = {}
        self._elsewhere_since_s: float | None = None  # there have been publishers at another place alone
        self._heard_s: float | None = None  # when the trial's first image came, since `_was_silent`
        self._newest_heard_s = -inf
        self._was_silent = False  # at the last look
        self._joined_s = -inf  # when the first publisher came here since the newest image
        self._back_to: ImageTopic | None = None  # of the same topic, until an image came at this one
        self._taken_s = now_s  # when `place` became it
        #: Another place, on another topic, where images are to be listened for.
        self.trial: ImageTopic | None = None
        self.place = self._best(published) or places[0]  #: which is to be read

    def note_image_of_trial(self, now_s: float) -> None:
        """An image came at ``trial``."""
        if self._heard_s is None:
            self._heard_s = now_s
        self._newest_heard_s = now_s

    def resume(self, published: Published, now_s: float) -> None:
        """Nothing was read until now: who is there was there all along, and nobody was silent."""
        self._discovered_s = {gid: -inf for gids in published.values() for gid in gids}
        self._end_trial()
        self._go((None if published.get(self.place) else self._best(published)) or self.place, now_s)

    def look(
        self, published: Published, now_s: float, *, newest_image_s: float | None, is_silent: bool
    ) -> bool:
        """Choose anew; returns whether ``place`` is another one now.

        ``newest_image_s``: of the place that is read; None before the first. ``is_silent``: whether none has
        come for longer than its camera has let one wait lately.
        """
        known = {gid for gids in published.values() for gid in gids}
        self._discovered_s = {gid: self._discovered_s.get(gid, now_s) for gid in known}
        self._left &= known
        if newest_image_s is not None:
            self._left -= published.get(self.place, _NOBODY)
            if self._back_to is not None:
                self._back_to = None
                self._turns.clear()
        if self._is_deserted(published, now_s):
            self._go(self._best(published) or self.place, now_s)
            return True
        if is_silent != self._was_silent:
            self._was_silent = is_silent
            self._end_trial()  # what was heard before says nothing
        if self.trial is not None and self._is_heard(now_s):
            if newest_image_s is not None:
                self._left |= published.get(self.place, _NOBODY)
            self._go(self.trial, now_s)
            return True
        since_s = self._silent_since_s(published, newest_image_s)
        self._listen(published, since_s, now_s)
        if not is_silent:
            return False
        if self._back_to is not None:
            return self._goes_back(self._back_to, published, now_s)
        return self._visit(published, since_s, now_s)

    def _best(self, published: Published) -> ImageTopic | None:
        """The first place where somebody publishes who was not left, else the first where somebody does."""
        return next((it for it in self._places if published.get(it, _NOBODY) - self._left), None) or next(
            (it for it in self._places if published.get(it)), None
        )

    def _is_deserted(self, published: Published, now_s: float) -> bool:
        """Whether nobody has published here for a while, and somebody does elsewhere."""
        if published.get(self.place) or not any(published.values()):
            self._elsewhere_since_s = None
            return False
        if self._elsewhere_since_s is None:
            self._elsewhere_since_s = now_s
        return now_s - self._elsewhere_since_s >= PATIENCE_S

    def _is_heard(self, now_s: float) -> bool:
        """Whether images come at `trial`: for a while, or while this place had its chance to go on."""
        if self._heard_s is None:
            return False
        if self._was_silent:
            return now_s - self._heard_s >= _OURS_MAY_FOLLOW_S
        return self._newest_heard_s - self._heard_s >= PATIENCE_S

    def _silent_since_s(self, published: Published, newest_image_s: float | None) -> float:
        """Since when nothing comes here; the first publisher that came since then has its time, too."""
        begun_s = self._taken_s if newest_image_s is None else newest_image_s
        if self._joined_s <= begun_s:  # of a silence before
            joined_s = [self._discovered_s[gid] for gid in published.get(self.place, _NOBODY)]
            self._joined_s = min((it for it in joined_s if it > begun_s), default=begun_s)
        return self._joined_s

    def _listen(self, published: Published, since_s: float, now_s: float) -> None:
        """Listen for images on another topic: in turns, once in a silence at once where somebody is new."""
        others = [it for it in self._places if it.name != self.place.name and published.get(it)]
        better = self._places[: self._places.index(self.place)]
        waiting = [it for it in others if it in better and published[it] - self._left]
        allowed, new = waiting, list[ImageTopic]()
        if self._was_silent:
            allowed = others
            new = [it for it in others if self._is_first_turn_of_new(it, published, since_s)]
            if self._back_to is not None or now_s - since_s > _ALL_ALONG_S:
                waiting = others
        if self.trial not in allowed:
            self._end_trial()
        if due := new or (waiting if self._is_turn_over(now_s) else []):
            place = min(due, key=lambda place: self._turn(place).begun_s)
            self._turns[place] = replace(self._turn(place), begun_s=now_s)
            if place != self.trial:
                self._end_trial()
                self.trial = place

    def _is_turn_over(self, now_s: float) -> bool:
        """Whether another place may be the trial now: where an image came, the next one is waited for."""
        if self.trial is None:
            return True
        begun_s = self._turn(self.trial).begun_s
        return now_s - (begun_s if self._heard_s is None else self._heard_s) >= _TURN_S

    def _is_first_turn_of_new(self, place: ImageTopic, published: Published, since_s: float) -> bool:
        """Whether somebody is new there, and it was not tried in this silence: who comes again and again must
        not keep the others from their turns."""
        return self._turn(place).begun_s <= since_s and self._has_new(place, published, since_s)

    def _visit(self, published: Published, since_s: float, now_s: float) -> bool:
        """Read this topic as of the other type for a turn, if it is time; returns whether it does."""
        visited = next((it for it in self._places if it.name == self.place.name and it != self.place), None)
        if visited is None or not published.get(visited):
            return False
        turn = self._turn(visited)
        is_new = self._has_new(visited, published, since_s)
        if now_s - turn.begun_s < turn.wait_s or not (is_new or now_s - since_s > _ALL_ALONG_S):
            return False
        before = self.place
        self._turns[visited] = _Turn(now_s, min(max(2 * turn.wait_s, 2 * _TURN_S), _MOST_WAIT_S))
        self._go(visited, now_s)
        self._back_to = before
        return True

    def _turn(self, place: ImageTopic) -> _Turn:
        return self._turns.get(place, _Turn())

    def _has_new(self, place: ImageTopic, published: Published, since_s: float) -> bool:
        """Whether somebody has begun to publish there since, and was not listened to yet."""
        after_s = max(since_s, self._turn(place).begun_s)
        return any(self._discovered_s[gid] > after_s for gid in published[place])

    def _goes_back(self, before: ImageTopic, published: Published, now_s: float) -> bool:
        """Go back from a type of which no image came, to a publisher that may only have paused."""
        if now_s - self._taken_s < _TURN_S or not published.get(before):
            return False
        self._go(before, now_s)
        return True

    def _go(self, place: ImageTopic, now_s: float) -> None:
        self.place = place
        self._taken_s = now_s
        self._back_to = self._elsewhere_since_s = None
        if self.trial is not None and self.trial.name == place.name:
            self._end_trial()

    def _end_trial(self) -> None:
        self.trial = self._heard_s = None
