"""Undo: a live release begins to answer 500, and each system goes back by its fastest documented way, under load.

``python -m bench.undo`` makes a twin with production's own drain numbers, whose load balancer follows each change after the
median of its delays: drawn anew, they would decide who is ahead. Each system releases a version whose pages fail once a file
says so. The file is written when the release is over and its pods are settled (``--soon``: as soon as the release tool is
done, while the former pods may still be there), and the undo starts right then: a person's reaction is not measured. Results
go to bench/results/undo/<system>.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import argo, charts, fingerprints, pods, run, steps
from bench.experiment import Bench
from bench.figures import series
from bench.images import Images
from bench.load import MIX, Outcome
from bench.matrix import STAGES
from bench.ours import Ours
from bench.system import System
from bench.systems import OURS
from bench.tools import execute
from bench.workloads import STEADY_SECONDS
from infra.release.health import CLOCKS_DIFFER_SECONDS
from infra.timeouts import DrainBudget
from twin import config, parts
from twin.config import Twin
from twin.errors import TwinError
from twin.host import processes
from twin.loadbalancer import parameters
from twin.paths import REPOSITORY

RESULTS = REPOSITORY / "bench" / "results" / "undo"
FORMER = "v1.0.0"
KEPT = f"{OURS}-kept"
"""Ours once more, with another setting."""
NAMES = (*(name for stage in STAGES for name in stage), KEPT)
_LONGEST_SECONDS = 1800
_BREAK_FILE = "/dev/shm/broken"  # noqa: S108 - inside the container, where nothing else can be written
_PAGE = (
    'async def page(request: web.Request) -> web.Response:\n    """The shop\'s front page, read from PostgreSQL."""\n'
)
BREAKS_WHEN_TOLD = {
    _PAGE: f"{_PAGE}    if os.path.exists({_BREAK_FILE!r}):\n        return web.Response(status=500)\n",
}
"""Pieces of the application's source that are replaced: neither smoke test nor canary can see the fault."""


class OursKept(Ours):
    """The same production with the former release's pods kept, to which users are moved before the engine starts."""

    title = "this program, keepFormer"

    def __init__(self, bench: Bench, images: Images) -> None:
        super().__init__(bench, images, {"shopcat:keepFormer": True})

    def undo(self) -> subprocess.Popen[str]:
        """Move users back, and finish the rollback by an update."""
        return self._up({}, first=[sys.executable, "-m", "infra.commands.undo"])

    def _are_at_rest(self, listed: list[dict[str, Any]]) -> bool:
        """Return true once every pod is ready and none leaves: the former pods stay."""
        return bool(listed) and all(pods.is_ready(pod) and not pods.is_leaving(pod) for pod in listed)


@dataclass(frozen=True)
class Mark:
    """Something that happened, in seconds since the epoch."""

    at: float
    text: str


@dataclass(frozen=True)
class Undone:
    """One system's way back. Seconds from the first page that was to fail until the last request that failed was due."""

    system: str
    seconds: float
    failed: int
    sent: int
    steps: Sequence[Mapping[str, Any]]
    """Events in order, each with the seconds until the next."""
    series: Mapping[str, Any]
    marks: Sequence[Mapping[str, Any]]
    at: str
    fingerprint: str = ""
    """Hash of what was measured (:func:`bench.fingerprints.of_undo`)."""

    def table(self) -> str:
        """Return the steps as lines of text."""
        lines = [f"{step['seconds']:6.1f} s  {step['name']}" for step in self.steps]
        head = f"{self.system}: {self.failed} of {self.sent} requests failed, the last after {self.seconds:.1f} s"
        return "\n".join([head, *lines])


def undone(system: str, outcomes: Sequence[Outcome], marks: Sequence[Mark], at: str, fingerprint: str = "") -> Undone:
    """Return what an undo cost; the first mark is the moment at which the live release begins to fail."""
    began = marks[0].at
    due = [outcome for outcome in outcomes if outcome.due >= began]
    failed = [outcome.due for outcome in due if outcome.failure]
    last = max(failed, default=began)
    ordered = sorted([*marks, Mark(last, "last failed request")], key=lambda mark: mark.at)
    ends = [*(mark.at for mark in ordered[1:]), ordered[-1].at]
    return Undone(
        system=system,
        seconds=round(last - began, 1),
        failed=len(failed),
        sent=len(due),
        steps=[
            {"name": mark.text, "seconds": round(end - mark.at, 1)} for mark, end in zip(ordered, ends, strict=True)
        ],
        series=series(outcomes),
        marks=[{"at": round(mark.at, 1), "text": mark.text} for mark in ordered],
        at=at,
        fingerprint=fingerprint,
    )


class UndoBench:
    """One twin with production's own drain numbers, and the systems on it."""

    def __init__(self, twin: Twin, directory: Path, *, soon: bool) -> None:
        self._twin, self._directory, self._soon = twin, directory, soon
        self.bench = Bench(twin, directory, MIX)
        self._images = Images(twin, directory)
        self._number = 0

    def prepare(self, *, with_argo: bool) -> None:
        """Make production with its first release, and Argo's controller if it is wanted."""
        parts.up(self._twin)
        self.bench.first_release({}, FORMER, lambda tag: self._images.push(tag, {}))
        propagation_seconds = DrainBudget.derive().propagation_seconds
        median_seconds = parameters.load().rules_seconds.median
        self.bench.set_delays(median_seconds / propagation_seconds, propagation_seconds, always_worst=True)
        if with_argo:
            argo.install_controller(self._twin)

    def systems(self) -> dict[str, System]:
        """Return every system by its name."""
        common = (self._twin, self._directory, self._images, DrainBudget.derive())
        listed: Sequence[System] = (
            charts.Legacy(*common),
            charts.Rolling(*common),
            charts.Patched(*common),
            argo.ArgoCanary(*common),
            argo.ArgoBlueGreen(*common),
            Ours(self.bench, self._images, {}),
        )
        return {system.name: system for system in listed} | {KEPT: OursKept(self.bench, self._images)}

    def run(self, system: System) -> Undone:
        """Release a version that is good until it is told to fail, tell it, and undo it.

        Raises:
            TwinError: the release or the undo did not come to its end, or requests failed before.
        """
        asked = fingerprints.of_undo(system.name, system.title, system.tuned)
        former = system.state().serving
        tag = self._push(system)
        _end(system.start(tag), f"release of {tag} by {system.name}")
        if not self._soon:
            self._wait_for_rest(system)
        with system.target().load(MIX) as load:
            time.sleep(STEADY_SECONDS)
            if load.failures:
                kinds = dict(Counter(each.failure for each in load.failures))
                raise TwinError(f"{system.name} failed requests before anything was broken: {kinds}")
            marks = [Mark(time.time(), "the live release answers 500")]
            self._break_pages(system)
            marks.append(Mark(time.time(), "undo starts"))
            with _watched(system, former, marks):
                process = system.undo()
                with _followed(system, marks):
                    _end(process, f"undo of {tag} by {system.name}")
            marks.append(Mark(time.time(), "the tool is done"))
            self._wait_for_rest(system)  # a controller goes on when the tool that told it is done
            time.sleep(max(stream.timeout_seconds for stream in MIX))
            outcomes = load.stop()
        serving = system.state().serving
        if not serving or self._images.edits(serving):
            raise TwinError(f"{system.name} serves {serving or 'two versions'} after its way back")
        name = system.title if isinstance(system, OursKept) else system.name
        return undone(name, outcomes, marks, time.strftime("%Y-%m-%d"), asked)

    def _wait_for_rest(self, system: System) -> None:
        processes.wait_until(lambda: system.state().settled, f"{system.name}: rest", timeout_seconds=_LONGEST_SECONDS)

    def _push(self, system: System) -> str:
        self._number += 1
        tag = f"v1.{self._number}.0"
        system.push(tag, BREAKS_WHEN_TOLD)
        return tag

    def _break_pages(self, system: System) -> None:
        """Write the file in every pod; a former version's pods don't look for it."""
        where = ["-n", pods.namespace(system.name)]
        names = execute(self._twin, ["kubectl", "get", "pods", *where, "-o", "name"]).split()

        def write(name: str) -> None:
            command = ["kubectl", "exec", *where, name, "-c", "shopcat", "--", "touch", _BREAK_FILE]
            with contextlib.suppress(TwinError):  # a Job's pod has ended, a former pod is on its way out
                execute(self._twin, command)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, names))


def _end(process: subprocess.Popen[str], what: str) -> None:
    if process.wait(_LONGEST_SECONDS) != 0:
        raise TwinError(f"{what} failed; its log is kept in bench/results/undo/logs")


@contextlib.contextmanager
def _watched(system: System, former: str, marks: list[Mark]) -> Iterator[None]:
    """Mark when a pod of the former version is ready."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if system.has_ready_pod(former):
                marks.append(Mark(time.time(), f"a pod of {former} is ready"))
                return
            ended.wait(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(30)


@contextlib.contextmanager
def _followed(system: System, marks: list[Mark]) -> Iterator[None]:
    """Mark the steps that ours prints; the peers print none."""
    if not isinstance(system, Ours) or system.log is None:
        yield
        return
    with steps.Follower(system.log) as follower:
        yield
    marks += [Mark(step.at, f"step: {step.name}") for step in follower.steps]


def write(result: Undone, name: str) -> Path:
    """Write one result; return its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(asdict(result), indent=1) + "\n")
    return path


def main() -> int:
    """Measure each system; 1 if a step failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.undo", description=__doc__)
    parser.add_argument("--systems", nargs="+", choices=NAMES, default=[OURS], help="ours by default")
    parser.add_argument("--soon", action="store_true", help="the release fails as soon as its tool is done")
    parser.add_argument("--rounds", type=int, default=1, help="undos of each system")
    arguments = parser.parse_args()
    names = arguments.systems
    twin_name = os.environ.get("SHOPCAT_TWIN_NAME", "undo")
    if reason := run.why_not([twin_name]):
        print(f"error: {reason}", file=sys.stderr)
        return 1
    run.prepare_process()
    twin = config.load(twin_name, simulated=False)
    with tempfile.TemporaryDirectory(prefix="shopcat-undo-") as directory:
        try:
            bench = UndoBench(twin, Path(directory), soon=arguments.soon)
            bench.prepare(with_argo=any(name.startswith("argo") for name in names))
            for name in names:
                system = bench.systems()[name]
                system.install(FORMER)
                time.sleep(
                    CLOCKS_DIFFER_SECONDS
                )  # then what was just released for the first time counts as having served
                for number in range(arguments.rounds):
                    result = bench.run(system)
                    print(result.table(), flush=True)
                    suffix = f"-{number + 1}" if number else ""
                    write(result, f"{name}{'-soon' if arguments.soon else ''}{suffix}")
        except TwinError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            run.keep_logs(Path(directory), RESULTS / "logs")
            run.take_down([twin_name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
