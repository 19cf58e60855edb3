"""Charts of a page: lanes above one another with a common horizontal axis, in HTML of any width and as SVG of one width.

Shapes are SVG paths that stretch with the page; every text is HTML at its own size, so that a label has as many pixels on a phone
as on a desk. A plotting library's picture shrinks as a whole, and sixty of them are ten times as large.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 1000, 200
"""Units of every lane's paths; a lane is stretched to its place."""
_WIDE_PIXELS, _NARROW_PIXELS = 920, 300
"""Widths at which labels of marks may not touch one another: those with words, those with a number."""
_CHARACTER_PIXELS = 7.0
_LONGEST_CHARACTERS = 36
ROW_PIXELS = 18
_END = 0.03
"""Share of the horizontal axis at whose ends a label would leave the chart."""


@dataclass(frozen=True)
class Shape:
    """A path, in units of WIDTH and HEIGHT, with the class that gives it its colour."""

    css: str
    path: str


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, as a fraction of its length."""

    at: float
    text: str


@dataclass(frozen=True)
class Glyph:
    """A sign at a point of a lane; ``shift`` moves it by pixels, so that equal points stay apart."""

    x: float
    y: float
    text: str
    css: str
    shift: int = 0


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    css: str
    text: str
    glyph: str = ""


@dataclass(frozen=True)
class Lane:
    """One plot of a chart; ``height`` in pixels."""

    title: str
    height: int
    shapes: Sequence[Shape] = ()
    ticks: Sequence[Tick] = ()
    keys: Sequence[Key] = ()
    glyphs: Sequence[Glyph] = ()


@dataclass(frozen=True)
class Chart:
    """Lanes with a common axis; ``summary`` is for those who don't see them."""

    summary: str
    lanes: Sequence[Lane]
    x_ticks: Sequence[Tick]
    x_title: str = ""
    marks: Sequence[Tick] = field(default=())


# --- paths


def step_path(edges: Sequence[float], heights: Sequence[float]) -> str:
    """Return an area of columns.

    Args:
        edges: left edge of each column and the right edge of the last, as fractions of the width.
        heights: of each column, as fractions of the height.
    """
    x = [round(edge * WIDTH) for edge in edges]
    y = [HEIGHT - round(height * HEIGHT) for height in heights]
    parts, level, left = [f"M{x[0]} {HEIGHT}"], HEIGHT, x[0]
    for place, top in zip(x, [*y, HEIGHT], strict=True):
        if top == level and place != x[-1]:
            continue
        parts.append((f"h{place - left}" if place > left else "") + (f"v{top - level}" if top != level else ""))
        left, level = place, top
    return "".join(parts) + "z"


def line_path(points: Sequence[tuple[float, float]]) -> str:
    """Return a line through points, as fractions of width and height."""
    places = [f"{round(x * WIDTH)} {HEIGHT - round(y * HEIGHT)}" for x, y in points]
    return "M" + "L".join(places) if places else ""


def box_path(left: float, right: float, bottom: float, top: float) -> str:
    """Return a box, by fractions of width and height."""
    x, y = round(left * WIDTH), HEIGHT - round(top * HEIGHT)
    return f"M{x} {y}h{max(round(right * WIDTH) - x, 1)}v{round((top - bottom) * HEIGHT)}H{x}z"


# --- scales


def nice_ceiling(value: float) -> float:
    """Return the least of 1, 2, 5, 10, 20, 50 … that is not below a value."""
    if value <= 1e-12:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * (1 - 1e-9))


_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


def time_ticks(start: float, end: float, most: int = 7) -> list[Tick]:
    """Return ticks at round seconds between two moments, both in seconds since zero; long spans are told in minutes."""
    length = max(end - start, 1e-9)
    step = next((step for step in _TIME_STEPS if length / step <= most), _TIME_STEPS[-1])
    in_minutes = step % 60 == 0 and length > 900
    ticks = []
    for number in range(math.ceil(start / step), math.floor(end / step) + 1):
        seconds = number * step
        ticks.append(Tick((seconds - start) / length, f"{seconds // 60} min" if in_minutes else f"{seconds} s"))
    return ticks


# --- HTML


@dataclass(frozen=True)
class Label:
    """Place of a mark's text: a row, and the side of the mark on which it stands."""

    row: int
    flipped: bool


def stagger(places: Sequence[float], pixels: Sequence[float], width: float) -> list[Label]:
    """Give each label the lowest row in which it touches no other; one that would leave the chart stands left of its place.

    Args:
        places: of the labels as fractions of the width, in ascending order.
        pixels: width of each label.
        width: of the chart in pixels.
    """
    ends: list[float] = []
    labels = []
    for place, needed in zip(places, pixels, strict=True):
        flipped = place * width + needed > width
        begin = place * width - (needed if flipped else 0)
        row = next((row for row, end in enumerate(ends) if end <= begin), len(ends))
        ends[row : row + 1] = [begin + needed]
        labels.append(Label(row, flipped))
    return labels


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.1f}".removesuffix(".0") + "%"


def short(text: str) -> str:
    """Return a mark's text as it stands in the chart; the list below has it whole."""
    return textwrap.shorten(text, _LONGEST_CHARACTERS, placeholder="…")


def wide_labels(marks: Sequence[Tick]) -> list[Label]:
    """Return the places of the marks' words on a chart as wide as on a desk."""
    words = [len(short(mark.text)) * _CHARACTER_PIXELS + 8 for mark in marks]
    return stagger([mark.at for mark in marks], words, _WIDE_PIXELS)


def _labels(marks: Sequence[Tick]) -> tuple[list[Label], list[Label]]:
    narrow = stagger([mark.at for mark in marks], [22.0] * len(marks), _NARROW_PIXELS)
    return wide_labels(marks), narrow


def _rows(labels: Sequence[Label]) -> int:
    return max((label.row + 1 for label in labels), default=0)


def _marks_html(marks: Sequence[Tick]) -> str:
    wide, narrow = _labels(marks)
    items = []
    for number, (mark, word, digit) in enumerate(zip(marks, wide, narrow, strict=True), start=1):
        classes = ("f" if word.flipped else "") + " " + ("g" if digit.flipped else "")
        items.append(
            f'<u class="{classes.strip()}" style="left:{_percent(mark.at)};--w:{word.row};--n:{digit.row}">'
            f"<b>{escape(short(mark.text))}</b><b>{number}</b></u>".replace(' class=""', "")
        )
    return "".join(items)


def _key_html(key: Key) -> str:
    sign = f'<i class="{key.css}">{key.glyph}</i>' if key.glyph else f'<i class="swatch {key.css}"></i>'
    return f"<span>{sign} {escape(key.text)}</span>"


def _lane_html(lane: Lane) -> str:
    grid = "".join(f"M0 {HEIGHT - round(tick.at * HEIGHT)}H{WIDTH}" for tick in lane.ticks if 0 < tick.at < 1)
    shapes = (f'<path class="grid" d="{grid}"/>' if grid else "") + "".join(
        f'<path class="{shape.css}" d="{shape.path}"/>' for shape in lane.shapes
    )
    ticks = "".join(f'<s style="bottom:{_percent(tick.at)}">{escape(tick.text)}</s>' for tick in lane.ticks)
    glyphs = "".join(
        f'<i class="{glyph.css}" style="left:{_percent(glyph.x)};bottom:{_percent(glyph.y)};--x:{glyph.shift}px">'
        f"{glyph.text}</i>"
        for glyph in lane.glyphs
    )
    head = f"<p><span>{escape(lane.title)}</span>{''.join(map(_key_html, lane.keys))}</p>"
    return (
        f'{head}<div class="lane" style="height:{lane.height}px"><svg viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'preserveAspectRatio="none" aria-hidden="true">{shapes}</svg>{ticks}{glyphs}</div>'
    )


def axis_tick_html(tick: Tick) -> str:
    """Return a label below a horizontal axis; one at an end stands on the inner side of it."""
    side = ' class="e"' if tick.at > 1 - _END else ' class="a"' if tick.at < _END else ""
    return f'<s{side} style="left:{_percent(tick.at)}">{escape(tick.text)}</s>'


def as_html(chart: Chart, *, legend: bool = True) -> str:
    """Return a chart that takes the width it is given; on a phone its marks are numbered, with their words below.

    Args:
        chart: the chart.
        legend: list the numbers' words; not where the text around the chart does.
    """
    wide, narrow = _labels(chart.marks)
    heads = f"--w:{_rows(wide) * ROW_PIXELS}px;--n:{_rows(narrow) * ROW_PIXELS}px"
    words = "".join(f"<li>{escape(mark.text)}" for mark in chart.marks)
    always = " always" if any(short(mark.text) != mark.text for mark in chart.marks) else ""
    return (
        f'<div class="chart" role="img" aria-label="{escape(chart.summary)}" style="{heads}">'
        f'<div class="marks">{_marks_html(chart.marks)}</div>{"".join(map(_lane_html, chart.lanes))}'
        f'<div class="axis">{"".join(map(axis_tick_html, chart.x_ticks))}</div>'
        + (f'<p class="axis-title">{escape(chart.x_title)}</p>' if chart.x_title else "")
        + "</div>"
        + (f'<ol class="words{always}">{words}</ol>' if words and legend else "")
    )
