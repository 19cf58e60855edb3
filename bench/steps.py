"""Begin of each step of a release, read from the output of `pulumi up`, and the least that a release takes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from infra.timeouts import METRIC_MINUTES_SECONDS, DrainBudget

_POLL_SECONDS = 0.2
_PATTERNS = (
    ("claim", re.compile(r": slot taken for attempt")),
    ("migrate", re.compile(r"Job migrate-\S+ (?:creating|replacing)")),
    ("idle colour up", re.compile(r"Deployment deployment-(?:blue|green) (?:creating|updating)")),
    ("smoke", re.compile(r"Job smoke-\S+ (?:creating|replacing)")),
    ("canary", re.compile(r"-> (?:blue 10 / green 90|blue 90 / green 10)")),
    ("shift", re.compile(r"-> (?:blue 100 / green 0|blue 0 / green 100)")),
    ("live", re.compile(r" is live in (?:blue|green)")),
)
_TAKEN_BACK = re.compile(r"putting everything back on|: aborted; ")
_OLD_DOWN = re.compile(r"Deployment deployment-(?:blue|green) updating")
_BEGIN = re.compile(r"^Updating \(")
"""First line of an update: the abort of a release that failed stands in the log behind it."""


@dataclass(frozen=True)
class Step:
    """Step of a release, and when it began (seconds since the epoch)."""

    at: float
    name: str


def steps_of(lines: Iterable[tuple[float, str]]) -> list[Step]:
    """Return each step's begin, in order, by its first line in `make undo`, in the update, and in the abort behind it.

    After ``live`` a Deployment is the old colour's. An abort has one step, ``taken back``, and nothing is a step after that.
    """
    first: dict[str, Step] = {}
    repeated, updates = False, 0
    for at, line in lines:
        if _BEGIN.search(line):
            repeated, updates = False, updates + 1
        repeated = repeated or "Diagnostics:" in line  # every line comes there once more
        if repeated or "taken back" in first:
            continue
        if "live" in first and _OLD_DOWN.search(line):
            first.setdefault("old colour down", Step(at, "old colour down"))
            continue
        if _TAKEN_BACK.search(line):
            first.setdefault("taken back", Step(at, "taken back"))
        for name, pattern in _PATTERNS:
            if updates <= 1 and name not in first and pattern.search(line):
                first[name] = Step(at, name)
    return sorted(first.values(), key=lambda step: step.at)


def step_at(steps: Sequence[Step], moment: float) -> str:
    """Return the step during which something happened; empty before the first."""
    begun = [step for step in steps if step.at <= moment]
    return begun[-1].name if begun else ""


def parts(began: float, steps: Sequence[Step], end: float) -> list[tuple[str, float]]:
    """Return each step and its seconds, until the next begins; before the first, what the engine needs to get there."""
    every = [Step(began, "engine"), *steps]
    ends = [*(step.at for step in steps), end]
    return [(step.name, until - step.at) for step, until in zip(every, ends, strict=True)]


def metrics_known(shifted: float, written: Mapping[int, float]) -> float | None:
    """Return when a release could know two whole minutes of metrics, in seconds since the epoch; nothing if it never could.

    Args:
        shifted: when everything went to the new colour (seconds since the epoch): metric minutes begin on the minute.
        written: when CloudWatch had each minute, by the minute's begin (both in seconds since the epoch).
    """
    minutes = round(METRIC_MINUTES_SECONDS / 60)
    known = sorted(at for minute, at in written.items() if minute >= shifted)
    return known[minutes - 1] if len(known) >= minutes else None


def floor(budget: DrainBudget, shifted: float, known: float) -> list[tuple[str, float]]:
    """Return what a release takes even if Pulumi, Kubernetes and the image cost no time at all, part by part, in seconds.

    Args:
        budget: of the release.
        shifted: when everything went to the new colour (seconds since the epoch).
        known: when CloudWatch had the metric minutes that are counted (seconds since the epoch): it may be late.
    """
    return [
        ("targets healthy", float(budget.health_interval_seconds * budget.health_threshold)),
        ("canary", float(budget.propagation_seconds)),
        ("settle and two metric minutes", max(float(budget.settle_seconds), known - shifted)),
    ]


class Follower:
    """Reads a log as it is written and remembers when each line came."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._lines: list[tuple[float, str]] = []
        self._rest = ""
        self._position = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)

    def __enter__(self) -> Self:
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Read what is left and end."""
        self._ended.set()
        self._thread.join()

    @property
    def steps(self) -> list[Step]:
        """Steps so far."""
        return steps_of(list(self._lines))

    def _follow(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            self._read()
        self._read()

    def _read(self) -> None:
        if not self._log.exists():
            return
        with self._log.open() as log:
            log.seek(self._position)
            text = log.read()
            self._position = log.tell()
        now = time.time()
        *lines, self._rest = (self._rest + text).split("\n")
        self._lines += [(now, line) for line in lines]
