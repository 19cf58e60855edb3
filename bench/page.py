"""``python -m bench.page``: draws the pages in docs/ from the figures beside them (``python -m bench.page file.json`` another).

A page holds what the figures hold and nothing else, so it can be drawn again without a run. It stays small however long the
run was: a plot has at most as many points as it has pixels, and its text stays text.
"""

from __future__ import annotations

import html
import io
import json
import math
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import steps
from bench.figures import BUCKET_SECONDS, FAILED, measurements_of, noop_of
from bench.measurements import Measurement
from bench.systems import LEGACY, OURS, PATCHED
from twin.paths import REPOSITORY

LARGEST_BYTES = 300_000
"""The most that a page or a file of figures in docs/ may take."""
PUBLISHED = (REPOSITORY / "docs" / "bench.json", REPOSITORY / "docs" / "bench-full.json")
MAX_POINTS = 900
"""Points of a line in a plot: about one for each of its 1/72-inch pixels."""
SHORTEST_LABELLED_SECONDS = 6
CURVE = "eviction"
_COLOURS = {"blue": "tab:blue", "green": "tab:green", "": "tab:gray"}
_TITLES = {OURS: "ours", LEGACY: "legacy", PATCHED: "legacy + patches"}
_SVG: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "shopcat", "font.sans-serif": ["DejaVu Sans"]}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_FONT = re.compile("font-family: 'DejaVu Sans', sans-serif(; )?")
_LONG_DECIMAL = re.compile(r"-?\d+\.\d{2,}")
_SPACES = re.compile(r"\s*\n\s*")
_ENGINE = {
    True: "ran only while nothing else wanted the processor (the kernel's idle class); the database, the cluster, the load "
    "balancer and the clients took it as they needed.",
    False: "took the processor from it here: they could not be put into the kernel's idle class (for groups: Linux 5.15).",
}


def _title(load: str) -> str:
    system, _, number = load.partition(" ")
    return _TITLES[system] + (f", twin {number}" if number else "")


# --- plots


def _inline(figure: Figure) -> str:
    """Return the figure as an SVG element with one decimal, a tenth of a pixel."""
    buffer = io.StringIO()
    with mpl.rc_context(_SVG):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata=_NO_METADATA)
    _, opening, rest = buffer.getvalue().partition("<svg")
    short = _LONG_DECIMAL.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), rest)
    return _SPACES.sub("\n", opening + _FONT.sub("", short))


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def rates(series: Mapping[str, Any], start: float, bucket_seconds: int) -> tuple[list[float], list[float]]:
    """Return seconds since the start and requests a second, in buckets of a multiple of the figures' own."""
    counts: list[int] = series["counts"]
    width = bucket_seconds // BUCKET_SECONDS
    seconds = [series["first"] - start + at * BUCKET_SECONDS for at in range(0, len(counts), width)]
    groups = [counts[at : at + width] for at in range(0, len(counts), width)]
    return seconds, [sum(group) / (len(group) * BUCKET_SECONDS) for group in groups]


def bucket_seconds(seconds: float) -> int:
    """Return the width of a plot's buckets, such that so many seconds make at most MAX_POINTS of them."""
    return BUCKET_SECONDS * -(-int(seconds) // (BUCKET_SECONDS * MAX_POINTS))


def _upright(axes: Axes, places: Sequence[float], **style: Any) -> None:
    """Draw upright lines over the whole height, all as one path, which is far shorter than a path for each."""
    x = [value for place in places for value in (place, place, math.nan)]
    axes.plot(x, [0.0, 1.0, math.nan] * len(places), color="black", transform=axes.get_xaxis_transform(), **style)


def timeline(load: str, series: Mapping[str, Any], measurements: Sequence[Measurement]) -> str:
    """Plot requests a second by colour, and failures, with scenarios and a release's steps marked."""
    start = min(line["first"] for line in series.values())
    end = max(line["first"] + len(line["counts"]) * BUCKET_SECONDS for line in series.values())
    width = bucket_seconds(end - start)
    figure, axes = _axes(12, 2.8)
    for kind, line in series.items():
        seconds, per_second = rates(line, start, width)
        if kind == FAILED:
            points = [(at, rate) for at, rate in zip(seconds, per_second, strict=True) if rate]
            label = f"failed ({sum(line['counts'])})"
            axes.plot([at for at, _ in points], [rate for _, rate in points], "x", color="tab:red", label=label)
        else:
            axes.plot(seconds, per_second, color=_COLOURS.get(kind), label=kind, linewidth=1)
    top = axes.get_ylim()[1]
    shown = [measurement for measurement in measurements if measurement.load == load]
    for measurement in shown:
        axes.text(measurement.began - start, top, f" {measurement.scenario}", fontsize=6, rotation=25, va="bottom")
    _upright(axes, [measurement.began - start for measurement in shown], linewidth=0.8)
    begun = [step for measurement in shown for step in measurement.steps]
    for step in begun:
        axes.text(step.at - start, top * 0.02, step.name, fontsize=4, rotation=90, va="bottom")
    _upright(axes, [step.at - start for step in begun], linewidth=0.4, linestyle=":")
    axes.set_xlabel("seconds")
    axes.set_ylabel("requests/s")
    axes.set_title(_title(load), loc="left", fontsize=9, y=1.25)
    axes.legend(fontsize=6, loc="center right")
    return _inline(figure)


def latencies(measurements: Sequence[Measurement]) -> str:
    """Plot median and 99th percentile of short requests before each scenario and during it."""
    rows = [measurement for measurement in measurements if measurement.steady_p99]
    figure, axes = _axes(12, 0.34 * len(rows) + 1.2)
    for place, row in enumerate(rows):
        for shift, p50, p99, colour in (
            (-0.15, row.steady_p50, row.steady_p99, "tab:gray"),
            (0.15, row.p50, row.p99, "tab:blue"),
        ):
            axes.plot([p50 * 1000, p99 * 1000], [place + shift] * 2, "|-", color=colour)
    axes.set_yticks(range(len(rows)), [f"{row.scenario}, {_TITLES[row.system]}" for row in rows], fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("ms, median to 99th percentile; grey: the seconds before, blue: during")
    axes.invert_yaxis()
    return _inline(figure)


def against_floor(release: Measurement) -> str:
    """Plot a release, part by part, above the least that it takes."""
    figure, axes = _axes(10, 1.6)
    measured = steps.parts(release.began, release.steps, release.ended)
    for place, bars in ((0, measured), (1, list(release.floor))):
        at = 0.0
        for name, seconds in bars:
            axes.barh(place, seconds, left=at, edgecolor="white")
            if seconds >= SHORTEST_LABELLED_SECONDS:
                axes.text(at + seconds / 2, place, f"{name}\n{seconds:.0f} s", fontsize=5, ha="center", va="center")
            at += seconds
    axes.set_yticks([0, 1], ["measured", "floor"])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    return _inline(figure)


def curve_points(measurements: Sequence[Measurement], system: str) -> list[tuple[float, int]]:
    """Return delay ratio and failed requests of the system's evictions."""
    return [
        (measurement.delay_ratio, measurement.failed)
        for measurement in measurements
        if measurement.system == system and measurement.scenario == CURVE
    ]


def curve(measurements: Sequence[Measurement]) -> str:
    """Plot failed requests when a pod leaves, against the real delay ÷ the budget's propagation."""
    figure, axes = _axes(6, 3)
    for system, marker in ((LEGACY, "o"), (PATCHED, "s"), (OURS, "^")):
        points = curve_points(measurements, system)
        axes.plot([x for x, _ in points], [y for _, y in points], marker=marker, label=_TITLES[system], alpha=0.7)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("real delay ÷ the propagation allowed for")
    axes.set_ylabel("failed requests")
    axes.legend(fontsize=7)
    return _inline(figure)


# --- text


def table(measurements: Sequence[Measurement]) -> str:
    """Return the counts as an HTML table."""
    rows = [
        f"<tr><td>{html.escape(row.scenario)}<td>{_TITLES[row.system]}<td>{row.delay_ratio:g}"
        f"<td>{row.ended - row.began:.0f}<td>{row.requests}<td><b>{row.failed}</b>"
        f"<td>{html.escape(', '.join(f'{kind}: {count}' for kind, count in row.by_failure.items()))}"
        f"<td>{row.steady_p99 * 1000:.0f}<td>{row.p99 * 1000:.0f}"
        for row in measurements
    ]
    head = "scenario|system|delay ÷ budget|took s|requests|failed|how|p99 before, ms|p99 during, ms".replace(
        "|", "<th>"
    )
    return f"<table><tr><th>{head}{''.join(rows)}</table>"


def p99_ratio(measurements: Sequence[Measurement]) -> float:
    """Return the median, over releases of ours, of the 99th percentile during one ÷ just before it."""
    ratios = [release.p99 / release.steady_p99 for release in measurements if release.floor and release.steady_p99]
    return statistics.median(ratios) if ratios else 0.0


def floor_ratio(release: Measurement) -> float:
    """Return how long a release took ÷ the least that it takes."""
    return (release.ended - release.began) / sum(seconds for _, seconds in release.floor)


def _release_parts(measurements: Sequence[Measurement]) -> str:
    releases = [measurement for measurement in measurements if measurement.floor]
    if not releases:
        return ""
    first, ratios = releases[0], [floor_ratio(release) for release in releases]
    return (
        f"<h2>A release against its floor</h2><p>{html.escape(first.scenario)}: {first.ended - first.began:.0f} s, "
        f"{ratios[0]:.2f} of the floor (all {len(ratios)}: median {statistics.median(ratios):.2f}, most {max(ratios):.2f}). "
        "The floor: health checks, the canary's propagation, and CloudWatch, which has the two minutes as late as it had "
        f"them. p99 during ÷ before, median of all releases: {p99_ratio(measurements):.2f}.</p>"
        f"{against_floor(first)}"
    )


def draw(figures: Mapping[str, Any]) -> str:
    """Return the page of a run's figures, as HTML."""
    measurements, noop = measurements_of(figures), noop_of(figures)
    verdict = "".join(f"<li>{html.escape(problem)}" for problem in figures["problems"])
    plots = [timeline(load, series, measurements) for load, series in figures["series"].items()]
    shown_curve = curve(measurements) if curve_points(measurements, OURS) else ""
    engine = f"Engine and AWS stand-in, which on AWS share no machine with the shop, {_ENGINE[figures['engineYields']]}"
    retried = (
        f"<p>An update failed and was run once more: {html.escape(text)}</p>" for text in figures["retriedUpdates"]
    )
    sections = [
        f"<p>{engine}</p>" if figures["full"] else "",
        *retried,
        f"<h2>This run proves nothing</h2><ul>{verdict}</ul>" if verdict else "",
        table(measurements),
        f"<p>Nothing to release: {html.escape(str(noop))}.</p>" if noop else "",
        f"<h2>Over time</h2>{''.join(plots)}",
        f"<h2>Latency</h2>{latencies(measurements)}",
        _release_parts(measurements),
        f"<h2>A pod leaves: failed requests against real delay</h2>{shown_curve}" if shown_curve else "",
    ]
    command = "make bench FULL=1" if figures["full"] else "make bench"
    return f"""<!doctype html><meta charset="utf-8"><title>ShopCat: requests that failed at a release</title>
<style>body{{font:14px sans-serif;max-width:75em;margin:2em auto}}td,th{{padding:.2em .7em;text-align:left}}
svg{{display:block;max-width:100%;height:auto;font-family:'DejaVu Sans',sans-serif}}</style>
<h1>Requests that failed at a release</h1>
<p>Made by <code>{command}</code> on the twin, not on AWS. What stands in one scenario ran at the same time, on the same
cluster, under the same load and delays. Latencies count from when a request was due, and include this machine's noise.
Each failure stands in the JSON beside this page, with its time, kind and step; the clients' and the load balancers' own logs
agree on every request ({len(figures["disagreements"])} exceptions), and every acknowledged order is in PostgreSQL exactly once
({len(figures["ordersLostOrDoubled"])} exceptions).</p>
{chr(10).join(filter(None, sections))}
"""


def main(paths: Sequence[Path]) -> int:
    """Draw the page beside each file of figures."""
    for path in paths:
        path.with_suffix(".html").write_text(draw(json.loads(path.read_text())))
        print(path.with_suffix(".html"))
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]] or PUBLISHED))
