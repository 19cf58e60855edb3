"""Cells of the matrix: one system in one accident, kept in a file as it ends, and counted only while it is asked the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import fingerprints, schema
from bench import load as loads
from bench.accidents import ACCIDENTS, Accident
from bench.histogram import histogram
from bench.load import Outcome
from bench.system import System
from twin.paths import REPOSITORY

CELLS = REPOSITORY / "bench" / "results" / "cells"
MAX_CONTRADICTIONS = 5
"""A cell names no more of them: one is enough to doubt it."""


@dataclass(frozen=True)
class Cell:
    """One system in one accident; of several runs the worst."""

    system: str
    accident: str
    sent: int
    """Requests that were due from the start of the release until nothing moved any more."""
    failed: int
    by_failure: Mapping[str, int]
    seconds: float
    """Until the release tool, or the one that went on after it, was done."""
    settled_seconds: float
    """Until no pod moved and no request failed any more, or until nobody waited for it any longer (``given_up``)."""
    outcome: str
    """A :data:`bench.accidents.Outcome`."""
    detail: str
    """Work that is left for a person; empty if none is."""
    at: str
    """Day of the run."""
    fingerprint: str = ""
    began: float = 0.0
    """Start of the release, seconds since the epoch."""
    marks: Sequence[Mapping[str, Any]] = ()
    """``at`` (seconds from the start) and ``text`` of what happened."""
    series: Mapping[str, Any] = field(default_factory=dict)
    """Requests by content and failures in two seconds each, as :func:`bench.figures.series` gives them."""
    latency: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Latency of good short requests before, during and after, as bench.schema.Latency."""
    steps: Sequence[Mapping[str, Any]] = ()
    """Steps of ours that were reached, as bench.schema.Step."""
    floor: Sequence[tuple[str, float]] = ()
    """Least that this release of ours could take, part by part."""
    runs: Sequence[Mapping[str, Any]] = ()
    """``sent``, ``failed``, ``settled_seconds``, ``given_up`` and ``outcome`` of each run."""
    given_up: bool = False
    """Something still moved, or requests still failed, ``bench.workloads.SETTLED_SECONDS`` after the tool was done."""
    contradictions: Sequence[str] = ()
    """Where clients, load balancer and database differ, of all runs; at most MAX_CONTRADICTIONS."""


def fingerprint(system: System, accident: Accident) -> str:
    """Return what a cell was asked, and by which code; another question is another cell."""
    return fingerprints.of_cell(system.name, system.tuned, accident)


def count(outcomes: Sequence[Outcome], began: float) -> tuple[int, Counter[str]]:
    """Return how many requests were due since the start, and their failures by kind."""
    due = [outcome for outcome in outcomes if outcome.due >= began]
    return len(due), Counter(outcome.failure for outcome in due if outcome.failure)


def latencies(outcomes: Iterable[Outcome], began: float, ended: float) -> dict[str, dict[str, Any]]:
    """Return percentiles and histogram of good short requests before the release, while its tool ran, and afterwards."""
    parts: dict[str, list[float]] = {"before": [], "during": [], "after": []}
    for outcome in outcomes:
        if not outcome.failure and outcome.stream != "long":
            part = "before" if outcome.due < began else "during" if outcome.due < ended else "after"
            parts[part].append(outcome.latency_seconds)
    wanted = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    return {
        part: {name: round(loads.percentile(values, share), 5) for name, share in wanted.items()}
        | {"histogram": histogram(values)}
        for part, values in parts.items()
        if values
    }


def runs(cell: Cell) -> Sequence[Mapping[str, Any]]:
    """Return every run of a cell, its own if it lists none."""
    names = ("sent", "failed", "settled_seconds", "given_up", "outcome")
    return cell.runs or [{name: getattr(cell, name) for name in names}]


def worst(cells: Sequence[Cell], accident: Accident) -> Cell:
    """Return the worst of the cells of one accident, with the runs and the contradictions of all.

    Wrong code is worst, then stuck, then another outcome than the accident's expected one, then failures, then seconds.
    """

    def badness(cell: Cell) -> tuple[bool, bool, bool, int, float]:
        unexpected = cell.outcome != accident.expected_outcome
        return cell.outcome == "wrong code", cell.outcome == "stuck", unexpected, cell.failed, cell.settled_seconds

    contradictions = [text for cell in cells for text in cell.contradictions]
    return replace(
        max(cells, key=badness),
        runs=[run for cell in cells for run in runs(cell)],
        contradictions=contradictions[:MAX_CONTRADICTIONS],
    )


def path(folder: Path, system: str, accident: str) -> Path:
    """Return the file of a cell."""
    return folder / f"{accident}-{system}.json"


def write(folder: Path, cell: Cell) -> None:
    """Keep a cell."""
    target = path(folder, cell.system, cell.accident)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(asdict(cell), indent=1) + "\n")


def kept(folder: Path, system: System, accident: Accident) -> list[Cell]:
    """Return the cell, if it was run and is still what is asked."""
    file = path(folder, system.name, accident.name)
    cells = [Cell(**json.loads(file.read_text()))] if file.exists() else []
    return [cell for cell in cells if cell.fingerprint == fingerprint(system, accident)]


def read(folder: Path = CELLS) -> list[Cell]:
    """Return the cells that were run."""
    return [Cell(**json.loads(file.read_text())) for file in sorted(folder.glob("*.json"))]


def table(cells: Iterable[Cell], titles: Mapping[str, str]) -> str:
    """Return the cells as a table in Markdown; a cell that was not run is said to be so."""
    known = {(cell.accident, cell.system): cell for cell in cells}

    def text(accident: str, system: str) -> str:
        cell = known.get((accident, system))
        if cell is None:
            return "not run"
        rest = schema.time_to_rest(cell.settled_seconds, given_up=cell.given_up)
        return f"{cell.failed} of {cell.sent} failed, {rest}, {cell.outcome}"

    rows = [f"| {each.title} | {' | '.join(text(each.name, name) for name in titles)} |" for each in ACCIDENTS]
    return "\n".join([f"| during a release | {' | '.join(titles.values())} |", f"|---|{'---|' * len(titles)}", *rows])
