"""The way back: from "the live release answers 500" to "the last request failed", by each system's fastest documented way."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from html import escape

from bench.drawing.chart import as_html
from bench.drawing.floor import bar
from bench.drawing.timeline import timeline
from bench.drawing.titles import title_of
from bench.schema import Document, Undo, span
from bench.verdicts import GOAL_SECONDS

_CLASSES = ("p0", "p1", "p2")
_BEFORE_SECONDS = 20.0
_ROUNDING_SECONDS = 0.05


def undo_html(document: Document) -> str:
    """Return each system's way back, on a common scale; empty if none was measured."""
    if not document.undo:
        return ""
    longest = max(GOAL_SECONDS, *(max(undo.seconds, sum(_seconds(undo))) for undo in document.undo))
    systems = dict.fromkeys([*(system.name for system in document.systems), *(undo.system for undo in document.undo)])
    bars = "".join(_way(escape(title_of(document, undo.system)), undo, longest) for undo in _ordered(document, systems))
    measured = {undo.system for undo in document.undo}
    if missing := [escape(title_of(document, system)) for system in systems if system not in measured]:
        bars += f"<p>Not run: {'; '.join(missing)}.</p>"
    timelines = _timelines(document, [undo for undo in document.undo if span([undo.series])[1]])
    return f"{bars}<details><summary>Each way back over time</summary>{timelines}</details>" if timelines else bars


def _seconds(undo: Undo) -> list[float]:
    return [step.seconds for step in undo.steps]


def _ordered(document: Document, systems: Iterable[str]) -> list[Undo]:
    return [undo for system in systems for undo in document.undo if undo.system == system]


def _way(title: str, undo: Undo, longest: float) -> str:
    if not undo.sent:
        return f'<section class="cell"><h3>{title}: –</h3><p>{escape(undo.reason)}</p></section>'
    parts = [(step.name, step.seconds) for step in undo.steps] or [("until the last request failed", undo.seconds)]
    drawn = bar(parts, longest, _classes(undo, len(parts)), GOAL_SECONDS)
    words = f"{undo.seconds:.0f} s, {undo.failed:,} of {undo.sent:,} failed"
    return f'<section class="cell"><h3>{title}: {words}</h3>{drawn}{_steps(parts)}</section>'


def _steps(parts: Sequence[tuple[str, float]]) -> str:
    begins = itertools.accumulate((seconds for _, seconds in parts), initial=0.0)
    items = "".join(
        f"<li><b>{escape(name)}</b> at {begin:.1f} s{f', for {seconds:.1f} s' if seconds else ''}"
        for (name, seconds), begin in zip(parts, begins, strict=False)
    )
    return f'<ol class="steps">{items}</ol>'


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
