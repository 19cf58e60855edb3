"""Verdict on a run, and its report: the figures and the page drawn from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench import full, page
from bench.figures import as_text, figures
from bench.load import Outcome
from bench.measurements import Measurement, Result
from bench.ratios import floor_ratio, p99_ratio

MAX_P99_RATIO = 1.2
MAX_FLOOR_RATIO = 1.3
MIN_LONG_IN_FLIGHT = 20


def requests_during_releases(releases: Iterable[Measurement], outcomes: Sequence[Outcome]) -> int:
    """Count the requests due between a new colour's start and the last pod of the old one, each once."""
    windows = []
    for release in releases:
        began = next((step.at for step in release.steps if step.name == "idle colour up"), release.began)
        windows.append((began, max(release.ended, release.drained)))
    return sum(any(began <= outcome.due <= end for began, end in windows) for outcome in outcomes)


def long_in_flight(release: Measurement, outcomes: Sequence[Outcome]) -> int:
    """Count the long requests in flight when everything was moved to the new colour."""
    shifted = next((step.at for step in release.steps if step.name == "shift"), 0.0)
    return sum(outcome.stream == "long" and outcome.due <= shifted <= outcome.ended for outcome in outcomes)


def problems(result: Result) -> list[str]:
    """List why this run proves nothing; empty when it proves what it should."""
    messages = [f"client and load balancer disagree: {disagreement}" for disagreement in result.disagreements[:5]]
    messages += [f"acknowledged order not stored exactly once: {key}" for key in result.orders_wrong[:5]]
    if failed := sum(measurement.failed for measurement in result.measurements):
        messages.append(f"{failed} requests failed")
    return messages + _full_problems(result)


def _full_problems(result: Result) -> list[str]:
    messages = [f"the run ended early: {result.stopped_by}"] if result.stopped_by else []
    releases = [measurement for measurement in result.measurements if measurement.floor]
    sent = sum(len(outcomes) for outcomes in result.outcomes.values())
    if missing := full.shortfall(result):
        messages.append(missing)
    during = sum(
        requests_during_releases([release for release in releases if release.load == load], outcomes)
        for load, outcomes in result.outcomes.items()
    )
    if during < sent / 2:
        messages.append(f"{during} of {sent} requests came while a release ran; at least half are needed")
    fewest = min((long_in_flight(release, result.outcomes[release.load]) for release in releases), default=0)
    if fewest < MIN_LONG_IN_FLIGHT:
        messages.append(f"{fewest} long requests in flight at a shift; at least {MIN_LONG_IN_FLIGHT} are needed")
    if (ratio := p99_ratio(result.measurements)) > MAX_P99_RATIO:
        messages.append(f"p99 during a release is {ratio:.2f} of the steady one; at most {MAX_P99_RATIO}")
    slowest = max((floor_ratio(release) for release in releases), default=0.0)
    if slowest > MAX_FLOOR_RATIO:
        messages.append(f"a release took {slowest:.2f} of its floor; at most {MAX_FLOOR_RATIO}")
    return messages


def write(result: Result, directory: Path, name: str) -> None:
    """Write the figures as JSON, and the page."""
    directory.mkdir(parents=True, exist_ok=True)
    document = figures(result, problems(result))
    (directory / f"{name}.json").write_text(as_text(document))
    (directory / f"{name}.html").write_text(page.draw(document))
