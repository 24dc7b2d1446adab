"""Events of the last 24 hours by type, exactly.

For each type two arrays hold the seconds in which events were, and how many: 12 bytes for each such second, however
many events it has, and never more than 49 hours of them. So the count is exact to the second, which is what the log's
timestamps give, while a list of events would have no bound.
"""

from __future__ import annotations

import array
import bisect
import typing as t

if t.TYPE_CHECKING:
    from .line import Event

SECONDS = 86400
KEPT = SECONDS + 3600
"""Seconds that are kept, so that a clock that is set back a little finds what it has left."""
AHEAD = 86400
"""Seconds that an event may be in the future. It counts when its time has come; beyond that its clock was wrong."""
LARGEST = 1_000_000
"""Seconds with events, over all types: 12 MB."""
_REFUSED_LIMIT = 1000


class _Type:
    """Events of one type."""

    def __init__(self) -> None:
        self.seconds = array.array("q")
        self.counts = array.array("I")
        self.total = 0

    def add(self, second: int) -> bool:
        """Count one event; return whether it was the first of its second. Logs are in order but for a few lines."""
        self.total += 1
        end = len(self.seconds)
        place = end if not end or second > self.seconds[-1] else bisect.bisect_left(self.seconds, second)
        if place < end and self.seconds[place] == second:
            self.counts[place] += 1
            return False
        self.seconds.insert(place, second)
        self.counts.insert(place, 1)
        return True

    def forget(self, before: int) -> int:
        """Drop what was at or before a second; return how many seconds that were."""
        end = bisect.bisect_right(self.seconds, before)
        if end:
            self.total -= sum(self.counts[:end])
            del self.seconds[:end], self.counts[:end]
        return end

    def count(self, after: int, until: int) -> int:
        """Return how many events were after one second and not after another."""
        begin, end = bisect.bisect_right(self.seconds, after), bisect.bisect_right(self.seconds, until)
        return self.total - sum(self.counts[:begin]) - sum(self.counts[end:])


class Window:
    """Events by type. A type that has been seen stays with 0, so that an alert can tell none from nothing."""

    def __init__(self, types_limit: int) -> None:
        self._limit = types_limit
        self._types: dict[str, _Type] = {}
        self._size = 0
        self._refused: set[str] = set()
        self._refused_until = 0
        self.newest = 0
        """The latest second that was added."""

    @property
    def full(self) -> bool:
        """Whether there is no place for more."""
        return self._size >= LARGEST

    @property
    def refused(self) -> int:
        """How many types are not counted."""
        return len(self._refused)

    def add(self, event: Event, now: int) -> bool:
        """Count an event. Returns whether its time can be true: one more than a day ahead is not."""
        if event.second > now + AHEAD:
            return False
        if event.second > now - KEPT:
            found = self._types.get(event.kind) or self._admit(event)
            if found is not None:
                self._size += found.add(event.second)
                self.newest = max(self.newest, event.second)
        return True

    def forget(self, now: int) -> None:
        """Drop what is too old to count again."""
        self._size -= sum(found.forget(now - KEPT) for found in self._types.values())
        if now >= self._refused_until:
            self._refused.clear()

    def counts(self, now: int) -> dict[str, int]:
        """Return the events of each type in the 24 hours up to this second."""
        return {kind: found.count(now - SECONDS, now) for kind, found in sorted(self._types.items())}

    def _admit(self, event: Event) -> _Type | None:
        """Begin a new type. One that was refused stays so for a day: what was not counted would be missing."""
        known = event.kind in self._refused or len(self._refused) >= _REFUSED_LIMIT
        if not known and len(self._types) >= self._limit:
            empty = next((kind for kind, found in self._types.items() if not found.total), None)
            known = empty is None
            if empty is not None:
                del self._types[empty]
        if known:
            self._refused_until = max(self._refused_until, event.second + KEPT)
            if len(self._refused) < _REFUSED_LIMIT:
                self._refused.add(event.kind)
            return None
        return self._types.setdefault(event.kind, _Type())
