"""Judge a release by the load balancer's own counts: plain functions over plain numbers, nothing is read here.

The rule. A colour fails too much when its failed requests are more than chance explains: an exact one-sided binomial test
at `SIGNIFICANCE` (1 %), against `ACCEPTED_RATE` (one request in 200) plus what is tolerated. A single failed request is
never enough. Requests are pooled over all minutes since the canary began. What is tolerated is what the other colour is
*shown* to fail in the same minutes (the lower 99 % confidence bound of its rate), so neither chance nor the past raises it.

A release that fails one request in twenty, beside a colour that fails none, is put back with this probability:

    requests      50     100     150     200     300     500
    probability  46 %    74 %    95 %    97 %   99.8 %  > 99.9 %

A release that fails one request in a thousand is put back in at most 0.05 % of looks, one that fails exactly one in 200
in at most 1 %; a new minute is a new look, and a release is looked at two to seven times. The same rule after each of our
own requests (300 of them in a shift) puts one in a thousand back with 0.05 %, and finds one in twenty with 99.8 %.

Two counts keep late data from being taken for health. CloudWatch has no data point where nothing failed ("Reporting
criteria: There is a nonzero value"), so a missing point means *no error* or *not there yet*. Hence errors that are there
speak against a colour, and only answers that are there speak for it: a request with neither is unknown. A colour is
healthy when even all unknown requests, counted as failed, are within the rule; until then the caller waits.

Source of names, dimensions and reporting criteria: docs.aws.amazon.com/elasticloadbalancing/latest/application/
load-balancer-cloudwatch-metrics.html. Errors that the load balancer itself answers have no target group there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from infra.names import Colour, other_colour

ACCEPTED_RATE = 0.005
"""Failed requests per request that any release may show."""
SIGNIFICANCE = 0.01
"""Probability, per look, that a colour which fails exactly as much as it may is called failing."""
TROUBLE = 0.05
"""Failed requests per request above which a colour is in trouble, and no measure for the one that takes over."""
CAUGHT_RATE = 0.05
"""Failed requests per request of a release that has to be found."""
WANTED_POWER = 0.9
"""Probability of finding such a release; a release waits for more requests, as long as it may, until they give that."""
LATE_SECONDS = 180
"""Seconds after its end in which a minute gets its RequestCount: one without it then had no request with a
target. AWS gives no bound; two to three minutes of delay are what its console commonly shows."""
GONE_AT_MOST = 0.02
"""Part of a colour's requests that may have ended because the client went away. Nothing tells these (460) from what a
scanner sends without any target (400), so more of them explain no missing answer."""
STEADY_MINUTES = 3
"""Minutes whose failures are the present, not the past."""


class MetricState(Enum):
    """Judgement of a colour."""

    HEALTHY = "healthy"
    FAILING = "failing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Group:
    """One target group's counts of one minute."""

    requests: int = 0
    """RequestCount: a target was chosen."""
    good: int = 0
    """The targets' answers below 500."""
    errors: int = 0
    """The targets' answers from 500."""
    refused: int = 0
    """TargetConnectionErrorCount; each is one of the load balancer's 502s or 504s too."""

    @property
    def unanswered(self) -> int:
        """Return the number of requests without an answer of a target (yet)."""
        return max(0, self.requests - self.good - self.errors)


@dataclass(frozen=True)
class Minute:
    """One whole minute: both groups, and what the load balancer answered itself."""

    start: datetime
    groups: Mapping[Colour, Group]
    bad_gateway: int = 0
    """502 and 504: a target was chosen and gave no proper answer."""
    no_target: int = 0
    """503: there was no target to choose; RequestCount leaves these out."""
    client_errors: int = 0
    """4xx of the load balancer, of which 460 (the client has gone) had a target."""

    @property
    def end(self) -> datetime:
        """Return the next minute's start."""
        return self.start + timedelta(minutes=1)


@dataclass(frozen=True)
class Reading:
    """CloudWatch's answer."""

    minutes: Sequence[Minute] = ()
    incomplete: Sequence[str] = ()
    """Metrics of which the answer was not complete, each with its status."""


@dataclass(frozen=True)
class Sample:
    """Requests of one colour."""

    requests: int = 0
    failed: int = 0
    unknown: int = 0
    """Neither an answer nor an error was counted."""

    def __add__(self, more: Sample) -> Sample:
        """Return the sum of both."""
        return Sample(self.requests + more.requests, self.failed + more.failed, self.unknown + more.unknown)


@dataclass(frozen=True)
class Shift:
    """A shift of all traffic to a colour, by the load balancer's clock."""

    colour: Colour
    since: datetime
    """Everything is on the colour, and each node of the load balancer that was in trouble has followed."""
    canary_from: datetime | None = None
    """Both colours have traffic from here on; nothing if there was no canary."""
    tolerated: float = 0.0
    """Failed requests per request that are tolerated where there was no canary to compare with."""

    @property
    def alone_from(self) -> datetime:
        """Return the first minute that is the colour's alone."""
        return whole_minute(self.since) + timedelta(minutes=1)

    @property
    def start(self) -> datetime:
        """Return the first minute that counts."""
        return self.alone_from if self.canary_from is None else whole_minute(self.canary_from)


@dataclass(frozen=True)
class Verdict:
    """Judgement of a colour, and the reason for it."""

    state: MetricState
    why: str
    power: float = 0.0
    """Probability that a release which fails one request in twenty would have been found."""
    minutes: int = 0
    """Number of whole minutes with requests that count so far."""


def whole_minute(moment: datetime) -> datetime:
    """Return the begin of the moment's minute."""
    return moment.replace(second=0, microsecond=0)


def acceptable(rate: float) -> float:
    """Return failed requests per request that the next colour may show: as many as this one, but of trouble no more than half."""
    return rate if rate <= TROUBLE else rate / 2


def chance(failed: int, requests: int, rate: float) -> float:
    """Return the probability that so many requests or more fail, each at the rate (the binomial distribution's tail)."""
    if failed <= 0:
        return 1.0
    if failed > requests or rate <= 0:
        return 0.0
    if rate >= 1:
        return 1.0
    upper = failed > requests * rate
    # Terms fall from here on, so the sum ends early; the start is taken from logarithms, since it may be very small.
    at = failed if upper else failed - 1
    choose = math.lgamma(requests + 1) - math.lgamma(at + 1) - math.lgamma(requests - at + 1)
    term = math.exp(choose + at * math.log(rate) + (requests - at) * math.log1p(-rate))
    total = 0.0
    while term > total * 1e-15 and 0 <= at <= requests:
        total += term
        odds = rate / (1 - rate)
        term *= (requests - at) / (at + 1) * odds if upper else at / (requests - at + 1) / odds
        at += 1 if upper else -1
    return min(1.0, total) if upper else max(0.0, 1.0 - total)


def is_worse(failed: int, requests: int, tolerated: float = 0.0) -> bool:
    """Check whether more requests failed than chance explains; one alone never is more."""
    return failed > 1 and chance(failed, requests, min(1.0, ACCEPTED_RATE + tolerated)) <= SIGNIFICANCE


def shown_rate(failed: int, requests: int) -> float:
    """Return the rate that failures show for certain (Clopper and Pearson's lower bound): 0 if chance explains them."""
    low, high = 0.0, failed / requests if requests else 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(failed, requests, middle) <= SIGNIFICANCE else (low, middle)
    return low


def power(requests: int, tolerated: float = 0.0, rate: float = CAUGHT_RATE) -> float:
    """Return the probability that a colour which fails at the rate is found failing."""
    low, high = 1, requests + 1  # the fewest failures that are too many lie in (low, high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_worse(middle, requests, tolerated) else (middle, high)
    return chance(high, requests, rate)


def sample(minute: Minute, colour: Colour, *, alone: bool) -> Sample:
    """Count each request of a colour once.

    Args:
        minute: of both colours.
        colour: whose requests are counted.
        alone: all traffic is on the colour, so that the load balancer's own errors are its errors, but for what the
            other colour's last requests account for. While both serve, nobody knows whose they are: then they are
            unknown, by the requests of the colour without an answer.
    """
    ours, theirs = minute.groups[colour], minute.groups[other_colour(colour)]
    # A refused connection is a 502 or 504 as well; which of the two counts comes first is not known.
    unserved = max(ours.refused, minute.bad_gateway - theirs.unanswered) if alone else ours.refused
    no_target = minute.no_target if alone else 0
    failed = ours.errors + unserved + no_target
    requests = max(ours.requests + no_target, ours.good + failed)
    share = ours.requests / max(1, ours.requests + theirs.requests)
    gone = math.floor(min(minute.client_errors * share, GONE_AT_MOST * ours.requests))
    return Sample(requests, failed, max(0, requests - ours.good - failed - gone))


def pool(minutes: Iterable[Minute], colour: Colour, *, alone: bool) -> Sample:
    """Return all requests of a colour in the minutes."""
    return sum((sample(minute, colour, alone=alone) for minute in minutes), Sample())


def steady_rate(reading: Reading, colour: Colour) -> float:
    """Return failed requests per request of a colour that serves alone and fails in each of its last minutes; else 0."""
    samples = [sample(minute, colour, alone=True) for minute in reading.minutes]
    last = [each for each in samples if each.requests][-STEADY_MINUTES:]
    if reading.incomplete or len(last) < STEADY_MINUTES:
        return 0.0
    every = sum(last, Sample())
    return min(shown_rate(every.failed, every.requests), *(each.failed / each.requests for each in last))


def before(probed: Sample | None, steady: float) -> float:
    """Return failed requests per request before a shift.

    Args:
        probed: our own requests just now; nothing if there are none.
        steady: the last minutes' rate. Own requests that don't fail say that there is no outage now.
    """
    if probed is None:
        return steady
    failing = probed.failed / probed.requests if is_worse(probed.failed, probed.requests) else 0.0
    return max(failing, steady if failing else min(steady, TROUBLE))


def unchanged(earlier: Reading | None, later: Reading) -> bool:
    """Check that what was read before is read again: what is still being written changes."""
    return earlier is not None and bool(earlier.minutes) and all(minute in later.minutes for minute in earlier.minutes)


def judge_metrics(reading: Reading, shift: Shift, now: datetime, minutes_needed: int) -> Verdict:
    """Judge the colour that a shift put everything on.

    Args:
        reading: of the minutes from `shift.start`.
        shift: what was shifted when.
        now: the load balancer's clock.
        minutes_needed: whole minutes with requests that the colour has to have alone.
    """
    counted = [
        minute
        for minute in reading.minutes
        if shift.start <= minute.start
        and minute.end <= now
        and (minute.groups[shift.colour].requests or (now - minute.end).total_seconds() >= LATE_SECONDS)
    ]
    both = [minute for minute in counted if minute.start < shift.alone_from]
    alone = [minute for minute in counted if minute.start >= shift.alone_from]
    theirs = pool(both, other_colour(shift.colour), alone=False)
    tolerated = shift.tolerated if shift.canary_from is None else acceptable(shown_rate(theirs.failed, theirs.requests))
    ours = pool(both, shift.colour, alone=False) + pool(alone, shift.colour, alone=True)
    served = [minute for minute in alone if sample(minute, shift.colour, alone=True).requests]
    if reading.incomplete:
        return Verdict(
            MetricState.UNKNOWN,
            f"CloudWatch's answer was not complete: {', '.join(reading.incomplete[:3])}",
            minutes=len(served),
        )
    if is_worse(ours.failed, ours.requests, tolerated):
        compared = (
            f"; of {theirs.requests} on {other_colour(shift.colour)} {theirs.failed} failed" if theirs.requests else ""
        )
        return Verdict(
            MetricState.FAILING,
            f"{ours.failed} of {ours.requests} requests to {shift.colour} failed since {counted[0].start:%H:%M} UTC; "
            f"{ACCEPTED_RATE + tolerated:.2%} and what chance adds to it are tolerated{compared}",
        )
    if len(served) < minutes_needed:
        return Verdict(
            MetricState.UNKNOWN,
            f"CloudWatch has {len(served)} of {minutes_needed} whole minutes with requests since the shift",
            minutes=len(served),
        )
    if is_worse(ours.failed + ours.unknown, ours.requests, tolerated):
        return Verdict(
            MetricState.UNKNOWN,
            f"CloudWatch counts neither an answer nor an error for {ours.unknown} of {ours.requests} requests to "
            f"{shift.colour}",
            minutes=len(served),
        )
    found_with = power(ours.requests, tolerated)
    return Verdict(
        MetricState.HEALTHY,
        f"{ours.failed} of {ours.requests} requests to {shift.colour} failed in {len(served)} whole minutes; one failure in "
        f"{1 / CAUGHT_RATE:.0f} would have been found with {found_with:.1%}",
        found_with,
        len(served),
    )
