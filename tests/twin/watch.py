"""CloudWatch beside a twin: what writes metrics there in AWS and is no part of the twin, and what becomes of each alarm.

* The twin's load balancer writes its own metrics. What RDS, ACM, EKS and the hourly reaper would write comes from here: values
  that a test sets, and the number of pods that the real scheduler finds no place for.
* Metric filters are stored by moto and count nothing. Here they are read back from it and held against the logs that the real
  control plane, kubelets and External Secrets write.
* Alarms are judged by the twin's evaluator with windows of at most WINDOW minutes, as of the last minute of which all is known.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from infra.names import POD_LOGS_GROUP
from pipeline import reaper
from tests.tools import aws, command, kubectl
from twin.config import Twin
from twin.loadbalancer import alarms

WINDOW = 2
"""Minutes that an alarm looks at here, where its own window is longer."""
LATE_SECONDS = 20
"""Until then a minute's points are written: the load balancer's 180 s at the latest, by a scale of 0.05, and its reading."""
HOUR = 3600
GOOD: Mapping[str, float] = {
    "shopcat-database-cpu": 20,
    "shopcat-database-connections": 10,
    "shopcat-database-storage": 15 * (1 << 30),
    "shopcat-database-credits": 0,
    "shopcat-certificate-production": 300,
    "shopcat-certificate-previews": 300,
    "shopcat-clean-up": 0,
}
"""Alarm → value of its metric while nothing is wrong."""


def is_match(pattern: str, line: str) -> bool:
    """Tell whether a line matches a filter's pattern: quoted terms, all of them, or equal fields of JSON joined by &&.

    Raises:
        AssertionError: the pattern has something else.
    """
    if pattern.startswith("{"):
        fields = re.findall(r'\$\.(\w+) = "([^"]*)"', pattern)
        assert " && ".join(f'$.{name} = "{value}"' for name, value in fields) == pattern.strip("{ }"), pattern
        try:
            found = json.loads(line)
        except ValueError:
            return False
        return isinstance(found, dict) and all(
            str(found.get(name, "")).startswith(value[:-1]) if value.endswith("*") else found.get(name) == value
            for name, value in fields
        )
    terms = re.findall(r'"([^"]+)"', pattern)
    assert " ".join(f'"{term}"' for term in terms) == pattern, pattern
    return all(term in line for term in terms)


class Tail:
    """New lines of a file since it was last asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size

    def __call__(self) -> list[str]:
        with self._path.open("rb") as log:
            log.seek(self._position)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        return whole.decode(errors="replace").splitlines()


@dataclass
class Watch:
    """Writes each minute's metrics, judges each alarm, and remembers each change of its state."""

    twin: Twin
    values: dict[str, float] = field(default_factory=lambda: dict(GOOD))
    states: dict[str, str] = field(default_factory=dict)
    changes: list[tuple[float, str, str]] = field(default_factory=list)
    """Time, alarm and its new state."""
    long_now: set[str] = field(default_factory=set)
    """Alarms that are in ALARM with their own windows, by the load balancer's evaluation each minute."""
    long_alarms: set[str] = field(default_factory=set)
    """Alarms that were so at any time since this was emptied."""
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cloudwatch = aws(self.twin, "cloudwatch")
        self.alarms = {alarm["AlarmName"]: alarm for alarm in alarms.declared(self.cloudwatch)}
        logs = self.twin.logs
        kubelets = [Tail(logs / f"node{number}-kubelet.log") for number in (1, 2)]
        control_plane = Tail(logs / "kube-controller-manager.log")
        self._logs: dict[str, Callable[[], list[str]]] = {
            "/aws/eks/shopcat/cluster": control_plane,
            POD_LOGS_GROUP: lambda: [*self._operator_log(), *(line for tail in kubelets for line in tail())],
        }
        self._operator_since = time.time()
        self._filters = self._read_filters()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(step,)) for step in (self._write, self._judge)]
        self._whole = int(time.time()) // 60
        """Minutes since the epoch of which everything is written."""
        for hour in range(4):
            self._put_clean_up(0, time.time() - HOUR * hour)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def now_alarmed(self) -> set[str]:
        """Return the alarms that are in ALARM."""
        return {name for name, state in dict(self.states).items() if state == "ALARM"}

    def changed_at(self, alarm: str, state: str, since: float) -> float | None:
        """Return when an alarm first went to a state after a moment; None if it did not."""
        times = [time for time, name, new in list(self.changes) if name == alarm and new == state and time >= since]
        return times[0] if times else None

    def _run(self, step: Callable[[], None]) -> None:
        while not self._stop.wait(2):
            try:
                step()
            except Exception as error:
                self.problems.append(repr(error))

    def _read_filters(self) -> list[tuple[str, str, str, str]]:
        found = aws(self.twin, "logs").describe_metric_filters()["metricFilters"]
        return [
            (
                each["logGroupName"],
                each["filterPattern"],
                transformation["metricNamespace"],
                transformation["metricName"],
            )
            for each in found
            for transformation in each["metricTransformations"]
        ]

    def _operator_log(self) -> list[str]:
        since = dt.datetime.fromtimestamp(self._operator_since, dt.UTC).isoformat(timespec="seconds")
        self._operator_since = time.time()
        logs = ["kubectl", "logs", "-n", "external-secrets", "deployment/external-secrets", f"--since-time={since}"]
        return command(self.twin, [*logs, "--request-timeout=5s"], check=False).stdout.splitlines()

    def _write(self) -> None:
        """Write the points of the minute that has ended."""
        minute = int(time.time()) // 60
        if minute == self._whole:
            return
        begin = (minute - 1) * 60
        for name, value in dict(self.values).items():
            if name == "shopcat-clean-up":
                self._put_clean_up(int(value), begin)
            elif name in self.alarms:
                self._put(name, value, begin)
        self._put("shopcat-unschedulable-pods", self._unschedulable(), begin)
        lines = {group: read() for group, read in self._logs.items()}
        for group, pattern, namespace, metric in self._filters:
            count = sum(is_match(pattern, line) for line in lines[group])
            if count:
                datum = {"MetricName": metric, "Value": float(count), "Timestamp": begin}
                self.cloudwatch.put_metric_data(Namespace=namespace, MetricData=[datum])
        self._whole = minute

    def _put(self, alarm: str, value: float, begin: float) -> None:
        (query,) = self.alarms[alarm]["Metrics"]
        metric = query["MetricStat"]["Metric"]
        datum = {
            "MetricName": metric["MetricName"],
            "Dimensions": metric.get("Dimensions", []),
            "Value": float(value),
            "Timestamp": begin,
        }
        self.cloudwatch.put_metric_data(Namespace=metric["Namespace"], MetricData=[datum])

    def _put_clean_up(self, failures: int, begin: float) -> None:
        """Write the reaper's metric by its own function, as of another time."""

        def put(Namespace: str, MetricData: list[dict[str, Any]]) -> None:  # noqa: N803 - boto3's names
            dated = [{**datum, "Timestamp": begin} for datum in MetricData]
            self.cloudwatch.put_metric_data(Namespace=Namespace, MetricData=dated)

        clients: Any = SimpleNamespace(get=lambda _: SimpleNamespace(put_metric_data=put), endpoint_url="")
        reaper.write_metric(clients, failures)

    def _unschedulable(self) -> int:
        pods = kubectl(self.twin, "get", "pods", "-A", "--field-selector=status.phase=Pending")["items"]
        reasons = [each.get("reason") for pod in pods for each in pod["status"].get("conditions", [])]
        return reasons.count("Unschedulable")

    def _judge(self) -> None:
        end = min(int(time.time() - LATE_SECONDS) // 60, self._whole) * 60
        now = dt.datetime.fromtimestamp(end, dt.UTC)
        for name, alarm in self.alarms.items():
            cut = alarms.shortened({**alarm, "StateValue": self.states.get(name)}, WINDOW)
            state = alarms.judge(alarms.values_of(self.cloudwatch, cut, now), cut)
            if state != self.states.get(name):
                self.states[name] = state
                self.changes.append((time.time(), name, state))
        answers = self.cloudwatch.describe_alarms(StateValue="ALARM")["MetricAlarms"]
        self.long_now = {alarm["AlarmName"] for alarm in answers}
        self.long_alarms |= self.long_now
