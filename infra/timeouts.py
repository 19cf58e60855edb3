"""Every timeout in the chain, from a few numbers: how long the application drains, how late the load balancer follows.

All values are whole seconds; fractions are rounded up, never down. `DrainBudget.derive` fills in what nobody set and
`DrainBudget.violations` names each inequality that does not hold, with both values; `derive` raises them together.

The chain when a pod is deleted (and why each inequality is there)::

    delete ── controller_lag ──▶ deregistered ── propagation ──▶ last new request ── longest_request ──▶ last answer
    └──────────────── preStop sleep ────────────────┘└ SIGTERM ─────────── app_drain ───────────┘└ margin ┘
    └──────────────────────────────────── grace period ─────────────────────────────────────────────────┘

A shorter test gives smaller numbers for what the application and the load balancer's data plane take: app_drain,
longest_request, propagation, startup. The rest doesn't get shorter with them: controller_lag and requeue are the
controller's own clocks, an ALB's health_interval is 5 s at least, and CloudWatch counts in whole minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

DEREGISTRATION_SECONDS = 3600
"""docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html."""
IDLE_SECONDS = 4000
"""docs.aws.amazon.com/elasticloadbalancing/latest/application/application-load-balancers.html, connection idle timeout."""
HEALTH_INTERVAL_SECONDS = (5, 300)
HEALTH_THRESHOLD = (2, 10)
"""Both: docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateTargetGroup.html."""
METRIC_MINUTES_SECONDS = 120
"""Two whole minutes of CloudWatch metrics: one alone may hold a single late point."""

SMALLEST_MARGIN_SECONDS = 10
SMALLEST_REQUEUE_SECONDS = 1
"""0 is no requeue at all: a gate that is shut at the controller's first look would stay so."""

_DEFAULT_IDLE_TIMEOUT_SECONDS = 60
"""An ALB's own default; kept as long as the inequalities allow it."""


class DrainError(ValueError):
    """Error for drain numbers that contradict each other; one line per broken inequality."""

    def __init__(self, violations: list[str]) -> None:
        self.violations = violations
        super().__init__("drain numbers that can't hold:\n" + "\n".join(f"  - {line}" for line in violations))


@dataclass(frozen=True)
class DrainInputs:
    """Properties of the application, the load balancer and its controller, in seconds."""

    app_drain_seconds: float = 60
    """From SIGTERM until the process has exited."""
    longest_request_seconds: float = 30
    """The longest request that a release promises to finish."""
    propagation_seconds: float = 45
    """Time allowed from deregistration until no load-balancer node sends a new request."""
    controller_lag_seconds: float = 25
    """Time allowed until the controller deregisters: a restarted one first reconciles after its lease of 15 s has run out."""
    app_keep_alive_seconds: float = 75
    """Time for which the application keeps an idle connection open."""
    margin_seconds: float = SMALLEST_MARGIN_SECONDS
    """Part of the grace period beyond preStop and drain."""
    startup_seconds: float = 60
    """Worst time from scheduling (image pull included) until the application answers its probe."""
    health_interval_seconds: float = 5
    """The target group's health check interval."""
    health_threshold: int = 2
    """Checks that must pass."""
    requeue_seconds: float = 5
    """Pause between the controller's looks at a target's health while a readiness gate is shut."""


@dataclass(frozen=True)
class DrainOverrides:
    """Timeouts that a person sets instead of having them derived; `None` derives."""

    idle_timeout_seconds: float | None = None
    deregistration_delay_seconds: float | None = None
    settle_seconds: float | None = None
    progress_deadline_seconds: float | None = None
    pulumi_timeout_seconds: float | None = None


@dataclass(frozen=True)
class Inequality:
    """One rule of the chain, with the names and the whole seconds of both sides."""

    left: str
    left_seconds: int
    sign: Literal["<", "<="]
    right: str
    right_seconds: int

    @property
    def holds(self) -> bool:
        """Check the rule."""
        return self.left_seconds < self.right_seconds or (self.sign == "<=" and self.left_seconds == self.right_seconds)

    def describe_violation(self) -> str:
        """Name the rule and both values, for one that does not hold."""
        return f"{self.left} {self.sign} {self.right}, but {self.left_seconds} s {self.sign} {self.right_seconds} s is false"


def _whole(seconds: float) -> int:
    return math.ceil(seconds)


@dataclass(frozen=True)
class DrainBudget:
    """Every timeout of the chain, in whole seconds. Make it with `derive`."""

    app_drain_seconds: int
    longest_request_seconds: int
    propagation_seconds: int
    controller_lag_seconds: int
    app_keep_alive_seconds: int
    margin_seconds: int
    startup_seconds: int
    health_interval_seconds: int
    health_threshold: int
    requeue_seconds: int
    pre_stop_seconds: int
    grace_seconds: int
    idle_timeout_seconds: int
    deregistration_delay_seconds: int
    settle_seconds: int
    progress_deadline_seconds: int
    pulumi_timeout_seconds: int

    @classmethod
    def derive(cls, inputs: DrainInputs | None = None, overrides: DrainOverrides | None = None) -> DrainBudget:
        """Derive every timeout from the inputs, and check the inequalities.

        Raises:
            DrainError: an inequality does not hold; all that don't are named.
        """
        known_inputs, chosen = inputs or DrainInputs(), overrides or DrainOverrides()
        unusable = _unusable(known_inputs, chosen)
        if unusable:
            raise DrainError(unusable)
        known = {each.name: _whole(getattr(known_inputs, each.name)) for each in fields(DrainInputs)}
        longest, propagation, lag = (
            known[f"{name}_seconds"] for name in ("longest_request", "propagation", "controller_lag")
        )
        pre_stop = lag + propagation
        grace = pre_stop + known["app_drain_seconds"] + known["margin_seconds"]
        idle = max(longest + 5, min(_DEFAULT_IDLE_TIMEOUT_SECONDS, known["app_keep_alive_seconds"] - 5))
        check = known["health_interval_seconds"] * known["health_threshold"] + known["requeue_seconds"]
        progress = _or(chosen.progress_deadline_seconds, known["startup_seconds"] + check + lag + 30)
        budget = cls(
            **known,
            pre_stop_seconds=pre_stop,
            grace_seconds=grace,
            idle_timeout_seconds=_or(chosen.idle_timeout_seconds, idle),
            # As long as the pod lives: where a node hears later than budgeted, the pod's own drain ends a request, not the node.
            deregistration_delay_seconds=_or(
                chosen.deregistration_delay_seconds, max(propagation + longest, min(grace, DEREGISTRATION_SECONDS))
            ),
            settle_seconds=_or(chosen.settle_seconds, max(propagation + longest, METRIC_MINUTES_SECONDS)),
            progress_deadline_seconds=progress,
            pulumi_timeout_seconds=_or(chosen.pulumi_timeout_seconds, progress + 60),
        )
        violations = budget.violations()
        if violations:
            raise DrainError(violations)
        return budget

    @property
    def seconds_to_ready(self) -> int:
        """Return the worst time from scheduling a pod until its readiness gate opens, the controller being up."""
        return self.startup_seconds + self.health_interval_seconds * self.health_threshold + self.requeue_seconds

    def violations(self) -> list[str]:
        """List the inequalities that do not hold, with the values on both sides; empty when all do."""
        return [each.describe_violation() for each in self.inequalities() if not each.holds]

    def inequalities(self) -> list[Inequality]:
        """List the rules of the chain with this budget's values."""
        least_settle = max(self.propagation_seconds + self.longest_request_seconds, METRIC_MINUTES_SECONDS)
        least_delay = self.propagation_seconds + self.longest_request_seconds
        rules: list[tuple[str, int, Literal["<", "<="], str, int]] = [
            ("controllerLag + propagation", self.controller_lag_seconds + self.propagation_seconds, "<=",
             "preStop", self.pre_stop_seconds),
            ("smallest margin", SMALLEST_MARGIN_SECONDS, "<=", "margin", self.margin_seconds),
            ("preStop + appDrain + margin",
             self.pre_stop_seconds + self.app_drain_seconds + self.margin_seconds, "<=", "grace", self.grace_seconds),
            ("longestRequest + 1", self.longest_request_seconds + 1, "<=", "appDrain", self.app_drain_seconds),
            ("longestRequest + 5", self.longest_request_seconds + 5, "<=", "idleTimeout", self.idle_timeout_seconds),
            ("idleTimeout", self.idle_timeout_seconds, "<=", "an ALB's largest", IDLE_SECONDS),
            ("idleTimeout + 5", self.idle_timeout_seconds + 5, "<=", "appKeepAlive", self.app_keep_alive_seconds),
            ("propagation + longestRequest", least_delay, "<=",
             "deregistrationDelay", self.deregistration_delay_seconds),
            ("deregistrationDelay", self.deregistration_delay_seconds, "<=",
             "an ALB's largest", DEREGISTRATION_SECONDS),
            ("max(propagation + longestRequest, two metric minutes)", least_settle, "<=",
             "settle", self.settle_seconds),
            ("an ALB's smallest", HEALTH_INTERVAL_SECONDS[0], "<=", "healthInterval", self.health_interval_seconds),
            ("healthInterval", self.health_interval_seconds, "<=", "an ALB's largest", HEALTH_INTERVAL_SECONDS[1]),
            ("smallest requeue", SMALLEST_REQUEUE_SECONDS, "<=", "requeue", self.requeue_seconds),
            ("startup + healthInterval * healthThreshold + requeue", self.seconds_to_ready, "<",
             "progressDeadline", self.progress_deadline_seconds),
            ("progressDeadline", self.progress_deadline_seconds, "<", "pulumiTimeout", self.pulumi_timeout_seconds),
        ]  # fmt: skip
        return [Inequality(*rule) for rule in rules]


def _or(chosen: float | None, derived: int) -> int:
    return derived if chosen is None else _whole(chosen)


def _unusable(*groups: DrainInputs | DrainOverrides) -> list[str]:
    """List values that are no duration at all, so that the inequalities would only confuse."""
    lines = []
    for group in groups:
        for field in fields(group):
            value = getattr(group, field.name)
            if value is None:
                continue
            if not math.isfinite(value) or value < 0:
                lines.append(f"{field.name} is {value}; expected a number of at least 0")
            elif field.name == "health_threshold" and not HEALTH_THRESHOLD[0] <= value <= HEALTH_THRESHOLD[1]:
                lines.append(f"{field.name} is {value}; an ALB takes 2 to 10")
    return lines
