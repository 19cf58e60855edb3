"""From raw figures to a page: a JSON of everything, plots, and the table that stands first."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.load import Outcome, percentile
from bench.scenarios import POINTS, Measured, Result
from bench.systems import LEGACY, OURS, PATCHED

_COLOURS = {"blue": "tab:blue", "green": "tab:green", "": "tab:gray"}
_TITLES = {OURS: "ours", LEGACY: "legacy", PATCHED: "legacy + patches"}


def raw(result: Result) -> dict[str, Any]:
    """What the JSON holds; failures one by one, requests as counts a second."""
    return {
        "seconds": round(result.seconds, 1),
        "measured": [dataclasses.asdict(one) for one in result.measured],
        "steps": result.steps,
        "failures": {
            name: [dataclasses.asdict(one) for one in outcomes if one.failure]
            for name, outcomes in result.outcomes.items()
        },
        "requests": {name: len(outcomes) for name, outcomes in result.outcomes.items()},
        "disagreements": result.disagreements,
        "orders_lost_or_doubled": result.orders_wrong,
    }


def _embedded(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    encoded = base64.b64encode(buffer.getvalue().encode()).decode()
    return f'<img alt="" src="data:image/svg+xml;base64,{encoded}">'


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _a_second(times: Iterable[float], start: float, end: float, width: float = 2.0) -> list[float]:
    counts = [0.0] * (int((end - start) / width) + 1)
    for at in times:
        if start <= at <= end:
            counts[int((at - start) / width)] += 1 / width
    return counts


def timeline(system: str, outcomes: Sequence[Outcome], steps: Sequence[tuple[float, str]]) -> str:
    """Requests a second by colour, and every failure, with the scenarios' beginnings marked."""
    start, end = min(one.due for one in outcomes), max(one.due for one in outcomes)
    figure, axes = _axes(11, 2.6)
    names = sorted({one.colour for one in outcomes if not one.failure})
    for colour in names:
        found = _a_second((one.due for one in outcomes if not one.failure and one.colour == colour), start, end)
        label = colour or "answered"
        axes.plot([2.0 * i for i in range(len(found))], found, color=_COLOURS.get(colour), label=label, linewidth=1)
    bad = [one.due - start for one in outcomes if one.failure]
    axes.plot(bad, [0.0] * len(bad), "x", color="tab:red", label=f"failed ({len(bad)})")
    for at, name in steps:
        if start <= at <= end:
            axes.axvline(at - start, color="black", linewidth=0.5, linestyle=":")
            axes.text(at - start, axes.get_ylim()[1], f" {name}", fontsize=6, rotation=20, va="bottom")
    axes.set_xlabel("seconds")
    axes.set_ylabel("requests/s")
    axes.set_title(_TITLES.get(system, system), loc="left", fontsize=9, y=1.22)
    axes.legend(fontsize=6, loc="upper right")
    return _embedded(figure)


def latency(outcomes: Sequence[Outcome], steps: Sequence[tuple[float, str]]) -> str:
    """Median and 99th percentile of short requests in windows of 10 s."""
    start = min(one.due for one in outcomes)
    windows: dict[int, list[float]] = {}
    for one in outcomes:
        if not one.failure and one.stream != "long":
            windows.setdefault(int((one.due - start) / 10), []).append(one.latency_seconds * 1000)
    figure, axes = _axes(11, 2.2)
    places = sorted(windows)
    for share, label in ((0.5, "median"), (0.99, "99th percentile")):
        axes.plot([10 * i for i in places], [percentile(windows[i], share) for i in places], label=label, linewidth=1)
    for at, _ in steps:
        axes.axvline(at - start, color="black", linewidth=0.5, linestyle=":")
    axes.set_yscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("ms")
    axes.legend(fontsize=6)
    return _embedded(figure)


def curve(measured: Sequence[Measured]) -> str:
    """Failed requests at a release against the real worst delay ÷ the budget's propagation."""
    figure, axes = _axes(6, 3)
    for system, marker in ((LEGACY, "o"), (PATCHED, "s"), (OURS, "^")):
        points = curve_points(measured, system)
        axes.plot([x for x, _ in points], [y for _, y in points], marker=marker, label=_TITLES[system])
    axes.set_xlabel("worst real delay ÷ budget")
    axes.set_ylabel("failed requests at a release")
    axes.legend(fontsize=7)
    return _embedded(figure)


RELEASES = ("config change alone", "new tag", "rollback")


def curve_points(measured: Sequence[Measured], system: str) -> list[tuple[float, int]]:
    """Delay ratio and failed requests of the system's releases, one for each ratio."""
    found = {one.delay_ratio: one.failed for one in measured if one.system == system and one.scenario in RELEASES}
    return [(ratio, found[ratio]) for ratio in POINTS if ratio in found]


def table(measured: Sequence[Measured]) -> str:
    """The counts, as HTML."""
    rows = [
        f"<tr><td>{html.escape(one.scenario)}<td>{_TITLES[one.system]}<td>{one.delay_ratio:g}<td>{one.requests}"
        f"<td><b>{one.failed}</b><td>{html.escape(', '.join(f'{k}: {v}' for k, v in one.by_failure.items()))}"
        f"<td>{one.p50 * 1000:.0f}<td>{one.p99 * 1000:.0f}"
        for one in measured
    ]
    head = "scenario|system|delay ÷ budget|requests|failed|how|p50 ms|p99 ms".replace("|", "<th>")
    return f"<table><tr><th>{head}{''.join(rows)}</table>"


def problems(result: Result) -> list[str]:
    """Why this run proves nothing; empty when it does."""
    found = [f"client and load balancer disagree: {one}" for one in result.disagreements[:5]]
    found += [f"acknowledged order not stored exactly once: {key}" for key in result.orders_wrong[:5]]
    ours = sum(one.failed for one in result.measured if one.system == OURS and not one.scenario.startswith("too small"))
    if ours:
        found.append(f"ours failed {ours} requests")
    if not any(one.failed for one in result.measured if one.system == LEGACY):
        found.append("legacy failed none: the load balancer was not unkind enough for a proof")
    if not any(one.failed for one in result.measured if one.scenario.startswith("too small")):
        found.append("too small a budget failed none: the proof could not have failed")
    return found


def write(result: Result, directory: Path) -> None:
    """``bench.json`` and ``bench.html``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bench.json").write_text(json.dumps(raw(result), indent=1) + "\n")
    found = problems(result)
    verdict = "".join(f"<li>{html.escape(one)}" for one in found)
    plots = [timeline(name, result.outcomes[name], result.steps) for name in (LEGACY, PATCHED, OURS)]
    page = f"""<!doctype html><meta charset="utf-8"><title>ShopCat: requests that failed at a release</title>
<style>body{{font:14px sans-serif;max-width:70em;margin:2em auto}}td,th{{padding:.2em .7em;text-align:left}}</style>
<h1>Requests that failed at a release</h1>
<p>Made by <code>make bench</code> on the twin, not on AWS. All three systems ran at the same time on the same twin, under
the same load and delays. Latencies count from when a request was due, and tell this machine's noise as well.</p>
{f"<h2>This run proves nothing</h2><ul>{verdict}</ul>" if found else ""}
{table(result.measured)}
<h2>Over time</h2>{"".join(plots)}
<h2>Latency of ours</h2>{latency(result.outcomes[OURS], result.steps)}
<h2>Failed requests against real delay</h2>{curve(result.measured)}
"""
    (directory / "bench.html").write_text(page)
