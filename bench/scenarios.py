"""Legacy, legacy with patches, and ours, released side by side on one twin under the same load."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench import load as loads
from bench import reconcile, run
from bench.load import Load, Outcome, Stream
from bench.systems import HEADER, LEGACY, OURS, PATCHED, Legacy, Patched, execute
from twin import parts, production
from twin.config import Twin
from twin.errors import TwinError
from twin.loadbalancer import parameters, service
from twin.paths import REPOSITORY

PROPAGATION_SECONDS = 15
"""The short budget's propagation. Controller lag, health interval and metric minutes don't scale and stay real."""
APP_DRAIN_SECONDS = 10
LONGEST_REQUEST_SECONDS = 8
CONTROLLER_LAG_SECONDS = 25
STRAGGLERS_SECONDS = 15.0
POINTS = (0.25, 1.0, 3.0)
"""Worst real delay of the load balancer ÷ what the budget allows for it."""


def budget(propagation_seconds: int) -> dict[str, Any]:
    """Settings of a release with that propagation, everything else as in the short budget."""
    return {
        "shopcat:drain": {
            "appDrain": APP_DRAIN_SECONDS,
            "longestRequest": LONGEST_REQUEST_SECONDS,
            "propagation": propagation_seconds,
            "controllerLag": CONTROLLER_LAG_SECONDS,
            "appKeepAlive": 75,
        },
        "shopcat:release": {
            "replicas": 2,
            "cpu": "200m",
            "memory": "384Mi",
            "env": {"APP_DRAIN_SECONDS": str(APP_DRAIN_SECONDS)},
        },
    }


def streams(system: str) -> tuple[Stream, ...]:
    """The same load for each system."""
    headers = () if system == OURS else ((HEADER, system),)
    found = (
        Stream("page, kept alive", 7.0),
        Stream("page, fresh", 2.0, fresh=True),
        Stream("order", 2.0, path="/orders", order=True, expected=201),
        Stream("long", 1.0, path=f"/slow?seconds={LONGEST_REQUEST_SECONDS}"),
    )
    return tuple(dataclasses.replace(one, headers=headers) for one in found)


@dataclass
class Measured:
    """One system in one scenario."""

    scenario: str
    system: str
    began: float
    ended: float
    delay_ratio: float
    requests: int
    failed: int
    by_failure: Mapping[str, int]
    p50: float
    p99: float
    note: str = ""


@dataclass
class Bench:
    """The twin, its three systems, the loads on them, and what was measured so far."""

    twin: Twin
    directory: Path
    say: Callable[[str], None] = print
    measured: list[Measured] = field(default_factory=list)
    steps: list[tuple[float, str]] = field(default_factory=list)
    _loads: dict[str, Load] = field(default_factory=dict)

    # --- measuring

    @contextlib.contextmanager
    def under_load(self, *systems: str) -> Iterator[None]:
        """The same load on each of the systems until the block ends."""
        with contextlib.ExitStack() as stack:
            for system in systems:
                found = run.load_on(self.twin, streams(system), maximum_seconds=5400)
                self._loads[system] = stack.enter_context(found)
            yield

    def outcomes(self, system: str) -> list[Outcome]:
        """Everything that the last load on the system has seen."""
        return self._loads[system].outcomes

    def measure(self, scenario: str, ratio: float, actions: Mapping[str, Callable[[], str]]) -> None:
        """Run the systems' actions at the same time; count what was due between their begin and end.

        Raises:
            TwinError: an action failed.
        """
        began, notes, errors = time.time(), dict[str, str](), list[BaseException]()
        ended = dict.fromkeys(actions, began)
        self.steps.append((began, scenario))

        def act(system: str) -> None:
            try:
                notes[system] = actions[system]()
            except BaseException as error:
                errors.append(error)
            # What leaves at the end of a release still has to drain while requests come.
            time.sleep(STRAGGLERS_SECONDS + self._leaving_seconds(system))
            ended[system] = time.time()

        threads = [threading.Thread(target=act, args=(system,)) for system in actions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(STRAGGLERS_SECONDS)
        if errors:
            raise errors[0]
        for system in actions:
            due = [one for one in self._loads[system].outcomes if began <= one.due <= ended[system]]
            found = loads.summarize(due)
            self.measured.append(
                Measured(
                    scenario, system, began, ended[system], ratio, found.requests, found.failed, found.by_failure,
                    found.p50, found.p99, notes[system],
                )
            )  # fmt: skip
            self.say(
                f"{scenario:<34} {system:<8} {found.requests:6} requests, {found.failed:4} failed "
                f"{dict(found.by_failure) or ''}"
            )

    @staticmethod
    def _leaving_seconds(system: str) -> float:
        pre_stop = 0 if system == LEGACY else CONTROLLER_LAG_SECONDS + PROPAGATION_SECONDS
        return pre_stop + APP_DRAIN_SECONDS

    def delays(self, ratio: float, budget_seconds: float) -> None:
        """Make the load balancer's worst delay that many times what a budget allows for."""
        worst = parameters.load().deregistration_seconds.maximum
        service.set_faults(self.twin, delayScale=ratio * budget_seconds / worst)

    # --- ours

    def settings(self, changes: Mapping[str, Any]) -> Path:
        """A settings file of its own for one command."""
        document = yaml.safe_load((self.twin.directory / "Pulumi.prod.yaml").read_text())
        document["config"].update(changes)
        path = self.directory / f"settings-{time.monotonic_ns()}" / "Pulumi.prod.yaml"
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def up(self, changes: Mapping[str, Any], **values: str) -> str:
        """`pulumi up -s prod`.

        Raises:
            TwinError: it failed; its log is named.
        """
        log = self.directory / f"up-{time.monotonic_ns()}.log"
        process = run.start_up(self.twin, self.settings(changes), log, values)
        started = time.monotonic()
        if process.wait(1200) != 0:
            raise TwinError(f"`pulumi up` failed; log: {log}\n{log.read_text()[-3000:]}")
        return f"{time.monotonic() - started:.0f} s"

    def push(self, tag: str) -> None:
        """An image of its own under a tag."""
        source = self.directory / f"application-{tag}"
        shutil.copytree(REPOSITORY / "twin" / "application", source)
        with (source / "shopcat" / "__main__.py").open("a") as file:
            file.write(f"# {tag}\n")
        production.push_image(self.twin, source, tag)

    def evict_live(self) -> str:
        """Evict both pods of the live colour, as the drain of their nodes would, one after the other."""
        colour = str(production.outputs(self.twin)["liveColour"])
        selector = f"app.kubernetes.io/name=shopcat,shopcat/colour={colour}"
        listed = json.loads(
            execute(self.twin, ["kubectl", "get", "pods", "-n", "shopcat", "-l", selector, "-o", "json"])
        )["items"]
        names = [one["metadata"]["name"] for one in listed if "deletionTimestamp" not in one["metadata"]]
        if not names:
            raise TwinError(f"no pod of {selector}")
        for name in names:
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "shopcat"}}
            path = f"/api/v1/namespaces/shopcat/pods/{name}/eviction"
            deadline = time.monotonic() + 300
            while True:
                try:
                    execute(self.twin, ["kubectl", "create", "--raw", path, "-f", "-"], given=json.dumps(body))
                    break
                except TwinError as error:
                    if "disruption budget" not in str(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(2)
        return f"{len(names)} pods"

    def abort_while_throttled(self, tag: str) -> str:
        """Kill the engine once everything is on the new colour, then abort while ModifyRule is throttled for 45 s."""
        log = self.directory / f"up-{time.monotonic_ns()}.log"
        process = run.start_up(self.twin, self.settings(budget(PROPAGATION_SECONDS)), log, {"tag": tag})
        deadline = time.monotonic() + 300
        while not re.search(r"weights .*\b100\b.* read back \(2 of 2\)", log.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise TwinError(f"the release never shifted; log: {log}\n{log.read_text()[-2000:]}")
            time.sleep(0.5)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        execute(self.twin, ["pulumi", "cancel", "-s", "prod", "--yes"])
        self.throttle("ModifyRule", 45)
        return self.up(budget(PROPAGATION_SECONDS), abort=tag)

    def throttle(self, action: str, seconds: float) -> None:
        """AWS answers the ELB action with Throttling for a while."""
        fault = {"service": "elasticloadbalancing", "action": action, "kind": "throttle", "seconds": seconds}
        url = f"{self.twin.aws_endpoint}/twin/faults"
        urllib.request.urlopen(
            urllib.request.Request(url, data=json.dumps(fault).encode(), method="POST"), timeout=10
        ).close()


def drain_node(twin: Twin) -> str:
    """`kubectl drain` of the first node, and back."""
    node = "node1"
    try:
        execute(
            twin,
            ["kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s", "--force"],
        )
    finally:
        execute(twin, ["kubectl", "uncordon", node])
    return node


@dataclass(frozen=True)
class Result:
    """Everything that a report is made of."""

    measured: list[Measured]
    steps: list[tuple[float, str]]
    outcomes: dict[str, list[Outcome]]
    disagreements: list[str]
    orders_wrong: list[str]
    seconds: float


def play(twin: Twin, directory: Path, say: Callable[[str], None] = print) -> Result:
    """Every scenario once, with short drain numbers, on a fresh twin.

    Raises:
        TwinError: a step failed for a reason that is no failed request.
    """
    started = time.time()
    bench = Bench(twin, directory, say)
    parts.up(twin)
    too_small = budget(1)
    settings = twin.directory / "Pulumi.prod.yaml"
    document = yaml.safe_load(settings.read_text())
    document["config"].update(too_small)
    settings.write_text(yaml.safe_dump(document, sort_keys=False))
    production.up(twin)
    outcomes: dict[str, list[Outcome]] = {}

    legacy = Legacy(twin, directory, APP_DRAIN_SECONDS)
    patched = Patched(
        twin,
        directory,
        app_drain_seconds=APP_DRAIN_SECONDS,
        pre_stop_seconds=CONTROLLER_LAG_SECONDS + PROPAGATION_SECONDS,
        settle_seconds=PROPAGATION_SECONDS + LONGEST_REQUEST_SECONDS,
    )
    for tag in ("v1.1.0", "v1.2.0", "v1.3.0"):
        bench.push(tag)
    with bench.under_load(OURS):
        # The proof can fail: preStop of 26 s for a load balancer that goes on sending for a minute and more.
        bench.delays(6 * 60, 1.0)
        bench.measure("too small a budget: eviction", 6 * 60, {OURS: bench.evict_live})
    outcomes["too small"] = bench.outcomes(OURS)
    legacy.install()
    patched.install()
    patched.release("v1.0.0")
    short = budget(PROPAGATION_SECONDS)
    _serve(bench)
    with bench.under_load(OURS, LEGACY, PATCHED):
        time.sleep(20)
        bench.delays(POINTS[0], PROPAGATION_SECONDS)
        bench.measure(
            "config change alone",
            POINTS[0],
            {
                OURS: lambda: bench.up(short, tag="v1.0.0"),
                LEGACY: _quiet(legacy.release),
                PATCHED: lambda: patched.release("v1.1.0"),
            },
        )
        bench.delays(POINTS[1], PROPAGATION_SECONDS)
        bench.measure(
            "new tag",
            POINTS[1],
            {
                OURS: lambda: bench.up(short, tag="v1.1.0"),
                LEGACY: _quiet(legacy.release),
                PATCHED: lambda: patched.release("v1.2.0"),
            },
        )
        bench.measure("node drain", POINTS[1], {OURS: lambda: drain_node(twin), LEGACY: _wait, PATCHED: _wait})
        bench.measure("abort, ModifyRule throttled", POINTS[1], {OURS: lambda: bench.abort_while_throttled("v1.2.0")})
        bench.delays(POINTS[2], PROPAGATION_SECONDS)
        bench.measure(
            "rollback",
            POINTS[2],
            {
                OURS: lambda: bench.up(short, rollback="v1.1.0->v1.0.0"),
                LEGACY: _quiet(legacy.release),
                PATCHED: lambda: patched.release("v1.3.0"),
            },
        )
    for system in (OURS, LEGACY, PATCHED):
        outcomes[system] = bench.outcomes(system)
    everything = [one for found in outcomes.values() for one in found]
    logged = run.requests_since(twin, started)
    ours = {one.trace for one in everything}
    return Result(
        measured=bench.measured,
        steps=bench.steps,
        outcomes=outcomes,
        disagreements=[str(one) for one in reconcile.disagreements(everything, [r for r in logged if r.trace in ours])],
        orders_wrong=reconcile.orders_lost_or_doubled(everything, run.stored_orders(twin)),
        seconds=time.time() - started,
    )


def _quiet(action: Callable[[], None]) -> Callable[[], str]:
    def act() -> str:
        action()
        return ""

    return act


def _wait() -> str:
    time.sleep(60)
    return ""


def _serve(bench: Bench) -> None:
    """Until each system answers ten times in a row: a cold start is no release."""
    for system in (LEGACY, PATCHED):
        row = 0
        deadline = time.monotonic() + 180
        while row < 10:
            only = dataclasses.replace(streams(system)[1], rate=2.0)
            with run.load_on(bench.twin, [only], maximum_seconds=2.0) as found:
                time.sleep(2.2)
                outcomes = found.stop()
            row = row + len(outcomes) if not any(one.failure for one in outcomes) else 0
            if time.monotonic() > deadline:
                raise TwinError(f"{system} does not answer: {Counter(one.failure for one in outcomes)}")
