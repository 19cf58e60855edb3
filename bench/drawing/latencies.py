"""Latency before, during and after a release: as a distribution where the figures have one, else from median to p99."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape

from bench.drawing.chart import Chart, Key, Lane, Shape, Tick, as_html, axis_tick_html, box_path, line_path, step_path
from bench.measurements import Measurement
from bench.schema import QUIET, Document, Histogram, Latency

_PHASES = ("before", "during", "after")
_CLASSES = {"before": "s0", "during": "line phase-during", "after": "line phase-after"}
_ROWS = {"before": "s0", "during": "s1", "after": "s2"}
_SIGNS = {"before": "", "during": "━", "after": "┅"}
_TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}" if seconds < 0.01 else f"{seconds * 1000:,.0f}"


def _axis(lowest: float, highest: float) -> tuple[float, float]:
    """Return the ticks around an interval, as the axis's ends."""
    begin = max((tick for tick in _TICKS if tick <= lowest), default=_TICKS[0])
    end = min((tick for tick in _TICKS if tick >= highest), default=_TICKS[-1])
    return begin, end if end > begin else begin * 10


def _place(seconds: float, axis: tuple[float, float]) -> float:
    share = math.log(max(seconds, 1e-6) / axis[0]) / math.log(axis[1] / axis[0])
    return min(max(share, 0.0), 1.0)


def _ticks(axis: tuple[float, float]) -> list[Tick]:
    return [
        Tick(_place(tick, axis), f"{tick:g} s" if tick >= 1 else f"{tick * 1000:g} ms")
        for tick in _TICKS
        if axis[0] <= tick <= axis[1]
    ]


# --- distributions


def _edges(histogram: Histogram) -> list[float]:
    return [histogram.first * histogram.ratio**number for number in range(len(histogram.counts) + 1)]


def _shares(histogram: Histogram) -> list[float]:
    total = sum(histogram.counts) or 1
    return [count / total for count in histogram.counts]


def _outline(places: Sequence[float], heights: Sequence[float]) -> str:
    points = [(place, height) for left, right, height in zip(places, places[1:], heights, strict=False)
              for place, height in ((left, height), (right, height))]  # fmt: skip
    return line_path([(places[0], 0.0), *points, (places[-1], 0.0)])


def distribution(latency: Mapping[str, Latency], axis: tuple[float, float], most: float, title: str) -> Chart:
    """Return the distributions of one release over a logarithmic axis, each as shares of its own requests.

    Args:
        latency: by phase.
        axis: its ends, in seconds.
        most: share at the top of the chart.
        title: of the system.
    """
    histograms = {phase: latency[phase].histogram for phase in _PHASES if phase in latency}
    known = {phase: histogram for phase, histogram in histograms.items() if histogram}
    shapes = []
    for phase, histogram in known.items():
        places = [_place(edge, axis) for edge in _edges(histogram)]
        heights = [share / most for share in _shares(histogram)]
        path = step_path(places, heights) if phase == "before" else _outline(places, heights)
        shapes.append(Shape(_CLASSES[phase], path))
    keys = [Key(_CLASSES[phase].removeprefix("line "), phase, _SIGNS[phase]) for phase in known]
    lane = Lane("share of requests:", 90, shapes, [Tick(0, "0"), Tick(1, f"{most * 100:.0f} %")], keys)
    return Chart(f"Latency of {title}", [lane], _ticks(axis))


def _percentiles(latency: Mapping[str, Latency]) -> str:
    rows = "".join(
        f"<tr><th>{phase}<td>{_milliseconds(each.p50)}<td>{_milliseconds(each.p90)}<td>{_milliseconds(each.p99)}"
        f"<td>{_milliseconds(each.p999)}"
        for phase in _PHASES
        if (each := latency.get(phase)) is not None
    )
    return f'<table class="numbers"><tr><th>ms<th>p50<th>p90<th>p99<th>p99.9{rows}</table>'


def quantiles(latency: Mapping[str, Latency], axis: tuple[float, float], title: str) -> Chart:
    """Return the percentiles of one release over a logarithmic axis, for figures without histograms."""
    shapes, ticks = [], []
    for row, phase in enumerate(phase for phase in _PHASES if phase in latency):
        each, foot = latency[phase], 0.7 - row * 0.33
        p50, p90, p99, p999 = (_place(value, axis) for value in (each.p50, each.p90, each.p99, each.p999))
        css = _ROWS[phase]
        shapes += [
            Shape(css, box_path(p50, p90, foot, foot + 0.24)),
            Shape(f"{css} pale", box_path(p90, p99, foot, foot + 0.24)),
            Shape(css, box_path(p99, p999, foot + 0.1, foot + 0.14)),
        ]
        ticks.append(Tick(foot + 0.12, phase))
    lane = Lane("p50 to p90, pale to p99, thin to p99.9:", 72, shapes, ticks)
    return Chart(f"Latency of {title}", [lane], _ticks(axis))


def distributions_html(document: Document) -> str:
    """Return the latencies of each system's release on a quiet day, on one axis; empty if none has them."""
    found = (document.cell(QUIET, system.name) for system in document.systems)
    cells = [cell for cell in found if cell is not None and cell.latency]
    if not cells:
        return ""
    draw = _drawer([each for cell in cells for each in cell.latency.values()])
    panels = "".join(
        f"<section><h3>{escape(document.title(cell.system))}</h3>"
        f"{as_html(draw(cell.latency, document.title(cell.system)))}{_percentiles(cell.latency)}</section>"
        for cell in cells
    )
    return f'<div class="panels">{panels}</div>'


def _drawer(latencies: Sequence[Latency]) -> Callable[[Mapping[str, Latency], str], Chart]:
    """Return what draws a panel: as distribution if every latency has a histogram, all panels on the same axes."""
    histograms = [each.histogram for each in latencies if each.histogram and any(each.histogram.counts)]
    if len(histograms) < len(latencies):
        values = [value for each in latencies for value in (each.p50, each.p999)]
        axis = _axis(min(values), max(values))
        return lambda latency, title: quantiles(latency, axis, title)
    most = max(max(_shares(histogram)) for histogram in histograms)
    edges = [edge for histogram in histograms for edge in _filled(histogram)]
    axis = _axis(min(edges), max(edges))
    return lambda latency, title: distribution(latency, axis, most, title)


def _filled(histogram: Histogram) -> list[float]:
    edges = _edges(histogram)
    filled = [number for number, count in enumerate(histogram.counts) if count]
    return [edges[filled[0]], edges[filled[-1] + 1]]


# --- from median to 99th percentile


def ranges_html(measurements: Sequence[Measurement], titles: Mapping[str, str]) -> str:
    """Return median to 99th percentile of each measurement, just before it and during it; empty if there are none."""
    rows = [measurement for measurement in measurements if measurement.steady_p99]
    if not rows:
        return ""
    values = [value for row in rows for value in (row.p50, row.p99, row.steady_p50, row.steady_p99)]
    axis = _axis(min(values), max(values))
    repeated = Counter((row.scenario, row.system) for row in rows)
    lines = "".join(
        _range(row, axis, _name(row, titles, repeated=repeated[row.scenario, row.system] > 1)) for row in rows
    )
    ticks = "".join(map(axis_tick_html, _ticks(axis)))
    return (
        '<p class="legend"><span><i class="swatch s0"></i> just before</span><span><i class="swatch s1"></i> during'
        "</span><span>each from the median to the 99th percentile, on a logarithmic axis</span></p>"
        f'<div class="ranges">{lines}<div class="axis">{ticks}</div></div>'
    )


def _name(row: Measurement, titles: Mapping[str, str], *, repeated: bool) -> str:
    ratio = f", delay {row.delay_ratio:.3g} ×" if repeated else ""
    return f"{row.scenario}{ratio}, {titles.get(row.system, row.system)}"


def _range(row: Measurement, axis: tuple[float, float], name: str) -> str:
    before = box_path(_place(row.steady_p50, axis), _place(row.steady_p99, axis), 0.55, 0.95)
    during = box_path(_place(row.p50, axis), _place(row.p99, axis), 0.05, 0.45)
    return (
        f"<p><span>{escape(name)}</span>"
        f"<span>{_milliseconds(row.steady_p50)}–{_milliseconds(row.steady_p99)} ms, "
        f"then {_milliseconds(row.p50)}–{_milliseconds(row.p99)} ms</span></p>"
        '<svg viewBox="0 0 1000 200" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="s0" d="{before}"/><path class="s1" d="{during}"/></svg>'
    )
