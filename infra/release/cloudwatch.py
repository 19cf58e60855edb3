"""Read the load balancer's counts from CloudWatch, and the time from AWS: a local clock may be minutes off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from infra.clients.aws import AwsClients
from infra.errors import TrafficError
from infra.names import Colour
from infra.release.metrics import Group, Minute, Reading

_METRICS_NAMESPACE = "AWS/ApplicationELB"
_COMPLETE = "Complete"
_GOOD = tuple(f"HTTPCode_Target_{digit}XX_Count" for digit in (2, 3, 4))
_ERRORS, _REFUSED, _REQUESTS = "HTTPCode_Target_5XX_Count", "TargetConnectionErrorCount", "RequestCount"
_BAD_GATEWAY = ("HTTPCode_ELB_502_Count", "HTTPCode_ELB_504_Count")
_NO_TARGET, _CLIENT_ERRORS = "HTTPCode_ELB_503_Count", "HTTPCode_ELB_4XX_Count"


def aws_time(response: Mapping[str, Any]) -> datetime:
    """Return the moment of AWS's answer by its own clock: the response's Date.

    Raises:
        ShopCatError: the response has none, or something that is no date.
    """
    date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(date).astimezone(UTC)
    except (TypeError, ValueError):
        raise TrafficError(
            f"AWS's answer has the Date {date!r}, so its time is unknown and no minute of metrics can be counted; look at "
            "what stands between this machine and AWS"
        ) from None


def read_metrics(
    clients: AwsClients, load_balancer_arn: str, groups: Mapping[Colour, str], start: datetime, end: datetime
) -> Reading:
    """Read the whole minutes between two moments for which there is any count."""
    balancer = {"Name": "LoadBalancer", "Value": load_balancer_arn.partition(":loadbalancer/")[2]}
    queries: dict[str, tuple[str, Colour | None, list[dict[str, str]]]] = {}
    for metric in (*_BAD_GATEWAY, _NO_TARGET, _CLIENT_ERRORS):
        queries[metric.lower()] = (metric, None, [balancer])
    for colour, arn in groups.items():
        group = {"Name": "TargetGroup", "Value": arn.rpartition(":")[2]}
        for metric in (_REQUESTS, *_GOOD, _ERRORS, _REFUSED):
            queries[f"{metric.lower()}_{colour}"] = (metric, colour, [balancer, group])
    request: dict[str, Any] = {
        "MetricDataQueries": [
            {
                "Id": query,
                "MetricStat": {
                    "Metric": {"Namespace": _METRICS_NAMESPACE, "MetricName": metric, "Dimensions": dimensions},
                    "Period": 60,
                    "Stat": "Sum",
                },
            }
            for query, (metric, _, dimensions) in queries.items()
        ],
        "StartTime": start,
        "EndTime": end,
    }
    status = dict.fromkeys(queries, "no answer")
    notes: list[str] = []
    values: defaultdict[datetime, dict[tuple[str, Colour | None], int]] = defaultdict(dict)
    for page in clients.get("cloudwatch").get_paginator("get_metric_data").paginate(**request):
        notes += [str(note.get("Value") or note.get("Code")) for note in page.get("Messages", [])]
        for result in page["MetricDataResults"]:
            metric, owner, _ = queries[result["Id"]]
            status[result["Id"]] = result.get("StatusCode", "no status")
            for at, value in zip(result["Timestamps"], result["Values"], strict=True):
                values[at.astimezone(UTC)][metric, owner] = round(value)
    minutes = [_minute(at, values[at], groups) for at in sorted(values) if start <= at < end]
    incomplete = [f"{query}: {code}" for query, code in status.items() if code != _COMPLETE]
    return Reading(tuple(minutes), (*notes, *incomplete))


def _minute(start: datetime, values: Mapping[tuple[str, Colour | None], int], groups: Mapping[Colour, str]) -> Minute:
    def count(*metrics: str, of: Colour | None = None) -> int:
        return sum(values.get((metric, of), 0) for metric in metrics)

    return Minute(
        start,
        {
            colour: Group(
                requests=count(_REQUESTS, of=colour),
                good=count(*_GOOD, of=colour),
                errors=count(_ERRORS, of=colour),
                refused=count(_REFUSED, of=colour),
            )
            for colour in groups
        },
        bad_gateway=count(*_BAD_GATEWAY),
        no_target=count(_NO_TARGET),
        client_errors=count(_CLIENT_ERRORS),
    )
