"""Ours released again and again with the committed settings, until a million requests are counted.

It is measured in parts, each on a twin from nothing, which are kept: a run that breaks off loses the part under way, and
the report says how many did.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench import fingerprints, load, run
from bench.experiment import Bench
from bench.figures import measurement_of
from bench.load import LONG, ORDER, PAGE, Stream
from bench.measurements import Result
from bench.systems import OURS
from bench.workloads import STEADY_SECONDS
from twin import config, parts
from twin.errors import TwinError
from twin.host import cgroups, processes
from twin.loadbalancer import parameters

RELEASE = "release"
RELEASES = 20
REQUESTS = 1_000_000
PART_RELEASES = 5
PART_SECONDS = 3600.0
"""At most; a part's releases take some forty minutes."""
MAX_PARTS = 6
MIX = (
    Stream("page, kept alive", 100.0, contains=PAGE),
    Stream("page, fresh", 12.0, fresh=True, contains=PAGE),
    Stream("order", 12.0, path="/orders", order=True, expected=201, contains=ORDER),
    Stream("long", 1.5, path="/slow?seconds=20", contains=LONG),
)
"""30 long requests are in flight at any moment; twenty releases take some three hours."""
_BEGUN = "begun"


def run_full(name: str, directory: Path, kept: Path, most: int = MAX_PARTS) -> Result:
    """Measure the parts that are missing, at most so many of them, and return all of them as one.

    Args:
        name: of the twin.
        directory: scratch and logs.
        kept: folder of the parts; those of other code or numbers are forgotten.
        most: parts to measure now.

    Raises:
        TwinError: a part broke off before its first release, or no part was ever measured.
    """
    known = _read(kept)
    for _ in range(most):
        stopped = any(part.stopped_by for part in known)
        if stopped:
            print("a part that ended early is kept; `python -m bench --full --again` measures all of it once more")
        if stopped or not shortfall(together(known)):
            break
        kept.mkdir(parents=True, exist_ok=True)
        with (kept / _BEGUN).open("a") as begun:
            begun.write(f"{fingerprint()}\n")
        number = len(known) + 1
        try:
            part = _measure(name, directory / f"part-{number}")
            _write(part, kept, number)
        finally:
            run.take_down([name])
        known.append(part)
    if not known:
        raise TwinError("no part of the full run was measured")
    broken_off = len((kept / _BEGUN).read_text().splitlines()) - len(known)
    return dataclasses.replace(together(known), broken_off=broken_off)


def fingerprint() -> str:
    """Return the fingerprint of a part."""
    return fingerprints.of_full(MIX, PART_RELEASES)


def together(measured: Sequence[Result]) -> Result:
    """Return parts as one result, the load of each with a name of its own."""
    loads = [OURS if number == 1 else f"{OURS}-{number}" for number in range(1, len(measured) + 1)]
    return Result(
        [
            dataclasses.replace(each, load=name)
            for name, part in zip(loads, measured, strict=True)
            for each in part.measurements
        ],
        {name: part.outcomes[OURS] for name, part in zip(loads, measured, strict=True)},
        [line for part in measured for line in part.disagreements],
        [key for part in measured for key in part.orders_wrong],
        sum(part.seconds for part in measured),
        full=True,
        engine_yields=all(part.engine_yields for part in measured),
        retried_updates=[error for part in measured for error in part.retried_updates],
        stopped_by="; ".join(part.stopped_by for part in measured if part.stopped_by),
    )


def shortfall(result: Result) -> str:
    """Return how many releases and requests there are, where those are too few; else nothing."""
    releases = sum(1 for each in result.measurements if each.floor)
    requests = sum(len(outcomes) for outcomes in result.outcomes.values())
    if releases >= RELEASES and requests >= REQUESTS:
        return ""
    return f"{releases} releases and {requests} requests: {RELEASES} and {REQUESTS} are needed"


def _read(kept: Path) -> list[Result]:
    """Return the parts of former runs; those of other code or numbers are removed, with the note of those that broke off."""
    begun = kept / _BEGUN
    if not begun.exists() or set(begun.read_text().split()) != {fingerprint()}:
        shutil.rmtree(kept, ignore_errors=True)
        return []
    measured: list[Result] = []
    while (path := kept / f"{len(measured) + 1}.json").exists():
        document = json.loads(path.read_text())
        document["measurements"] = [measurement_of(entry) for entry in document["measurements"]]
        measured.append(Result(**document, outcomes={OURS: load.read(path.with_suffix(".jsonl"))}))
    return measured


def _write(part: Result, kept: Path, number: int) -> None:
    load.write(part.outcomes[OURS], kept / f"{number}.jsonl")
    fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.name != "outcomes"}
    fields["measurements"] = [dataclasses.asdict(each) for each in part.measurements]
    complete = kept / f"{number}.part"
    complete.write_text(json.dumps(fields))
    complete.rename(kept / f"{number}.json")


def _measure(name: str, directory: Path, log: Callable[[str], None] = print) -> Result:
    """Release one part's versions with the committed settings and the load balancer's real delays.

    Raises:
        TwinError: a step before the first release failed; a later one ends the part and stands in it.
    """
    started = time.time()
    twin = config.load(name, simulated=False)
    bench = Bench(twin, directory, MIX, log)
    tags = [f"v1.{number}.0" for number in range(1, PART_RELEASES + 1)]
    parts.up(twin)
    bench.first_release({}, "v1.0.0")
    # Only now, since the stand-in has started the database: what it starts later would yield the processor too.
    aws = processes.find(twin, "aws")
    bench.engine_yields = aws is not None and cgroups.put_behind(twin, aws.pid)
    bench.push_images(*tags)
    propagation_seconds = bench.budget.propagation_seconds
    worst_seconds = parameters.load().deregistration_seconds.maximum
    bench.set_delays(worst_seconds / propagation_seconds, propagation_seconds)
    error_text = ""
    with bench.under_load(OURS, maximum_seconds=PART_SECONDS):
        try:
            for tag in tags:
                time.sleep(STEADY_SECONDS)
                bench.measure(RELEASE, {OURS: partial(bench.up_with_retry, {}, {"tag": tag})}, wait=False)
                # The next release goes into the colour that this one has left, and its new password waits for those pods to end.
                bench.wait_until_drained()
            bench.wait_until_settled(OURS, bench.drain_deadline)
        except TwinError as error:  # what was measured until then is worth a report all the same
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
