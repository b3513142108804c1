"""Which of the places of a camera is read, by who publishes where and by where images come.

What is known of publishers comes late: one that was killed stays known for 20 s (Fast DDS). So where no image
comes any more and another process publishes at another place, or somebody begins to, images are listened for
there, too; the place is taken once they come and none comes here. A camera that only pauses goes on where it
was, and no two places are taken in turn: who was left is no reason to go back. Nothing subscribes here; times
are by any steady clock [s].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from math import inf

from topreward_ros.offline.image_topics import ImageTopic

# For so long a place stays the one that is read, though nobody publishes there and somebody does at another:
# a camera's publishers are discovered one after the other.
PATIENCE_S = 1.0
# For so long images have come at another place and none here: one that pauses goes on at all of them at once.
_OURS_MAY_FOLLOW_S = 0.3
# For so long no image has come here, where those who published elsewhere all along are listened to.
_ALL_ALONG_S = 3.0
# The first bytes of a global id, which all publishers of a process have in common (DDSI-RTPS 8.2.4.1).
_PROCESS_BYTES = 12
# For so long one topic is read as of another type before somebody has sent an image of that type.
_IN_VAIN_S = 5.0

#: Who publishes at each place, by their global ids.
Published = Mapping[ImageTopic, Set[bytes]]
_NOBODY: Set[bytes] = frozenset()


class PlaceChoice:
    """Chooses among ``places``, which are in order of preference.

    >>> raw, jpeg = ImageTopic("/cam", "Image"), ImageTopic("/cam/compressed", "CompressedImage")
    >>> choice = PlaceChoice([raw, jpeg], {raw: {b"killed"}})
    >>> now = {raw: {b"killed"}, jpeg: {b"back"}}
    >>> choice.look(now, 10.0, newest_image_s=8.0, is_silent=True)
    False
    >>> choice.note_image_of_trial(10.5)
    >>> choice.look(now, 11.0, newest_image_s=8.0, is_silent=True), str(choice.place)
    (True, '/cam/compressed (CompressedImage)')
    """

    def __init__(self, places: Sequence[ImageTopic], published: Published) -> None:
        """``published``: by now."""
        self._places = places
        # Since when each publisher has been known.
        self._discovered_s = {gid: -inf for gids in published.values() for gid in gids}
        self._left: set[bytes] = set()  # those that sent nothing while images came elsewhere
        self._elsewhere_since_s: float | None = None  # there have been publishers at another place alone
        self._heard_s: float | None = None  # when the trial's first image came
        self._before: ImageTopic | None = None  # of the same topic, until an image came at this one
        self._moved_s = 0.0
        self._in_vain: set[bytes] = set()  # for whom that was tried
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
        self._left &= known
        self._in_vain &= known
        if newest_image_s is not None:
            self._before = None
        elif self._goes_back(published, now_s):
            return True
        found = self._best(published)
        if found is not None and found != self.place:
            return self._leave_for(found, now_s)
        self._elsewhere_since_s = None
        if newest_image_s is None or not is_silent:
            self._end_trial()
            return False
        return self._try_others(published, newest_image_s, now_s)

    def _best(self, published: Published) -> ImageTopic | None:
        """The first place where somebody publishes who is not known to send nothing."""
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

    def _try_others(self, published: Published, newest_image_s: float, now_s: float) -> bool:
        """Listen where somebody began to publish after the newest image, or another process did all along,
        and go there once images come.

        One topic cannot be read as of two types at once, so there it takes going to see: for a new one alone.
        """
        here = published.get(self.place, _NOBODY)
        since_s = max(newest_image_s, max((self._discovered_s[gid] for gid in here), default=-inf))
        is_long = now_s - since_s > _ALL_ALONG_S
        ours = {gid[:_PROCESS_BYTES] for gid in here}

        def is_worth_it(place: ImageTopic) -> bool:
            listens = is_long and place.name != self.place.name
            return any(
                self._discovered_s[gid] > since_s or (listens and gid[:_PROCESS_BYTES] not in ours)
                for gid in published.get(place, _NOBODY) - self._left - self._in_vain
            )

        tried = next(filter(is_worth_it, self._places), None)
        if tried != self.trial:
            self._end_trial()
        if tried is None:
            return False
        is_same_topic = tried.name == self.place.name
        if not is_same_topic:
            self.trial = tried
            if self._heard_s is None or now_s - self._heard_s < _OURS_MAY_FOLLOW_S:
                return False
        before = self.place
        self._left = {gid for gids in published.values() for gid in gids} - published[tried]
        self._go(tried, now_s)
        self._before = before if is_same_topic else None
        return True

    def _goes_back(self, published: Published, now_s: float) -> bool:
        """Go back from a type of which no image came, to a publisher that may only have paused."""
        before = self._before
        if before is None or now_s - self._moved_s < _IN_VAIN_S or not published.get(before):
            return False
        self._in_vain |= published.get(self.place, _NOBODY)
        self._left -= published[before]
        self._go(before, now_s)
        return True

    def _go(self, place: ImageTopic, now_s: float) -> None:
        self.place = place
        self._moved_s = now_s
        self._before = self._elsewhere_since_s = None
        self._end_trial()

    def _end_trial(self) -> None:
        self.trial = self._heard_s = None
