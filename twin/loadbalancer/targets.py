"""The states of a target, as one load-balancer node sees them and as DescribeTargetHealth sums them up.

Follows AWS's "Health checks for Application Load Balancer target groups": a new target is ``initial`` and turns healthy
after ONE passed check; later changes take the group's thresholds; a deregistered target is ``draining`` for the
deregistration delay; a group that no rule uses has ``unused`` targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

INITIAL = "initial"
HEALTHY = "healthy"
UNHEALTHY = "unhealthy"
DRAINING = "draining"
UNUSED = "unused"


@dataclass(frozen=True)
class CheckResult:
    """One finished health check. ``reason`` is ELB's code, empty if it passed."""

    passed: bool
    reason: str = ""
    description: str = ""


PASSED = CheckResult(passed=True)


@dataclass(frozen=True)
class View:
    """One node's view of a registered target."""

    state: str = INITIAL
    reason: str = "Elb.RegistrationInProgress"
    description: str = "Target registration is in progress"
    passed_in_a_row: int = 0
    failed_in_a_row: int = 0

    def checking_began(self) -> View:
        """Return the view once the registration has reached the node."""
        if self.state != INITIAL:
            return self
        return replace(self, reason="Elb.InitialHealthChecking", description="Initial health checks are in progress")

    def checked(self, result: CheckResult, *, healthy_threshold: int, unhealthy_threshold: int) -> View:
        """The view after one more check."""
        if result.passed:
            passed = self.passed_in_a_row + 1
            if self.state in (INITIAL, HEALTHY) or passed >= healthy_threshold:
                return View(HEALTHY, "", "", passed, 0)
            return replace(self, passed_in_a_row=passed, failed_in_a_row=0)
        failed = self.failed_in_a_row + 1
        if self.state == UNHEALTHY or failed >= unhealthy_threshold:
            return View(UNHEALTHY, result.reason, result.description, 0, failed)
        return replace(self, passed_in_a_row=0, failed_in_a_row=failed)


@dataclass(frozen=True)
class TargetHealth:
    """A target's health in DescribeTargetHealth's terms."""

    state: str
    reason: str = ""
    description: str = ""


def summed_up(views: Sequence[View], *, in_use: bool, draining: bool) -> TargetHealth:
    """One answer from what the nodes found.

    Which node's view AWS reports is not documented. The pessimistic choice is made: healthy as soon as one node says so
    (a reader who trusts it is wrong about the others), unhealthy only when all do.
    """
    if draining:
        return TargetHealth(DRAINING, "Target.DeregistrationInProgress", "Target deregistration is in progress")
    if not in_use:
        return TargetHealth(
            UNUSED, "Target.NotInUse", "Target group is not configured to receive traffic from the load balancer"
        )
    if any(view.state == HEALTHY for view in views):
        return TargetHealth(HEALTHY)
    waiting = [view for view in views if view.state == INITIAL]
    if waiting or not views:
        furthest = next((v for v in waiting if v.reason == "Elb.InitialHealthChecking"), View())
        return TargetHealth(INITIAL, furthest.reason, furthest.description)
    return TargetHealth(UNHEALTHY, views[0].reason, views[0].description)


def routable(views: dict[str, View]) -> set[str]:
    """Return those of a node's known targets that get requests: the healthy ones, or all if none is healthy (fail open)."""
    healthy = {name for name, view in views.items() if view.state == HEALTHY}
    return healthy or set(views)


def matches(matcher: str, status: int) -> bool:
    """Report whether a status is within a matcher such as ``200``, ``200,202`` or ``200-299``."""
    for part in matcher.split(","):
        first, _, last = part.strip().partition("-")
        if int(first) <= status <= int(last or first):
            return True
    return False
