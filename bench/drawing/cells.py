"""Timelines of the matrix's cells, those of one accident together on a common axis."""

from __future__ import annotations

from html import escape

from bench.drawing.chart import as_html
from bench.drawing.matrix_table import SIGNS, anchor, headline, times
from bench.drawing.timeline import timeline
from bench.figures import BUCKET_SECONDS
from bench.schema import Accident, Cell, Document, span
from bench.systems import OURS
from bench.verdicts import severity, was_run

_BEFORE_SECONDS = 20.0


def cells_html(document: Document) -> str:
    """Return the timelines of every accident, each accident's to be unfolded."""
    return "".join(_accident(document, accident) for accident in document.accidents)


def _accident(document: Document, accident: Accident) -> str:
    found = (document.cell(accident.name, system.name) for system in document.systems)
    cells = [cell for cell in found if cell is not None]
    if not cells:
        return ""
    shown = [cell for cell in cells if was_run(cell) and cell.series]
    # The first bucket of a load is not whole, so the axis begins after it.
    begins = (span([cell.series])[0] + BUCKET_SECONDS for cell in shown)
    before = min((cell.began - begin for cell, begin in zip(shown, begins, strict=True)), default=0.0)
    before = max(min(before, _BEFORE_SECONDS), 0.0)
    after = max((span([cell.series])[1] - cell.began for cell in shown), default=0.0)
    figures = "".join(_cell(document, accident, cell, -before, after) for cell in cells)
    return f"<details><summary>{escape(accident.title)}</summary>{figures}</details>"


def _cell(document: Document, accident: Accident, cell: Cell, start: float, end: float) -> str:
    title = escape(document.title(cell.system))
    opening = f'<section class="cell" id="{escape(anchor(cell.accident, cell.system))}">'
    if not was_run(cell):
        return f"{opening}<h4>{title}: –</h4><p>{escape(cell.reason)}</p></section>"
    head = f"<h4>{title}: {SIGNS[severity(cell, accident)]} {headline(cell)}, {escape(times(cell))}</h4>"
    notes = "".join(f"<p>{escape(note)}</p>" for note in _notes(accident, cell))
    drawn = ""
    if cell.series and end > start:
        drawn = as_html(
            timeline(
                cell.series,
                cell.began + start,
                cell.began + end,
                zero=cell.began,
                summary=f"{document.title(cell.system)}: {headline(cell)}",
                marks=[(mark.moment(cell.began), mark.text) for mark in cell.marks],
            )
        )
    return f"{opening}{head}{drawn}{notes}</section>"


def _notes(accident: Accident, cell: Cell) -> list[str]:
    notes = []
    if cell.by_failure:
        notes.append("Failed: " + ", ".join(f"{count:,} {kind}" for kind, count in cell.by_failure.items()) + ".")
    if cell.system == OURS and accident.expected_failed:
        notes.append(f"Expected before the run: at most {accident.expected_failed:,}; {accident.reason}.")
    if len(cell.runs) > 1:
        every = "; ".join(f"{run.failed:,} of {run.sent:,}, {run.rest}, {run.outcome}" for run in cell.runs)
        notes.append(f"Every run: {every}.")
    return [*notes, *filter(None, [cell.reason, cell.detail])]
