"""Accidents by systems: one release of each system in each accident, every request counted, a cell kept as it ends.

Three twins, two systems on each; every cell is a file in bench/results/cells. A run that breaks off keeps its cells, and the
next one goes on with those that are missing. Systems of one twin go through the accidents side by side, but for those that meet
the whole twin.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from bench import argo, cells, charts, curve, pods, run, tools
from bench.accidents import FAULT_SECONDS, Accident, Outcome
from bench.cells import CELLS, Cell
from bench.experiment import Bench
from bench.figures import series
from bench.images import AGAIN, Images
from bench.load import Load
from bench.ours import Ours
from bench.steps import Follower, Step
from bench.system import State, System
from bench.systems import ARGO_BLUE_GREEN, ARGO_CANARY, LEGACY, OURS, PATCHED, ROLLING
from bench.workloads import (
    PROPAGATION_SECONDS,
    SETTLED_SECONDS,
    SHORT_BUDGET,
    SHORT_MIX,
    SHORT_SETTINGS,
    STEADY_SECONDS,
)
from twin import config, parts
from twin.config import Twin
from twin.errors import TwinError

FIRST_TAG = "v1.0.0"
_TOOL_SECONDS = 900
"""Longest wait for a release tool."""
_QUIET_SECONDS = 10.0
"""Without a failed request, until a release is over for its users."""
_PAUSE_SECONDS = 3.0
"""Between two releases at once."""
STAGES = ((OURS, LEGACY), (ARGO_CANARY, ROLLING), (ARGO_BLUE_GREEN, PATCHED))
"""Systems by twin, so that all three take about as long; two t3.medium have room for three."""


@dataclass(frozen=True)
class Rest:
    """End of the wait for a system to come to rest."""

    state: State
    at: float
    """Time from which on no pod moved and no request failed, or at which nobody waited any longer."""
    given_up: bool = False

    @property
    def mark(self) -> str:
        """Return what happened then, for a timeline."""
        if not self.given_up:
            return "settled"
        return "requests still fail" if self.state.settled else "still moving"


class Stage:
    """One twin with its systems; each release has a tag of its own."""

    def __init__(self, twin: Twin, directory: Path, folder: Path = CELLS) -> None:
        self._twin, self._folder = twin, folder
        self._bench = Bench(twin, directory, SHORT_MIX)
        self._images = Images(twin, directory)
        self._numbers = iter(range(1, 10_000))
        self.broken: dict[str, str] = {}
        """Systems that could not go on, and why."""
        common = (twin, directory, self._images, SHORT_BUDGET)
        self._made: dict[str, Callable[[], System]] = {
            OURS: lambda: Ours(self._bench, self._images),
            LEGACY: lambda: charts.Legacy(*common),
            ROLLING: lambda: charts.Rolling(*common),
            PATCHED: lambda: charts.Patched(*common),
            ARGO_CANARY: lambda: argo.ArgoCanary(*common),
            ARGO_BLUE_GREEN: lambda: argo.ArgoBlueGreen(*common),
        }

    def prepare(self, names: Sequence[str]) -> list[System]:
        """Make production with its first release, then the systems, each with its own."""
        parts.up(self._twin)
        self._bench.first_release(SHORT_SETTINGS, FIRST_TAG, lambda tag: self._images.push(tag, {}))
        self._bench.set_delays(1.0, PROPAGATION_SECONDS)
        if {ARGO_CANARY, ARGO_BLUE_GREEN} & set(names):
            argo.install_controller(self._twin)
        systems = [self._made[name]() for name in names]
        for system in systems:
            system.install(FIRST_TAG)
        return systems

    def run(self, systems: Sequence[System], accidents: Sequence[Accident], *, runs: int = 1) -> None:
        """Run the systems through the accidents until each cell has that many runs; who can't go on is left out.

        Only what changes the twin for all of its systems makes them wait for each other: another delay, an exclusive accident.
        """

        def shared(accident: Accident) -> tuple[bool, float]:
            return accident.is_exclusive, accident.delay_ratio

        for (is_exclusive, delay_ratio), group in itertools.groupby(sorted(accidents, key=shared), shared):
            alike = list(group)
            self._bench.set_delays(delay_ratio, PROPAGATION_SECONDS)
            try:
                with ThreadPoolExecutor(1 if is_exclusive else len(systems)) as pool:
                    list(pool.map(lambda system, alike=alike: self._try_each(system, alike, runs), systems))
            finally:
                self._bench.set_delays(1.0, PROPAGATION_SECONDS)

    def curve(self, systems: Sequence[System]) -> None:
        """Measure what an eviction costs at each delay, for the systems that came through the accidents."""
        left = [system for system in systems if system.name not in self.broken]
        if left:
            curve.run(self._bench, {system.name: self._load(system) for system in left}, left)

    def _try_each(self, system: System, accidents: Sequence[Accident], runs: int) -> None:
        for accident in accidents:
            if system.name in self.broken:
                return
            try:
                self._cell(system, accident, runs)
            except (TwinError, BotoCoreError, ClientError) as error:
                self.broken[system.name] = f"{accident.title}: {error}"
                print(f"error: {system.name} is left out from here on: {accident.title}: {error}", flush=True)

    def _cell(self, system: System, accident: Accident, runs: int) -> None:
        done = cells.kept(self._folder, system, accident)
        for _ in range(runs - sum(len(cells.runs(cell)) for cell in done)):
            cell = self._release(system, accident)
            print(
                f"{accident.title:<60} {system.name:<15} {cell.failed:>5} of {cell.sent:>5} failed  "
                f"{cell.settled_seconds:5.0f} s  {cell.outcome}  {dict(cell.by_failure) or ''} {cell.detail}",
                flush=True,
            )
            done.append(cell)
            cells.write(self._folder, cells.worst(done, accident))

    # One release ------------------------------------------------------------------------------------------------------

    def _push(self, system: System, accident: Accident) -> str:
        tag = f"v1.{next(self._numbers)}.0"
        system.push(tag, dict(accident.edits))
        return tag

    def _release(self, system: System, accident: Accident) -> Cell:
        asked = cells.fingerprint(system, accident)
        before = system.state().serving
        tags = [self._push(system, accident) for _ in range(2 if accident.fault == "second" else 1)]
        with self._load(system) as load:
            time.sleep(STEADY_SECONDS)
            release = Release(self._bench, system, accident, before, tags)
            ended = release.run()
            rest = self._wait_until_settled(system, load)
            time.sleep(SHORT_BUDGET.longest_request_seconds + 2)
            outcomes = load.stop()
        began, state = release.began, rest.state
        release.mark(rest.mark, rest.at)
        sent, failures = cells.count(outcomes, began)
        contradictions = self._bench.contradictions_of(outcomes, system.load_balancer())
        # What the system has undone by itself is not undone once more, which would be the release of an older version.
        serves_bad_version = bool(accident.edits) and state.serving != before
        if state.unfinished or not state.settled or serves_bad_version:
            self._mend(system)
        return Cell(
            system=system.name,
            accident=accident.name,
            sent=sent,
            failed=sum(failures.values()),
            by_failure=dict(failures),
            seconds=round(ended - began, 1),
            settled_seconds=round(rest.at - began, 1),
            outcome=outcome(state, before, tags),
            detail=state.unfinished,
            at=time.strftime("%Y-%m-%d"),
            fingerprint=asked,
            given_up=rest.given_up,
            contradictions=contradictions[: cells.MAX_CONTRADICTIONS],
            began=round(began, 2),
            marks=release.marks,
            series=series(outcomes, lambda each: self._images.seen(each.pod)),
            latency=cells.latencies(outcomes, began, ended),
            steps=[asdict(step) for step in release.steps],
            floor=self._bench.floor(release.steps),
        )

    def _load(self, system: System) -> Load:
        return system.target().load(SHORT_MIX, 2.0 * (_TOOL_SECONDS + SETTLED_SECONDS))

    def _wait_until_settled(self, system: System, load: Load | None = None) -> Rest:
        """Wait until no pod moves and no request fails any more, or SETTLED_SECONDS."""
        deadline = time.monotonic() + SETTLED_SECONDS
        since = 0.0
        while True:
            state = system.state()
            since = since or time.time() if state.settled else 0.0
            failed = max((each.ended for each in load.failures), default=0.0) if load else 0.0
            if since and time.time() - failed > _QUIET_SECONDS:
                return Rest(state, max(since, failed))
            if time.monotonic() > deadline:
                return Rest(state, time.time(), given_up=True)
            time.sleep(2)

    def _mend(self, system: System) -> None:
        """Bring the system to a good version again, so that the next accident meets a healthy one."""
        code = system.undo().wait(_TOOL_SECONDS)
        state = self._wait_until_settled(system).state
        if not state.settled or state.unfinished:
            raise TwinError(f"{system.name} does not come to rest after its way back (exit code {code}): {state}")


class Release:
    """One release with its accident, and the moments at which something happened."""

    def __init__(self, bench: Bench, system: System, accident: Accident, before: str, tags: Sequence[str]) -> None:
        self._bench, self._system, self._accident = bench, system, accident
        self._before, self._tags = before, tags
        self._processes: list[subprocess.Popen[str]] = []
        self.began = time.time()
        self.marks: list[dict[str, object]] = []
        self._fault_ends = 0.0
        self.steps: list[Step] = []
        """Steps of ours that were reached."""

    def mark(self, text: str, at: float = 0.0) -> None:
        """Note what happened, now by default."""
        self.marks.append({"at": round((at or time.time()) - self.began, 1), "text": text})

    def run(self) -> float:
        """Release, with the accident to its end; return the time at which the last tool was done."""
        with contextlib.ExitStack() as followed, self._fault():
            for number, tag in enumerate(self._tags):
                time.sleep(_PAUSE_SECONDS if number else 0)
                try:
                    self._processes.append(self._system.start(tag))
                    self._follow(followed)
                except TwinError as error:
                    self.mark(f"refused: {str(error)[:200]}")
            self._wait()
        if self._accident.fault == "kill":
            self._processes = [self._system.go_on(self._tags[0])]
            self._wait()
        if self._accident.fault == "push-again":
            self.mark("undone")
            self._processes = [self._system.undo()]
            self._wait()
        ended = time.time()
        # Whoever looks at the load balancer from here on is not to meet the fault.
        time.sleep(max(0.0, self._fault_ends - ended))
        return ended

    def _follow(self, stack: contextlib.ExitStack) -> None:
        """Follow the log of an update of ours until the stack ends."""
        if isinstance(self._system, Ours) and self._system.log and not self.steps:
            follower = Follower(self._system.log)
            stack.callback(lambda: self.steps.extend(follower.steps))
            stack.enter_context(follower)

    def _wait(self) -> None:
        for process in self._processes:
            try:
                code = process.wait(_TOOL_SECONDS)
            except subprocess.TimeoutExpired:
                self.mark("the tool is not done")
            else:
                self.mark("tool done" if code == 0 else f"tool ended with {code}")

    @contextlib.contextmanager
    def _fault(self) -> Iterator[None]:
        """Watch for the moment and cause the fault then."""
        if self._accident.fault in ("", "second"):
            yield
            return
        ended = threading.Event()
        errors: list[Exception] = []

        def watch() -> None:
            due = self._system.is_shifting if self._accident.at_shift else self._system.has_ready_pod
            try:
                while not (self._processes and due(self._tags[0])):
                    if ended.wait(0.5):
                        return
                self.mark(self._accident.fault)
                self._cause()
            except (TwinError, BotoCoreError, ClientError) as error:
                errors.append(error)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join(SETTLED_SECONDS)
        if errors:
            raise errors[0]
        if not any(mark["text"] == self._accident.fault for mark in self.marks):
            raise TwinError(f"{self._system.name} was done before the moment for {self._accident.title}")

    def _cause(self) -> None:
        match self._accident.fault:
            case "throttle" | "freeze" as kind:
                self._bench.fault(kind, FAULT_SECONDS)
                self._fault_ends = time.time() + FAULT_SECONDS + 1
            case "restart":
                for namespace, selector in self._system.controllers:
                    delete = ["kubectl", "delete", "pods", "-n", namespace, "-l", selector, "--wait=false"]
                    tools.execute(self._bench.twin, delete)
            case "drain":
                pods.drain_node(self._bench.twin)
            case "kill":
                os.killpg(self._processes[0].pid, signal.SIGKILL)
            case "push-again":
                self._push_again()

    def _push_again(self) -> None:
        """Push other content under the tag that serves; a registry that keeps tags refuses it.

        Raises:
            TwinError: the push failed for another reason.
        """
        try:
            self._system.push_again(self._before)
        except TwinError as error:
            if "immutable" not in str(error):
                raise
            self.mark("the registry refuses the push: its tags are immutable")


def outcome(state: State, before: str, tags: Sequence[str]) -> Outcome:
    """Return in one word what became of a release; ``before`` and ``tags`` are contents."""
    if state.serving.endswith(AGAIN):
        return "wrong code"
    if not state.settled:
        return "stuck"
    if state.serving in tags:
        return "released"
    return "undone" if state.serving == before else "stuck"


def run_all(
    names: Sequence[str],
    chosen: Sequence[str],
    accidents: Sequence[Accident],
    *,
    runs: int = 1,
    with_curve: bool = False,
) -> dict[str, str]:
    """Run the systems on their twins, all twins at once; return the systems that could not go on, and why.

    Raises:
        TwinError: a twin or a system could not be made.
        KeyboardInterrupt: threads may still be at work.
    """
    wanted = [[name for name in stage if name in chosen] for stage in STAGES]
    broken: dict[str, str] = {}

    def run_stage(name: str, systems: Sequence[str], directory: Path) -> None:
        if systems:
            stage = Stage(config.load(name, simulated=False), directory / name)
            try:
                made = stage.prepare(systems)
            except TwinError as error:
                print(f"error: {error}", flush=True)
                raise
            stage.run(made, accidents, runs=runs)
            if with_curve:
                stage.curve(made)
            broken.update(stage.broken)

    with tempfile.TemporaryDirectory(prefix="shopcat-matrix-", ignore_cleanup_errors=True) as directory:
        pool = ThreadPoolExecutor(len(names))
        try:
            list(pool.map(run_stage, names, wanted, [Path(directory)] * len(names)))
        finally:
            # What is wrong with one twin ends nothing on the others; an interrupt does, hours before its last cell.
            pool.shutdown(wait=not isinstance(sys.exception(), KeyboardInterrupt), cancel_futures=True)
            run.keep_logs(Path(directory), CELLS.parent / "matrix-logs")
    return broken
