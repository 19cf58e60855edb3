"""Failed requests when one pod leaves, against the load balancer's delay: every request, every delay the worst one."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import cells, fingerprints, pods
from bench.experiment import Bench
from bench.load import Load
from bench.system import System
from bench.workloads import DELAY_RATIOS, PROPAGATION_SECONDS, SHORT_BUDGET
from twin.paths import REPOSITORY

FOLDER = REPOSITORY / "bench" / "results" / "curve"


@dataclass(frozen=True)
class Point:
    """One eviction of one pod."""

    ratio: float
    """The load balancer's delay ÷ the propagation that the drain budget allows for."""
    sent: int
    failed: int


def measure(bench: Bench, loads: Mapping[str, Load], systems: Sequence[System]) -> dict[str, list[Point]]:
    """Evict a pod of each system at each delay, all systems at once.

    Raises:
        TwinError: a pod could not be evicted, or a system has not settled in time.
    """
    points: dict[str, list[Point]] = {system.name: [] for system in systems}
    try:
        for ratio in DELAY_RATIOS:
            bench.set_delays(ratio, PROPAGATION_SECONDS, always_worst=True)
            began = time.time()
            with ThreadPoolExecutor(len(systems)) as pool:
                list(pool.map(lambda system: _evict(bench, system), systems))
            time.sleep(SHORT_BUDGET.longest_request_seconds + 2)
            for name, load in loads.items():
                sent, failures = cells.count(load.outcomes, began)
                points[name].append(Point(ratio, sent, sum(failures.values())))
    finally:
        bench.set_delays(1.0, PROPAGATION_SECONDS)
    return points


def _evict(bench: Bench, system: System) -> None:
    pods.wait_until_settled(bench.twin, system.name, pods.evict(bench.twin, system.name, 1))


def run(bench: Bench, loads: Mapping[str, Load], systems: Sequence[System], folder: Path = FOLDER) -> None:
    """Measure the systems of which there is no curve yet, or one with another fingerprint, and keep each."""
    kept = {str(entry["system"]): entry.get("fingerprint") for entry in read(folder)}
    asked = {system.name: fingerprints.of_curve(system.name, system.tuned) for system in systems}
    left = [system for system in systems if kept.get(system.name) != asked[system.name]]
    if not left:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        chosen = {system.name: stack.enter_context(loads[system.name]) for system in left}
        points = measure(bench, chosen, left)
    for name, listed in points.items():
        entry = {"system": name, "points": [asdict(point) for point in listed], "fingerprint": asked[name]}
        (folder / f"{name}.json").write_text(json.dumps(entry, indent=1) + "\n")


def read(folder: Path = FOLDER) -> list[dict[str, object]]:
    """Return the curves that were measured."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
