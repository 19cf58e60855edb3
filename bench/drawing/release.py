"""One release of ours, annotated: weights, pods, requests by colour, failures, and what each step waits for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from bench import steps
from bench.drawing.chart import (
    Chart,
    Key,
    Lane,
    Shape,
    Tick,
    as_html,
    box_path,
    step_path,
    time_ticks,
)
from bench.drawing.timeline import answered_lane, buckets, colour_of, edges_of, failed_lane, placed
from bench.measurements import Measurement
from bench.schema import AllSeries, Document, answered

MEANINGS = {
    "engine": "Pulumi's engine starts and compares what is declared; nothing has changed yet",
    "claim": "the ledger takes the tag and the one slot for a release",
    "migrate": "the schema is widened by a Job from the new image",
    "idle colour up": "new pods start, and the load balancer calls their targets healthy",
    "smoke": "a Job asks the new colour for pages, past all users",
    "canary": "10 % of the requests for as long as the load balancer may take to spread a weight",
    "shift": "all requests go to the new colour; two whole metric minutes of CloudWatch must be free of errors",
    "taken back": "the former colour gets everything again",
    "live": "the ledger calls the release live; both colours still run",
    "old colour down": "the former pods leave; no request goes to them any more",
}
"""Step → work that it does and what it waits for."""
_BEFORE_SECONDS, _AFTER_SECONDS = 20.0, 10.0
_WEIGHTS = {"canary": 0.1, "shift": 1.0, "taken back": 0.0}


def chart(release: Measurement, series: AllSeries, until: float = math.inf) -> Chart | None:
    """Return a release's lanes; none unless two colours answered its requests.

    Args:
        release: with its steps.
        series: of its load.
        until: the next scenario's begin, at which the chart ends.
    """
    start = release.began - _BEFORE_SECONDS
    end = min(max(release.ended, release.drained) + _AFTER_SECONDS, until)
    columns = buckets(series, start, end)
    present = [kind for kind in answered(series) if any(columns.rates[kind])]
    if len(present) != 2:
        return None
    former = max(present, key=lambda kind: columns.rates[kind][0])
    new = next(kind for kind in present if kind != former)
    edges, colours = edges_of(columns, start, end), colour_of(answered(series))
    lanes = [
        _weights(release, (former, new), colours, (start, end)),
        _pods(release, (former, new), colours, (start, end)),
        answered_lane(series, columns, edges, 110),
        failed_lane(columns, edges, 40),
    ]
    marks = [(step.at, step.name) for step in release.steps]
    summary = f"One release: {release.ended - release.began:.0f} s, {release.failed:,} of {release.requests:,} requests failed"
    ticks = time_ticks(start - release.began, end - release.began)
    return Chart(summary, lanes, ticks, "since the begin of the release", placed(marks, start, end))


def _weights(release: Measurement, kinds: tuple[str, str], css: Mapping[str, str], axis: tuple[float, float]) -> Lane:
    former, new = kinds
    turns = [step for step in release.steps if step.name in _WEIGHTS]
    places = [axis[0], *(step.at for step in turns), axis[1]]
    edges = [_fraction(place, axis) for place in places]
    left = [1.0, *(1 - _WEIGHTS[step.name] for step in turns)]
    shapes = [Shape(css[new], box_path(0, 1, 0, 1)), Shape(css[former], step_path(edges, left))]
    keys = [Key(css[kind], kind) for kind in (former, new)]
    return Lane("weights in the load balancer's rule:", 44, shapes, [Tick(0, "0 %"), Tick(1, "100 %")], keys)


def _pods(release: Measurement, kinds: tuple[str, str], css: Mapping[str, str], axis: tuple[float, float]) -> Lane:
    """Return when each colour has pods: pale while they start or leave."""
    former, new = kinds
    at = {step.name: step.at for step in release.steps}
    up, ready = at.get("idle colour up", axis[1]), at.get("smoke", axis[1])
    down, gone = at.get("old colour down", axis[1]), release.drained or axis[1]
    spans = [
        (css[former], axis[0], down, 0.55),
        (f"{css[former]} pale", down, max(down, gone), 0.55),
        (f"{css[new]} pale", up, ready, 0.05),
        (css[new], ready, axis[1], 0.05),
    ]
    shapes = [
        Shape(kind, box_path(_fraction(begin, axis), _fraction(end, axis), bottom, bottom + 0.4))
        for kind, begin, end, bottom in spans
        if end > begin
    ]
    ticks = [Tick(0.75, former), Tick(0.25, new)]
    return Lane("pods; pale while they start or leave:", 40, shapes, ticks)


def _fraction(moment: float, axis: tuple[float, float]) -> float:
    return min(max((moment - axis[0]) / (axis[1] - axis[0]), 0.0), 1.0)


def first_release(document: Document) -> tuple[Measurement, Chart] | None:
    """Return the first release that can be drawn, with its chart."""
    for release, series in document.releases:
        later = (
            each.began for each in document.measurements if each.load == release.load and each.began > release.began
        )
        drawn = chart(release, series, min(later, default=math.inf))
        if drawn is not None:
            return release, drawn
    return None


def release_html(document: Document) -> str:
    """Return the first release, annotated, with its steps in words; empty if none can be drawn."""
    found = first_release(document)
    if found is None:
        return ""
    release, drawn = found
    parts = steps.parts(release.began, release.steps, release.ended)[1:]
    begins = [step.at - release.began for step in release.steps]
    items = "".join(
        f"<li><b>{escape(name)}</b> from {begin:.0f} s on, {seconds:.0f} s: {escape(MEANINGS.get(name, ''))}."
        for (name, seconds), begin in zip(parts, begins, strict=True)
    )
    return f'{as_html(drawn, legend=False)}<ol class="steps">{items}</ol>'
