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

from bench import argo, cells, charts, curve, schema, verdicts
from bench.accidents import ACCIDENTS
from bench.ours import Ours
from bench.systems import OURS
from bench.workloads import SHORT_BUDGET, SHORT_MIX

UNDO = cells.CELLS.parent / "undo"
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
    }
    return known | {"problems": problems(schema.read(known))}


def problems(document: schema.Document) -> list[str]:
    """List why the cells prove nothing, and what ours did otherwise than was said before."""
    said = {accident.name: accident for accident in document.accidents}
    messages = [
        f"{accident.title}: {cell.failed} requests failed and the outcome is: {cell.outcome}; at most "
        f"{accident.expected_failed} and {accident.expected_outcome} were expected"
        for cell in verdicts.broken_expectations(document)
        for accident in [said[cell.accident]]
    ]
    quiet = (document.cell(schema.QUIET, system.name) for system in document.systems if system.name != OURS)
    if not any(cell and cell.failed for cell in quiet):
        messages.append(
            "no other system failed a request at a quiet release: the load balancer was too fast for a proof"
        )
    return messages


def assemble(directory: Path = cells.CELLS.parent) -> dict[str, Any]:
    """Return the figures of all cells, curves and ways back that were kept."""
    undone = [json.loads(file.read_text()) for file in sorted((directory / "undo").glob("*.json"))]
    return figures(cells.read(directory / "cells"), curve.read(directory / "curve"), undone)
