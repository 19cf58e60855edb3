"""Invented figures of a whole run, for tests of the page alone: every kind of cell, of every length that a run can have."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from bench.figures import BUCKET_SECONDS

BEGAN = 1_795_700_000.0
SYSTEMS = {
    "legacy": "old chart",
    "rolling": "patched chart, rolling",
    "patched": "patched chart, blue/green",
    "argo-canary": "Argo Rollouts, canary",
    "argo-bluegreen": "Argo Rollouts, blueGreen",
    "ours": "this program",
}
ACCIDENTS = {
    "nothing": "nothing",
    "slow": "the load balancer is three times slower than budgeted",
    "throttled": "ELB API throttled for 60 s at the shift",
    "frozen": "ELB API frozen for 60 s",
    "controller": "the controller restarts at the shift",
    "drain": "a node is drained in the middle",
    "bad-version": "the new version answers 500 on one page of three",
    "never-ready": "the new version is never ready",
    "killed": "the release tool is killed at the shift, then the documented way on",
    "two": "two releases at once",
    "same-tag": "the previous tag pushed again with other content",
}
UNSUPPORTED = ("controller", "legacy")
REASON = "its targets are written by Terraform, so no controller takes part in a release"
NOT_RUN = (("frozen", "argo-bluegreen"), ("two", "rolling"))


def _series(random_: random.Random, seconds: int, failed: int, tags: tuple[str, ...]) -> dict[str, Any]:
    columns = (seconds + 40) // BUCKET_SECONDS
    turn = columns // 2
    counts: dict[str, list[int]] = {tag: [0] * columns for tag in tags}
    for column in range(columns):
        share = min(max((column - turn) / 10, 0.0), 1.0)
        total = random_.randint(21, 26)
        counts[tags[-1]][column] += round(total * share)
        counts[tags[0]][column] += total - round(total * share)
    lost = [0] * 12
    for _ in range(failed):
        lost[random_.randrange(12)] += 1
    series = {tag: {"first": BEGAN - 20, "counts": each} for tag, each in counts.items()}
    if failed:
        series["failed"] = {"first": BEGAN + seconds // 2 // 2 * 2, "counts": lost}
    return series


def _latency(random_: random.Random, median: float) -> dict[str, Any]:
    counts = [0] * 70
    for _ in range(2000):
        seconds = median * math.exp(random_.gauss(0, 0.7))
        counts[min(max(int(math.log(seconds / 0.001) / math.log(1.15)), 0), 69)] += 1
    return {
        "p50": median,
        "p90": median * 2.4,
        "p99": median * 5,
        "p999": median * 9,
        "histogram": {"first": 0.001, "ratio": 1.15, "counts": counts},
    }


def cell(accident: str, system: str, failed: int, seconds: int, outcome: str) -> dict[str, Any]:
    random_ = random.Random(f"{accident} {system}")  # noqa: S311 - invented figures
    tags = ("v1.0.0", "v1.1.0") if outcome == "released" else ("v1.0.0",)
    runs = [
        {"sent": seconds * 12 + number, "failed": failed, "settled_seconds": seconds, "outcome": outcome}
        for number in range(3)
    ]
    return {
        "system": system,
        "accident": accident,
        "sent": seconds * 12,
        "failed": failed,
        "by_failure": {"http-502": failed} if failed else {},
        "seconds": seconds - 12.5,
        "settled_seconds": float(seconds),
        "outcome": outcome,
        "at": "2026-11-29",
        "fingerprint": "0123456789ab",
        "runs": runs if accident == "slow" else [],
        "began": BEGAN,
        "series": _series(random_, seconds, failed, tags),
        "marks": [
            {"at": seconds * 0.45, "text": "accident"},
            {"at": seconds - 12.5, "text": "tool ended"},
            {"at": float(seconds), "text": "settled"},
        ],
        "latency": {
            "before": _latency(random_, 0.014),
            "during": _latency(random_, 0.016),
            "after": _latency(random_, 0.013),
        },
    }


def _cells() -> list[dict[str, Any]]:
    random_ = random.Random(7)  # noqa: S311 - invented figures
    cells = []
    for accident in ACCIDENTS:
        for system in SYSTEMS:
            if (accident, system) in NOT_RUN:
                continue
            if (accident, system) == UNSUPPORTED:
                cells.append({"accident": accident, "system": system, "outcome": "unsupported", "reason": REASON})
                continue
            seconds = random_.randrange(40, 420)
            failed = 0 if system == "ours" else random_.choice([0, 0, 3, 51, 812])
            outcome = "released"
            if accident == "bad-version":
                failed, outcome = {"ours": (37, "undone"), "argo-canary": (60, "undone")}.get(system, (900, "released"))
            elif (accident, system) == ("same-tag", "legacy"):
                outcome = "wrong code"
            elif accident == "never-ready":
                outcome = "undone" if system == "ours" else "stuck"
            cells.append(cell(accident, system, failed, seconds, outcome))
    return cells


def _undo() -> list[dict[str, Any]]:
    listed = []
    for number, system in enumerate(SYSTEMS):
        if system == "rolling":
            listed.append({"system": system, "reason": "Helm keeps no former version that still runs"})
        else:
            seconds = 30 + 31 * ((number * 3) % 5)
            random_ = random.Random(system)  # noqa: S311 - invented figures
            listed.append(
                {
                    "system": system,
                    "seconds": float(seconds),
                    "failed": seconds * 4,
                    "sent": seconds * 12,
                    "steps": [
                        {"name": "someone runs the command", "seconds": 2.0},
                        {"name": "former pods start", "seconds": seconds * 0.6},
                        {"name": "weights go back", "seconds": seconds * 0.4 - 2},
                    ],
                    "series": _series(random_, seconds, seconds * 4, ("v1.1.0", "v1.0.0")),
                    "began": BEGAN,
                    "marks": [{"at": 0.0, "text": "answers 500"}, {"at": float(seconds), "text": "last failed"}],
                    "at": "2026-11-29",
                }
            )
    return listed


def sample(short: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a document with cells of every kind."""
    expected = {
        "bad-version": {
            "expected_failed": 200,
            "expected_outcome": "undone",
            "reason": "what the canary's users see until the weights are back",
        },
        "never-ready": {"expected_outcome": "undone", "reason": "what is never ready is not released"},
    }
    return {
        "schema": 2,
        "machine": {"processor": "an invented one, 2 cores", "memory, GiB": 16},
        "settings": {"propagation, s": 15, "requests per second": 12},
        "accidents": [{"name": name, "title": title, **expected.get(name, {})} for name, title in ACCIDENTS.items()],
        "systems": [
            {"name": name, "title": title, "tuned": [f"{title}: probes, preStop and grace of the patched chart"]}
            for name, title in SYSTEMS.items()
        ],
        "cells": _cells(),
        "undo": _undo(),
        "short": short,
    }
