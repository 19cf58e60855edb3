"""The way back: from "the live release answers 500" to "the last request failed", by each system's fastest documented way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape

from bench.drawing.chart import as_html
from bench.drawing.floor import bar, parts_list
from bench.drawing.timeline import timeline
from bench.drawing.titles import title_of
from bench.schema import Document, Undo, span

GOAL_SECONDS = 60
"""Seconds that this program's way back may take, at production's own drain numbers."""


_CLASSES = ("p0", "p1", "p2")
_BEFORE_SECONDS = 20.0
_ROUNDING_SECONDS = 0.05


def undo_html(document: Document) -> str:
    """Return each system's way back, on a common scale; empty if none was measured."""
    if not document.undo:
        return ""
    longest = max(GOAL_SECONDS, *(max(undo.seconds, sum(_seconds(undo))) for undo in document.undo))
    systems = dict.fromkeys([*(system.name for system in document.systems), *(undo.system for undo in document.undo)])
    bars = "".join(_system(document, system, longest) for system in systems)
    timelines = _timelines(document, [undo for undo in document.undo if span([undo.series])[1]])
    return f"{bars}<details><summary>Each way back over time</summary>{timelines}</details>" if timelines else bars


def _seconds(undo: Undo) -> list[float]:
    return [step.seconds for step in undo.steps]


def _system(document: Document, system: str, longest: float) -> str:
    title = escape(title_of(document, system))
    ways = [undo for undo in document.undo if undo.system == system]
    if not ways:
        return f'<section class="cell"><h3>{title}: not run</h3></section>'
    return "".join(_way(title, undo, longest) for undo in ways)


def _way(title: str, undo: Undo, longest: float) -> str:
    if not undo.sent:
        return f'<section class="cell"><h3>{title}: –</h3><p>{escape(undo.reason)}</p></section>'
    parts = [(step.name, step.seconds) for step in undo.steps] or [("until the last request failed", undo.seconds)]
    drawn = bar(parts, longest, _classes(undo, len(parts)), GOAL_SECONDS)
    words = f"{undo.seconds:.0f} s, {undo.failed:,} of {undo.sent:,} failed"
    return f'<section class="cell"><h3>{title}: {words}</h3>{drawn}{parts_list(parts, {})}</section>'


def _classes(undo: Undo, count: int) -> list[str]:
    """Return the parts' colours; grey for those that begin once no request fails any more."""
    begins = [0.0, *itertools.accumulate(_seconds(undo))]
    return [
        "done" if begin >= undo.seconds - _ROUNDING_SECONDS else _CLASSES[number % 3]
        for number, begin in enumerate(begins[:count])
    ]


def _timelines(document: Document, ways: Sequence[Undo]) -> str:
    before = min(_BEFORE_SECONDS, max((undo.zero - span([undo.series])[0] for undo in ways), default=0.0))
    after = max((span([undo.series])[1] - undo.zero for undo in ways), default=0.0)
    return "".join(_timeline(document, undo, before, after) for undo in ways)


def _timeline(document: Document, undo: Undo, before: float, after: float) -> str:
    title, zero = title_of(document, undo.system), undo.zero
    marks = [(mark.moment(zero), mark.text) for mark in undo.marks]
    drawn = timeline(
        undo.series, zero - before, zero + after, zero=zero, summary=f"{title} undoes a release", marks=marks
    )
    return f'<section class="cell"><h4>{escape(title)}</h4>{as_html(drawn)}</section>'
