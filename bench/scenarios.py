"""Ours released again and again with the committed settings, until a million requests are counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.experiment import Bench
from bench.measurements import Result
from bench.systems import OURS
from bench.workloads import (
    FULL_MAX_RELEASES,
    FULL_MAX_SECONDS,
    FULL_MIX,
    FULL_RELEASES,
    FULL_REQUESTS,
    STEADY_SECONDS,
)
from twin import config, parts
from twin.errors import TwinError
from twin.host import cgroups, processes
from twin.loadbalancer import parameters

RELEASE = "release"


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
    with bench.under_load(OURS, maximum_seconds=FULL_MAX_SECONDS):
        try:
            for number, tag in enumerate(tags, start=1):
                if number > releases:
                    if len(bench.loads[OURS].outcomes) >= requests:
                        break
                    bench.push_images(tag)
                time.sleep(STEADY_SECONDS)
                bench.measure(RELEASE, {OURS: partial(bench.up_with_retry, {}, {"tag": tag})}, wait=False)
                # The next release goes into the colour that this one has left, and its new password waits for those pods to end.
                bench.wait_until_drained()
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
