"""A work queue with the semantics of the Kubernetes one: no key twice at a time, exponential backoff per key."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque

Key = tuple[str, str]

_FIRST_BACKOFF_SECONDS = 0.005


class WorkQueue:
    """Keys to work on. A key added while it is worked on comes up again when it is done."""

    def __init__(self, maximum_backoff_seconds: float) -> None:
        self._maximum = maximum_backoff_seconds
        self._condition = threading.Condition()
        self._ready: deque[Key] = deque()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._later: list[tuple[float, Key]] = []
        self._failures: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Work on it as soon as possible."""
        with self._condition:
            self._add(key)

    def _add(self, key: Key) -> None:
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._working:
            self._ready.append(key)
            self._condition.notify()

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on it in a while."""
        with self._condition:
            heapq.heappush(self._later, (time.monotonic() + seconds, key))
            self._condition.notify()

    def add_rate_limited(self, key: Key) -> None:
        """Work on it again after a failure: 5 ms, doubled each time, up to the maximum."""
        with self._condition:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
        self.add_after(key, min(_FIRST_BACKOFF_SECONDS * 2 ** min(failures, 40), self._maximum))

    def forget(self, key: Key) -> None:
        """Reset a key's backoff after a success."""
        with self._condition:
            self._failures.pop(key, None)

    def get(self) -> Key:
        """The next key; blocks."""
        with self._condition:
            while True:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._add(heapq.heappop(self._later)[1])
                if self._ready:
                    key = self._ready.popleft()
                    self._waiting.discard(key)
                    self._working.add(key)
                    return key
                self._condition.wait(self._later[0][0] - now if self._later else None)

    def done(self, key: Key) -> None:
        """Work on it has ended."""
        with self._condition:
            self._working.discard(key)
            if key in self._waiting:
                self._ready.append(key)
                self._condition.notify()
