"""CloudWatch's metrics by which the requests of a load balancer are counted, for each kind of load balancer.

Sources: docs.aws.amazon.com/elasticloadbalancing/latest/<kind>/, load-balancer-cloudwatch-metrics.html of `application` and
`network`, elb-cloudwatch-metrics.html of `classic`. A metric that is missing counts as 0 only while another is there, so each
kind has one that is reported without requests too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra.commands.traffic_move.records import Edge, EdgeKind

PERIOD_SECONDS = 300
"""CloudWatch keeps periods of five minutes for 63 days (API reference, GetMetricData)."""
_NAMESPACES = {
    EdgeKind.APPLICATION: "AWS/ApplicationELB",
    EdgeKind.NETWORK: "AWS/NetworkELB",
    EdgeKind.CLASSIC: "AWS/ELB",
}
_METRICS: dict[EdgeKind, dict[str, tuple[str, str]]] = {
    EdgeKind.APPLICATION: {
        "requests": ("RequestCount", "Sum"),
        "without_target": ("HTTPCode_ELB_503_Count", "Sum"),
        "capacity": ("ConsumedLCUs", "Sum"),  # always reported
    },
    EdgeKind.NETWORK: {
        "requests": ("NewFlowCount", "Sum"),
        "open": ("ActiveFlowCount", "Maximum"),  # always reported; a client may keep one connection for days
    },
    EdgeKind.CLASSIC: {
        "requests": ("RequestCount", "Sum"),  # of a TCP listener: connections made
        "without_target": (
            "HTTPCode_ELB_5XX",
            "Sum",
        ),  # of the load balancer's own: no healthy instance, or its queue is full
        "healthy": ("HealthyHostCount", "Maximum"),  # reported while instances are registered
        "unhealthy": ("UnHealthyHostCount", "Maximum"),
    },
}
"""Kind → name of the query → metric and statistic."""


def metric_queries(edge: Edge, target_groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the queries for one load balancer by their ids.

    Args:
        edge: the load balancer.
        target_groups: ARNs of an Application Load Balancer's, whose host counts are always reported.
    """
    name = "LoadBalancerName" if edge.kind is EdgeKind.CLASSIC else "LoadBalancer"
    value = edge.name if edge.kind is EdgeKind.CLASSIC else edge.arn.partition(":loadbalancer/")[2]
    balancer = {"Name": name, "Value": value}
    metrics = {key: (*metric, [balancer]) for key, metric in _METRICS[edge.kind].items()}
    for number, arn in enumerate(target_groups):
        group = {"Name": "TargetGroup", "Value": arn.rpartition(":")[2]}
        for metric in ("HealthyHostCount", "UnHealthyHostCount"):
            metrics[f"{metric[0].lower()}{number}"] = (metric, "Maximum", [balancer, group])
    return {
        key: {
            "Id": key,
            "MetricStat": {
                "Metric": {"Namespace": _NAMESPACES[edge.kind], "MetricName": metric, "Dimensions": dimensions},
                "Period": PERIOD_SECONDS,
                "Stat": statistic,
            },
        }
        for key, (metric, statistic, dimensions) in metrics.items()
    }
