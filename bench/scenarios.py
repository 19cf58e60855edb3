"""Legacy, legacy with patches, and ours under the same load: released, drained, aborted, rolled back, requests counted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from bench import load as loads
from bench import reconcile, run, steps
from bench.load import LONG, ORDER, PAGE, Load, Outcome, Stream
from bench.noop import NoOp, measure
from bench.steps import Step
from bench.systems import LEGACY, OURS, PATCHED, Legacy, Patched, execute, host_prefix
from infra.timeouts import DrainBudget, DrainInputs
from twin import config, parts
from twin.config import Twin
from twin.errors import TwinError
from twin.host import cgroups, processes
from twin.loadbalancer import metrics, parameters, service
from twin.paths import REPOSITORY
from twin.scenarios import production

PROPAGATION_SECONDS = 15
"""The short budget's propagation. Controller lag, health interval and metric minutes don't scale and stay real."""
APP_DRAIN_SECONDS = 10
LONGEST_REQUEST_SECONDS = 8
CONTROLLER_LAG_SECONDS = 25
STEADY_SECONDS = 20.0
"""Nothing is done for so long before an action."""
_RECKONED_SECONDS = 5.0
"""At the begin of these the bench reckons up the scenario before, in the clients' own process; they wait for it."""
TOO_SMALL_SECONDS = 1
"""Propagation and controller lag of a budget that is too small on purpose."""
POINTS = (0.25, 0.5, 1.0, 2.0, 3.0)
"""Real delay of the load balancer ÷ the propagation that the budget allows for."""
FULL_RELEASES = 20
FULL_REQUESTS = 1_000_000
FULL_MOST_RELEASES = 60
FULL_MOST_SECONDS = 4 * 3600.0
NAMESPACES = {OURS: "shopcat", LEGACY: LEGACY, PATCHED: PATCHED}
SELECTORS = {OURS: "app.kubernetes.io/name=shopcat,shopcat/colour", LEGACY: "app=shopcat", PATCHED: "app=shopcat"}
TOO_SMALL = "budget too small: eviction"
NEW_TAG = "new tag"
CURVE = "eviction"
RELEASE = "release"

SHORT_MIX = (
    Stream("page, kept alive", 7.0, contains=PAGE),
    Stream("page, fresh", 2.0, fresh=True, contains=PAGE),
    Stream("order", 2.0, path="/orders", order=True, expected=201, contains=ORDER),
    Stream("long", 1.0, path=f"/slow?seconds={LONGEST_REQUEST_SECONDS}", contains=LONG),
)
FULL_MIX = (
    Stream("page, kept alive", 150.0, contains=PAGE),
    Stream("page, fresh", 12.0, fresh=True, contains=PAGE),
    Stream("order", 12.0, path="/orders", order=True, expected=201, contains=ORDER),
    Stream("long", 1.5, path="/slow?seconds=20", contains=LONG),
)
"""30 long requests are in flight at any moment; a million requests take a little over an hour and a half."""


def inputs(propagation_seconds: float, controller_lag_seconds: float) -> DrainInputs:
    """The short budget's inputs."""
    return DrainInputs(
        app_drain_seconds=APP_DRAIN_SECONDS,
        longest_request_seconds=LONGEST_REQUEST_SECONDS,
        propagation_seconds=propagation_seconds,
        controller_lag_seconds=controller_lag_seconds,
    )


SHORT_BUDGET = DrainBudget.derive(inputs(PROPAGATION_SECONDS, CONTROLLER_LAG_SECONDS))


def settings_of(given: DrainInputs) -> dict[str, Any]:
    """Settings of a release with these drain numbers."""
    return {
        "shopcat:drain": {
            "appDrain": given.app_drain_seconds,
            "longestRequest": given.longest_request_seconds,
            "propagation": given.propagation_seconds,
            "controllerLag": given.controller_lag_seconds,
            "appKeepAlive": given.app_keep_alive_seconds,
        },
        "shopcat:release": {
            "replicas": 2,
            "cpu": "200m",
            "memory": "384Mi",
            "env": {"APP_DRAIN_SECONDS": str(APP_DRAIN_SECONDS)},
        },
    }


SHORT = settings_of(inputs(PROPAGATION_SECONDS, CONTROLLER_LAG_SECONDS))


@dataclass(frozen=True)
class Measured:
    """One system in one scenario: the requests that were due from its begin until the system's next scenario began.

    Latencies in seconds from when a request was due, of short requests that went well; ``steady`` is before the begin,
    the others are while the action ran.
    """

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
    steady_p50: float = 0.0
    steady_p99: float = 0.0
    steps: Sequence[Step] = ()
    floor: Sequence[tuple[str, float]] = ()
    note: str = ""
    load: str = ""
    """Whose requests: a key of ``Result.outcomes``."""
    drained: float = 0.0
    """When the last pod that the action sent away was gone; 0 if nobody waited for it."""


@dataclass(frozen=True)
class Result:
    """Everything that a report is made of."""

    measured: list[Measured]
    outcomes: dict[str, list[Outcome]]
    """By load: the system, on a second twin with its number."""
    disagreements: list[str]
    orders_wrong: list[str]
    seconds: float
    full: bool = False
    noop: NoOp | None = None
    behind: bool = False
    """Whether the engine and the AWS stand-in ran only while the shop left them the processor."""
    gone_on: Sequence[str] = ()
    """Updates that failed and were gone on with: why."""
    broken: str = ""
    """Why the run ended before its end."""


@dataclass
class _Run:
    """An action under way or done."""

    scenario: str
    system: str
    ratio: float
    began: float
    ended: float = 0.0
    drained: float = 0.0
    note: str = ""
    steps: list[Step] = field(default_factory=list)


class Bench:
    """One twin, the loads on its systems, and what was done under them."""

    def __init__(
        self, twin: Twin, directory: Path, mix: Sequence[Stream], say: Callable[[str], None] = print, suffix: str = ""
    ) -> None:
        self.twin, self.directory, self._mix, self._say, self._suffix = twin, directory, tuple(mix), say, suffix
        self.loads: dict[str, Load] = {}
        self._runs: list[_Run] = []
        self._steps: list[Step] = []
        self._ratio = 0.0
        self.gone_on: list[str] = []
        self.aside = False
        """Whether the engine runs only while nothing else wants the processor: on AWS it shares no machine with the shop.

        For a machine with processor to spare; on a busy one it would stand still.
        """
        directory.mkdir(parents=True, exist_ok=True)

    # --- measuring

    @contextlib.contextmanager
    def under_load(self, *systems: str, maximum_seconds: float = 3600.0) -> Iterator[None]:
        """The same load on each of the systems until the block ends."""
        with contextlib.ExitStack() as stack:
            for system in systems:
                found = run.load_on(self.twin, self._mix, maximum_seconds, host_prefix(system))
                self.loads[system] = stack.enter_context(found)
            yield

    def measure(self, scenario: str, actions: Mapping[str, Callable[[], str]], *, wait: bool = True) -> None:
        """Run the systems' actions at the same time.

        Args:
            scenario: what it is called.
            actions: by system.
            wait: until what was due meanwhile has ended, so that what is said holds it all (:meth:`finish` always does).

        Raises:
            TwinError: an action failed.
        """
        began = time.time()
        runs = {system: _Run(scenario, system, self._ratio, began) for system in actions}
        self._runs += runs.values()

        def act(system: str) -> None:
            self._steps = [] if system == OURS else self._steps
            try:
                runs[system].note = actions[system]()
            finally:
                runs[system].ended = time.time()
                if system == OURS:
                    runs[system].steps = self._steps

        with ThreadPoolExecutor(len(actions)) as pool:
            for future in [pool.submit(act, system) for system in actions]:
                future.result()
        if wait:
            time.sleep(self.longest_seconds + 2)
        for system, one in runs.items():
            outcomes = self.loads[system].outcomes
            due = [each for each in _ended_since(outcomes, one.began) if one.began <= each.due]
            kinds = dict(Counter(each.failure for each in due if each.failure))
            during, before = (
                loads.summarize(each for each in due if each.due <= one.ended),
                _steady(outcomes, one.began),
            )
            self._say(
                f"{scenario:<30} {system:<8} {one.ended - one.began:5.0f} s {len(due):6} requests, failed: {kinds or 0}; "
                f"p99 {during.p99 * 1000:.1f} ms, before {before.p99 * 1000:.1f} ms"
            )

    @property
    def longest_seconds(self) -> float:
        """The mix's longest request."""
        return max(float(one.path.partition("seconds=")[2] or 0) for one in self._mix)

    def finish(self) -> list[Measured]:
        """What was measured, once the loads have ended."""
        found = []
        for one in self._runs:
            outcomes = self.loads[one.system].outcomes
            later = [other.began for other in self._runs if other.system == one.system and other.began > one.began]
            counted_until = min(later, default=time.time())
            due = [each for each in outcomes if one.began <= each.due < counted_until]
            total = loads.summarize(due)
            during = loads.summarize(each for each in due if each.due <= one.ended)
            steady = _steady(outcomes, one.began)
            found.append(
                Measured(
                    scenario=one.scenario,
                    system=one.system,
                    began=one.began,
                    ended=one.ended,
                    delay_ratio=one.ratio,
                    requests=total.requests,
                    failed=total.failed,
                    by_failure=total.by_failure,
                    p50=during.p50,
                    p99=during.p99,
                    steady_p50=steady.p50,
                    steady_p99=steady.p99,
                    steps=one.steps,
                    floor=self._floor(one),
                    note=one.note,
                    load=one.system + self._suffix,
                    drained=one.drained,
                )
            )
        return found

    def _floor(self, one: _Run) -> list[tuple[str, float]]:
        shifted = next((step.at for step in one.steps if step.name == "shift"), None)
        if shifted is None or not any(step.name == "live" for step in one.steps):
            return []
        known = steps.metrics_known(shifted, metrics.written(self.twin))
        return steps.floor(self.budget, shifted, known) if known else []

    @property
    def budget(self) -> DrainBudget:
        """Of the releases that are measured."""
        return SHORT_BUDGET if self._mix == SHORT_MIX else DrainBudget.derive()

    def delays(self, ratio: float, budget_seconds: float, *, every: bool = False) -> None:
        """Make the load balancer's worst delay that many times what a budget allows for; or every delay the worst."""
        self._ratio = ratio
        scale = ratio * budget_seconds / parameters.load().deregistration_seconds.maximum
        service.set_faults(self.twin, delayScale=scale, delayWorst=every)

    @property
    def drained_by(self) -> float:
        """By when (monotonic) a pod that is told to leave now is gone and another is ready."""
        return time.monotonic() + self.budget.grace_seconds + 120

    @property
    def by_load(self) -> dict[str, list[Outcome]]:
        """Every request so far."""
        return {f"{system}{self._suffix}": load.outcomes for system, load in self.loads.items()}

    def stories(self, since: float) -> tuple[list[str], list[str]]:
        """Where clients, load balancers and database disagree."""
        outcomes = [one for load in self.loads.values() for one in load.outcomes]
        ours = {one.trace for one in outcomes}
        logged = [
            request
            for balancer in (run.LOAD_BALANCER, run.PREVIEW_LOAD_BALANCER)
            for request in run.requests_since(self.twin, since, balancer)
            if request.trace in ours
        ]
        differ = [str(one) for one in reconcile.disagreements(outcomes, logged)]
        return differ, reconcile.orders_lost_or_doubled(outcomes, run.stored_orders(self.twin))

    # --- what is done

    def start(self, changes: Mapping[str, Any], values: Mapping[str, str]) -> tuple[subprocess.Popen[str], Path]:
        """`pulumi up -s prod` with settings of its own, in the background; and its log."""
        log = self.directory / f"up-{time.monotonic_ns()}.log"
        process = run.start_up(self.twin, self.settings(changes), log, values)
        if self.aside:
            self.aside = cgroups.put_behind(self.twin, process.pid)
        return process, log

    def settings(self, changes: Mapping[str, Any]) -> Path:
        """A throw-away copy of the twin's settings, with changes."""
        document = yaml.safe_load((self.twin.directory / "Pulumi.prod.yaml").read_text())
        document["config"].update(changes)
        settings = self.directory / f"settings-{time.monotonic_ns()}" / "Pulumi.prod.yaml"
        settings.parent.mkdir()
        settings.write_text(yaml.safe_dump(document, sort_keys=False))
        return settings

    def up(self, changes: Mapping[str, Any], values: Mapping[str, str]) -> str:
        """`pulumi up -s prod` to its end; how long it took.

        Raises:
            TwinError: it failed; the end of what it said.
        """
        started = time.monotonic()
        process, log = self.start(changes, values)
        with steps.Follower(log) as follower:
            code = process.wait(1800)
        self._steps += follower.steps
        if code != 0:
            raise TwinError(f"`pulumi up` with {dict(values)} failed:\n{errors_of(log.read_text())}")
        return f"{time.monotonic() - started:.0f} s"

    def up_or_on(self, changes: Mapping[str, Any], values: Mapping[str, str]) -> str:
        """`pulumi up -s prod`, and should it fail the same once more, as a person would; both are counted.

        Raises:
            TwinError: it failed again.
        """
        started = time.monotonic()
        try:
            return self.up(changes, values)
        except TwinError as error:
            self.gone_on.append(str(error))
            self._say(f"{error}; going on")
        self.up(changes, values)
        return f"{time.monotonic() - started:.0f} s, gone on with once"

    def first(self, changes: Mapping[str, Any], tag: str) -> None:
        """Platform, image and first release, as `make up` makes them, with these settings.

        Raises:
            TwinError: one of them failed.
        """
        self.up(changes, {})
        self.push(tag)
        self.up(changes, {"tag": tag})
        production.wait_until_served(self.twin, str(production.outputs(self.twin)["url"]))

    def push(self, *tags: str) -> None:
        """An image of its own under each tag."""
        for tag in tags:
            source = self.directory / f"application-{tag}"
            shutil.copytree(REPOSITORY / "twin" / "application", source)
            with (source / "shopcat" / "__main__.py").open("a") as file:
                file.write(f"# {tag}\n")
            production.push_image(self.twin, source, tag)

    def _pods(self, system: str) -> list[dict[str, Any]]:
        arguments = ["kubectl", "get", "pods", "-n", NAMESPACES[system], "-l", SELECTORS[system], "-o", "json"]
        found: list[dict[str, Any]] = json.loads(execute(self.twin, arguments))["items"]
        return found

    def evict(self, system: str, number: int) -> str:
        """Evict pods one after the other, as the drain of their nodes would; returns once they are gone.

        Raises:
            TwinError: there are not that many, or one could not be evicted within five minutes.
        """
        names = [pod["metadata"]["name"] for pod in self._pods(system) if "deletionTimestamp" not in pod["metadata"]]
        if len(names) < number:
            raise TwinError(f"{len(names)} pods of {system}; {number} were to be evicted")
        deadline = time.monotonic() + 300
        for name in names[:number]:
            namespace = NAMESPACES[system]
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
            path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
            while True:
                try:
                    execute(self.twin, ["kubectl", "create", "--raw", path, "-f", "-"], given=json.dumps(body))
                    break
                except TwinError as error:
                    if "disruption budget" not in str(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(1)
        self.settled(system, deadline)
        return f"{number} pods evicted"

    def settled(self, system: str, deadline: float) -> None:
        """Wait until no pod leaves and each is ready.

        Raises:
            TwinError: not by the deadline.
        """
        while True:
            pods = self._pods(system)
            unready = [
                pod["metadata"]["name"]
                for pod in pods
                if "deletionTimestamp" in pod["metadata"]
                or not any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
            ]
            if len(pods) == 2 and not unready:
                last = next((one for one in reversed(self._runs) if one.system == system and one.ended), None)
                if last and not last.drained:
                    last.drained = time.time()
                return
            if time.monotonic() > deadline:
                raise TwinError(f"{system} has not settled: {unready or len(pods)}")
            time.sleep(1)

    def drained(self) -> None:
        """Wait until no pod that the latest action sent away is left, and note when that was.

        Raises:
            TwinError: one is still there although its grace period is over.
        """
        one, deadline = self._runs[-1], self.drained_by
        while leaving := [pod for pod in self._pods(one.system) if "deletionTimestamp" in pod["metadata"]]:
            if time.monotonic() > deadline:
                raise TwinError(f"{leaving[0]['metadata']['name']} does not leave")
            time.sleep(5)
        one.drained = time.time()

    def drain_node(self) -> str:
        """`kubectl drain` of the first node, with everything on it, and back."""
        node = self.twin.node_names[0]
        drain = ["kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s", "--force"]
        try:
            execute(self.twin, drain)
        finally:
            execute(self.twin, ["kubectl", "uncordon", node])
        return node

    def abort(self, tag: str, *, throttled_seconds: float) -> str:
        """Kill the engine at the canary, then abort while ModifyRule is throttled.

        Raises:
            TwinError: the release never got there, or the abort failed.
        """
        process, log = self.start(SHORT, {"tag": tag})
        deadline = time.monotonic() + 300
        while "read back (2 of 2)" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise TwinError(f"release {tag} never came to its canary:\n{log.read_text()[-2000:]}")
            time.sleep(0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        execute(self.twin, ["pulumi", "cancel", "-s", "prod", "--yes"])
        fault = {
            "service": "elasticloadbalancing",
            "action": "ModifyRule",
            "kind": "throttle",
            "seconds": throttled_seconds,
        }
        data = json.dumps(fault).encode()
        request = urllib.request.Request(f"{self.twin.aws_endpoint}/twin/faults", data=data, method="POST")
        with urllib.request.urlopen(request, timeout=10):
            pass
        return self.up(SHORT, {"abort": tag})


def errors_of(log: str) -> str:
    """What an update that failed said of it; all of its end if it named no error."""
    _, diagnostics, said = log.partition("\nDiagnostics:\n")
    return said.partition("\nOutputs:\n")[0].strip()[:3000] if diagnostics else log[-3000:]


def _steady(outcomes: Sequence[Outcome], began: float) -> loads.Summary:
    """Of what was due just before an action began."""
    since = began - STEADY_SECONDS + _RECKONED_SECONDS
    return loads.summarize(each for each in _ended_since(outcomes, since) if since <= each.due < began)


def _ended_since(outcomes: Sequence[Outcome], moment: float) -> Iterator[Outcome]:
    """The last of a list that grows as requests end; everything that was due since then is among them."""
    for one in reversed(outcomes):
        if one.ended < moment - 1:  # two may be told in the other order
            return
        yield one


def play(name: str, directory: Path, say: Callable[[str], None] = print) -> Result:
    """Every scenario once, with short drain numbers, on two fresh twins side by side.

    Raises:
        TwinError: a step failed for a reason that is no failed request.
    """
    started = time.time()
    twins = [config.load(each, simulated=False) for each in (name, second_name(name))]
    suffixes = ("", " 2")
    benches = [
        Bench(twin, directory / twin.name, SHORT_MIX, say, suffix) for twin, suffix in zip(twins, suffixes, strict=True)
    ]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(_released_and_back, benches[0]), pool.submit(_changed_and_worn, benches[1])
        measured = [*first.result(), *second.result()]
    stories = [bench.stories(started) for bench in benches]
    return Result(
        noop=measure(twins[0], benches[0].settings(SHORT)),
        measured=measured,
        outcomes={**benches[0].by_load, **benches[1].by_load},
        disagreements=[line for differ, _ in stories for line in differ],
        orders_wrong=[line for _, wrong in stories for line in wrong],
        seconds=time.time() - started,
    )


def second_name(name: str) -> str:
    """Of the twin beside it."""
    return f"{name}-2"


def _prepare(bench: Bench, first: DrainInputs) -> tuple[Legacy, Patched]:
    """All three systems, each with its first release, warm."""
    parts.up(bench.twin)
    bench.first(settings_of(first), "v1.0.0")
    bench.push("v1.1.0")
    legacy = Legacy(bench.twin, bench.directory, APP_DRAIN_SECONDS)
    patched = Patched(
        bench.twin,
        bench.directory,
        app_drain_seconds=APP_DRAIN_SECONDS,
        pre_stop_seconds=SHORT_BUDGET.pre_stop_seconds,
        settle_seconds=PROPAGATION_SECONDS + LONGEST_REQUEST_SECONDS,
    )
    legacy.install()
    patched.install()
    patched.release("v1.0.0")
    for system in (LEGACY, PATCHED):
        _serves(bench, system)
    return legacy, patched


def _released_and_back(bench: Bench) -> list[Measured]:
    """A budget that is too small; a new tag; a node drained; a rollback."""
    legacy, patched = _prepare(bench, inputs(TOO_SMALL_SECONDS, TOO_SMALL_SECONDS))
    with bench.under_load(*NAMESPACES):
        bench.delays(PROPAGATION_SECONDS / TOO_SMALL_SECONDS, TOO_SMALL_SECONDS, every=True)
        time.sleep(STEADY_SECONDS)
        bench.measure(TOO_SMALL, {OURS: lambda: bench.evict(OURS, 2)})
        bench.delays(1.0, PROPAGATION_SECONDS)
        time.sleep(STEADY_SECONDS)
        bench.measure(
            NEW_TAG,
            {
                OURS: lambda: bench.up(SHORT, {"tag": "v1.1.0"}),
                LEGACY: legacy.release,
                PATCHED: lambda: patched.release("v1.1.0").splitlines()[-1],
            },
        )
        bench.settled(OURS, bench.drained_by)
        with ThreadPoolExecutor(1) as pool:
            drained = pool.submit(bench.drain_node)
            bench.measure("node drain", dict.fromkeys(NAMESPACES, drained.result))
        bench.settled(OURS, bench.drained_by)
        bench.measure("rollback", {OURS: lambda: bench.up(SHORT, {"rollback": "v1.1.0->v1.0.0"})})
        bench.settled(OURS, bench.drained_by)
    return bench.finish()


def _changed_and_worn(bench: Bench) -> list[Measured]:
    """A config change alone; an abort while the ELB API is throttled; the curve."""
    legacy, _ = _prepare(bench, inputs(PROPAGATION_SECONDS, CONTROLLER_LAG_SECONDS))
    with bench.under_load(*NAMESPACES):
        bench.delays(1.0, PROPAGATION_SECONDS)
        time.sleep(STEADY_SECONDS)
        changed = {**SHORT, "shopcat:release": {**SHORT["shopcat:release"], "memory": "400Mi"}}
        bench.measure(
            "config change alone", {OURS: lambda: bench.up(changed, {"tag": "v1.0.0"}), LEGACY: legacy.change}
        )
        bench.measure("abort, ModifyRule throttled", {OURS: lambda: bench.abort("v1.1.0", throttled_seconds=30)})
        for system in NAMESPACES:
            bench.settled(system, bench.drained_by)
        for ratio in POINTS:
            bench.delays(ratio, PROPAGATION_SECONDS, every=True)
            bench.measure(CURVE, {system: partial(bench.evict, system, 1) for system in NAMESPACES})
    return bench.finish()


def play_full(name: str, directory: Path, releases: int = FULL_RELEASES, say: Callable[[str], None] = print) -> Result:
    """Consecutive releases with the committed settings and the load balancer's real delays, until there are enough of both.

    Raises:
        TwinError: a step failed for a reason that is no failed request.
    """
    started = time.time()
    twin = config.load(name, simulated=False)
    bench = Bench(twin, directory, FULL_MIX, say)
    enough = FULL_REQUESTS if releases >= FULL_RELEASES else 0
    tags = [f"v1.{number}.0" for number in range(1, FULL_MOST_RELEASES + 1)]
    parts.up(twin)
    bench.first({}, "v1.0.0")
    # Now, when it has started the database: what it starts later would run behind the shop too.
    aws = processes.find(twin, "aws")
    bench.aside = aws is not None and cgroups.put_behind(twin, aws.pid)
    bench.push(*tags[:releases])
    bench.delays(parameters.load().deregistration_seconds.maximum / bench.budget.propagation_seconds,
                 bench.budget.propagation_seconds)  # fmt: skip
    broken = ""
    with bench.under_load(OURS, maximum_seconds=FULL_MOST_SECONDS), ThreadPoolExecutor(1) as beside:
        leaving: Future[None] | None = None
        try:
            for number, tag in enumerate(tags, start=1):
                if number > releases:
                    if len(bench.loads[OURS].outcomes) >= enough:
                        break
                    bench.push(tag)
                # The next release does not wait for the pods of the one before: a node has room for them too.
                time.sleep(STEADY_SECONDS)
                bench.measure(RELEASE, {OURS: partial(bench.up_or_on, {}, {"tag": tag})}, wait=False)
                if leaving is not None:
                    leaving.result()
                leaving = beside.submit(bench.drained)
            bench.settled(OURS, bench.drained_by)
        except TwinError as error:  # hours of figures are worth looking at all the same
            broken = str(error)
    measured = bench.finish()
    differ, wrong = bench.stories(started)
    return Result(
        measured,
        bench.by_load,
        differ,
        wrong,
        time.time() - started,
        full=True,
        behind=bench.aside,
        gone_on=bench.gone_on,
        broken=broken,
    )


def _serves(bench: Bench, system: str) -> None:
    """Wait until the system has answered ten times in a row: a cold start is no release.

    Raises:
        TwinError: not within three minutes.
    """
    deadline = time.monotonic() + 180
    while True:
        only = dataclasses.replace(SHORT_MIX[1], rate=6.0)
        with run.load_on(bench.twin, [only], 2.0, host_prefix(system)) as found:
            time.sleep(2.2)
            outcomes = found.stop()
        if len(outcomes) >= 10 and not any(one.failure for one in outcomes):
            return
        if time.monotonic() > deadline:
            raise TwinError(f"{system} does not answer: {Counter(one.failure for one in outcomes)}")
