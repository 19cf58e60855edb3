"""Whether clients, load balancer and database tell the same story."""

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
        """One line."""
        return f"{self.trace}: client {self.client}, load balancer {self.load_balancer}"


def disagreements(outcomes: Iterable[Outcome], requests: Iterable[Request]) -> list[Disagreement]:
    """Requests for which client and load balancer differ.

    A request with an answer must be in the load balancer's log with the same status; the log may hold no failure that no
    client has met. A connection that failed before a request was sent is in no log. What the load balancer cut at the end
    of a deregistration delay has no status in its log (-1, ended by `K`): the client has seen a 502 or a closed connection.
    """
    logged: dict[str, Request] = {one.trace: one for one in requests if one.trace}
    found = []
    seen = set()
    for one in outcomes:
        seen.add(one.trace)
        request = logged.get(one.trace)
        if one.status:
            if request is None:
                found.append(Disagreement(one.trace, f"HTTP {one.status}", "not in its log"))
            elif request.status != one.status and not (_cut(request) and one.status == 502):
                found.append(Disagreement(one.trace, f"HTTP {one.status}", f"HTTP {request.status}"))
        elif request is not None and request.elb_status not in ELB_FAILURES and not _cut(request):
            found.append(Disagreement(one.trace, one.failure, f"HTTP {request.status} {request.flags}"))
    for trace, request in logged.items():
        # Whoever else asks (smoke tests, a release's own probes) sends no trace id, and the load balancer makes one up.
        failed = request.status >= 500 or _cut(request)
        if trace in seen or not failed or not trace.startswith(TRACE_PREFIX):
            continue
        found.append(Disagreement(trace, "knows nothing of it", f"HTTP {request.status}"))
    return found


def _cut(request: Request) -> bool:
    return request.status == -1 and request.flags.startswith("K")


def orders_lost_or_doubled(outcomes: Iterable[Outcome], stored: Mapping[str, int]) -> list[str]:
    """Acknowledged orders that are not in the database exactly once.

    Args:
        outcomes: what clients saw.
        stored: idempotency key → number of rows.
    """
    acknowledged = [one.key for one in outcomes if one.key and not one.failure]
    twice = [key for key, count in Counter(acknowledged).items() if count > 1]
    return [*twice, *(key for key in acknowledged if stored.get(key, 0) != 1)]
