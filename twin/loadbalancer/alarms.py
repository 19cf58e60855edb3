"""The state of each alarm, from metrics: moto stores alarms and metrics, and evaluates none.

As CloudWatch does it (docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html, alarm-evaluation.html):

* Of the last N whole periods, M that breach are ALARM. Where periods are missing AWS looks at a few older ones instead; here each
  counts as `treatMissingData` says.
* `breaching` and `notBreaching` count a missing period so. `ignore` leaves the alarm as it is where a missing period decides.
  `missing` does the same, and is INSUFFICIENT_DATA where none of the periods has data.
* A metric alarm by metric queries: one metric, or one expression over metrics. The expression's subset is FILL with a number, IF,
  + - * /, comparisons, numbers. Anything else is refused by name.
* moto keeps no distribution. So the percentile of a minute of what PERCENTILES lists is a metric of its own, which the load
  balancer writes (`percentile_name`); any other percentile is refused by name.
"""

from __future__ import annotations

import ast
import datetime as dt
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from twin.errors import TwinError

Series = Sequence[float | None]
"""One value a period, the oldest first; None: no data."""
State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]

_ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_BREACHES: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
PERCENTILES = {"AWS/ApplicationELB": ("TargetResponseTime", "p99")}
"""Namespace → the metric and the percentile of it that is written (twin/loadbalancer/metrics.py)."""
PERIOD_SECONDS = 60
_STATISTICS = ("Sum", "Average", "Minimum", "Maximum", "SampleCount")


def calculate(expression: str, series: Mapping[str, Series], periods: int) -> list[float | None]:
    """Return the value of an expression in each period; None where a value that it needs is missing, or a divisor is 0.

    Args:
        expression: metric math.
        series: each metric's values, `periods` of them.
        periods: their number.

    Raises:
        TwinError: the expression has something that the subset lacks, or names no metric of the alarm.
    """
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise TwinError(
            f"metric math {expression!r} is not of the subset that twin/loadbalancer/alarms.py evaluates"
        ) from error
    return [_value(tree, {name: values[index] for name, values in series.items()}) for index in range(periods)]


def _value(node: ast.expr, values: Mapping[str, float | None]) -> float | None:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name) if name in values:
            return values[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            pair = _value(left, values), _value(right, values)
            return _apply(_ARITHMETIC[type(op)], *pair)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            pair = _value(left, values), _value(right, values)
            return _apply(_COMPARISONS[type(op)], *pair)
        case ast.Call(
            func=ast.Name(id="FILL"), args=[metric, ast.Constant(value=int() | float() as filler)], keywords=[]
        ):
            value = _value(metric, values)
            return float(filler) if value is None else value
        case ast.Call(func=ast.Name(id="IF"), args=[condition, then, otherwise], keywords=[]):
            # Both branches are looked at, so that neither hides what can't be evaluated.
            holds, *branches = (_value(each, values) for each in (condition, then, otherwise))
            return None if holds is None else branches[0 if holds else 1]
    raise TwinError(
        f"metric math {ast.unparse(node)!r} is not of the subset that twin/loadbalancer/alarms.py evaluates"
    )


def _apply(function: Callable[[float, float], float], left: float | None, right: float | None) -> float | None:
    if left is None or right is None or (function is operator.truediv and right == 0):
        return None
    return float(function(left, right))


def judge(values: Series, alarm: Mapping[str, Any]) -> State:
    """Return the state of an alarm by its last periods.

    Args:
        values: one for each of the alarm's `EvaluationPeriods`.
        alarm: as DescribeAlarms has it.
    """
    breaches = _BREACHES[alarm["ComparisonOperator"]]
    needed = alarm.get("DatapointsToAlarm") or alarm["EvaluationPeriods"]
    missing = alarm.get("TreatMissingData") or "missing"
    before: State = alarm.get("StateValue") or "INSUFFICIENT_DATA"
    breaching = sum(value is not None and breaches(value, alarm["Threshold"]) for value in values)
    gaps = sum(value is None for value in values)
    if missing == "missing" and gaps == len(values):
        return "INSUFFICIENT_DATA"
    if breaching + (gaps if missing == "breaching" else 0) >= needed:
        return "ALARM"
    if missing in ("missing", "ignore") and breaching + gaps >= needed:
        return before
    return "OK"


def declared(cloudwatch: Any) -> list[dict[str, Any]]:
    """Return every metric alarm as DescribeAlarms has it."""
    pages = cloudwatch.get_paginator("describe_alarms").paginate()
    return [alarm for page in pages for alarm in page["MetricAlarms"]]


def evaluate(cloudwatch: Any, now: dt.datetime) -> dict[str, State]:
    """Put the state of every metric alarm as of now, and return the states by the alarms' names.

    Args:
        cloudwatch: boto3 client.
        now: with a time zone; the period in which it lies is not whole and doesn't count.

    Raises:
        TwinError: alarms have something that is not evaluated here; they are named, and all others are put.
    """
    states: dict[str, State] = {}
    refused: list[str] = []
    for alarm in declared(cloudwatch):
        try:
            values = values_of(cloudwatch, alarm, now)
        except TwinError as error:
            refused.append(str(error))
            continue
        state = judge(values, alarm)
        states[alarm["AlarmName"]] = state
        if state != alarm["StateValue"]:
            cloudwatch.set_alarm_state(
                AlarmName=alarm["AlarmName"], StateValue=state, StateReason=f"the last periods have {list(values)}"
            )
    if refused:
        raise TwinError("; ".join(refused))
    return states


def shortened(alarm: Mapping[str, Any], periods: int) -> dict[str, Any]:
    """Return an alarm that looks at fewer periods, each of a minute: for a rehearsal, where a window of hours is too long."""
    cut = min(periods, int(alarm["EvaluationPeriods"]))
    needed = min(cut, int(alarm.get("DatapointsToAlarm") or alarm["EvaluationPeriods"]))
    metrics = [
        {**query, "MetricStat": {**query["MetricStat"], "Period": PERIOD_SECONDS}} if query.get("MetricStat") else query
        for query in alarm.get("Metrics") or []
    ]
    return {**alarm, "EvaluationPeriods": cut, "DatapointsToAlarm": needed, "Metrics": metrics}


def percentile_name(metric: str, statistic: str) -> str:
    """Return the name under which a percentile of each minute is written; CloudWatch has no such metric."""
    return f"{metric} {statistic}"


def values_of(cloudwatch: Any, alarm: Mapping[str, Any], now: dt.datetime) -> Series:
    """Return what an alarm compares in each of its periods, the last of which is the last whole one.

    Raises:
        TwinError: the alarm has something that is not evaluated here.
    """
    queries = alarm.get("Metrics") or []
    metrics = {query["Id"]: query["MetricStat"] for query in queries if query.get("MetricStat")}
    expressions = [query["Expression"] for query in queries if query.get("Expression")]
    lengths = {int(metric["Period"]) for metric in metrics.values()}
    if len(lengths) != 1 or len(expressions) > 1 or (not expressions and len(metrics) > 1):
        raise TwinError(
            f"alarm {alarm['AlarmName']}: only one metric, or one expression over metrics of one period, is evaluated here"
        )
    metrics = {name: _readable(metric, str(alarm["AlarmName"])) for name, metric in metrics.items()}
    (seconds,) = lengths
    series = _read(cloudwatch, metrics, seconds, int(alarm["EvaluationPeriods"]), now)
    if expressions:
        return calculate(expressions[0], series, int(alarm["EvaluationPeriods"]))
    return next(iter(series.values()))


def _readable(stat: Mapping[str, Any], alarm: str) -> Mapping[str, Any]:
    """Return a metric as moto can answer it: a percentile that is written by itself is read under its own name."""
    if stat["Stat"] in _STATISTICS:
        return stat
    metric = stat["Metric"]
    if PERCENTILES.get(metric["Namespace"]) != (metric["MetricName"], stat["Stat"]) or stat["Period"] != PERIOD_SECONDS:
        raise TwinError(f"alarm {alarm}: the statistic {stat['Stat']} is not evaluated here")
    name = percentile_name(metric["MetricName"], stat["Stat"])
    return {**stat, "Stat": "Maximum", "Metric": {**metric, "MetricName": name}}


def _read(
    cloudwatch: Any, metrics: Mapping[str, Any], seconds: int, count: int, now: dt.datetime
) -> dict[str, list[float | None]]:
    """Return each metric's values of the last whole periods.

    By GetMetricData: moto's GetMetricStatistics also takes what has more dimensions, and begins its periods at the first value.
    """
    end = int(now.timestamp()) // seconds * seconds
    begins = [end - seconds * (count - index) for index in range(count)]
    answer = cloudwatch.get_metric_data(
        MetricDataQueries=[{"Id": name, "MetricStat": metric, "ReturnData": True} for name, metric in metrics.items()],
        StartTime=dt.datetime.fromtimestamp(begins[0], dt.UTC),
        EndTime=dt.datetime.fromtimestamp(end, dt.UTC),
    )
    series = {}
    for result in answer["MetricDataResults"]:
        times = [int(time.timestamp()) for time in result["Timestamps"]]
        values = dict(zip(times, result["Values"], strict=True))
        series[result["Id"]] = [values.get(begin) for begin in begins]
    return series
