"""Ratios of a release of ours: its seconds ÷ the least that it takes, its latency ÷ the latency just before it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.measurements import Measurement


def p99_ratio(measurements: Sequence[Measurement]) -> float:
    """Return the median, over releases of ours, of the 99th percentile during one ÷ just before it."""
    ratios = [release.p99 / release.steady_p99 for release in measurements if release.floor and release.steady_p99]
    return statistics.median(ratios) if ratios else 0.0


def floor_ratio(release: Measurement) -> float:
    """Return how long a release took ÷ the least that it takes."""
    return (release.ended - release.began) / sum(seconds for _, seconds in release.floor)
