"""From raw figures to a page: a JSON of everything, plots, and the table that stands first."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import steps
from bench.load import Outcome
from bench.scenarios import CURVE, FULL_RELEASES, FULL_REQUESTS, TOO_SMALL, Measured, Result
from bench.systems import LEGACY, OURS, PATCHED

_COLOURS = {"blue": "tab:blue", "green": "tab:green", "": "tab:gray"}
_TITLES = {OURS: "ours", LEGACY: "legacy", PATCHED: "legacy + patches"}
_WIDTH_SECONDS = 2
MOST_P99_RATIO = 1.2
MOST_FLOOR_RATIO = 1.3
FULL_LONG_IN_FLIGHT = 20
SHORTEST_LABELLED_SECONDS = 6


def _title(name: str) -> str:
    system, _, number = name.partition(" ")
    return _TITLES[system] + (f", twin {number}" if number else "")


def series(outcomes: Sequence[Outcome]) -> dict[str, list[list[float]]]:
    """Answered requests by colour, and failures: pairs of seconds since the epoch and requests due in the two after it."""
    counts: dict[str, Counter[int]] = {}
    for one in outcomes:
        name = "failed" if one.failure else one.colour or "answered"
        counts.setdefault(name, Counter())[int(one.due) // _WIDTH_SECONDS * _WIDTH_SECONDS] += 1
    return {name: [[float(at), float(found[at])] for at in sorted(found)] for name, found in sorted(counts.items())}


def step_of(measured: Iterable[Measured], load: str, moment: float) -> str:
    """The scenario and, in a release of ours, the step during which something happened."""
    begun = [one for one in measured if one.load == load and one.began <= moment]
    if not begun:
        return "before"
    last = max(begun, key=lambda one: one.began)
    step = steps.step_at(last.steps, moment)
    return f"{last.scenario}: {step}" if step else last.scenario


def raw(result: Result) -> dict[str, Any]:
    """What the JSON holds; failures one by one, each with its step, requests as counts in two seconds."""
    return {
        "seconds": round(result.seconds, 1),
        "full": result.full,
        "measured": [dataclasses.asdict(one) for one in result.measured],
        "failures": {
            name: [
                {**dataclasses.asdict(one), "step": step_of(result.measured, name, one.due)}
                for one in outcomes
                if one.failure
            ]
            for name, outcomes in result.outcomes.items()
        },
        "series": {name: series(outcomes) for name, outcomes in result.outcomes.items()},
        "requests": {name: len(outcomes) for name, outcomes in result.outcomes.items()},
        "behind": result.behind,
        "goneOn": list(result.gone_on),
        "noop": dataclasses.asdict(result.noop) if result.noop else None,
        "disagreements": result.disagreements,
        "ordersLostOrDoubled": result.orders_wrong,
        "problems": problems(result),
    }


_BEHIND = {
    True: "ran only while nothing else wanted the processor (the kernel's idle class); the database, the cluster, the load "
    "balancer and the clients took it as they needed.",
    False: "took the processor from it here: they could not be put into the kernel's idle class (for groups: Linux 5.15).",
}

# --- plots


def _embedded(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    encoded = base64.b64encode(buffer.getvalue().encode()).decode()
    return f'<img alt="" src="data:image/svg+xml;base64,{encoded}">'


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def timeline(name: str, outcomes: Sequence[Outcome], measured: Sequence[Measured]) -> str:
    """Requests a second by colour, and every failure, with scenarios and a release's steps marked."""
    start = min(one.due for one in outcomes)
    figure, axes = _axes(12, 2.8)
    for kind, points in series(outcomes).items():
        if kind != "failed":
            rates = {at: count / _WIDTH_SECONDS for at, count in points}
            moments = range(int(points[0][0]), int(points[-1][0]) + 1, _WIDTH_SECONDS)
            seconds = [at - start for at in moments]
            axes.plot(
                seconds,
                [rates.get(float(at), 0.0) for at in moments],
                color=_COLOURS.get(kind),
                label=kind,
                linewidth=1,
            )
    bad = [one.due - start for one in outcomes if one.failure]
    axes.plot(bad, [0.0] * len(bad), "x", color="tab:red", label=f"failed ({len(bad)})")
    top = axes.get_ylim()[1]
    for one in measured:
        if one.load != name:
            continue
        axes.axvline(one.began - start, color="black", linewidth=0.8)
        axes.text(one.began - start, top, f" {one.scenario}", fontsize=6, rotation=25, va="bottom")
        for step in one.steps:
            axes.axvline(step.at - start, color="black", linewidth=0.4, linestyle=":")
            axes.text(step.at - start, top * 0.02, step.name, fontsize=4, rotation=90, va="bottom")
    axes.set_xlabel("seconds")
    axes.set_ylabel("requests/s")
    axes.set_title(_title(name), loc="left", fontsize=9, y=1.25)
    axes.legend(fontsize=6, loc="center right")
    return _embedded(figure)


def latencies(measured: Sequence[Measured]) -> str:
    """Median and 99th percentile of short requests before each scenario and during it."""
    found = [one for one in measured if one.steady_p99]
    figure, axes = _axes(12, 0.34 * len(found) + 1.2)
    for place, one in enumerate(found):
        for shift, p50, p99, colour in (
            (-0.15, one.steady_p50, one.steady_p99, "tab:gray"),
            (0.15, one.p50, one.p99, "tab:blue"),
        ):
            axes.plot([p50 * 1000, p99 * 1000], [place + shift] * 2, "|-", color=colour)
    axes.set_yticks(range(len(found)), [f"{one.scenario}, {_TITLES[one.system]}" for one in found], fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("ms, median to 99th percentile; grey: the seconds before, blue: during")
    axes.invert_yaxis()
    return _embedded(figure)


def against_floor(one: Measured) -> str:
    """One release, part by part, above what it takes at least."""
    figure, axes = _axes(10, 1.6)
    for place, found in ((0, steps.parts(one.began, one.steps, one.ended)), (1, list(one.floor))):
        at = 0.0
        for name, seconds in found:
            axes.barh(place, seconds, left=at, edgecolor="white")
            if seconds >= SHORTEST_LABELLED_SECONDS:
                axes.text(at + seconds / 2, place, f"{name}\n{seconds:.0f} s", fontsize=5, ha="center", va="center")
            at += seconds
    axes.set_yticks([0, 1], ["measured", "floor"])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    return _embedded(figure)


def curve_points(measured: Sequence[Measured], system: str) -> list[tuple[float, int]]:
    """Delay ratio and failed requests of the system's evictions."""
    return [(one.delay_ratio, one.failed) for one in measured if one.system == system and one.scenario == CURVE]


def curve(measured: Sequence[Measured]) -> str:
    """Failed requests when a pod leaves, against the real delay ÷ the budget's propagation."""
    figure, axes = _axes(6, 3)
    for system, marker in ((LEGACY, "o"), (PATCHED, "s"), (OURS, "^")):
        points = curve_points(measured, system)
        axes.plot([x for x, _ in points], [y for _, y in points], marker=marker, label=_TITLES[system], alpha=0.7)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("real delay ÷ the propagation allowed for")
    axes.set_ylabel("failed requests")
    axes.legend(fontsize=7)
    return _embedded(figure)


# --- what it says


def table(measured: Sequence[Measured]) -> str:
    """The counts, as HTML."""
    rows = [
        f"<tr><td>{html.escape(one.scenario)}<td>{_TITLES[one.system]}<td>{one.delay_ratio:g}"
        f"<td>{one.ended - one.began:.0f}<td>{one.requests}<td><b>{one.failed}</b>"
        f"<td>{html.escape(', '.join(f'{k}: {v}' for k, v in one.by_failure.items()))}"
        f"<td>{one.steady_p99 * 1000:.0f}<td>{one.p99 * 1000:.0f}"
        for one in measured
    ]
    head = "scenario|system|delay ÷ budget|took s|requests|failed|how|p99 before, ms|p99 during, ms".replace(
        "|", "<th>"
    )
    return f"<table><tr><th>{head}{''.join(rows)}</table>"


def p99_ratio(measured: Sequence[Measured]) -> float:
    """Median, over releases of ours, of the 99th percentile during one ÷ just before it."""
    found = [one.p99 / one.steady_p99 for one in measured if one.floor and one.steady_p99]
    return statistics.median(found) if found else 0.0


def floor_ratio(one: Measured) -> float:
    """How long a release took ÷ what it takes at least."""
    return (one.ended - one.began) / sum(seconds for _, seconds in one.floor)


def released_under(releases: Iterable[Measured], outcomes: Sequence[Outcome]) -> int:
    """Requests due between a new colour's start and the last pod of the old one, each counted once."""
    windows = []
    for one in releases:
        begun = next((step.at for step in one.steps if step.name == "idle colour up"), one.began)
        windows.append((begun, max(one.ended, one.drained)))
    return sum(any(begun <= each.due <= end for begun, end in windows) for each in outcomes)


def long_in_flight(one: Measured, outcomes: Sequence[Outcome]) -> int:
    """Long requests in flight when everything was moved to the new colour."""
    shifted = next((step.at for step in one.steps if step.name == "shift"), 0.0)
    return sum(each.stream == "long" and each.due <= shifted <= each.ended for each in outcomes)


def problems(result: Result) -> list[str]:
    """Why this run proves nothing; empty when it does."""
    found = [f"client and load balancer disagree: {one}" for one in result.disagreements[:5]]
    found += [f"acknowledged order not stored exactly once: {key}" for key in result.orders_wrong[:5]]
    promised = [
        one
        for one in result.measured
        if one.system == OURS and one.scenario != TOO_SMALL and (one.scenario != CURVE or one.delay_ratio <= 1)
    ]
    if failed := sum(one.failed for one in promised):
        found.append(f"ours failed {failed} requests")
    return found + (_full_problems(result) if result.full else _short_problems(result))


def _short_problems(result: Result) -> list[str]:
    found = []
    if not any(one.failed for one in result.measured if one.system == LEGACY):
        found.append("legacy failed none: the load balancer was not unkind enough for a proof")
    if not any(one.failed for one in result.measured if one.scenario == TOO_SMALL):
        found.append("too small a budget failed none: the proof could not have failed")
    return found


def _full_problems(result: Result) -> list[str]:
    found = [f"the run ended early: {result.broken}"] if result.broken else []
    releases = [one for one in result.measured if one.floor]
    sent = sum(len(outcomes) for outcomes in result.outcomes.values())
    if len(releases) < FULL_RELEASES or sent < FULL_REQUESTS:
        found.append(f"{len(releases)} releases and {sent} requests: {FULL_RELEASES} and {FULL_REQUESTS} are needed")
    under = sum(
        released_under([one for one in releases if one.load == load], outcomes)
        for load, outcomes in result.outcomes.items()
    )
    if under < sent / 2:
        found.append(f"{under} of {sent} requests came while a release ran; at least half are needed")
    fewest = min((long_in_flight(one, result.outcomes[one.load]) for one in releases), default=0)
    if fewest < FULL_LONG_IN_FLIGHT:
        found.append(f"{fewest} long requests in flight at a shift; at least {FULL_LONG_IN_FLIGHT} are needed")
    if (ratio := p99_ratio(result.measured)) > MOST_P99_RATIO:
        found.append(f"p99 during a release is {ratio:.2f} of the steady one; at most {MOST_P99_RATIO}")
    slowest = max((floor_ratio(one) for one in releases), default=0.0)
    if slowest > MOST_FLOOR_RATIO:
        found.append(f"a release took {slowest:.2f} of its floor; at most {MOST_FLOOR_RATIO}")
    return found


def _release_parts(measured: Sequence[Measured]) -> str:
    releases = [one for one in measured if one.floor]
    if not releases:
        return ""
    one, ratios = releases[0], [floor_ratio(each) for each in releases]
    return (
        f"<h2>A release against its floor</h2><p>{html.escape(one.scenario)}: {one.ended - one.began:.0f} s, "
        f"{ratios[0]:.2f} of the floor (all {len(ratios)}: median {statistics.median(ratios):.2f}, most {max(ratios):.2f}). "
        "The floor: health checks, the canary's propagation, and CloudWatch, which has the two minutes as late as it had "
        f"them. p99 during ÷ before, median of all releases: {p99_ratio(measured):.2f}.</p>"
        f"{against_floor(one)}"
    )


def as_text(document: dict[str, Any]) -> str:
    """JSON with a line for each key, and for each item of a list: thousands of figures, and still a diff to read."""
    parts = []
    for key, value in document.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f"  {json.dumps(one)}" for one in value) + "\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write(result: Result, directory: Path, name: str) -> None:
    """The JSON and the page."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(as_text(raw(result)))
    found = problems(result)
    verdict = "".join(f"<li>{html.escape(one)}" for one in found)
    plots = [timeline(one, result.outcomes[one], result.measured) for one in result.outcomes]
    shown_curve = curve(result.measured) if curve_points(result.measured, OURS) else ""
    command = "make bench FULL=1" if result.full else "make bench"
    page = f"""<!doctype html><meta charset="utf-8"><title>ShopCat: requests that failed at a release</title>
<style>body{{font:14px sans-serif;max-width:75em;margin:2em auto}}td,th{{padding:.2em .7em;text-align:left}}</style>
<h1>Requests that failed at a release</h1>
<p>Made by <code>{command}</code> on the twin, not on AWS. What stands in one scenario ran at the same time, on the same
cluster, under the same load and delays. Latencies count from when a request was due, and tell this machine's noise as well.
Each failure stands in the JSON beside this page, with its time, kind and step; the clients' and the load balancers' own logs
agree on every request ({len(result.disagreements)} exceptions), and every acknowledged order is in PostgreSQL exactly once
({len(result.orders_wrong)} exceptions).</p>
{f"<p>Engine and AWS stand-in, which on AWS share no machine with the shop, {_BEHIND[result.behind]}</p>" if result.full else ""}
{"".join(f"<p>An update failed and the same command went on with it: {html.escape(one)}</p>" for one in result.gone_on)}
{f"<h2>This run proves nothing</h2><ul>{verdict}</ul>" if found else ""}
{table(result.measured)}
{f"<p>Nothing to release: {html.escape(str(result.noop))}.</p>" if result.noop else ""}
<h2>Over time</h2>{"".join(plots)}
<h2>Latency</h2>{latencies(result.measured)}
{_release_parts(result.measured)}
{f"<h2>A pod leaves: failed requests against real delay</h2>{shown_curve}" if shown_curve else ""}
"""
    (directory / f"{name}.html").write_text(page)
