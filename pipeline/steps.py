"""Steps of a job: each is timed, and at the end all stand in one table against the budget."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

BUDGET_SECONDS = 300
"""A pull request waits no longer: `timeout-minutes: 5` of its job. To close one, for which nobody waits, it has more."""


@dataclass(frozen=True)
class Step:
    """One step that has ended."""

    title: str
    seconds: float
    failed: bool = False


@dataclass
class Steps:
    """The steps so far."""

    done: list[Step] = field(default_factory=list)

    @contextmanager
    def timed(self, title: str) -> Iterator[None]:
        """One step; it says when it begins and how long it took."""
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
        """All of them together."""
        return sum(step.seconds for step in self.done)


def steps_table(steps: Sequence[Step], budget_seconds: int | None = BUDGET_SECONDS) -> str:
    """For a terminal: one line a step, their sum, and what of a budget that is."""
    total = sum(step.seconds for step in steps)
    lines = [f"{step.title:<32}{step.seconds:>8.1f} s{'  failed' if step.failed else ''}" for step in steps]
    share = "" if budget_seconds is None else f"  of {budget_seconds} s ({100 * total / budget_seconds:.0f} %)"
    return "\n".join([*lines, f"{'all together':<32}{total:>8.1f} s{share}"])
