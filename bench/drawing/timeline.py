"""Requests over time: those answered, stacked by who answered them, and below them those that failed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.drawing.chart import Chart, Key, Lane, Shape, Tick, nice_ceiling, step_path, time_ticks
from bench.figures import BUCKET_SECONDS, FAILED
from bench.schema import AllSeries, Series, answered

POINTS = 220
"""Most columns of a timeline: about one for each five pixels on a desk, two on a phone."""
_COLOURS = {"blue": "s1", "green": "s2", "answered": "s0"}
_IN_ORDER = ("s1", "s2", "s3", "s4")


@dataclass(frozen=True)
class Buckets:
    """Requests a second of each kind in columns of equal width."""

    start: float
    """Begin of the first column, in seconds since the epoch."""
    seconds: int
    """Width of a column."""
    rates: Mapping[str, Sequence[float]]

    @property
    def columns(self) -> int:
        """Return how many columns there are."""
        return max(map(len, self.rates.values()), default=0)


def buckets(series: AllSeries, start: float, end: float, points: int = POINTS) -> Buckets:
    """Return requests a second between two moments, in at most so many columns; what lies outside is left out."""
    width = BUCKET_SECONDS * max(-(-int(end - start) // (BUCKET_SECONDS * points)), 1)
    first = start // BUCKET_SECONDS * BUCKET_SECONDS
    columns = max(-(-int(end - first) // width), 1)
    return Buckets(first, width, {kind: _rates(each, first, width, columns) for kind, each in series.items()})


def _rates(series: Series, first: float, width: int, columns: int) -> list[float]:
    sums = [0] * columns
    for number, count in enumerate(series.counts):
        column = int((series.first + number * BUCKET_SECONDS - first) // width)
        if 0 <= column < columns:
            sums[column] += count
    return [total / width for total in sums]


def colour_of(kinds: Sequence[str]) -> dict[str, str]:
    """Give each kind of answered requests the class of its colour: its own where it is called blue or green."""
    return {kind: _COLOURS.get(kind, _IN_ORDER[number % 4]) for number, kind in enumerate(kinds)}


def answered_lane(series: AllSeries, columns: Buckets, edges: Sequence[float], height: int) -> Lane:
    """Return the lane of what was answered, in areas upon one another."""
    kinds = answered(series)
    colours = colour_of(kinds)
    layers = list(itertools.accumulate((columns.rates[kind] for kind in kinds), _add))
    top = nice_ceiling(max((max(layer) for layer in layers), default=0.0))
    shapes = [
        Shape(colours[kind], step_path(edges, [rate / top for rate in layer]))
        for kind, layer in reversed(list(zip(kinds, layers, strict=True)))
    ]
    keys = [Key(colours[kind], kind) for kind in kinds]
    return Lane("answered, per second:", height, shapes, [Tick(0, "0"), Tick(1, f"{top:g}/s")], keys)


def failed_lane(columns: Buckets, edges: Sequence[float], height: int) -> Lane:
    """Return the lane of what failed; empty, and saying so, if nothing did."""
    rates = columns.rates.get(FAILED, [])
    total = round(sum(rates) * columns.seconds)
    if not total:
        return Lane("✓ none failed", 6, ticks=[])
    top = nice_ceiling(max(rates))
    shape = Shape("failed", step_path(edges, [rate / top for rate in rates]))
    return Lane(f"✕ failed, per second ({total:,}):", height, [shape], [Tick(0, "0"), Tick(1, f"{top:g}/s")])


def _add(lower: Sequence[float], upper: Sequence[float]) -> list[float]:
    return [below + above for below, above in zip(lower, upper, strict=True)]


def edges_of(columns: Buckets, start: float, end: float) -> list[float]:
    """Return the columns' edges as fractions of the time between two moments."""
    length = end - start
    places = (columns.start + number * columns.seconds for number in range(columns.columns + 1))
    return [min(max((place - start) / length, 0.0), 1.0) for place in places]


def timeline(
    series: AllSeries,
    start: float,
    end: float,
    *,
    zero: float,
    summary: str,
    marks: Sequence[tuple[float, str]] = (),
    heights: tuple[int, int] = (70, 30),
    points: int = POINTS,
) -> Chart:
    """Return requests over time between two moments.

    Args:
        series: requests by kind.
        start: begin of the axis.
        end: end of the axis.
        zero: moment from which the axis counts.
        summary: for those who don't see the chart.
        marks: moments and what happened then.
        heights: of the two lanes, in pixels.
        points: most columns.
    """
    columns = buckets(series, start, end, points)
    edges = edges_of(columns, start, end)
    lanes = [
        answered_lane(series, columns, edges, heights[0]),
        failed_lane(columns, edges, heights[1]),
    ]
    return Chart(summary, lanes, time_ticks(start - zero, end - zero), marks=placed(marks, start, end))


def placed(marks: Sequence[tuple[float, str]], start: float, end: float) -> list[Tick]:
    """Return marks as places on an axis, in order; those outside it are left out."""
    return [Tick((at - start) / (end - start), text) for at, text in sorted(marks) if start <= at <= end]
