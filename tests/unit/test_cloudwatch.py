"""The load balancer's metrics as they are read: from the twin's own, by moto, and from answers in parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto import mock_aws

from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.release import cloudwatch
from infra.release.metrics import Group
from tests.unit.releases import REGION, client
from tests.unit.test_twin_loadbalancer import request
from twin.loadbalancer import metrics as twin_metrics

BALANCER = f"arn:aws:elasticloadbalancing:{REGION}:123456789012:loadbalancer/app/shopcat/1"
GROUPS: dict[Any, str] = {
    colour: f"arn:aws:elasticloadbalancing:{REGION}:123456789012:targetgroup/shopcat-{colour}/1"
    for colour in ("blue", "green")
}


def test_what_the_load_balancer_counts_is_read_by_group() -> None:
    served = [
        *[request()] * 7,
        *[request(group="green", status=status) for status in (200, 302, 404, 500, 503)],
        request(group="green", status=502, by_target=False, flags="SC"),
        request(group="green", status=504, by_target=False, flags="sH"),
        request(group="green", status=-1, by_target=False, flags="CH"),
        request(status=503, by_target=False, flags="LR", target=""),
    ]
    names = {colour: f"targetgroup/shopcat-{colour}/1" for colour in ("blue", "green")}
    minute = int(datetime.now(UTC).timestamp() // 60) - 3
    with mock_aws():
        clients = AwsClients(REGION)
        clients._clients = {"cloudwatch": client("cloudwatch")}
        clients.session = object()
        data = twin_metrics.metric_data(twin_metrics.count(served, "app/shopcat/1", names), minute)
        clients.get("cloudwatch").put_metric_data(Namespace=twin_metrics.CLOUDWATCH_NAMESPACE, MetricData=data)
        start = datetime.fromtimestamp(minute * 60, UTC)
        reading = cloudwatch.read_metrics(
            clients, BALANCER, GROUPS, start - timedelta(minutes=5), start + timedelta(minutes=2)
        )
    assert not reading.incomplete
    (found,) = reading.minutes
    assert found.start == start
    assert found.groups == {"blue": Group(7, 7), "green": Group(8, 3, 2, 1)}
    assert (found.bad_gateway, found.no_target, found.client_errors) == (2, 1, 1)


class Pages:
    """CloudWatch that answers in pages: each a status by metric, and whether it has points."""

    def __init__(self, *pages: dict[str, str], messages: list[dict[str, str]] | None = None) -> None:
        self.pages, self.messages = pages, messages or []

    def get_paginator(self, _: str) -> Pages:
        return self

    def paginate(self, MetricDataQueries: list[dict[str, Any]], **_: Any) -> Any:  # noqa: N803
        for page in self.pages:
            yield {
                "Messages": self.messages,
                "MetricDataResults": [
                    {"Id": query["Id"], "StatusCode": status, "Timestamps": [], "Values": []}
                    for query in MetricDataQueries
                    if (status := page.get(query["MetricStat"]["Metric"]["MetricName"], page.get("", "")))
                ],
            }


def incomplete(pages: Pages) -> list[str]:
    clients = AwsClients(REGION)
    clients._clients = {"cloudwatch": pages}
    clients.session = object()
    now = datetime.now(UTC)
    return list(cloudwatch.read_metrics(clients, BALANCER, GROUPS, now - timedelta(minutes=5), now).incomplete)


def test_an_answer_is_complete_when_each_metric_says_so_at_last() -> None:
    whole = {"": "Complete"}
    assert incomplete(Pages(whole)) == []
    assert incomplete(Pages({"": "PartialData"}, whole)) == []
    failed = "HTTPCode_ELB_502_Count"
    assert incomplete(Pages({**whole, failed: "InternalError"})) == [f"{failed.lower()}: InternalError"]
    assert incomplete(Pages(whole, {failed: "PartialData"})) == [f"{failed.lower()}: PartialData"]
    assert incomplete(Pages({failed: "Complete"}))[0] == "httpcode_elb_504_count: no answer"
    assert incomplete(Pages(whole, messages=[{"Code": "X", "Value": "Maximum number of metrics"}]))[0].startswith("Max")


def test_the_time_is_that_of_the_answer() -> None:
    date = "Tue, 24 Nov 2026 10:00:07 GMT"
    answer = {"ResponseMetadata": {"HTTPHeaders": {"date": date}}}
    assert cloudwatch.aws_time(answer) == datetime(2026, 11, 24, 10, 0, 7, tzinfo=UTC)


@pytest.mark.parametrize("headers", [{}, {"date": ""}, {"date": "yesterday"}])
def test_an_answer_without_a_time_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ShopCatError, match="so its time is unknown"):
        cloudwatch.aws_time({"ResponseMetadata": {"HTTPHeaders": headers}})
