"""Figures of a run as JSON: each measurement, requests by colour in two seconds, and each failure with its step.

Every request of a full run stands in bench/results/full/<part>.jsonl, which is not committed.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench import steps
from bench.load import Outcome
from bench.measurements import Measurement, Result
from bench.steps import Step

BUCKET_SECONDS = 2
FAILED = "failed"
FAILURE_COLUMNS = ("due", "seconds", "stream", "failure", "step")


def colour_of(outcome: Outcome) -> str:
    """Return the colour that answered."""
    return outcome.colour


def series(outcomes: Iterable[Outcome], label: Callable[[Outcome], str] = colour_of) -> dict[str, dict[str, Any]]:
    """Count answered requests by a label (the colour by default), and failures, by the two seconds in which they were due.

    Each has ``first``, the begin of its first two seconds since the epoch, and ``counts``, one for each two seconds from then.
    """
    counters: dict[str, Counter[int]] = {}
    for outcome in outcomes:
        name = FAILED if outcome.failure else label(outcome) or "answered"
        counters.setdefault(name, Counter())[int(outcome.due) // BUCKET_SECONDS] += 1
    return {
        name: {
            "first": min(counter) * BUCKET_SECONDS,
            "counts": [counter[bucket] for bucket in range(min(counter), max(counter) + 1)],
        }
        for name, counter in sorted(counters.items())
    }


def step_of(measurements: Iterable[Measurement], load: str, moment: float) -> str:
    """Name the scenario and, in a release of ours, the step during which something happened."""
    begun = [measurement for measurement in measurements if measurement.load == load and measurement.began <= moment]
    if not begun:
        return "before"
    last = max(begun, key=lambda measurement: measurement.began)
    step = steps.step_at(last.steps, moment)
    return f"{last.scenario}: {step}" if step else last.scenario


def failure_rows(measurements: Sequence[Measurement], load: str, outcomes: Iterable[Outcome]) -> list[list[Any]]:
    """List each failure in the order of FAILURE_COLUMNS, times to the millisecond."""
    return [
        [
            round(outcome.due, 3),
            round(outcome.latency_seconds, 3),
            outcome.stream,
            outcome.failure,
            step_of(measurements, load, outcome.due),
        ]
        for outcome in outcomes
        if outcome.failure
    ]


def figures(result: Result, problems: Sequence[str]) -> dict[str, Any]:
    """Return all that a page is drawn from."""
    return {
        "seconds": round(result.seconds, 1),
        "full": result.full,
        "measured": [dataclasses.asdict(measurement) for measurement in result.measurements],
        "failureColumns": list(FAILURE_COLUMNS),
        "failures": {
            load: failure_rows(result.measurements, load, outcomes) for load, outcomes in result.outcomes.items()
        },
        "series": {load: series(outcomes) for load, outcomes in result.outcomes.items()},
        "requests": {load: len(outcomes) for load, outcomes in result.outcomes.items()},
        "engineYields": result.engine_yields,
        "retriedUpdates": list(result.retried_updates),
        "partsBrokenOff": result.broken_off,
        "disagreements": result.disagreements,
        "ordersLostOrDoubled": result.orders_wrong,
        "problems": list(problems),
    }


def measurement_of(entry: Mapping[str, Any]) -> Measurement:
    """Read one measurement back."""
    floor = [(name, seconds) for name, seconds in entry["floor"]]
    return Measurement(**{**entry, "steps": [Step(**step) for step in entry["steps"]], "floor": floor})


def measurements_of(document: Mapping[str, Any]) -> list[Measurement]:
    """Read the measurements back."""
    return [measurement_of(entry) for entry in document["measured"]]


def as_text(document: Mapping[str, Any]) -> str:
    """Return JSON with a line for each key, and for each item of a list: thousands of figures, and still a diff to read."""
    parts = []
    for key, value in document.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
