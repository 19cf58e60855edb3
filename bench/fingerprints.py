"""Fingerprint of what a figure was measured with: numbers, configuration, and the files that decide the system and its load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.accidents import Accident
from bench.load import MIX, Stream
from bench.systems import ARGO_BLUE_GREEN, ARGO_CANARY, LEGACY, OURS, PATCHED, ROLLING
from bench.workloads import DELAY_RATIOS, PROPAGATION_SECONDS, SHORT_BUDGET, SHORT_MIX
from infra.timeouts import DrainBudget
from twin.paths import REPOSITORY

_EVERY_SYSTEM = ("app_docker/**/*", "twin/application/**/*", "bench/workloads.py", "twin/loadbalancer/parameters.yaml")
"""Image, load and load balancer."""
_CHART = ("legacy/**/*", "patches/*", "bench/charts.py")
_ARGO = ("bench/argo*.py",)
_FILES = {
    LEGACY: _CHART,
    ROLLING: _CHART,
    PATCHED: _CHART,
    ARGO_CANARY: _ARGO,
    ARGO_BLUE_GREEN: _ARGO,
    OURS: ("infra/**/*.py", "Pulumi.yaml", "bench/ours.py"),
}
"""System → files that decide it, as patterns below the repository."""


def of_cell(system: str, tuned: str, accident: Accident, root: Path = REPOSITORY) -> str:
    """Return the fingerprint of a system with its configuration in an accident."""
    return _fingerprint(system, [asdict(accident), asdict(SHORT_BUDGET), _streams(SHORT_MIX), tuned], root)


def of_curve(system: str, tuned: str, root: Path = REPOSITORY) -> str:
    """Return the fingerprint of a system's evictions."""
    asked = ["curve", DELAY_RATIOS, PROPAGATION_SECONDS, asdict(SHORT_BUDGET), _streams(SHORT_MIX), tuned]
    return _fingerprint(system, asked, root)


def of_undo(system: str, title: str, tuned: str, root: Path = REPOSITORY) -> str:
    """Return the fingerprint of a system's way back; the title tells the variants of a system apart."""
    return _fingerprint(system, ["undo", title, asdict(DrainBudget.derive()), _streams(MIX), tuned], root)


def of_full(mix: Sequence[Stream], releases: int, root: Path = REPOSITORY) -> str:
    """Return the fingerprint of a part of the full run with a load and so many releases."""
    asked = ["full", releases, asdict(DrainBudget.derive()), _streams(mix)]
    return _fingerprint(OURS, asked, root)


def _streams(mix: Sequence[Stream]) -> list[dict[str, Any]]:
    return [asdict(stream) for stream in mix]


def _fingerprint(system: str, asked: Sequence[Any], root: Path) -> str:
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    found = {path for pattern in (*_EVERY_SYSTEM, *_FILES[system]) for path in root.glob(pattern) if path.is_file()}
    for path in sorted(path for path in found if "__pycache__" not in path.parts):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root)} {content}\n".encode())
    return digest.hexdigest()[:16]
