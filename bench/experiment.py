"""One twin under load: what is done to its production, and the requests counted meanwhile."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from bench import load as loads
from bench import pods, reconcile, run, steps
from bench.load import Load, Outcome, Stream
from bench.measurements import Action, Measurement, ended_since, steady_summary
from bench.steps import Step
from bench.systems import OURS, host_prefix
from bench.workloads import SHORT_BUDGET, SHORT_MIX
from infra.timeouts import DrainBudget
from twin.config import Twin
from twin.errors import TwinError
from twin.host import cgroups
from twin.loadbalancer import metrics, parameters, service
from twin.scenarios import production

_LOGGED_SECONDS = 1.0
"""A node writes its line after the client has the answer."""


class Bench:
    """One twin, the loads on its systems, and the actions under them."""

    def __init__(self, twin: Twin, directory: Path, mix: Sequence[Stream], log: Callable[[str], None] = print) -> None:
        self.twin, self.directory, self._mix, self._log = twin, directory, tuple(mix), log
        self.loads: dict[str, Load] = {}
        self._actions: list[Action] = []
        self._steps: list[Step] = []
        self._ratio = 0.0
        self.retried_updates: list[str] = []
        self.engine_yields = False
        """The engine runs only while nothing else wants the processor: on AWS it shares no machine with the shop.

        For a machine with processor to spare; on a busy one it would stand still.
        """
        directory.mkdir(parents=True, exist_ok=True)

    # --- measuring

    @contextlib.contextmanager
    def under_load(self, *systems: str, maximum_seconds: float = 3600.0) -> Iterator[None]:
        """Send the same load to each of the systems until the block ends."""
        with contextlib.ExitStack() as stack:
            for system in systems:
                load = run.load_on(self.twin, self._mix, maximum_seconds, host_prefix(system))
                self.loads[system] = stack.enter_context(load)
            yield

    def measure(self, scenario: str, actions: Mapping[str, Callable[[], str]], *, wait: bool = True) -> None:
        """Run the systems' actions at the same time, and print a line for each.

        Args:
            scenario: its name.
            actions: by system; each returns a note.
            wait: until what was due meanwhile has ended, so that the line holds it all (:meth:`measurements` always does).

        Raises:
            TwinError: an action failed.
        """
        began = time.time()
        started = {system: Action(scenario, system, self._ratio, began) for system in actions}
        self._actions += started.values()

        def act(system: str) -> None:
            self._steps = [] if system == OURS else self._steps
            try:
                started[system].note = actions[system]()
            finally:
                started[system].ended = time.time()
                if system == OURS:
                    started[system].steps = self._steps

        with ThreadPoolExecutor(len(actions)) as pool:
            for future in [pool.submit(act, system) for system in actions]:
                future.result()
        if wait:
            time.sleep(self.longest_seconds + 2)
        for system, action in started.items():
            outcomes = self.loads[system].outcomes
            due = [outcome for outcome in ended_since(outcomes, began) if began <= outcome.due]
            kinds = dict(Counter(outcome.failure for outcome in due if outcome.failure))
            during = loads.summarize(outcome for outcome in due if outcome.due <= action.ended)
            before = steady_summary(outcomes, began)
            self._log(
                f"{scenario:<30} {system:<8} {action.ended - began:5.0f} s {len(due):6} requests, failed: {kinds or 0}; "
                f"p99 {during.p99 * 1000:.1f} ms, before {before.p99 * 1000:.1f} ms"
            )

    @property
    def longest_seconds(self) -> float:
        """Seconds that the mix's longest request asks for."""
        return max(float(stream.path.partition("seconds=")[2] or 0) for stream in self._mix)

    def measurements(self) -> list[Measurement]:
        """Return what was measured; call it once the loads have ended."""
        return [self._measurement(action) for action in self._actions]

    def _measurement(self, action: Action) -> Measurement:
        outcomes = self.loads[action.system].outcomes
        later = [other.began for other in self._actions if other.system == action.system and other.began > action.began]
        counted_until = min(later, default=time.time())
        due = [outcome for outcome in outcomes if action.began <= outcome.due < counted_until]
        total = loads.summarize(due)
        during = loads.summarize(outcome for outcome in due if outcome.due <= action.ended)
        steady = steady_summary(outcomes, action.began)
        return Measurement(
            scenario=action.scenario,
            system=action.system,
            began=action.began,
            ended=action.ended,
            delay_ratio=action.ratio,
            requests=total.requests,
            failed=total.failed,
            by_failure=total.by_failure,
            p50=during.p50,
            p99=during.p99,
            steady_p50=steady.p50,
            steady_p99=steady.p99,
            steps=action.steps,
            floor=self.floor(action.steps),
            note=action.note,
            load=action.system,
            drained=action.drained,
        )

    def floor(self, reached: Sequence[Step]) -> list[tuple[str, float]]:
        """Return the least that a release with these steps could take, part by part; nothing of one that did not go live."""
        shifted = next((step.at for step in reached if step.name == "shift"), None)
        if shifted is None or not any(step.name == "live" for step in reached):
            return []
        known = steps.metrics_known(shifted, metrics.written(self.twin))
        return steps.floor(self.budget, shifted, known) if known else []

    @property
    def budget(self) -> DrainBudget:
        """Drain budget of the releases that are measured."""
        return SHORT_BUDGET if self._mix == SHORT_MIX else DrainBudget.derive()

    def set_delays(self, ratio: float, budget_seconds: float, *, always_worst: bool = False) -> None:
        """Make the load balancer's worst delay that many times what a budget allows for; or every delay the worst."""
        self._ratio = ratio
        scale = ratio * budget_seconds / parameters.load().deregistration_seconds.maximum
        service.set_faults(self.twin, delayScale=scale, delayWorst=always_worst)

    @property
    def drain_deadline(self) -> float:
        """Time (monotonic) by which a pod that is told to leave now is gone and its successor is ready."""
        return time.monotonic() + self.budget.grace_seconds + 120

    @property
    def outcomes_by_load(self) -> dict[str, list[Outcome]]:
        """Every request so far."""
        return {system: load.outcomes for system, load in self.loads.items()}

    def contradictions(self, since: float) -> tuple[list[str], list[str]]:
        """Compare clients with load balancers and database.

        Returns:
            Requests that clients and load balancers saw differently, and acknowledged orders that are not stored once.
        """
        outcomes = [outcome for load in self.loads.values() for outcome in load.outcomes]
        return self._compare(outcomes, since, (run.LOAD_BALANCER, run.PREVIEW_LOAD_BALANCER))

    def contradictions_of(self, outcomes: Sequence[Outcome], load_balancer: str) -> list[str]:
        """Compare the requests of one load, once all have ended, with its load balancer and the database.

        Args:
            outcomes: of the load.
            load_balancer: name by which the access logs are found.

        Returns:
            Both kinds of :meth:`contradictions`, as lines for a person.
        """
        time.sleep(_LOGGED_SECONDS)
        since = min((outcome.due for outcome in outcomes), default=0.0) - 1
        disagreements, orders = self._compare(outcomes, since, (load_balancer,))
        return [*disagreements, *(f"acknowledged order not stored exactly once: {key}" for key in orders)]

    def _compare(
        self, outcomes: Sequence[Outcome], since: float, load_balancers: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        traces = {outcome.trace for outcome in outcomes}
        logged = [
            request
            for balancer in load_balancers
            for request in run.requests_since(self.twin, since, balancer)
            if request.trace in traces
        ]
        disagreements = [str(disagreement) for disagreement in reconcile.disagreements(outcomes, logged)]
        return disagreements, reconcile.orders_lost_or_doubled(outcomes, run.stored_orders(self.twin))

    # --- updates of production

    def start_update(self, changes: Mapping[str, Any], values: Mapping[str, str]) -> tuple[subprocess.Popen[str], Path]:
        """Start `pulumi up -s prod` with settings of its own in the background; return it and its log."""
        log = self.directory / f"up-{time.monotonic_ns()}.log"
        process = run.start_up(self.twin, self.write_settings(changes), log, values)
        if self.engine_yields:
            self.engine_yields = cgroups.put_behind(self.twin, process.pid)
        return process, log

    def write_settings(self, changes: Mapping[str, Any]) -> Path:
        """Write a throw-away copy of the twin's settings, with changes."""
        document = yaml.safe_load((self.twin.directory / "Pulumi.prod.yaml").read_text())
        document["config"].update(changes)
        settings = self.directory / f"settings-{time.monotonic_ns()}" / "Pulumi.prod.yaml"
        settings.parent.mkdir()
        settings.write_text(yaml.safe_dump(document, sort_keys=False))
        return settings

    def up(self, changes: Mapping[str, Any], values: Mapping[str, str]) -> str:
        """Run `pulumi up -s prod` to its end; return how long it took.

        Raises:
            TwinError: it failed; with its diagnostics.
        """
        started = time.monotonic()
        process, log = self.start_update(changes, values)
        with steps.Follower(log) as follower:
            code = process.wait(1800)
        self._steps += follower.steps
        if code != 0:
            raise TwinError(f"`pulumi up` with {dict(values)} failed:\n{errors_of(log.read_text())}")
        return f"{time.monotonic() - started:.0f} s"

    def up_with_retry(self, changes: Mapping[str, Any], values: Mapping[str, str]) -> str:
        """Run `pulumi up -s prod`, and should it fail the same once more, as a person would; both are counted.

        Raises:
            TwinError: it failed again.
        """
        started = time.monotonic()
        try:
            return self.up(changes, values)
        except TwinError as error:
            self.retried_updates.append(str(error))
            self._log(f"{error}; running it once more")
        self.up(changes, values)
        return f"{time.monotonic() - started:.0f} s, run twice"

    def first_release(self, changes: Mapping[str, Any], tag: str, push: Callable[[str], object] | None = None) -> None:
        """Make platform, image and first release, as `make up` does, with these settings; ``push`` pushes the image.

        Raises:
            TwinError: an update failed, or the shop doesn't answer.
        """
        self.up(changes, {})
        (push or self.push_images)(tag)
        self.up(changes, {"tag": tag})
        production.wait_until_served(self.twin, str(production.outputs(self.twin)["url"]))

    def push_images(self, *tags: str) -> None:
        """Push an image of its own under each tag."""
        for tag in tags:
            source = self.directory / f"application-{tag}"
            production.copy_application(source, tag, {})
            production.push_image(self.twin, source, tag)

    def fault(self, kind: str, seconds: float, **more: str) -> None:
        """Switch a fault of the ELB API on for a while (twin/aws/faults.py)."""
        fault = {"service": "elasticloadbalancing", "kind": kind, "seconds": seconds, **more}
        data = json.dumps(fault).encode()
        request = urllib.request.Request(f"{self.twin.aws_endpoint}/twin/faults", data=data, method="POST")
        with urllib.request.urlopen(request, timeout=10):
            pass

    # --- pods

    def wait_until_settled(self, system: str, deadline: float) -> None:
        """Wait until no pod leaves and each is ready, and note the time with the system's latest action.

        Raises:
            TwinError: not by the deadline (monotonic).
        """
        pods.wait_until_settled(self.twin, system, deadline)
        ended = (action for action in reversed(self._actions) if action.system == system and action.ended)
        latest = next(ended, None)
        if latest and not latest.drained:
            latest.drained = time.time()

    def wait_until_drained(self) -> None:
        """Wait until no pod that the latest action sent away is left, and note the time.

        Raises:
            TwinError: a pod still runs although its grace period is over.
        """
        action = self._actions[-1]
        pods.wait_until_drained(self.twin, action.system, self.drain_deadline)
        action.drained = time.time()


def errors_of(log: str) -> str:
    """Return the diagnostics of an update that failed; the end of its log if it named no error."""
    _, heading, diagnostics = log.partition("\nDiagnostics:\n")
    return diagnostics.partition("\nOutputs:\n")[0].strip()[:3000] if heading else log[-3000:]
