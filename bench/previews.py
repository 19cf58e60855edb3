"""``make bench-previews``: as many previews as fit, opened, updated and closed while production releases under load.

On a twin of its own with real pods. First alone, to see whether the time of one more is flat; then beside production's
releases and rollbacks, which go on one after the other until the last previews are being closed. Every step of a preview is
the script that `make pr` and its workflow run; GitHub answers from memory (twin/scenarios/github.py).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import ssl
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import yaml

from bench import load as loads
from bench import previews_report, run
from bench.experiment import Bench
from bench.previews_report import BUSY, CLOSED, OPENED, QUIET, UPDATED, Operation, Result
from bench.systems import OURS
from bench.workloads import PROPAGATION_SECONDS, SHORT_MIX, SHORT_SETTINGS, STEADY_SECONDS
from infra import capacity
from infra import settings as program_settings
from infra.errors import ShopCatError
from twin import config, parts
from twin.errors import TwinError
from twin.host import pki
from twin.loadbalancer import hostnames
from twin.paths import REPOSITORY
from twin.scenarios import github, leftovers, preview, rehearsal
from twin.scenarios.github import Github

RESULTS = REPOSITORY / "bench" / "results"
PUBLISHED = REPOSITORY / "docs"
APPLICATION = REPOSITORY / "twin" / "application"
TITLE = "previews"
FIRST_TAG = "v1.0.0"
TAGS = ("v1.1.0", "v1.2.0", "v1.3.0")
SETTINGS = {
    "shopcat:drain": SHORT_SETTINGS["shopcat:drain"],
    "shopcat:env": SHORT_SETTINGS["shopcat:release"]["env"],
}
"""Settings of each preview: production's drain numbers."""
ROUNDS = 3
"""Number of times that all of them are opened alone: when a target becomes healthy is a matter of seconds of chance."""
SIDE_BY_SIDE = 4
"""Previews that are closed at the same time: most of it is their pods' drain, which nothing else waits for."""
LONGEST_SECONDS = 7200.0
STALE_SECONDS = 60.0


def changes(tags: Sequence[str] = TAGS, first: str = FIRST_TAG) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each change of production with its settings, in order: each tag released, and rolled back."""
    for tag in tags:
        yield f"release of {tag}", {"tag": tag}
        yield f"rollback of {tag} to {first}", {"rollback": f"{tag}->{first}"}


def room_of(path: Path) -> tuple[capacity.CapacityPlan, capacity.ProductionDemand]:
    """Return production's capacity plan by its settings, as the program makes it."""
    document = yaml.safe_load(path.read_text())["config"]
    values = {key.removeprefix("shopcat:"): value for key, value in document.items() if key.startswith("shopcat:")}
    production = program_settings.read_settings(values).production
    return capacity.plan(production), production


class Previews:
    """Previews of one twin: each step is the pipeline's script, and its time is kept."""

    def __init__(self, bench: Bench, hub: Github, directory: Path, log: Callable[[str], None] = print) -> None:
        self._twin, self._hub, self._log = bench.twin, hub, log
        self._directory = directory / "previews"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._head: dict[int, str] = {}
        self.operations: list[Operation] = []

    def push(self, number: int) -> Path:
        """Push a commit of its own to the pull request; return the application at that commit."""
        word = f"pr-{number}-{time.monotonic_ns()}"
        source = rehearsal.changed_source(APPLICATION, self._directory, word)
        self._head[number] = preview.content_tag(source)
        self._hub.push(number, self._head[number])
        return source

    def up(self, what: str, number: int, phase: str) -> None:
        """Open a preview, or update it to a commit of its own; returns once its URL answers.

        Raises:
            TwinError: the script failed.
        """
        source = self.push(number)
        began = time.time()
        steps = self._script(
            number, partial(preview.up, self._twin, number, source=source, settings=SETTINGS), f"{what}-{phase}"
        )
        self._done(Operation(what, number, phase, began, time.time(), steps))

    def close(self, numbers: Sequence[int], phase: str, last: Callable[[], None] | None = None) -> None:
        """Close previews, a few at a time; ``last`` is called before the last few are.

        Raises:
            TwinError: a script failed.
        """
        groups = [numbers[at : at + SIDE_BY_SIDE] for at in range(0, len(numbers), SIDE_BY_SIDE)]
        for place, group in enumerate(groups):
            if last is not None and place == len(groups) - 1:
                last()
            with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
                for future in [pool.submit(self._close, number, phase) for number in group]:
                    future.result()

    def open_refused(self, number: int) -> tuple[str, dict[str, list[str]]]:
        """Open a preview that has no place; return what its pull request is told (empty if it was let in), and what is left."""
        source, tag = self.push(number), self._head[number]
        try:
            self._script(number, partial(preview.up, self._twin, number, source=source, settings=SETTINGS), "refused")
        except TwinError as error:
            refusal = "\n".join(self._hub.comments(number)) or str(error)
        else:
            refusal = ""
        left = leftovers.declared(self._twin, number) if refusal else {}
        self._hub.close(number)
        self._script(number, partial(preview.close, self._twin, number), "refused-closed")
        self._log(f"one more              pr-{number}  {'refused' if refusal else 'let in'}")
        return refusal, {**left, **leftovers.everything(self._twin, number, [tag])}

    def stale(self, numbers: Sequence[int]) -> list[str]:
        """List the previews that do not serve the commit that was pushed last, a minute later."""
        deadline = time.monotonic() + STALE_SECONDS
        left = list(numbers)
        while left and time.monotonic() < deadline:
            left = [number for number in left if self._served(number) != self._head[number]]
            time.sleep(1 if left else 0)
        return [f"pr-{number}" for number in left]

    def _close(self, number: int, phase: str) -> None:
        self._hub.close(number)
        began = time.time()
        steps = self._script(number, partial(preview.close, self._twin, number), f"closed-{phase}")
        self._done(Operation(CLOSED, number, phase, began, time.time(), steps))

    def _script(self, number: int, action: Callable[..., object], title: str) -> dict[str, float]:
        """Run one of the pipeline's scripts; return its steps' seconds."""
        name = f"pr-{number}-{title.replace(' ', '-')}"
        times = self._directory / f"{name}.json"
        action(more={**self._hub.environment, "SHOPCAT_TIMES": str(times)}, log=self._directory / f"{name}.log")
        seconds: dict[str, float] = json.loads(times.read_text())
        return seconds

    def _done(self, operation: Operation) -> None:
        self.operations.append(operation)
        up = operation.steps.get(previews_report.UP)
        shown = "" if up is None else f"  (pulumi up {up:.1f} s)"
        self._log(f"{operation.what:<8} {operation.phase:<16} pr-{operation.number} {operation.seconds:6.1f} s{shown}")

    def _served(self, number: int) -> str:
        context = ssl.create_default_context(cafile=str(pki.ca_file(self._twin)))
        url = f"https://pr-{number}.{hostnames.preview_domain(self._twin)}/"
        try:
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                return str(answer.headers.get("X-ShopCat-Release", ""))
        except OSError:
            return ""


def _change_production(bench: Bench, stop: threading.Event) -> None:
    """Release and roll back, one after the other, until it has to stop."""
    for title, values in changes():
        if stop.is_set():
            return
        bench.measure(title, {OURS: partial(bench.up, SHORT_SETTINGS, values)})


def run_previews(name: str, directory: Path, log: Callable[[str], None] = print) -> Result:
    """Run the whole scenario on a fresh twin.

    Raises:
        TwinError: a step failed for a reason that is no failed request.
    """
    started = time.time()
    twin = config.load(name, simulated=False)
    bench = Bench(twin, directory, SHORT_MIX, log)
    parts.up(twin)
    bench.first_release(SHORT_SETTINGS, FIRST_TAG)
    bench.push_images(*TAGS)
    bench.set_delays(1.0, PROPAGATION_SECONDS)
    plan, production = room_of(bench.write_settings(SHORT_SETTINGS))
    places = int(preview.contract(twin)["previews"])
    if places != plan.previews or places < 1:
        raise TwinError(f"the contract has {places} places for previews, the capacity plan {plan.previews}")
    log(f"{plan.describe(production)}")
    before = leftovers.cluster_scoped(twin)
    with github.serve() as hub, bench.under_load(OURS, maximum_seconds=LONGEST_SECONDS):
        previews, numbers, stop = Previews(bench, hub, directory, log), range(1, places + 1), threading.Event()
        time.sleep(STEADY_SECONDS)
        # Each of the load balancer's delays is the worst then: chance would hide a trend.
        bench.set_delays(1.0, PROPAGATION_SECONDS, always_worst=True)
        for _ in range(ROUNDS):
            for number in numbers:
                previews.up(OPENED, number, QUIET)
            previews.close(numbers, QUIET)
        bench.set_delays(1.0, PROPAGATION_SECONDS)
        with ThreadPoolExecutor(1) as pool:
            changing = pool.submit(_change_production, bench, stop)

            def operate_all(what: str) -> None:
                for number in numbers:
                    if changing.done():
                        changing.result()  # raises what went wrong with production, now and not at the end
                    previews.up(what, number, BUSY)

            try:
                operate_all(OPENED)
                refusal, left_by_refused = previews.open_refused(places + 1)
                operate_all(UPDATED)
                stale = previews.stale(numbers)
                previews.close(numbers, BUSY, stop.set)
            finally:
                stop.set()
            changing.result()
        bench.wait_until_settled(OURS, bench.drain_deadline)
        left, after = leftovers.everything(twin), leftovers.cluster_scoped(twin)
    total = loads.summarize(bench.loads[OURS].outcomes)
    disagreements, orders_wrong = bench.contradictions(started)
    return Result(
        places=places,
        arithmetic=plan.describe(production),
        room=previews_report.room(plan, production),
        operations=previews.operations,
        changes=bench.measurements(),
        requests=total.requests,
        failed=total.failed,
        by_failure=total.by_failure,
        disagreements=disagreements,
        orders_wrong=orders_wrong,
        refusal=refusal,
        left_by_refused=left_by_refused,
        stale=stale,
        left=left,
        new_objects=sorted(after - before),
        seconds=time.time() - started,
    )


def main() -> int:
    """Run, report, take the twin down.

    Exit code 1 if a step failed or the run proves nothing; only a run that proves something is published.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.previews", description=__doc__)
    parser.add_argument("--published", type=Path, default=PUBLISHED, help="where a report that proves something goes")
    parser.add_argument("--keep", action="store_true", help="leave the twin running")
    arguments = parser.parse_args()
    name = os.environ.get("SHOPCAT_TWIN_NAME", "bench-previews")
    if reason := run.why_not([name]):
        print(f"error: {reason}", file=sys.stderr)
        return 1
    run.prepare_process()
    try:
        with tempfile.TemporaryDirectory(prefix="shopcat-previews-") as directory:
            try:
                result = run_previews(name, Path(directory))
            finally:
                run.keep_logs(Path(directory), RESULTS / f"{TITLE}-logs")
    except (TwinError, ShopCatError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if not arguments.keep:
            run.take_down([name])
    previews_report.write(result, RESULTS, TITLE)
    problems = previews_report.problems(result)
    print(f"{math.ceil(result.seconds)} s; report: {RESULTS / TITLE}.md")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        return 1
    arguments.published.mkdir(parents=True, exist_ok=True)
    for ending in ("json", "md"):
        shutil.copy(RESULTS / f"{TITLE}.{ending}", arguments.published)
    return 0


if __name__ == "__main__":
    sys.exit(main())
