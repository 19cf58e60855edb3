"""CloudWatch of a shop whose requests are counted as time passes; a metric can be late, partial or silent."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2026, 11, 24, 10, 0, 0, tzinfo=UTC)
REQUESTS, SERVED, ERRORS = "RequestCount", "HTTPCode_Target_2XX_Count", "HTTPCode_Target_5XX_Count"
REFUSED, BAD_GATEWAY = "TargetConnectionErrorCount", "HTTPCode_ELB_502_Count"
NO_TARGET = "HTTPCode_ELB_503_Count"


class CloudWatch:
    """Counts requests by colour: `failing` says of a colour at a second how many of its requests fail, from 0 to 1."""

    def __init__(self, now: Callable[[], float], share: Callable[[str], float]) -> None:
        self.now, self.share = now, share
        self.per_minute = 100.0
        self.failing: Callable[[str, float], float] = lambda _colour, _second: 0.0
        self.kind = ERRORS
        self.without_target: Callable[[float], bool] = lambda _: False
        self.silent_from = float("inf")
        self.delay: dict[str, float] = {}
        self.status: Callable[[str], str] = lambda _: "Complete"
        self.counts: dict[int, Counter[tuple[str, str]]] = {}

    def count(self, begin: float, end: float, share: dict[str, float]) -> None:
        """Count what is asked between two seconds."""
        while begin < end:
            until = min(end, (begin // 60 + 1) * 60)
            counts = self.counts.setdefault(int(begin // 60), Counter())
            asked = self.per_minute * (until - begin) / 60
            if self.without_target(begin):
                counts[NO_TARGET, ""] += asked  # type: ignore[assignment]
            else:
                for colour, part in share.items():
                    failed = asked * part * self.failing(colour, begin)
                    counts[REQUESTS, colour] += asked * part  # type: ignore[assignment]
                    counts[SERVED, colour] += asked * part - failed  # type: ignore[assignment]
                    counts[ERRORS if self.kind == ERRORS else REFUSED, colour] += failed  # type: ignore[assignment]
                    if self.kind != ERRORS:
                        counts[BAD_GATEWAY, ""] += failed  # type: ignore[assignment]
            begin = until

    def begin(self) -> None:
        """Count what was asked in the ten minutes before, when everything was on blue."""
        if not self.counts:
            self.count(-600, 0, {"blue": 1.0})

    def passed(self, begin: float, end: float) -> None:
        """Count what is asked while time passes."""
        self.begin()
        self.count(begin, end, {colour: self.share(colour) for colour in ("blue", "green")})

    def get_paginator(self, _: str) -> CloudWatch:
        return self

    def paginate(self, MetricDataQueries: list[dict[str, Any]], StartTime: datetime, EndTime: datetime) -> Any:  # noqa: N803
        self.begin()
        results = []
        for query in MetricDataQueries:
            metric = query["MetricStat"]["Metric"]
            name = metric["MetricName"]
            groups = [each["Value"] for each in metric["Dimensions"] if each["Name"] == "TargetGroup"]
            colour = next((colour for colour in ("blue", "green") if any(colour in each for each in groups)), "")
            points = {}
            for minute, counts in self.counts.items():
                at = START + timedelta(minutes=minute)
                there = self.now() >= (minute + 1) * 60 + self.delay.get(name, 0) and minute * 60 < self.silent_from
                if StartTime <= at < EndTime and there and round(counts[name, colour]):
                    points[at] = float(round(counts[name, colour]))
            answer = {"Id": query["Id"], "StatusCode": self.status(name)}
            results.append({**answer, "Timestamps": list(points), "Values": list(points.values())})
        yield {"MetricDataResults": results, "Messages": []}
