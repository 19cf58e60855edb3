"""Legacy, legacy with patches, and ours under the same load: released, drained, aborted, rolled back, requests counted."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench import noop, pods, run
from bench.experiment import Bench
from bench.measurements import Measurement, Result
from bench.pods import NAMESPACES
from bench.systems import LEGACY, OURS, PATCHED, Legacy, Patched, host_prefix
from bench.workloads import (
    APP_DRAIN_SECONDS,
    DELAY_RATIOS,
    FULL_MAX_RELEASES,
    FULL_MAX_SECONDS,
    FULL_MIX,
    FULL_RELEASES,
    FULL_REQUESTS,
    LONGEST_REQUEST_SECONDS,
    PROPAGATION_SECONDS,
    SHORT_BUDGET,
    SHORT_INPUTS,
    SHORT_MIX,
    SHORT_SETTINGS,
    STEADY_SECONDS,
    TOO_SMALL_SECONDS,
    drain_inputs,
    drain_settings,
)
from infra.timeouts import DrainInputs
from twin import config, parts
from twin.errors import TwinError
from twin.host import cgroups, processes
from twin.loadbalancer import parameters

TOO_SMALL = "budget too small: eviction"
NEW_TAG = "new tag"
NODE_DRAIN = "node drain"
CURVE = "eviction"
RELEASE = "release"


def run_short(name: str, directory: Path, log: Callable[[str], None] = print) -> Result:
    """Run every scenario once, with short drain numbers, on two fresh twins side by side.

    Raises:
        TwinError: a step failed for a reason that is no failed request.
    """
    started = time.time()
    twins = [config.load(twin_name, simulated=False) for twin_name in (name, second_name(name))]
    suffixes = ("", " 2")
    benches = [
        Bench(twin, directory / twin.name, SHORT_MIX, log, suffix) for twin, suffix in zip(twins, suffixes, strict=True)
    ]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(_release_drain_rollback, benches[0])
        second = pool.submit(_change_abort_evict, benches[1])
        measurements = [*first.result(), *second.result()]
    contradictions = [bench.contradictions(started) for bench in benches]
    return Result(
        noop=noop.measure(twins[0], benches[0].write_settings(SHORT_SETTINGS)),
        measurements=measurements,
        outcomes={**benches[0].outcomes_by_load, **benches[1].outcomes_by_load},
        disagreements=[line for disagreements, _ in contradictions for line in disagreements],
        orders_wrong=[line for _, orders in contradictions for line in orders],
        seconds=time.time() - started,
    )


def second_name(name: str) -> str:
    """Return the name of the twin beside the first."""
    return f"{name}-2"


def _prepare(bench: Bench, first: DrainInputs) -> tuple[Legacy, Patched]:
    """Start all three systems, each with its first release, warm."""
    parts.up(bench.twin)
    bench.first_release(drain_settings(first), "v1.0.0")
    bench.push_images("v1.1.0")
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
        _wait_until_warm(bench, system)
    return legacy, patched


def _release_drain_rollback(bench: Bench) -> list[Measurement]:
    """Measure a budget that is too small, a new tag, a node drain and a rollback."""
    legacy, patched = _prepare(bench, drain_inputs(TOO_SMALL_SECONDS, TOO_SMALL_SECONDS))
    with bench.under_load(*NAMESPACES):
        bench.set_delays(PROPAGATION_SECONDS / TOO_SMALL_SECONDS, TOO_SMALL_SECONDS, always_worst=True)
        time.sleep(STEADY_SECONDS)
        bench.measure(TOO_SMALL, {OURS: lambda: bench.evict(OURS, 2)})
        bench.set_delays(1.0, PROPAGATION_SECONDS)
        time.sleep(STEADY_SECONDS)
        bench.measure(
            NEW_TAG,
            {
                OURS: lambda: bench.up(SHORT_SETTINGS, {"tag": "v1.1.0"}),
                LEGACY: legacy.release,
                PATCHED: lambda: patched.release("v1.1.0").splitlines()[-1],
            },
        )
        bench.wait_until_settled(OURS, bench.drain_deadline)
        with ThreadPoolExecutor(1) as pool:
            drain = pool.submit(pods.drain_node, bench.twin)
            bench.measure(NODE_DRAIN, dict.fromkeys(NAMESPACES, drain.result))
        bench.wait_until_settled(OURS, bench.drain_deadline)
        bench.measure("rollback", {OURS: lambda: bench.up(SHORT_SETTINGS, {"rollback": "v1.1.0->v1.0.0"})})
        bench.wait_until_settled(OURS, bench.drain_deadline)
    return bench.measurements()


def _change_abort_evict(bench: Bench) -> list[Measurement]:
    """Measure a config change alone, an abort while the ELB API is throttled, and the curve of evictions."""
    legacy, _ = _prepare(bench, SHORT_INPUTS)
    with bench.under_load(*NAMESPACES):
        bench.set_delays(1.0, PROPAGATION_SECONDS)
        time.sleep(STEADY_SECONDS)
        changes = {**SHORT_SETTINGS, "shopcat:release": {**SHORT_SETTINGS["shopcat:release"], "memory": "400Mi"}}
        bench.measure(
            "config change alone", {OURS: lambda: bench.up(changes, {"tag": "v1.0.0"}), LEGACY: legacy.change}
        )
        bench.measure(
            "abort, ModifyRule throttled",
            {OURS: lambda: bench.abort_after_kill(SHORT_SETTINGS, "v1.1.0", throttled_seconds=30)},
        )
        for system in NAMESPACES:
            bench.wait_until_settled(system, bench.drain_deadline)
        for ratio in DELAY_RATIOS:
            bench.set_delays(ratio, PROPAGATION_SECONDS, always_worst=True)
            bench.measure(CURVE, {system: partial(bench.evict, system, 1) for system in NAMESPACES})
    return bench.measurements()


def run_full(name: str, directory: Path, releases: int = FULL_RELEASES, log: Callable[[str], None] = print) -> Result:
    """Release again and again with the committed settings and the load balancer's real delays.

    It ends with enough releases and enough requests.

    Raises:
        TwinError: a step before the first release failed.
    """
    started = time.time()
    twin = config.load(name, simulated=False)
    bench = Bench(twin, directory, FULL_MIX, log)
    requests = FULL_REQUESTS if releases >= FULL_RELEASES else 0
    tags = [f"v1.{number}.0" for number in range(1, FULL_MAX_RELEASES + 1)]
    parts.up(twin)
    bench.first_release({}, "v1.0.0")
    # Only now, since the stand-in has started the database: what it starts later would yield the processor too.
    aws = processes.find(twin, "aws")
    bench.engine_yields = aws is not None and cgroups.put_behind(twin, aws.pid)
    bench.push_images(*tags[:releases])
    propagation_seconds = bench.budget.propagation_seconds
    worst_seconds = parameters.load().deregistration_seconds.maximum
    bench.set_delays(worst_seconds / propagation_seconds, propagation_seconds)
    error_text = ""
    with bench.under_load(OURS, maximum_seconds=FULL_MAX_SECONDS), ThreadPoolExecutor(1) as pool:
        drain: Future[None] | None = None
        try:
            for number, tag in enumerate(tags, start=1):
                if number > releases:
                    if len(bench.loads[OURS].outcomes) >= requests:
                        break
                    bench.push_images(tag)
                # The next release does not wait for the pods of the one before: a node has room for them too.
                time.sleep(STEADY_SECONDS)
                bench.measure(RELEASE, {OURS: partial(bench.up_with_retry, {}, {"tag": tag})}, wait=False)
                if drain is not None:
                    drain.result()
                drain = pool.submit(bench.wait_until_drained)
            bench.wait_until_settled(OURS, bench.drain_deadline)
        except TwinError as error:  # hours of figures are worth a report all the same
            error_text = str(error)
    measurements = bench.measurements()
    disagreements, orders_wrong = bench.contradictions(started)
    return Result(
        measurements,
        bench.outcomes_by_load,
        disagreements,
        orders_wrong,
        time.time() - started,
        full=True,
        engine_yields=bench.engine_yields,
        retried_updates=bench.retried_updates,
        stopped_by=error_text,
    )


def _wait_until_warm(bench: Bench, system: str) -> None:
    """Wait until the system has answered ten times in a row: a cold start is no release.

    Raises:
        TwinError: not within three minutes.
    """
    deadline = time.monotonic() + 180
    fresh_pages = dataclasses.replace(SHORT_MIX[1], rate=6.0)
    while True:
        with run.load_on(bench.twin, [fresh_pages], 2.0, host_prefix(system)) as load:
            time.sleep(2.2)
            outcomes = load.stop()
        if len(outcomes) >= 10 and not any(outcome.failure for outcome in outcomes):
            return
        if time.monotonic() > deadline:
            raise TwinError(f"{system} does not answer: {Counter(outcome.failure for outcome in outcomes)}")
