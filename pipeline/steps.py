"""The steps of a job, each with its time, and their table against the budget."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

BUDGET_SECONDS = 300
"""Longest wait of a pull request: `timeout-minutes: 5` of its job. The job that closes one has more; nobody waits for it."""


@dataclass(frozen=True)
class Step:
    """A step that has ended."""

    title: str
    seconds: float
    failed: bool = False


@dataclass
class Steps:
    """The steps of a job that have ended so far."""

    done: list[Step] = field(default_factory=list)

    @contextmanager
    def timed(self, title: str) -> Iterator[None]:
        """Print the step's title, and time what it does."""
        print(f"--- {title}", flush=True)
        started = time.monotonic()
        try:
            yield
        except BaseException:
            self.done.append(Step(title, time.monotonic() - started, failed=True))
            raise
        self.done.append(Step(title, time.monotonic() - started))

    @property
    def seconds(self) -> float:
        """Seconds of all steps together."""
        return sum(step.seconds for step in self.done)


def steps_table(steps: Sequence[Step], budget_seconds: int | None = BUDGET_SECONDS) -> str:
    """Return a table for a terminal: a line for each step, their sum, and its share of the budget."""
    total = sum(step.seconds for step in steps)
    lines = [f"{step.title:<32}{step.seconds:>8.1f} s{'  failed' if step.failed else ''}" for step in steps]
    share = "" if budget_seconds is None else f"  of {budget_seconds} s ({100 * total / budget_seconds:.0f} %)"
    return "\n".join([*lines, f"{'all together':<32}{total:>8.1f} s{share}"])
