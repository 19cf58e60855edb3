"""Our own requests straight at both load balancers, before a write and until every resolver has followed it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.clients import threads
from infra.commands.traffic_move.records import Edge
from infra.commands.traffic_move.rules import PROBES_BEFORE_WRITE, Answers, watch_verdict
from infra.errors import TrafficError
from infra.release.probes import HttpsProber, Probe

PROBE_TIMEOUT_SECONDS = 5.0
PROBE_INTERVAL_SECONDS = 1.0
SYNC_INTERVAL_SECONDS = 5.0
"""Route 53's API takes five requests a second of an account, for everybody (Route 53's guide, DNSLimitations)."""
SYNC_DEADLINE_SECONDS = 600.0
"""Route 53 has a change on all servers within 60 s as a rule (API reference, ChangeResourceRecordSets)."""
PROGRESS_INTERVAL_SECONDS = 15.0


def now_utc() -> datetime:
    """Return the time by this machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class WatchClock:
    """Time, and how it passes."""

    now: Callable[[], datetime] = now_utc
    sleep: Callable[[float], None] = time.sleep


Ask = Callable[[Edge], Probe]
"""Sends one request of the shop straight to a load balancer; never raises."""


def ask_straight(host: str) -> Ask:
    """Return the prober of the shop at a load balancer, with the shop's name for TLS and Host."""

    def ask(edge: Edge) -> Probe:
        return HttpsProber(f"{edge.scheme}://{host}", PROBE_TIMEOUT_SECONDS, address=edge.dns_name).get()

    return ask


def ask_some(ask: Ask, edge: Edge | None) -> Answers:
    """Send the probes that decide on a write; none to a load balancer that is not there."""
    answers = Answers()
    for _ in range(PROBES_BEFORE_WRITE if edge else 0):
        answers = answers.plus(ask(edge)) if edge else answers
    return answers


@dataclass(frozen=True)
class Watched:
    """Outcome of a watch."""

    old: Answers
    new: Answers
    verdict: str
    """Why the new load balancer's share has to go back; empty if it may stay."""


def watch_change(
    ask: Ask,
    clock: WatchClock,
    *,
    old: Edge | None,
    new: Edge | None,
    is_in_sync: Callable[[], bool],
    ttl_seconds: int,
    say: Callable[[str], None],
) -> Watched:
    """Probe load balancers until Route 53 has the change everywhere and the old answers have run out.

    It ends early as soon as the new one fails more than chance explains. One without a share is left out (`new` is None):
    whatever it answers, the old one's users have to be waited for.

    Raises:
        TrafficError: Route 53 is not in sync after `SYNC_DEADLINE_SECONDS`.
        AwsError: Route 53 can't be asked.
    """
    begin = asked_at = said_at = clock.now()
    synced_at = begin if is_in_sync() else None
    old_answers, new_answers, unseen = Answers(), Answers(), 0
    while True:
        edges = [edge for edge in (new, old) if edge]
        probes = dict(zip(edges, threads.POOL.map(ask, edges), strict=True))
        if any(probe.reached for probe in probes.values()):
            new_answers = new_answers.plus(probes[new]) if new else new_answers
            old_answers = old_answers.plus(probes[old]) if old else old_answers
        else:
            unseen += 1
        now = clock.now()
        if synced_at is None and (now - asked_at).total_seconds() >= SYNC_INTERVAL_SECONDS:
            asked_at, synced_at = now, now if is_in_sync() else None
        ended = synced_at is not None and (now - synced_at).total_seconds() >= ttl_seconds
        verdict = watch_verdict(new_answers, unseen, ended=ended) if new else ""
        if verdict or ended:
            return Watched(old_answers, new_answers, verdict)
        if synced_at is None and (now - begin).total_seconds() >= SYNC_DEADLINE_SECONDS:
            raise TrafficError(
                f"Route 53 has not brought the change to all of its servers within {SYNC_DEADLINE_SECONDS:.0f} s; it stands, "
                "so run the same step again, which waits for it"
            )
        if (now - said_at).total_seconds() >= PROGRESS_INTERVAL_SECONDS:
            said_at = now
            phase = f"in sync, {ttl_seconds} s of TTL" if synced_at else "not in sync yet"
            say(f"  {phase}: old {old_answers}, new {new_answers}")
        clock.sleep(PROBE_INTERVAL_SECONDS)
