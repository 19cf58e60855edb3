"""Comparison of what clients, load balancer and database recorded of the same requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.load import TRACE_PREFIX, Outcome
from twin.loadbalancer.access_log import Request

ELB_FAILURES = (460, 500, 502, 503, 504)


@dataclass(frozen=True)
class Disagreement:
    """One request that the client and the load balancer saw differently."""

    trace: str
    client: str
    load_balancer: str

    def __str__(self) -> str:
        """Return one line for a person."""
        return f"{self.trace}: client {self.client}, load balancer {self.load_balancer}"


def disagreements(outcomes: Iterable[Outcome], requests: Iterable[Request]) -> list[Disagreement]:
    """List the requests for which client and load balancer differ.

    A request with an answer must be in the load balancer's log with the same status; the log may hold no failure that no
    client has met. A connection that failed before a request was sent is in no log. What the load balancer cut at the end
    of a deregistration delay has no status in its log (-1, ended by `K`): the client has seen a 502 or a closed connection.
    """
    logged: dict[str, Request] = {request.trace: request for request in requests if request.trace}
    different = []
    seen = set()
    for outcome in outcomes:
        seen.add(outcome.trace)
        request = logged.get(outcome.trace)
        if outcome.status:
            if request is None:
                different.append(Disagreement(outcome.trace, f"HTTP {outcome.status}", "not in its log"))
            elif request.status != outcome.status and not (_cut(request) and outcome.status == 502):
                different.append(Disagreement(outcome.trace, f"HTTP {outcome.status}", f"HTTP {request.status}"))
        elif request is not None and request.elb_status not in ELB_FAILURES and not _cut(request):
            different.append(Disagreement(outcome.trace, outcome.failure, f"HTTP {request.status} {request.flags}"))
    for trace, request in logged.items():
        # Whoever else asks (smoke tests, a release's own probes) sends no trace id, and the load balancer makes one up.
        failed = request.status >= 500 or _cut(request)
        if trace in seen or not failed or not trace.startswith(TRACE_PREFIX):
            continue
        different.append(Disagreement(trace, "sent no such request", f"HTTP {request.status}"))
    return different


def _cut(request: Request) -> bool:
    return request.status == -1 and request.flags.startswith("K")


def orders_lost_or_doubled(outcomes: Iterable[Outcome], stored: Mapping[str, int]) -> list[str]:
    """List the acknowledged orders that are not in the database exactly once.

    Args:
        outcomes: of the clients' requests.
        stored: idempotency key → number of rows.
    """
    acknowledged = [outcome.key for outcome in outcomes if outcome.key and not outcome.failure]
    twice = [key for key, count in Counter(acknowledged).items() if count > 1]
    return [*twice, *(key for key in acknowledged if stored.get(key, 0) != 1)]
