"""CloudWatch metrics, as late and as sparse as the real ones: whole minutes, well after they ended, no zeros.

Metrics and dimensions as in AWS's "CloudWatch metrics for your Application Load Balancer". Points exist only for
minutes with requests ("Elastic Load Balancing reports metrics to CloudWatch only when requests are flowing through the
load balancer"), and error counts only where they are not zero ("Reporting criteria: There is a nonzero value"). A minute's
errors have a delay of their own, so they come before or after its requests: AWS doesn't say that they come together. The
counts of healthy and unhealthy targets come every minute for a group that has targets, with or without requests.

Of the time that targets take to answer there is one number, the 99th percentile of each minute and load balancer (nearest rank;
CloudWatch interpolates), under a name of its own: moto keeps no distribution (twin/loadbalancer/alarms.py).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twin.config import Twin
from twin.errors import TwinError
from twin.loadbalancer import alarms
from twin.loadbalancer.access_log import Request, Tail
from twin.loadbalancer.elb import AWS_ERRORS
from twin.loadbalancer.engine import Engine

_log = logging.getLogger(__name__)

CLOUDWATCH_NAMESPACE = "AWS/ApplicationELB"
RESPONSE_TIME, PERCENTILE = alarms.PERCENTILES[CLOUDWATCH_NAMESPACE]
_READ_SECONDS = 2.0
_WRITTEN = "metrics.jsonl"
"""Log of the minutes written to CloudWatch, each with the time of writing."""

Dimensions = tuple[tuple[str, str], ...]
Counts = Counter[tuple[str, Dimensions]]
HostCount = tuple[str, str, int, int]
"""Load balancer and target group as CloudWatch dimensions, healthy and unhealthy targets."""


def count(requests: Iterable[Request], load_balancer: str, groups: Mapping[str, str]) -> Counts:
    """Metric values of a bunch of requests.

    Args:
        requests: what one load balancer's nodes saw.
        load_balancer: its CloudWatch dimension.
        groups: target group name → CloudWatch dimension.
    """
    counts: Counts = Counter()
    whole: Dimensions = (("LoadBalancer", load_balancer),)
    for request in requests:
        group = groups.get(request.group)
        per_group: Dimensions = (("LoadBalancer", load_balancer), ("TargetGroup", group)) if group else ()
        scopes = [whole, per_group] if per_group else [whole]
        status = request.elb_status
        if request.by_target:
            for scope in scopes:
                counts[f"HTTPCode_Target_{status // 100}XX_Count", scope] += 1
        else:
            if status in (460, 500, 502, 503, 504):
                counts[f"HTTPCode_ELB_{status}_Count", whole] += 1
            if 400 <= status < 600:
                counts[f"HTTPCode_ELB_{status // 100}XX_Count", whole] += 1
        if request.connection_failed:
            for scope in scopes:
                counts["TargetConnectionErrorCount", scope] += 1
        # "the number of requests ... where the load balancer node was able to choose a target"
        if request.target:
            for scope in scopes:
                counts["RequestCount", scope] += 1
    return counts


def slowest_share(seconds: Sequence[float], percent: int) -> float:
    """Return a percentile by nearest rank: the smallest value that so many in a hundred values don't exceed."""
    ordered = sorted(seconds)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def metric_data(counts: Mapping[tuple[str, Dimensions], float], minute: int) -> list[dict[str, Any]]:
    """PutMetricData's entries for one whole minute (minutes since the epoch)."""
    timestamp = dt.datetime.fromtimestamp(minute * 60, dt.UTC)
    return [
        {
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions],
            "Timestamp": timestamp,
            "Value": float(value),
            "Unit": "Seconds" if name.startswith(RESPONSE_TIME) else "Count",
        }
        for (name, dimensions), value in sorted(counts.items())
    ]


class Metrics:
    """Follows the nodes' logs and writes each minute's points once its delay is over."""

    def __init__(self, twin: Twin, engine: Engine, cloudwatch: Any, seed: int) -> None:
        self._twin = twin
        self._engine = engine
        self._cloudwatch = cloudwatch
        self._random = random.Random(seed + 1)  # noqa: S311 - delays, not secrets
        self._tails: dict[str, Tail] = {}
        self._minutes: dict[int, Counts] = {}
        self._seconds: dict[tuple[int, Dimensions], list[float]] = {}
        """Minute and load balancer → the time that each answer of a target took."""
        self._due: dict[tuple[int, bool], float] = {}
        self._hosts_minute = 0

    async def run_forever(self) -> None:
        """Read and write until cancelled, and put the states of alarms each minute."""
        evaluated = 0
        while True:
            await asyncio.sleep(_READ_SECONDS)
            try:
                await asyncio.to_thread(self.step, time.time(), self._engine.host_counts())
                now = dt.datetime.now(dt.UTC)
                if evaluated != (evaluated := int(now.timestamp()) // 60):
                    await asyncio.to_thread(alarms.evaluate, self._cloudwatch, now)
            except TwinError as error:
                _log.warning("alarms: %s", error)
            except AWS_ERRORS as error:
                _log.warning("metrics: %s", error)
            except Exception:
                _log.exception("metrics")

    def step(self, now: float, hosts: Sequence[HostCount] = ()) -> None:
        """Take in new requests and a new minute's counts of targets, and write what is due.

        Raises:
            ClientError: CloudWatch refused; tried again at the next step.
        """
        for name, load_balancer, groups in self._engine.metric_sources():
            log = self._twin.logs / f"{name}.log"
            tail = self._tails.setdefault(name, Tail(log))
            for request in tail.new():
                # A request belongs to the minute in which it ended.
                minute = (request.received_ms + max(0, request.total_ms)) // 60_000
                self._minutes.setdefault(minute, Counter()).update(count([request], load_balancer, groups))
                if request.by_target:
                    whole: Dimensions = (("LoadBalancer", load_balancer),)
                    self._seconds.setdefault((minute, whole), []).append(request.response_ms / 1000)
        self._take_hosts(int(now) // 60, hosts)
        for minute in sorted(self._minutes):
            for errors in (False, True):
                self._write(minute, now, errors=errors)
            if not self._minutes[minute]:
                del self._minutes[minute]
                for errors in (False, True):
                    self._due.pop((minute, errors), None)

    def _take_hosts(self, minute: int, hosts: Sequence[HostCount]) -> None:
        if minute <= self._hosts_minute:
            return
        self._hosts_minute = minute
        for load_balancer, group, healthy, unhealthy in hosts:
            scope: Dimensions = (("LoadBalancer", load_balancer), ("TargetGroup", group))
            # Counted even where it is 0.
            self._minutes.setdefault(minute, Counter()).update(
                {("HealthyHostCount", scope): healthy, ("UnHealthyHostCount", scope): unhealthy}
            )

    def _write(self, minute: int, now: float, *, errors: bool) -> None:
        """Write a minute's errors, or all else, once that is due."""
        counts: Counts = Counter({key: n for key, n in self._minutes[minute].items() if _is_error(key[0]) == errors})
        if not counts:
            return
        if (minute, errors) not in self._due:
            delay = self._engine.parameters.metrics_delay_seconds.draw(self._random, self._engine.delay_scale)
            # A minute's points never come before they are whole, whatever the scale.
            self._due[minute, errors] = (minute + 1) * 60 + max(delay, 2 * _READ_SECONDS)
        if now < self._due[minute, errors]:
            return
        data = metric_data(counts, minute) + ([] if errors else self._percentiles(minute))
        for start in range(0, len(data), 100):
            self._cloudwatch.put_metric_data(Namespace=CLOUDWATCH_NAMESPACE, MetricData=data[start : start + 100])
        for key in counts:
            del self._minutes[minute][key]
        if not errors:
            self._seconds = {key: each for key, each in self._seconds.items() if key[0] != minute}
            with (self._twin.logs / _WRITTEN).open("a") as known:
                known.write(json.dumps({"minute": minute * 60, "written": now}) + "\n")

    def _percentiles(self, minute: int) -> list[dict[str, Any]]:
        name = alarms.percentile_name(RESPONSE_TIME, PERCENTILE)
        percent = int(PERCENTILE.removeprefix("p"))
        took = {scope: seconds for (of, scope), seconds in self._seconds.items() if of == minute}
        return metric_data({(name, scope): slowest_share(each, percent) for scope, each in took.items()}, minute)


def _is_error(metric: str) -> bool:
    return metric.startswith(("HTTPCode_ELB_", "HTTPCode_Target_5XX", "TargetConnectionError"))


def written(twin: Twin) -> dict[int, float]:
    """Return when CloudWatch first had each minute's requests: the minute's begin → that time, in seconds since the epoch."""
    log = twin.logs / _WRITTEN
    lines = log.read_text().splitlines() if log.exists() else []
    return {entry["minute"]: entry["written"] for entry in map(json.loads, reversed(lines))}
