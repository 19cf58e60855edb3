"""Accidents by systems: one release of each system in each accident, every request counted, a cell kept as it ends.

``python -m bench.matrix`` makes a twin, installs the systems one after the other, and writes bench/results/cells/*.json. A run
that breaks off keeps its cells, and the next one goes on with those that are missing (``--again`` begins anew). What is expected
of ours stands in ``ACCIDENTS`` before the run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import argo, run
from bench.experiment import Bench
from bench.load import Load
from bench.ours import Ours
from bench.system import System
from bench.workloads import PROPAGATION_SECONDS, SHORT_BUDGET, SHORT_MIX, SHORT_SETTINGS, STEADY_SECONDS
from twin import config, parts
from twin.config import Twin
from twin.errors import TwinError
from twin.paths import REPOSITORY
from twin.scenarios import production

CELLS = REPOSITORY / "bench" / "results" / "cells"
_SETTLED_SECONDS = 900
_PAGE = '    """The shop\'s front page, read from PostgreSQL."""\n'
_FAILS_ONE_OF_THREE = {
    f"async def page(request: web.Request) -> web.Response:\n{_PAGE}": (
        "served = []\n\n\nasync def page(request: web.Request) -> web.Response:\n"
        f"{_PAGE}    served.append(1)\n    if len(served) > 60 and len(served) % 3 == 0:\n"
        "        return web.Response(status=500)\n"
    )
}
"""One page of three is an error, from a pod's sixtieth on: smoke test and readiness see none of them."""


@dataclass(frozen=True)
class Accident:
    """What goes wrong during a release."""

    name: str
    title: str
    expected_failed: int = 0
    """Most requests that may fail with ours; said before the run."""
    reason: str = ""
    delay_ratio: float = 1.0
    """The load balancer's worst delay ÷ what the drain budget allows for."""
    throttle_seconds: float = 0.0
    """The ELB API is throttled for so long once the first pod of the new version is ready."""
    edits: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with the new version: pieces of the application's source, and what takes their place."""


ACCIDENTS = (
    Accident("nothing", "nothing"),
    Accident("slow", "the load balancer is three times slower than budgeted", delay_ratio=3.0),
    Accident("throttled", "ELB API throttled for 60 s at the shift", throttle_seconds=60.0),
    Accident(
        "bad-version",
        "the new version answers 500 on one page of three",
        expected_failed=200,
        reason="what the canary's users see until the weights are back",
        edits=_FAILS_ONE_OF_THREE,
    ),
)


@dataclass(frozen=True)
class Cell:
    """One system in one accident.

    Seconds from the start of the release until its tool or controller was done, and until no pod moved any more. ``outcome`` is
    released, undone (the former version serves again), refused or stuck.
    """

    system: str
    accident: str
    sent: int
    failed: int
    by_failure: Mapping[str, int]
    seconds: float
    settled_seconds: float
    outcome: str
    detail: str
    at: str


class Matrix:
    """One twin with its systems; each release has a tag of its own."""

    def __init__(self, twin: Twin, directory: Path, cells: Path = CELLS) -> None:
        self._twin, self._directory, self._cells = twin, directory, cells
        self._bench = Bench(twin, directory, SHORT_MIX)
        self._number = 0

    def prepare(self) -> None:
        """Make production with its first release, and Argo's controller."""
        parts.up(self._twin)
        self._bench.first_release(SHORT_SETTINGS, "v1.0.0")
        self._bench.set_delays(1.0, PROPAGATION_SECONDS)
        argo.install_controller(self._twin)

    def systems(self) -> dict[str, System]:
        """Return every system by its name."""
        listed: Sequence[System] = (
            Ours(self._bench),
            argo.ArgoCanary(self._twin, self._directory, SHORT_BUDGET),
            argo.ArgoBlueGreen(self._twin, self._directory, SHORT_BUDGET),
        )
        return {system.name: system for system in listed}

    def run(self, system: System, accidents: Sequence[Accident]) -> None:
        """Run a system through the accidents of which it has no cell yet.

        Raises:
            TwinError: something failed that is no accident's doing.
        """
        wanted = [accident for accident in accidents if not self._path(system.name, accident.name).exists()]
        if not wanted:
            return
        system.install("v1.0.0")
        for accident in wanted:
            cell = self._cell(system, accident)
            print(
                f"{accident.title:<55} {system.name:<15} {cell.failed:>5} of {cell.sent:>5} failed  "
                f"{cell.settled_seconds:5.0f} s  {cell.outcome}  {dict(cell.by_failure) or ''}",
                flush=True,
            )
            path = self._path(system.name, accident.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(cell), indent=2) + "\n")

    def _path(self, system: str, accident: str) -> Path:
        return self._cells / f"{accident}-{system}.json"

    def _push(self, edits: Mapping[str, str]) -> str:
        self._number += 1
        tag = f"v1.{self._number}.0"
        source = self._directory / f"application-{tag}"
        shutil.copytree(REPOSITORY / "twin" / "application", source)
        path = source / "shopcat" / "__main__.py"
        text = path.read_text()
        for old, new in edits.items():
            if old not in text:
                raise TwinError(f"the application has no {old!r} any more; bench/matrix.py replaces it")
            text = text.replace(old, new)
        path.write_text(f"{text}# {tag}\n")
        production.push_image(self._twin, source, tag)
        return tag

    def _cell(self, system: System, accident: Accident) -> Cell:
        before = system.state().serving
        tag = self._push(accident.edits)
        self._bench.set_delays(accident.delay_ratio, PROPAGATION_SECONDS)
        with self._load(system) as load:
            time.sleep(STEADY_SECONDS)
            began = time.time()
            with self._accident(system, accident, tag):
                process = system.start(tag)
                ended = _end_of(process)
                settled = self._wait_until_settled(system)
            time.sleep(SHORT_BUDGET.longest_request_seconds + 2)
            due = [outcome for outcome in load.stop() if outcome.due >= began]
        failures = Counter(outcome.failure for outcome in due if outcome.failure)
        state = system.state()
        outcome = _outcome(tag, before, state.serving, settled=settled)
        self._bench.set_delays(1.0, PROPAGATION_SECONDS)
        if outcome != "released" or accident.edits:
            self._mend(system)
        return Cell(
            system=system.name,
            accident=accident.name,
            sent=len(due),
            failed=sum(failures.values()),
            by_failure=dict(failures),
            seconds=round(ended - began, 1),
            settled_seconds=round((settled or time.time()) - began, 1),
            outcome=outcome,
            detail=state.detail,
            at=time.strftime("%Y-%m-%d"),
        )

    def _load(self, system: System) -> Load:
        target = system.target()
        return Load(
            target.address,
            target.host,
            port=target.port,
            ca_file=target.ca_file,
            streams=tuple(SHORT_MIX),
            maximum_seconds=2 * _SETTLED_SECONDS,
        )

    def _wait_until_settled(self, system: System) -> float:
        """Return when nothing moved any more; 0 if something still does after a quarter of an hour."""
        deadline = time.monotonic() + _SETTLED_SECONDS
        while time.monotonic() < deadline:
            if system.state().settled:
                return time.time()
            time.sleep(2)
        return 0.0

    @contextlib.contextmanager
    def _accident(self, system: System, accident: Accident, tag: str) -> Iterator[None]:
        if not accident.throttle_seconds:
            yield
            return
        ended = threading.Event()

        def throttle() -> None:
            while not ended.wait(0.5):
                if system.has_ready_pod(tag):
                    self._throttle(accident.throttle_seconds)
                    return

        watcher = threading.Thread(target=throttle, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join(30)

    def _throttle(self, seconds: float) -> None:
        fault = {"service": "elasticloadbalancing", "kind": "throttle", "seconds": seconds}
        data = json.dumps(fault).encode()
        request = urllib.request.Request(f"{self._twin.aws_endpoint}/twin/faults", data=data, method="POST")
        with urllib.request.urlopen(request, timeout=10):
            pass

    def _mend(self, system: System) -> None:
        """Bring the system to a good version again, so that the next accident meets a healthy one."""
        system.undo().wait(_SETTLED_SECONDS)
        if not self._wait_until_settled(system):
            raise TwinError(f"{system.name} does not settle after {system.state().detail}")


def _end_of(process: subprocess.Popen[str]) -> float:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_SETTLED_SECONDS)
    return time.time()


def _outcome(tag: str, before: str, serving: str, *, settled: float) -> str:
    """Return in one word what became of a release."""
    if not settled:
        return "stuck"
    if serving == tag:
        return "released"
    return "undone" if serving == before else "stuck"


def table(cells: Sequence[Cell], accidents: Sequence[Accident], titles: Mapping[str, str]) -> str:
    """Return the cells as a table in Markdown; a cell that was not run is said to be so."""
    found = {(cell.accident, cell.system): cell for cell in cells}

    def text(accident: str, system: str) -> str:
        cell = found.get((accident, system))
        if cell is None:
            return "not run"
        return f"{cell.failed} of {cell.sent} failed, {cell.settled_seconds:.0f} s, {cell.outcome}"

    rows = [f"| {each.title} | {' | '.join(text(each.name, name) for name in titles)} |" for each in accidents]
    heads = " | ".join(titles.values())
    return "\n".join([f"| during a release | {heads} |", f"|---|{'---|' * len(titles)}", *rows])


def read_cells(folder: Path = CELLS) -> list[Cell]:
    """Return the cells that were run."""
    return [Cell(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


def main() -> int:
    """Run what is missing; 1 if a step failed, or ours lost more requests than was said before."""
    parser = argparse.ArgumentParser(prog="python -m bench.matrix", description=__doc__)
    parser.add_argument("--again", action="store_true", help="forget the cells of former runs")
    parser.add_argument("--systems", default="", help="names, with commas; all by default")
    arguments = parser.parse_args()
    name = "matrix"
    if reason := run.why_not([name]):
        print(f"error: {reason}", file=sys.stderr)
        return 1
    run.prepare_process()
    if arguments.again:
        shutil.rmtree(CELLS, ignore_errors=True)
    twin = config.load(name, simulated=False)
    try:
        with tempfile.TemporaryDirectory(prefix="shopcat-matrix-") as directory:
            matrix = Matrix(twin, Path(directory))
            matrix.prepare()
            systems = matrix.systems()
            for chosen in arguments.systems.split(",") if arguments.systems else systems:
                matrix.run(systems[chosen], ACCIDENTS)
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        run.take_down([name])
    cells = read_cells()
    print(table(cells, ACCIDENTS, {name: system.title for name, system in systems.items()}))
    allowed = {accident.name: accident.expected_failed for accident in ACCIDENTS}
    wrong = [cell for cell in cells if cell.system == Ours.name and cell.failed > allowed[cell.accident]]
    for cell in wrong:
        print(f"error: ours lost {cell.failed} requests in {cell.accident}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
