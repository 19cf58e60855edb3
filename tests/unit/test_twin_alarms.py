"""The twin's alarms: CloudWatch's rules told a second time, and each alarm of the program fired once and kept quiet once."""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from infra.foundation.alarms import Alarm, WatchedMetric
from tests.unit.test_alarms import ALARMS, committed, monitored, named
from twin.errors import TwinError
from twin.loadbalancer.alarms import Series, calculate, declared, evaluate, judge, percentile_name, shortened, values_of
from twin.loadbalancer.metrics import slowest_share
from twin.plugins.aws.monitoring import MetricAlarm

NOW = dt.datetime(2026, 11, 24, 10, 0, 30, tzinfo=dt.UTC)
values = st.one_of(st.none(), st.integers(-3, 3).map(float))
series = st.lists(values, min_size=1, max_size=6)


# Metric math ----------------------------------------------------------------------------------------------------------


def _retold(a: float | None, b: float | None) -> float | None:
    """`IF(FILL(a, 0) > b, b - 1, a / b)`, by hand."""
    if b is None:
        return None
    if (0.0 if a is None else a) > b:
        return b - 1
    return None if a is None or b == 0 else a / b


@given(st.lists(st.tuples(values, values), min_size=1, max_size=6))
def test_an_expression_is_calculated_period_by_period(pairs: list[tuple[float | None, float | None]]) -> None:
    both = {"a": [a for a, _ in pairs], "b": [b for _, b in pairs]}
    found = calculate("IF(FILL(a, 0) > b, b - 1, a / b)", both, len(pairs))
    assert found == [_retold(a, b) for a, b in pairs]


@pytest.mark.parametrize(
    "expression",
    [
        "FILL(a, REPEAT)",
        "FILL(a, -1)",
        "MAX([a, a])",
        "ANOMALY_DETECTION_BAND(a)",
        "a if a else a",
        "a.b",
        "a ** 2",
        "1 < a < 2",
        "unknown + 1",
        "IF(a, 1)",
        "FILL(a, value=1)",
        "SELECT AVG(x)",
        "True",
        "'text'",
        "a +",
        "__import__('os')",
        "IF(1, a, RATE(a))",
    ],
)
def test_math_outside_of_the_subset_is_refused(expression: str) -> None:
    with pytest.raises(TwinError, match=r"is not of the subset that twin/loadbalancer/alarms\.py evaluates"):
        calculate(expression, {"a": [1.0]}, 1)


# States ---------------------------------------------------------------------------------------------------------------


def _told(values: Series, needed: int, missing: str, before: str) -> str:
    """By trying: what the state would be if each gap breached, and if none did."""
    if missing == "missing" and all(value is None for value in values):
        return "INSUFFICIENT_DATA"
    worst = sum(1 for value in values if value is None or value > 0) >= needed
    best = sum(1 for value in values if value is not None and value > 0) >= needed
    if missing == "breaching":
        return "ALARM" if worst else "OK"
    if missing == "notBreaching" or worst == best:
        return "ALARM" if best else "OK"
    return before


@given(
    series,
    st.data(),
    st.sampled_from(["missing", "breaching", "notBreaching", "ignore"]),
    st.sampled_from(["OK", "ALARM", "INSUFFICIENT_DATA"]),
)
def test_a_state_follows_cloudwatch_s_rules(found: Series, data: st.DataObject, missing: str, before: str) -> None:
    needed = data.draw(st.integers(1, len(found)))
    alarm = {
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 0.0,
        "EvaluationPeriods": len(found),
        "DatapointsToAlarm": needed,
        "TreatMissingData": missing,
        "StateValue": before,
    }
    assert judge(found, alarm) == _told(found, needed, missing, before)


@pytest.mark.parametrize(
    ("comparison", "states"),
    [
        ("GreaterThanThreshold", ["OK", "OK", "ALARM"]),
        ("GreaterThanOrEqualToThreshold", ["OK", "ALARM", "ALARM"]),
        ("LessThanThreshold", ["ALARM", "OK", "OK"]),
        ("LessThanOrEqualToThreshold", ["ALARM", "ALARM", "OK"]),
    ],
)
def test_a_comparison_says_on_which_side_a_value_is(comparison: str, states: list[str]) -> None:
    alarm = {"ComparisonOperator": comparison, "Threshold": 2.0, "EvaluationPeriods": 1}
    assert [judge([value], alarm) for value in (1.0, 2.0, 3.0)] == states


# The program's alarms -------------------------------------------------------------------------------------------------

Data = Mapping[str, float | None]
"""Name of a metric in its alarm → value in every period; None: no data."""
GIB = float(1 << 30)
CASES: Mapping[str, tuple[list[Data], list[Data]]] = {
    "shopcat-balancer-errors": (
        [{"errors": 20, "requests": 980}, {"errors": 5, "requests": None}],
        [{"errors": 14, "requests": 986}, {"errors": 4, "requests": 1}, {"errors": None, "requests": 500}],
    ),
    "shopcat-application-errors": (
        [{"errors": 15, "requests": 1000}, {"errors": 5, "requests": 5}],
        [{"errors": 14, "requests": 1000}, {"errors": 4, "requests": 4}, {"errors": None, "requests": None}],
    ),
    "shopcat-live-targets": (
        [
            {"blue": 1, "green": None},
            {"blue": 1, "green": 1},
            {"blue": None, "green": 0},
            {"blue": None, "green": None},
        ],
        [{"blue": 2, "green": None}, {"blue": None, "green": 2}, {"blue": 0, "green": 3}, {"blue": 2, "green": 2}],
    ),
    "shopcat-unhealthy-targets": (
        [{"blue": 1, "green": None}, {"blue": 0, "green": 1}],
        [{"blue": 0, "green": None}, {"blue": 0, "green": 0}, {"blue": None, "green": None}],
    ),
    "shopcat-both-colours": (
        [
            {"healthy_blue": 2, "unhealthy_blue": 0, "healthy_green": 2, "unhealthy_green": 0},
            {"healthy_blue": 2, "unhealthy_blue": 0, "healthy_green": 0, "unhealthy_green": 2},
        ],
        [
            {"healthy_blue": 2, "unhealthy_blue": 1, "healthy_green": None, "unhealthy_green": None},
            {"healthy_blue": None, "unhealthy_blue": None, "healthy_green": 3, "unhealthy_green": 0},
        ],
    ),
    "shopcat-secrets-not-synced": ([{"failures": 1}], [{"failures": 0}, {"failures": None}]),
    "shopcat-unschedulable-pods": ([{"pods": 1}], [{"pods": 0}, {"pods": None}]),
    "shopcat-slow-answers": ([{"seconds": 31.0}], [{"seconds": 30.0}, {"seconds": None}]),
    "shopcat-node-not-ready": ([{"lines": 48}], [{"lines": None}]),
    "shopcat-restart-loop": ([{"lines": 1}], [{"lines": None}]),
    "shopcat-clean-up": ([{"unclosed": 1}, {"unclosed": None}], [{"unclosed": 0}]),
    "shopcat-database-cpu": ([{"value": 95}], [{"value": 90}, {"value": None}]),
    "shopcat-database-connections": ([{"value": 102}], [{"value": 60}]),
    "shopcat-database-storage": ([{"value": 1.9 * GIB}], [{"value": 2 * GIB}]),
    "shopcat-database-credits": ([{"value": 0.5}], [{"value": 0}]),
    "shopcat-certificate-production": ([{"days": 29}], [{"days": 30}]),
    "shopcat-certificate-previews": ([{"days": 0}], [{"days": 300}]),
}
"""Alarm → data that make it fire, and data that keep it quiet."""


def test_every_alarm_has_data_that_make_it_fire_and_data_that_do_not() -> None:
    assert set(CASES) == set(ALARMS)
    assert all(firing and quiet for firing, quiet in CASES.values())


@cache
def _client() -> Any:
    return boto3.client(
        "cloudwatch", region_name="eu-central-1", aws_access_key_id="test", aws_secret_access_key="test"
    )


@pytest.fixture
def cloudwatch() -> Iterator[Any]:
    """An empty CloudWatch behind one client, which takes longer to make than a test."""
    with mock_aws():
        yield _client()


def _query(name: str, metric: WatchedMetric, alarm: Alarm) -> dict[str, Any]:
    inner = {"namespace": metric.namespace, "metricName": metric.name, "stat": metric.statistic}
    inner |= {"period": float(alarm.period_seconds), "dimensions": dict(metric.dimensions)}
    return {"id": name, "metric": inner, "returnData": not alarm.expression}


def _put_alarm(client: Any, alarm: Alarm) -> None:
    """As the stand-in of the aws plugin does it with what the program declares."""
    queries = [_query(name, metric, alarm) for name, metric in alarm.metrics.items()]
    if alarm.expression:
        queries.append({"id": "result", "expression": alarm.expression, "returnData": True})
    inputs = {
        "name": alarm.name,
        "comparisonOperator": alarm.comparison,
        "threshold": alarm.threshold,
        "evaluationPeriods": float(alarm.periods),
        "datapointsToAlarm": float(alarm.datapoints),
        "treatMissingData": alarm.missing,
        "metricQueries": queries,
    }
    MetricAlarm().create(lambda _: client, inputs)  # type: ignore[arg-type]


def _put_data(client: Any, alarm: Alarm, data: Data, periods: int, now: dt.datetime = NOW) -> None:
    end = int(now.timestamp()) // alarm.period_seconds * alarm.period_seconds
    for name, value in data.items():
        metric = alarm.metrics[name]
        entry = {
            "MetricName": percentile_name(metric.name, "p99") if metric.statistic == "p99" else metric.name,
            "Dimensions": [{"Name": key, "Value": str(each)} for key, each in metric.dimensions.items()],
            "Value": value,
        }
        times = [
            dt.datetime.fromtimestamp(end - alarm.period_seconds * (index + 1), dt.UTC) for index in range(periods)
        ]
        if value is not None and times:
            entries = [{**entry, "Timestamp": time} for time in times]
            client.put_metric_data(Namespace=metric.namespace, MetricData=entries)


def _state(client: Any) -> str:
    (alarm,) = client.describe_alarms()["MetricAlarms"]
    return str(alarm["StateValue"])


@pytest.mark.parametrize(
    ("name", "data", "state"),
    [
        *((name, data, "ALARM") for name, (firing, _) in CASES.items() for data in firing),
        *((name, data, "OK") for name, (_, quiet) in CASES.items() for data in quiet),
    ],
)
def test_an_alarm_fires_on_bad_data_and_is_quiet_on_good(cloudwatch: Any, name: str, data: Data, state: str) -> None:
    alarm = ALARMS[name]
    _put_alarm(cloudwatch, alarm)
    _put_data(cloudwatch, alarm, data, alarm.periods)
    assert evaluate(cloudwatch, NOW) == {name: state}
    assert _state(cloudwatch) == state


@pytest.mark.parametrize("name", [name for name, alarm in ALARMS.items() if alarm.missing == "breaching"])
def test_an_alarm_about_what_is_not_there_leaves_no_period_missing(name: str) -> None:
    """Else CloudWatch looks at older periods first, and tells that much later."""
    alarm = ALARMS[name]
    values = calculate(alarm.expression, {metric: [None, None] for metric in alarm.metrics}, 2)
    assert (
        judge(values, {"ComparisonOperator": alarm.comparison, "Threshold": alarm.threshold, "EvaluationPeriods": 2})
        == "ALARM"
    )
    assert None not in values


def _kept(blue: tuple[float | None, float | None], green: tuple[float | None, float | None]) -> Data:
    """Requests and healthy targets of each colour."""
    return {"requests_blue": blue[0], "blue": blue[1], "requests_green": green[0], "green": green[1]}


@pytest.mark.parametrize(
    ("name", "data", "state"),
    [
        ("shopcat-live-targets", _kept((900, 1), (None, 2)), "ALARM"),
        ("shopcat-live-targets", _kept((3, 2), (900, 0)), "ALARM"),
        ("shopcat-live-targets", _kept((900, 2), (None, None)), "OK"),
        ("shopcat-live-targets", _kept((None, 1), (900, 2)), "OK"),
        ("shopcat-live-targets", _kept((None, 1), (None, 2)), "OK"),
        ("shopcat-live-targets", _kept((None, 1), (None, None)), "ALARM"),
        ("shopcat-both-colours", {"requests_blue": 900, "requests_green": 100}, "ALARM"),
        ("shopcat-both-colours", {"requests_blue": 900, "requests_green": None}, "OK"),
        ("shopcat-both-colours", {"requests_blue": None, "requests_green": 900}, "OK"),
    ],
)
def test_with_a_kept_former_the_live_colour_is_the_one_with_more_requests(
    cloudwatch: Any, name: str, data: Data, state: str
) -> None:
    alarm = named(monitored(keepFormer=True))[name]
    _put_alarm(cloudwatch, alarm)
    _put_data(cloudwatch, alarm, data, alarm.periods)
    assert evaluate(cloudwatch, NOW) == {name: state}


@pytest.mark.parametrize("lost", ["value", "restored", ""])
@pytest.mark.parametrize("worse", ["value", "restored"])
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("shopcat-database-")])
def test_beside_a_restored_database_the_worse_of_both_counts(cloudwatch: Any, name: str, worse: str, lost: str) -> None:
    at = "2026-11-01T12:00:00Z"
    alarm = named(monitored(database={**committed()["database"], "restore": {"at": at}}))[name]
    ((firing, *_), (quiet, *_)) = CASES[name]
    data = {each: (firing if each == worse else quiet)["value"] for each in alarm.metrics}
    data |= {lost: None} if lost else {}
    _put_alarm(cloudwatch, alarm)
    _put_data(cloudwatch, alarm, data, alarm.periods)
    assert evaluate(cloudwatch, NOW) == {name: "OK" if lost == worse else "ALARM"}


@pytest.mark.parametrize("name", CASES)
def test_one_period_less_than_asked_for_is_quiet(cloudwatch: Any, name: str) -> None:
    alarm = ALARMS[name]
    if alarm.datapoints == 1 or alarm.missing == "breaching":
        pytest.skip("a single period decides, or one without data breaches")
    _put_alarm(cloudwatch, alarm)
    _put_data(cloudwatch, alarm, CASES[name][0][0], alarm.datapoints - 1)
    assert evaluate(cloudwatch, NOW) == {name: "OK"}


def test_an_alarm_is_over_when_its_data_are_good_again(cloudwatch: Any) -> None:
    alarm = ALARMS["shopcat-database-cpu"]
    _put_alarm(cloudwatch, alarm)
    _put_data(cloudwatch, alarm, {"value": 99.0}, alarm.periods)
    assert evaluate(cloudwatch, NOW) == {alarm.name: "ALARM"}
    assert evaluate(cloudwatch, NOW + dt.timedelta(minutes=alarm.periods)) == {alarm.name: "OK"}
    assert _state(cloudwatch) == "OK"


def test_a_certificate_s_alarm_stays_after_its_end(cloudwatch: Any) -> None:
    """ACM writes nothing of a certificate that has ended."""
    alarm = ALARMS["shopcat-certificate-production"]
    _put_alarm(cloudwatch, alarm)
    _put_data(cloudwatch, alarm, {"days": 1.0}, 1)
    assert evaluate(cloudwatch, NOW) == {alarm.name: "ALARM"}
    assert evaluate(cloudwatch, NOW + dt.timedelta(days=9)) == {alarm.name: "ALARM"}


def test_a_metric_of_one_colour_is_none_of_the_whole_load_balancer(cloudwatch: Any) -> None:
    alarm = ALARMS["shopcat-application-errors"]
    _put_alarm(cloudwatch, alarm)
    for index in range(1, 6):
        cloudwatch.put_metric_data(
            Namespace="AWS/ApplicationELB",
            MetricData=[
                {
                    "MetricName": name,
                    "Dimensions": [
                        {"Name": "LoadBalancer", "Value": "app/shopcat/1"},
                        {"Name": "TargetGroup", "Value": "targetgroup/shopcat-blue/2"},
                    ],
                    "Timestamp": NOW.replace(second=0) - dt.timedelta(minutes=index),
                    "Value": 100.0,
                }
                for name in ("HTTPCode_Target_5XX_Count", "RequestCount")
            ],
        )
    assert evaluate(cloudwatch, NOW) == {alarm.name: "OK"}


@pytest.mark.parametrize(
    ("namespace", "name", "statistic", "seconds"),
    [
        ("AWS/ApplicationELB", "TargetResponseTime", "p95", 60),
        ("AWS/ApplicationELB", "TargetResponseTime", "p99", 300),
        ("AWS/ApplicationELB", "RequestCount", "p99", 60),
        ("AWS/RDS", "TargetResponseTime", "p99", 60),
    ],
)
def test_a_percentile_that_nobody_writes_is_refused_by_name_and_the_others_are_put(
    cloudwatch: Any, namespace: str, name: str, statistic: str, seconds: int
) -> None:
    other = ALARMS["shopcat-database-cpu"]
    unread = {"v": WatchedMetric(namespace, name, statistic, {})}
    for alarm in (Alarm("unread", "", unread, "GreaterThanThreshold", 1, 1, 1, period_seconds=seconds), other):
        _put_alarm(cloudwatch, alarm)
    _put_data(cloudwatch, other, {"value": 99.0}, other.periods)
    with pytest.raises(TwinError, match=f"alarm unread: the statistic {statistic} is not evaluated here"):
        evaluate(cloudwatch, NOW)
    states = {each["AlarmName"]: each["StateValue"] for each in cloudwatch.describe_alarms()["MetricAlarms"]}
    assert states[other.name] == "ALARM"
    assert states["unread"] != "ALARM"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(took: list[float], percent: int) -> None:
    found = slowest_share(took, percent)
    assert found in took
    assert sum(each <= found for each in took) * 100 >= percent * len(took)
    assert sum(each < found for each in took) * 100 < percent * len(took)


@pytest.mark.parametrize("name", CASES)
def test_a_shortened_alarm_fires_on_the_same_data_within_as_many_minutes(cloudwatch: Any, name: str) -> None:
    _put_alarm(cloudwatch, ALARMS[name])
    for index, (data, state) in enumerate([(CASES[name][0][0], "ALARM"), (CASES[name][1][0], "OK")]):
        minute = replace(ALARMS[name], period_seconds=60)
        now = NOW + dt.timedelta(minutes=5 * index)
        _put_data(cloudwatch, minute, data, 2, now)
        cut = shortened(declared(cloudwatch)[0], 2)
        assert judge(values_of(cloudwatch, cut, now), cut) == state


def test_an_alarm_that_compares_two_series_is_refused(cloudwatch: Any) -> None:
    stat = {"Metric": {"Namespace": "n", "MetricName": "m"}, "Period": 60, "Stat": "Sum"}
    cloudwatch.put_metric_alarm(
        AlarmName="two",
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
        Threshold=1,
        Metrics=[{"Id": name, "MetricStat": stat, "ReturnData": True} for name in ("a", "b")],
    )
    with pytest.raises(TwinError, match="alarm two: only one metric, or one expression"):
        evaluate(cloudwatch, NOW)
