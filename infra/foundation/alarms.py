"""The list of CloudWatch alarms: what each counts, and from which number on it tells a person.

Plain values; infra/foundation/monitoring.py declares them. No add-on is needed for the metrics: AWS writes them by itself or
counts them in logs, and the clean-up of previews writes one. No number follows a release, so that a release, which may change no
alarm, has none to change: `release.replicas` counts only as one pod or more.

Which colour is live is not asked, since it changes with each release:

* **What users get** is counted for the whole load balancer, whichever colour answers.
* **Healthy targets**: while no release is open, the idle colour has no pod, so the larger of both counts is the live colour's.
  During a release both colours are whole, and the release watches them itself. A live colour that loses its pods behind an old
  one that was never stopped is hidden for half an hour at most: then `both-colours` tells of the old one.
* **Both colours** have pods during a release alone. So a release that stays open, and an update that was killed before it
  stopped the old colour, are seen without a metric of this program's own, and no identity needs a right to write one.
* **With `shopcat:keepFormer`** the idle colour has pods as well. Then the live colour is the one with more requests, and both
  colours are told of only while both get requests: a release that stays open before its canary, or after its shift, is not seen.
* **The clean-up of previews** leaves no trace in AWS if it never runs, so it writes one metric (pipeline/reaper.py).
* **A node that is not ready** has no metric without an agent on each node (Container Insights: two pod slots, an operator, and a
  price for each observation). The control plane's own log tells of it every few seconds, and EKS sends that log to CloudWatch as
  it is, so a filter counts it. A kubelet that still reports, and reports that it is not ready, is not in these lines.
* **A container that keeps failing** and **a secret that is not synced** are counted in logs of the nodes, where those are sent
  (infra/foundation/log_shipper.py).

A release that ended before its pods started leaves no trace here; the next one names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from infra.names import (
    COLOURS,
    METRICS_NAMESPACE,
    RESTART_METRIC,
    SILENT_NODE_METRIC,
    UNCLOSED_METRIC,
    UNSYNCED_METRIC,
)

if TYPE_CHECKING:
    import pulumi

    from infra.foundation.load_balancers import LoadBalancers
    from infra.names import Colour
    from infra.settings import Settings

MINUTE_SECONDS = 60
HOUR_SECONDS = 60 * MINUTE_SECONDS
DAY_SECONDS = 24 * HOUR_SECONDS
GIBIBYTE = 1 << 30

BURN_PERCENT = 1.44
"""Errors at which 99.9 % of good answers in 30 days would be used up 14.4 times too fast: 2 % of the month's errors in one hour
(sre.google/workbook/alerting-on-slos, "Multiwindow, Multi-Burn-Rate Alerts")."""
LEAST_ERRORS = 5
"""Errors of a minute below which their share says nothing: with few requests one failure is more than BURN_PERCENT."""
ENOUGH_TARGETS = 2
"""Healthy targets of which one may go away, with its node, and the shop still answers."""
MOVE_MINUTES = 5
"""A pod of a drained node is replaced within the time that pods take to start; meanwhile one target fewer is no alarm.
Where no target is left users get errors, which another alarm tells sooner."""
DATABASE_CPU_PERCENT = 90
"""Many use 80 to 90 (docs.cloudposse.com/modules/library/aws/rds-cloudwatch-sns-alarms: "unacceptable high latency" above 90)."""
CONNECTIONS_SHARE = 0.9
"""Share of max_connections. A release at its fullest may need all of them for a drain's two minutes (infra/capacity.py), so the
alarm waits longer than that."""
FREE_STORAGE_SHARE = 0.1
"""Share of the storage; below it RDS makes the storage larger by itself, where it may (docs.aws.amazon.com/AmazonRDS/latest/
UserGuide/USER_PIOPS.Autoscaling.html). So this tells that it may not, or not yet."""
CERTIFICATE_DAYS = 30
"""ACM begins to renew 60 days before the end, and writes events from 45 on (docs.aws.amazon.com/acm/latest/userguide/
managed-renewal.html), so a certificate that is left with 30 was not renewed."""
OPEN_MINUTES = 30
"""A release takes minutes, its workflow ends after 60 (.github/workflows/release.yml)."""

Comparison = Literal["GreaterThanThreshold", "GreaterThanOrEqualToThreshold", "LessThanThreshold"]
Missing = Literal["breaching", "notBreaching", "ignore"]


@dataclass(frozen=True)
class WatchedMetric:
    """One metric of AWS's, as one number a period."""

    namespace: str
    name: str
    statistic: str
    """`Sum`, `Average`, `Minimum`, `Maximum`, or a percentile such as `p99`."""
    dimensions: Mapping[str, pulumi.Input[str]]


@dataclass(frozen=True)
class Alarm:
    """One alarm: the metrics, the number that is compared, and how often that has to be so."""

    name: str
    """Unique in the account and region; docs/runbook.md has a line for each."""
    summary: str
    """Text of the notification."""
    metrics: Mapping[str, WatchedMetric]
    """By the name that `expression` uses."""
    comparison: Comparison
    threshold: float
    datapoints: int
    """Periods of the last `periods` in which the comparison has to hold."""
    periods: int
    period_seconds: int = MINUTE_SECONDS
    missing: Missing = "notBreaching"
    """A period without data counts as breaching, as not breaching, or (`ignore`) leaves the alarm as it is."""
    expression: str = field(default="")
    """Metric math (docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html); empty: the one metric."""


@dataclass(frozen=True)
class WatchedResources:
    """CloudWatch's names of what is watched: known once it is made."""

    load_balancer: pulumi.Input[str]
    """Part of its ARN, `app/shopcat/<id>`."""
    target_groups: Mapping[Colour, pulumi.Input[str]]
    """Part of each ARN, `targetgroup/shopcat-blue/<id>`."""
    certificates: Mapping[str, pulumi.Input[str]]
    """ARN of each certificate, by whose it is: `production` or `previews`."""

    @classmethod
    def of(cls, edge: LoadBalancers) -> WatchedResources:
        """Return the names of what the edge declares."""
        return cls(
            edge.production.balancer.arn_suffix,
            {colour: group.arn_suffix for colour, group in edge.target_groups.items()},
            {"production": edge.production.certificate.arn, "previews": edge.previews.certificate.arn},
        )


def alarms(settings: Settings, watched: WatchedResources) -> list[Alarm]:
    """Return every alarm; settings alone decide which there are.

    Args:
        settings: with `monitoring`.
        watched: what the metrics are of.
    """
    return [
        *_answers(settings, watched),
        *_targets(settings, watched),
        *_database_alarms(settings),
        *(_certificate(which, arn) for which, arn in sorted(watched.certificates.items())),
        *([_CLEAN_UP] if settings.github.repository else []),
        *([_SILENT_NODE] if settings.cluster.existing is None else []),
        *([_UNSYNCED, _RESTARTS] if settings.is_logging else []),
        Alarm(
            "shopcat-unschedulable-pods",
            "a pod has found no place on any node for 10 minutes",
            {"pods": WatchedMetric("AWS/EKS", _UNSCHEDULABLE, "Sum", {"ClusterName": settings.cluster.name})},
            "GreaterThanThreshold",
            threshold=0,
            datapoints=10,
            periods=10,
        ),
    ]


_UNSCHEDULABLE = "scheduler_pending_pods_UNSCHEDULABLE"
"""Written for each cluster from 1.28 on, without an add-on (docs.aws.amazon.com/eks/latest/userguide/cloudwatch.html)."""


_CLEAN_UP = Alarm(
    "shopcat-clean-up",
    "for three hours no run of the reaper has closed all previews that it should",
    {"unclosed": WatchedMetric(METRICS_NAMESPACE, UNCLOSED_METRIC, "Minimum", {})},
    "GreaterThanThreshold",
    threshold=0,
    datapoints=3,
    periods=3,
    period_seconds=HOUR_SECONDS,
    missing="breaching",
    # Where periods are missing CloudWatch judges by older ones, so that without this it would tell hours later
    # (docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html).
    expression="FILL(unclosed, 1)",
)
"""It runs each hour (.github/workflows/reaper.yml), and GitHub may start it later or leave one out (docs.github.com/actions,
events that trigger workflows, schedule)."""


_UNSYNCED = Alarm(
    "shopcat-secrets-not-synced",
    "External Secrets fails on a secret of production's, in each of two half hours",
    {"failures": WatchedMetric(METRICS_NAMESPACE, UNSYNCED_METRIC, "Sum", {})},
    "GreaterThanThreshold",
    threshold=0,
    datapoints=2,
    periods=2,
    period_seconds=HOUR_SECONDS // 2,
)
"""It tries again after 1000 s at most (sigs.k8s.io/controller-runtime, DefaultTypedControllerRateLimiter), so that each half hour
of a failure has one."""


SILENT_NODE_PATTERN = '"Node hasn\'t been updated"'
"""Written by the control plane every five seconds, at verbosity 2, while a node is silent for longer than its grace period
(kubernetes/kubernetes, pkg/controller/nodelifecycle/node_lifecycle_controller.go, tryUpdateNodeHealth)."""

_SILENT_NODE = Alarm(
    "shopcat-node-not-ready",
    f"a node has not reported to the cluster, for {MOVE_MINUTES} of {MOVE_MINUTES} minutes",
    {"lines": WatchedMetric(METRICS_NAMESPACE, SILENT_NODE_METRIC, "Sum", {})},
    "GreaterThanThreshold",
    threshold=0,
    datapoints=MOVE_MINUTES,
    periods=MOVE_MINUTES,
)
"""A node that an update replaces is silent for the seconds between the end of its machine and the end of its object."""

RESTART_PATTERN = '"Error syncing pod, skipping" "CrashLoopBackOff"'
"""Written by a kubelet each time it looks at a pod of which it puts a container off (kubernetes/kubernetes, pkg/kubelet/
pod_workers.go); both terms have to be in the line."""

_RESTARTS = Alarm(
    "shopcat-restart-loop",
    "a container of production or an add-on fails again and again, in each of three periods of 5 minutes",
    {"lines": WatchedMetric(METRICS_NAMESPACE, RESTART_METRIC, "Sum", {})},
    "GreaterThanThreshold",
    threshold=0,
    datapoints=3,
    periods=3,
    period_seconds=5 * MINUTE_SECONDS,
)
"""A container is put off for five minutes at most (kubelet.go, MaxCrashLoopBackOff), and its kubelet looks at it again within a
minute and a half (pod_workers.go, completeWork). One that fails twice and then runs is no alarm."""


def _of_balancer(name: str, statistic: str, watched: WatchedResources) -> WatchedMetric:
    return WatchedMetric("AWS/ApplicationELB", name, statistic, {"LoadBalancer": watched.load_balancer})


def _of_colours(name: str, statistic: str, watched: WatchedResources, prefix: str = "") -> dict[str, WatchedMetric]:
    return {
        f"{prefix}{colour}": WatchedMetric(
            "AWS/ApplicationELB",
            name,
            statistic,
            {"LoadBalancer": watched.load_balancer, "TargetGroup": watched.target_groups[colour]},
        )
        for colour in COLOURS
    }


def _answers(settings: Settings, watched: WatchedResources) -> list[Alarm]:
    """Return what users notice: errors of the load balancer, errors of the application, slow answers."""
    slowest = settings.monitoring and settings.monitoring.slowest_seconds
    seconds = slowest or settings.drain.longest_request
    shares = [
        Alarm(
            f"shopcat-{who}-errors",
            f"more than {BURN_PERCENT} % of answers are errors 5xx of {subject}, for 3 of 5 minutes",
            {
                "errors": _of_balancer(metric, "Sum", watched),
                "requests": _of_balancer("RequestCount", "Sum", watched),
            },
            "GreaterThanThreshold",
            threshold=BURN_PERCENT,
            datapoints=3,
            periods=5,
            expression=f"IF(errors >= {LEAST_ERRORS}, 100 * errors / {answered}, 0)",
        )
        for who, subject, metric, answered in (
            # A request for which no target was there is not in RequestCount.
            ("balancer", "the load balancer itself", "HTTPCode_ELB_5XX_Count", "(errors + FILL(requests, 0))"),
            ("application", "the application", "HTTPCode_Target_5XX_Count", "requests"),
        )
    ]
    slow = Alarm(
        "shopcat-slow-answers",
        f"one of a hundred answers takes more than {seconds:g} s, for 5 of 5 minutes",
        {"seconds": _of_balancer("TargetResponseTime", "p99", watched)},
        "GreaterThanThreshold",
        threshold=seconds,
        datapoints=5,
        periods=5,
    )
    return [*shares, slow] if seconds else shares


def _targets(settings: Settings, watched: WatchedResources) -> list[Alarm]:
    """Return what is wrong with the pods behind the load balancer."""
    enough = min(ENOUGH_TARGETS, settings.release.replicas)
    healthy, unhealthy = "HealthyHostCount", "UnHealthyHostCount"
    per_colour = {
        **_of_colours(healthy, "Maximum", watched, "healthy_"),
        **_of_colours(unhealthy, "Maximum", watched, "unhealthy_"),
    }
    blue, green = (f"FILL(healthy_{colour}, 0) + FILL(unhealthy_{colour}, 0)" for colour in COLOURS)
    live_targets = Alarm(
        "shopcat-live-targets",
        f"neither colour has {enough} healthy targets, for {MOVE_MINUTES} of {MOVE_MINUTES} minutes",
        _of_colours(healthy, "Minimum", watched),
        "LessThanThreshold",
        threshold=enough,
        datapoints=MOVE_MINUTES,
        periods=MOVE_MINUTES,
        missing="breaching",
        expression="IF(FILL(blue, 0) > FILL(green, 0), FILL(blue, 0), FILL(green, 0))",
    )
    both_colours = Alarm(
        "shopcat-both-colours",
        f"both colours have pods for {OPEN_MINUTES} minutes: a release is still open, or the old colour was not stopped",
        per_colour,
        "GreaterThanThreshold",
        threshold=0,
        datapoints=OPEN_MINUTES,
        periods=OPEN_MINUTES,
        expression=f"IF({blue} > 0, {green}, 0)",
    )
    if settings.keep_former:
        requests = _of_colours("RequestCount", "Sum", watched, "requests_")
        blue, green = (f"FILL(requests_{colour}, 0)" for colour in COLOURS)
        live_targets = replace(
            live_targets,
            summary=f"the colour with more requests has fewer than {enough} healthy targets, for {MOVE_MINUTES} of "
            f"{MOVE_MINUTES} minutes",
            metrics={**live_targets.metrics, **requests},
            expression=f"IF({blue} > {green}, FILL(blue, 0), IF({green} > {blue}, FILL(green, 0), "
            f"{live_targets.expression}))",
        )
        both_colours = replace(
            both_colours,
            summary=f"both colours get requests for {OPEN_MINUTES} minutes: a release is still open",
            metrics=requests,
            expression=f"IF({blue} > 0, {green}, 0)",
        )
    return [
        live_targets,
        Alarm(
            "shopcat-unhealthy-targets",
            "a target is unhealthy, for 10 of 10 minutes",
            _of_colours(unhealthy, "Maximum", watched),
            "GreaterThanThreshold",
            threshold=0,
            datapoints=10,
            periods=10,
            expression="FILL(blue, 0) + FILL(green, 0)",
        ),
        both_colours,
    ]


def _database_alarms(settings: Settings) -> list[Alarm]:
    """Return what is about to stop the database, or to cost more.

    With a restored instance the worse of both counts: a release moves users from one to the other, and changes no alarm.
    """
    database = settings.database
    instances = {"value": database.identifier}
    if database.restore:
        instances["restored"] = database.restored_identifier

    def worst(name: str, statistic: str, *, best: int = 0) -> dict[str, Any]:
        """Return a metric of the instances, and the math if there are two; ``best`` stands for one that is not there."""
        compare = "<" if best else ">"
        first, *others = (f"FILL({each}, {best})" for each in instances)
        return {
            "metrics": {
                each: WatchedMetric("AWS/RDS", name, statistic, {"DBInstanceIdentifier": identifier})
                for each, identifier in instances.items()
            },
            "expression": "".join(f"IF({first} {compare} {other}, {first}, {other})" for other in others),
        }

    connections = CONNECTIONS_SHARE * database.max_connections
    free = FREE_STORAGE_SHARE * database.storage_gibibytes
    found = [
        Alarm(
            "shopcat-database-cpu",
            f"the database uses more than {DATABASE_CPU_PERCENT} % of its CPU, for 10 of 10 minutes",
            comparison="GreaterThanThreshold",
            threshold=DATABASE_CPU_PERCENT,
            datapoints=10,
            periods=10,
            **worst("CPUUtilization", "Average"),
        ),
        Alarm(
            "shopcat-database-connections",
            f"more than {connections:g} of {database.max_connections} connections are open, for 5 of 5 minutes",
            comparison="GreaterThanThreshold",
            threshold=connections,
            datapoints=5,
            periods=5,
            **worst("DatabaseConnections", "Maximum"),
        ),
        Alarm(
            "shopcat-database-storage",
            f"the database has less than {free:g} GiB of storage left, for 10 of 10 minutes",
            comparison="LessThanThreshold",
            threshold=free * GIBIBYTE,
            datapoints=10,
            periods=10,
            **worst("FreeStorageSpace", "Minimum", best=database.storage_gibibytes * GIBIBYTE),
        ),
    ]
    if database.instance_class.startswith("db.t"):
        # RDS runs these classes in unlimited mode (docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Concepts.DBInstanceClass.Types
        # .html): an empty CPUCreditBalance slows nothing, and a new instance begins with one. What is paid for is this.
        found.append(
            Alarm(
                "shopcat-database-credits",
                "the database uses more CPU than its class includes, and AWS charges for it",
                comparison="GreaterThanThreshold",
                threshold=0,
                datapoints=3,
                periods=3,
                period_seconds=5 * MINUTE_SECONDS,
                **worst("CPUSurplusCreditsCharged", "Maximum"),
            )
        )
    return found


def _certificate(which: str, arn: pulumi.Input[str]) -> Alarm:
    """Return the alarm of a certificate that was not renewed; after its end there is no data, and the alarm stays."""
    return Alarm(
        f"shopcat-certificate-{which}",
        f"the certificate of {which} ends in less than {CERTIFICATE_DAYS} days and was not renewed",
        {"days": WatchedMetric("AWS/CertificateManager", "DaysToExpiry", "Minimum", {"CertificateArn": arn})},
        "LessThanThreshold",
        threshold=CERTIFICATE_DAYS,
        datapoints=1,
        periods=1,
        period_seconds=DAY_SECONDS,
        missing="ignore",
    )
