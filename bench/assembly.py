"""Everything that was measured, as the one file of figures that the page is drawn from: docs/bench.json."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import argo, cells, charts, curve, fingerprints, schema, verdicts
from bench.accidents import ACCIDENTS
from bench.ours import Ours
from bench.systems import LEGACY, OURS
from bench.undo import OursKept
from bench.verdicts import GOAL_SECONDS
from bench.workloads import SHORT_BUDGET, SHORT_MIX

SYSTEMS = (charts.Legacy, charts.Rolling, charts.Patched, argo.ArgoCanary, argo.ArgoBlueGreen, Ours)
"""Columns, from the old to the new."""


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    total = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "memoryGibibytes": round(int(total) / 2**20, 1),
        "kernel": platform.release(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def figures(
    measured: Sequence[cells.Cell], curves: Sequence[Mapping[str, Any]], undone: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return all that a page is drawn from."""
    known = {
        "schema": schema.SCHEMA,
        "at": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "budget": asdict(SHORT_BUDGET),
        "mix": [asdict(stream) for stream in SHORT_MIX],
        "accidents": [asdict(accident) for accident in ACCIDENTS],
        "systems": [{"name": each.name, "title": each.title, "tuned": each.tuned} for each in SYSTEMS],
        "cells": [asdict(cell) for cell in measured],
        "curve": list(curves),
        "undo": list(undone),
        "stale": stale(measured, curves, undone),
    }
    return known | {"problems": problems(schema.read(known))}


def stale(
    measured: Sequence[cells.Cell], curves: Sequence[Mapping[str, Any]], undone: Sequence[Mapping[str, Any]]
) -> list[str]:
    """List, in words, the figures whose fingerprint is not that of today's code."""
    accidents = {each.name: each for each in ACCIDENTS}
    systems = {each.name: each for each in SYSTEMS}
    ways = {each.name: each for each in SYSTEMS} | {OursKept.title: OursKept}
    listed = []
    for cell in measured:
        accident, system = accidents.get(cell.accident), systems.get(cell.system)
        if accident and system and cell.fingerprint != fingerprints.of_cell(system.name, system.tuned, accident):
            listed.append(f"{accident.title}: {system.title}")
    for entry in curves:
        system = systems.get(entry["system"])
        if system and entry.get("fingerprint") != fingerprints.of_curve(system.name, system.tuned):
            listed.append(f"a pod leaves while the load balancer is late: {system.title}")
    for entry in undone:
        way = ways.get(entry["system"])
        if way and entry.get("fingerprint") != fingerprints.of_undo(way.name, way.title, way.tuned):
            listed.append(f"a bad release is undone: {way.title}")
    return listed


def problems(document: schema.Document) -> list[str]:
    """List why the figures prove nothing, and what ours did otherwise than was said before."""
    return [*_unexpected(document), *_too_fast(document), *_missing(document), *_contradictions(document)]


def _unexpected(document: schema.Document) -> list[str]:
    said = {accident.name: accident for accident in document.accidents}
    messages = [
        f"{accident.title}: {run.failed} requests failed and the outcome is: {run.outcome}; at most "
        f"{accident.expected_failed} and {accident.expected_outcome} were expected"
        for cell in verdicts.broken_expectations(document)
        for accident in [said[cell.accident]]
        for run in verdicts.broken_runs(cell, accident)
    ]
    messages += [
        f"a pod left while the load balancer was {point.ratio:g} times as late as budgeted: {point.failed} requests of this "
        "program failed; none was expected to"
        for point in document.curves.get(OURS, [])
        if point.failed and point.ratio <= 1
    ]
    return messages + [
        f"{document.title(undo.system)} undid a bad release in {undo.seconds:g} s; at most {GOAL_SECONDS} s were expected"
        for undo in document.undo
        if undo.system in (OURS, OursKept.title) and undo.seconds > GOAL_SECONDS
    ]


def _too_fast(document: schema.Document) -> list[str]:
    """List why the load balancer was too fast for a proof: where it is slowest, a system that drains has to fail too."""
    messages = []
    quiet = (document.cell(schema.QUIET, system.name) for system in document.systems if system.name != OURS)
    if not any(cell and cell.failed for cell in quiet):
        messages.append(
            "no other system failed a request at a quiet release: the load balancer was too fast for a proof"
        )
    draining = [point for system, line in document.curves.items() if system != LEGACY for point in line]
    largest = max((point.ratio for point in draining), default=0.0)
    if draining and not any(point.failed for point in draining if point.ratio == largest):
        messages.append(
            f"no system that drains failed a request when a pod left at {largest:g} times the budgeted delay: the load balancer "
            "was too fast for a proof"
        )
    return messages


def _missing(document: schema.Document) -> list[str]:
    run = {cell.accident for cell in document.cells}
    return [
        f"{accident.title}: this program was not run, others were"
        for accident in document.accidents
        if accident.name in run and document.cell(accident.name, OURS) is None
    ]


def _contradictions(document: schema.Document) -> list[str]:
    titles = {accident.name: accident.title for accident in document.accidents}
    return [
        f"{titles.get(cell.accident, cell.accident)}, {document.title(cell.system)}: {text}"
        for cell in document.cells
        for text in cell.contradictions
    ]


def assemble(directory: Path = cells.CELLS.parent) -> dict[str, Any]:
    """Return the figures of all cells, curves and ways back that were kept."""
    undone = [json.loads(file.read_text()) for file in sorted((directory / "undo").glob("*.json"))]
    return figures(cells.read(directory / "cells"), curve.read(directory / "curve"), undone)
