"""Latencies counted in buckets that grow by a constant factor, so that a page can draw their distribution."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

FIRST_SECONDS = 0.001
"""Lower bound of the first bucket; what is quicker is counted there."""
RATIO = 1.15
"""Upper bound ÷ lower bound: 16 or 17 buckets from a millisecond to ten."""


def histogram(latencies: Iterable[float]) -> dict[str, Any]:
    """Count latencies in seconds; the names are those of ``bench.schema.Histogram``."""
    counter = Counter(bucket(seconds) for seconds in latencies)
    counts = [counter[number] for number in range(max(counter, default=-1) + 1)]
    return {"first": FIRST_SECONDS, "ratio": RATIO, "counts": counts}


def bucket(seconds: float) -> int:
    """Return the number of the bucket that holds a latency."""
    return max(math.floor(math.log(max(seconds, FIRST_SECONDS) / FIRST_SECONDS) / math.log(RATIO)), 0)
