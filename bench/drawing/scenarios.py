"""Scenarios of the short and of the full run: their counts as a table, and each load over time."""

from __future__ import annotations

from html import escape

from bench.drawing.chart import as_html
from bench.drawing.timeline import timeline
from bench.drawing.titles import title_of
from bench.measurements import Measurement
from bench.schema import Document, span

_POINTS = 600


def table_html(document: Document) -> str:
    """Return what was counted in each scenario."""
    rows = "".join(_row(document, measurement) for measurement in document.measurements)
    head = (
        "<tr><th>scenario<th>system<th>delay ÷ budget<th>took, s<th>requests<th>failed<th>how"
        "<th>p99 before, ms<th>p99 during, ms"
    )
    return f'<div class="scroll"><table class="plain"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _row(document: Document, row: Measurement) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in row.by_failure.items())
    return (
        f"<tr><td>{escape(row.scenario)}<td>{escape(title_of(document, row.system))}<td>{row.delay_ratio:.3g}"
        f"<td>{row.ended - row.began:.0f}<td>{row.requests:,}<td><b>{row.failed:,}</b><td>{escape(kinds)}"
        f"<td>{row.steady_p99 * 1000:.0f}<td>{row.p99 * 1000:.0f}"
    )


def over_time_html(document: Document) -> str:
    """Return each load of the run over its whole time, with the scenarios' begins."""
    loads = list(document.short["series"]) if document.short else []
    return "".join(_load(document, load) for load in loads)


def _load(document: Document, load: str) -> str:
    series = document.series_of(load)
    start, end = span([series])
    if end <= start:
        return ""
    system, _, number = load.partition(" ")
    title = title_of(document, system) + (f", twin {number}" if number else "")
    marks = [(each.began, each.scenario) for each in document.measurements if each.load == load]
    drawn = timeline(series, start, end, zero=start, summary=title, marks=marks, heights=(80, 30), points=_POINTS)
    return f'<section class="cell"><h3>{escape(title)}</h3>{as_html(drawn)}</section>'
