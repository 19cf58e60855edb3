"""A change that was accepted reaches each load-balancer node on its own, late, and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Versions(Generic[Key, Value]):
    """One node's knowledge: for each key the newest value that has reached it.

    Changes of one key never overtake each other: a later change arrives no earlier than the one before it.
    """

    def __init__(self) -> None:
        self._current: dict[Key, Value] = {}
        self._latest: dict[Key, Value] = {}
        self._coming: dict[Key, deque[tuple[float, Value]]] = {}

    def announce(self, key: Key, value: Value, now: float, delay: Callable[[], float]) -> bool:
        """Announce a new value of ``key``; it arrives after a delay drawn only if the value is new.

        Returns:
            Whether the value was new.
        """
        if key in self._latest and self._latest[key] == value:
            return False
        self._latest[key] = value
        queue = self._coming.setdefault(key, deque())
        earliest = queue[-1][0] if queue else now
        queue.append((max(now + delay(), earliest), value))
        return True

    def advance(self, now: float) -> bool:
        """Let everything that is due arrive.

        Returns:
            Whether anything changed.
        """
        changed = False
        for key in list(self._coming):
            queue = self._coming[key]
            while queue and queue[0][0] <= now:
                self._current[key] = queue.popleft()[1]
                changed = True
            if not queue:
                del self._coming[key]
        return changed

    def forget(self, key: Key) -> None:
        """Drop a key and what is under way for it."""
        for known in (self._current, self._latest, self._coming):
            known.pop(key, None)

    def get(self, key: Key) -> Value | None:
        """The value that has reached the node, or None."""
        return self._current.get(key)

    def latest(self, key: Key) -> Value | None:
        """The value announced last, whether or not it has arrived."""
        return self._latest.get(key)

    def __iter__(self) -> Iterator[Key]:
        """Every key announced and not forgotten."""
        return iter(list(self._latest))

    def under_way(self) -> int:
        """Return the number of changes that have been announced and have not arrived."""
        return sum(len(queue) for queue in self._coming.values())
