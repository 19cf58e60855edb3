"""Records of a run: each action under load, what was measured of it, and everything that a report is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench import load
from bench.load import Outcome
from bench.steps import Step
from bench.workloads import RECKONING_SECONDS, STEADY_SECONDS


@dataclass(frozen=True)
class Measurement:
    """One system in one scenario: the requests that were due from its begin until the system's next scenario began.

    Latencies in seconds from when a request was due, of short requests that went well; ``steady`` is before the begin,
    the others are while the action ran.
    """

    scenario: str
    system: str
    began: float
    ended: float
    delay_ratio: float
    requests: int
    failed: int
    by_failure: Mapping[str, int]
    p50: float
    p99: float
    steady_p50: float = 0.0
    steady_p99: float = 0.0
    steps: Sequence[Step] = ()
    floor: Sequence[tuple[str, float]] = ()
    note: str = ""
    load: str = ""
    """Load whose requests these are: a key of ``Result.outcomes``."""
    drained: float = 0.0
    """Time at which the last pod that the action sent away was gone; 0 if nobody waited for it."""


@dataclass(frozen=True)
class Result:
    """Everything that a report is made of."""

    measurements: list[Measurement]
    outcomes: dict[str, list[Outcome]]
    """By load: the system, on a second twin with its number."""
    disagreements: list[str]
    orders_wrong: list[str]
    seconds: float
    full: bool = False
    engine_yields: bool = False
    """The engine and the AWS stand-in ran only while the shop left them the processor."""
    retried_updates: Sequence[str] = ()
    """Errors of updates that failed and were run once more."""
    stopped_by: str = ""
    """Error that ended the run before its end."""
    broken_off: int = 0
    """Parts of a full run that were begun and never ended: the machine stopped, or a person did."""


@dataclass
class Action:
    """Something done to one system, under way or done; times in seconds since the epoch."""

    scenario: str
    system: str
    ratio: float
    began: float
    ended: float = 0.0
    drained: float = 0.0
    note: str = ""
    steps: list[Step] = field(default_factory=list)


def steady_summary(outcomes: Sequence[Outcome], began: float) -> load.Summary:
    """Summarize what was due just before an action began."""
    since = began - STEADY_SECONDS + RECKONING_SECONDS
    return load.summarize(outcome for outcome in ended_since(outcomes, since) if since <= outcome.due < began)


def ended_since(outcomes: Sequence[Outcome], moment: float) -> Iterator[Outcome]:
    """Yield the last of a list that grows as requests end; everything that was due since then is among them."""
    for outcome in reversed(outcomes):
        if outcome.ended < moment - 1:  # two may be added in the other order
            return
        yield outcome
