"""Lines that `pulumi up` prints of a release: its steps as a numbered list, and a few lines for each wait.

Nothing is read or waited for here. A caller reports as often as it polls; what is printed is bounded by time alone: at
most one line in `CHANGE_SECONDS`, and one in `REPEAT_SECONDS` while nothing changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum

from infra.names import Colour

Log = Callable[[str], None]
CHANGE_SECONDS = 10
"""Shortest time between two lines of a wait, whatever changes."""
REPEAT_SECONDS = 30
"""Time between two lines of a wait in which nothing changes."""


class ReleaseStep(Enum):
    """The steps of a release, in the order of blue_green.py, each with the name that is printed."""

    CLAIM = "claim"
    SECRET = "secret"  # noqa: S105 - the step's name
    MIGRATE = "migrate"
    START = "start"
    SMOKE_TEST = "smoke test"
    CHECK = "check"
    CANARY = "canary"
    SHIFT = "shift"
    WATCH = "watch"
    LIVE = "live"
    STOP = "stop"

    @property
    def number(self) -> int:
        """Return the place in the list, from 1."""
        return list(ReleaseStep).index(self) + 1


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Wait:
    """One wait: its first line says when it ends, later ones what has changed and how many seconds are left."""

    def __init__(
        self, log: Log, clock: Callable[[], float], now: Callable[[], datetime], until: float, *, is_deadline: bool
    ) -> None:
        self._log, self._clock, self._now = log, clock, now
        self._until, self._is_deadline = until, is_deadline
        self._printed_at: float | None = None
        self._printed_change: object = None

    def report(self, text: str, *, change: object = None) -> None:
        """Print where the wait stands, unless that would be one line too many.

        Args:
            text: what is waited for, or what is seen meanwhile.
            change: compared with that of the last line printed; a different one is printed sooner.
        """
        second = self._clock()
        left = max(0, round(self._until - second))
        if self._printed_at is None:
            end = self._now() + timedelta(seconds=left)
            most = " at most" if self._is_deadline else ""
            self._log(f"{text}; waits until {end:%H:%M:%S} UTC{most} ({left} s)")
        elif second - self._printed_at >= (REPEAT_SECONDS if change == self._printed_change else CHANGE_SECONDS):
            self._log(f"{text}; {left} s left")
        else:
            return
        self._printed_at, self._printed_change = second, change

    def restart(self, seconds: float) -> None:
        """Let the wait end that many seconds from now: it is the next of many equal ones, which share their lines."""
        self._until = self._clock() + seconds

    def end(self, text: str) -> None:
        """Print how the wait ended, if anything of it was printed."""
        if self._printed_at is not None:
            self._log(text)


class Progress:
    """Prints the steps of a release and begins waits, by one log and one clock."""

    def __init__(
        self, log: Log, clock: Callable[[], float] = time.monotonic, now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._log, self._clock, self._now = log, clock, now

    def begin(self, step: ReleaseStep, colour: Colour, waits_for: str) -> None:
        """Print that a step begins in a colour, what it waits for and how long that may take."""
        self._log(
            f"step {step.number} of {len(ReleaseStep)}: {step.value} ({colour}) since {self._now():%H:%M:%S} UTC; {waits_for}"
        )

    def wait(self, seconds: float, *, is_deadline: bool = True) -> Wait:
        """Begin a wait; nothing is printed until it is reported on.

        Args:
            seconds: how long it lasts.
            is_deadline: it may end sooner.
        """
        return Wait(self._log, self._clock, self._now, self._clock() + seconds, is_deadline=is_deadline)
