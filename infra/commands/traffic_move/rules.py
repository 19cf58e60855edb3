"""Which step may be taken: plain functions over what was read. Each returns the refusal, empty if there is none.

No write raises the share of a load balancer that fails its probes right before it. The new one must pass all of them: nothing
forces a step up. The old one must pass one: a way back to a shop that answers now and then beats none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infra.commands.traffic_move.records import ALIAS_TTL_SECONDS, Edge, Shape, ShopRecords, strays
from infra.release.metrics import is_worse
from infra.release.probes import Probe

WEIGHT_STEPS = (1, 10, 50, 100)
"""Percents up to which the new load balancer's share may grow, one after the other."""
PROBES_BEFORE_WRITE = 3
BAKE_MINUTES = (10, 24 * 60, 14 * 24 * 60)
"""Fewest, usual and most minutes without a request at the old load balancer before `finish`. Ten minutes are two of CloudWatch's
periods and twice the longest TTL. A day has every hour of use; two weeks are within the 63 days for which CloudWatch keeps
periods of five minutes."""

LONGEST_TTL_SECONDS = 300
"""Longest TTL of a record that may be split. Users of a new load balancer that fails stay there for as long after the way back.
Five minutes are what Route 53's console enters by itself, and five times the TTL of an alias."""


@dataclass(frozen=True)
class Answers:
    """Outcome of our own requests straight at one load balancer."""

    asked: int = 0
    failed: int = 0
    last_failure: str = ""
    last: str = ""

    @property
    def passes(self) -> bool:
        """Tell whether there were requests and none failed."""
        return self.asked > 0 and self.failed == 0

    @property
    def answers(self) -> bool:
        """Tell whether at least one request did not fail."""
        return self.failed < self.asked

    def __str__(self) -> str:
        """Return both numbers and what came back."""
        text = f"{self.asked - self.failed} of {self.asked} probes answered"
        return f"{text} ({self.last_failure or self.last})" if self.asked else "not asked"

    def plus(self, probe: Probe) -> Answers:
        """Return the same with one more request."""
        failure = self.last_failure if probe.ok else probe.what
        return Answers(self.asked + 1, self.failed + (not probe.ok), failure, probe.what)


@dataclass(frozen=True)
class RequestCounts:
    """Requests that CloudWatch counted at one load balancer."""

    requests: int
    """RequestCount: a target was chosen; NewFlowCount of a Network Load Balancer."""
    without_target: int = 0
    """The load balancer's own 503: RequestCount leaves these out, and an old Deployment of no pods gives no others."""
    periods: int = 0
    """Whole periods of the window."""
    reported: int = 0
    """Periods in which the load balancer reported anything at all."""
    incomplete: Sequence[str] = ()
    """Metrics of which the answer was not complete."""
    connections: int = 0
    """Connections of a Network Load Balancer: those that are open still, since a client may keep one for days."""
    unit: str = "requests"
    """The unit that is counted: a Network Load Balancer knows connections alone."""

    @property
    def total(self) -> int:
        """Return the number of all requests."""
        return self.requests + self.without_target + self.connections

    def __str__(self) -> str:
        """Return the number and what it is of."""
        return f"{self.total} {self.unit}"

    @property
    def remark(self) -> str:
        """Return what of the number is a part that a person may overlook."""
        is_flow = self.unit == "connections"
        return f"{self.connections} open still" if is_flow else f"{self.without_target} without a target"


@dataclass(frozen=True)
class LiveRelease:
    """Release that the new load balancer serves, by the ledger."""

    live: str = ""
    open: str = ""


def next_limit(weight: int) -> int:
    """Return the percent up to which the share may grow in one step."""
    return next((step for step in WEIGHT_STEPS if step > weight), 100)


def owner_refusal(dns_setting: str) -> str:
    """Return why this program's own record may not be touched."""
    if dns_setting == "external":
        return ""
    return (
        "shopcat:dns is route53, so `pulumi up` owns the shop's record and would fight this command; set shopcat:dns to "
        "external until STEP=finish is done"
    )


def split_refusal(records: ShopRecords, old: Edge | None, new: Edge) -> str:
    """Return why the simple record can't become a pair."""
    if records.shape is Shape.NEW:
        return f"{records.host} leads to the new load balancer alone, so there is nothing to split; run STEP=status"
    if old is None:
        return (
            f"{records.host} leads to {records.old_target}, which is no load balancer of this account and region, so its "
            "requests can't be counted; use the credentials and aws:region of the old one, or let the record lead to it"
        )
    if records.ttl_seconds > LONGEST_TTL_SECONDS:
        return (
            f"{records.host} has a TTL of {records.ttl_seconds} s, and the way back would take as long; {LONGEST_TTL_SECONDS} s "
            f"are the most. Set the TTL to {ALIAS_TTL_SECONDS} first, wait {records.ttl_seconds} s until the old one has run "
            "out, then run STEP=split"
        )
    return ipv6_refusal(records, new)


def ipv6_refusal(records: ShopRecords, new: Edge) -> str:
    """Return why the new load balancer can't serve every type of the records."""
    if "AAAA" in records.kinds and not new.has_ipv6:
        return (
            f"{records.host} has an AAAA record, and the new load balancer {new.name} has no IPv6 addresses: delete the AAAA "
            "record first, which leaves users with IPv6 alone without the shop, or keep the old load balancer"
        )
    return ""


def stray_refusal(records: ShopRecords, new: Edge | None) -> str:
    """Return why a share can't be built on: its users are sent to a load balancer made before this one, or to none."""
    if strays(records, new):
        return f"{records.host}: {stray_share(records)}"
    return ""


def stray_share(records: ShopRecords) -> str:
    """Return where the users of a stray share are sent, and what brings them back."""
    return (
        f"{records.weight} % lead to {records.new_target}, which is not the new load balancer; run "
        "make takeover-dns STEP=back first"
    )


def weight_refusal(records: ShopRecords, percent: int, old: Answers, new: Answers, release: LiveRelease) -> str:
    """Return why the new load balancer may not get this share."""
    if not 0 <= percent <= 100:
        return f"WEIGHT is {percent}; expected the new load balancer's percent, from 0 to 100"
    if records.shape is not Shape.PAIR:
        return f"{records.host} has {records.shape.value}, not a weighted pair; run STEP=split first, or STEP=status"
    if percent < records.weight:
        return old_refusal(old)
    if percent == records.weight:
        return ""
    limit = next_limit(records.weight)
    if percent > limit:
        return f"from {records.weight} % a step leads up to {limit} % at most; run WEIGHT={limit} first"
    return new_refusal(new, release)


def back_refusal(records: ShopRecords, old: Edge | None, answers: Answers) -> str:
    """Return why not all traffic can go back to the old load balancer."""
    if records.shape is not Shape.PAIR:
        return (
            f"{records.host} has {records.shape.value}, not a weighted pair; STEP=back takes a pair back. "
            "By hand: let the record lead to the old load balancer, if it still stands"
        )
    if old is None:
        return (
            f"the old load balancer {records.old_target} is not there any more, so nothing can go back to it; mend the "
            "release behind the new one (`shopcat:rollback`, docs/runbook.md)"
        )
    return old_refusal(answers)


def finish_refusal(records: ShopRecords, old: Edge | None) -> str:
    """Return why the pair can't become this program's own record, before anything is counted."""
    if records.shape is not Shape.PAIR or records.weight != 100:
        return (
            f"{records.host} has {records.shape.value}, {records.weight} % at the new load balancer; expected a weighted pair "
            "with 100 %: run STEP=weight WEIGHT=100 first"
        )
    if old is None:
        return (
            f"the old load balancer {records.old_target} is not there, so its requests can't be counted; if it was deleted on "
            "purpose, replace the pair by hand: one A alias to the new one, without evaluation of its health"
        )
    return ""


def span(minutes: int) -> str:
    """Return a time in words."""
    return f"{minutes} minutes" if minutes % 60 else f"{minutes // 60} hours"


def counts_refusal(counts: RequestCounts, accepted: int, minutes: int) -> str:
    """Return why the old load balancer may still have users.

    Route 53 keeps no time of a change. That no request reached the old load balancer in the whole window is the evidence. A
    load balancer reports RequestCount only if it is not 0, so no number counts as 0 only while others of its metrics are there.

    Args:
        counts: of the window.
        accepted: requests of others than the shop's users, as the old load balancer's access logs show.
        minutes: length of the window.
    """
    if counts.incomplete:
        return f"CloudWatch's answer is not complete ({', '.join(counts.incomplete)}); run STEP=finish again later"
    if counts.reported < counts.periods:
        return (
            f"the old load balancer reported nothing in {counts.periods - counts.reported} of {counts.periods} periods of the "
            f"last {span(minutes)}, so a missing RequestCount is no proof of 0; wait, or look at its access logs and set a "
            "shorter BAKE"
        )
    if counts.total > accepted:
        return (
            f"the old load balancer counted {counts} in the last {span(minutes)} ({counts.remark}), {accepted} are accepted: "
            "users may still reach it. Wait; if its access logs show scanners and no "
            f"shop's users, set ACCEPT={counts.total}"
        )
    return ""


def new_refusal(new: Answers, release: LiveRelease) -> str:
    """Return why the new load balancer may get no more traffic."""
    if not release.live:
        return "no release is live behind the new load balancer; release one first (`pulumi up` with shopcat:tag)"
    if release.open:
        return f"release {release.open} is open; let it end (`pulumi up -s prod`) before traffic moves"
    if not new.passes:
        return f"the new load balancer fails its probes: {new}; mend it, then run the same step again"
    return ""


def old_refusal(old: Answers) -> str:
    """Return why the old load balancer may get no more traffic."""
    if old.answers:
        return ""
    return f"the old load balancer does not answer: {old}; nothing was changed. Mend it, then run the same step again"


def watch_verdict(new: Answers, unseen: int, *, ended: bool) -> str:
    """Return why the new load balancer's share has to go back, empty if it may stay.

    Args:
        new: our requests at it since the write; `infra/release/metrics.py` says how many failures are more than chance.
        unseen: moments at which neither load balancer was reached, so that only this machine's network is known to fail.
        ended: the watch is over, so that too few answers count against it.
    """
    if is_worse(new.failed, new.asked):
        return f"{new.failed} of {new.asked} probes at the new load balancer failed ({new.last_failure})"
    if ended and unseen >= new.asked:
        return f"at {unseen} of {unseen + new.asked} moments this machine reached neither load balancer"
    return ""
