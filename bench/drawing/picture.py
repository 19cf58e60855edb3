"""Pictures for README: a chart, and the matrix, as SVG of one width, light or dark as the reader's system is."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bench.drawing.chart import HEIGHT, ROW_PIXELS, WIDTH, Chart, Key, Lane, short, wide_labels
from bench.drawing.matrix_table import LEGEND, SIGNS
from bench.schema import Accident, Cell, Document
from bench.systems import OURS
from bench.verdicts import Severity, severity

COLOURS = Path(__file__).parent / "colours.css"
PIXELS = 1000
"""Width of a picture; README shows it a little narrower, so its text has 13 px."""
_FONT = (
    "text{font:13px system-ui,'Segoe UI',Roboto,'Liberation Sans',sans-serif;fill:var(--fg)}"
    ".b{font-weight:600}.m{fill:var(--muted)}.halo text{paint-order:stroke;stroke:var(--bg);stroke-width:4px}"
)
_SEVERITIES = "".join(
    f".{kind}{{fill:var(--{kind})}}.{kind}-edge{{fill:var(--{kind}-edge)}}" for kind in ("fine", "few", "many")
)
_BOXES = (
    f"{_SEVERITIES}.wrong{{fill:var(--many)}}.wrong-edge{{fill:var(--many-edge)}}"
    ".unsupported,.not-run{fill:none;stroke:var(--line);stroke-dasharray:4 3}.unsupported-edge,.not-run-edge{fill:none}"
    ".own{fill:none;stroke:var(--ours);stroke-width:2}"
)


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "") -> str:
    classes = f' class="{css}"' if css else ""
    side = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{classes}{side}>{escape(text)}</text>'


def _svg(height: float, title: str, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PIXELS} {height:.0f}" width="{PIXELS}" height="{height:.0f}" '
        f'role="img" aria-label="{escape(title)}"><style>{COLOURS.read_text()}{_FONT}{_BOXES}</style>'
        f'<rect width="100%" height="100%" rx="6" style="fill:var(--bg)"/>{content}</svg>\n'
    )


# --- a chart

_LEFT, _RIGHT, _TITLE_PIXELS, _AXIS_PIXELS = 62, 14, 24, 50


def chart_picture(chart: Chart, title: str) -> str:
    """Return a chart with its title as a picture."""
    width = PIXELS - _LEFT - _RIGHT
    labels = wide_labels(chart.marks)
    rows = max((label.row + 1 for label in labels), default=0)
    top = 44 + rows * ROW_PIXELS
    y, plots, texts = float(top), "", ""
    for lane in chart.lanes:
        plots += _plot(lane, y, width)
        texts += _words(lane, y)
        y += _TITLE_PIXELS + lane.height
    ticks = "".join(_text(_LEFT + tick.at * width, y + 18, tick.text, "m", "middle") for tick in chart.x_ticks)
    ticks += _text(_LEFT, y + 38, chart.x_title, "m")
    uprights = ""
    for mark, label in zip(chart.marks, labels, strict=True):
        x, begin = _LEFT + mark.at * width, 44 + label.row * ROW_PIXELS
        uprights += f'<path d="M{x:.1f} {begin:.0f}V{y:.0f}" style="stroke:var(--fg);stroke-dasharray:4 3"/>'
        texts += _text(
            x + (-4 if label.flipped else 4), begin + 12, short(mark.text), "b", "end" if label.flipped else ""
        )
    heading = _text(16, 26, title, "b")
    content = f'{plots}{uprights}<g class="halo">{heading}{texts}{ticks}</g>'
    return _svg(y + _AXIS_PIXELS, chart.summary, content)


def _plot(lane: Lane, y: float, width: float) -> str:
    shapes = "".join(f'<path class="{shape.css}" d="{shape.path}"/>' for shape in lane.shapes)
    return (
        f'<svg x="{_LEFT}" y="{y + _TITLE_PIXELS:.0f}" width="{width}" height="{lane.height}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" style="fill:var(--card)"/>{shapes}</svg>'
    )


def _words(lane: Lane, y: float) -> str:
    head = _text(_LEFT, y + 16, lane.title, "m")
    x = _LEFT + 7.2 * len(lane.title) + 10
    for key in lane.keys:
        head += _key(key, x, y + 16)
        x += 7.2 * len(key.text) + 34
    top = y + _TITLE_PIXELS
    ticks = "".join(
        _text(_LEFT - 6, top + lane.height * (1 - tick.at) + 5, tick.text, "m", "end") for tick in lane.ticks
    )
    return f"{head}{ticks}"


def _key(key: Key, x: float, y: float) -> str:
    return f'<rect class="{key.css}" x="{x:.0f}" y="{y - 11:.0f}" width="12" height="12"/>{_text(x + 17, y, key.text)}'


# --- the matrix

_FIRST, _ROW, _HEAD = 178, 70, 116
_SECONDS = re.compile(r"(\d) s\b")
"""A number and its unit, which stay on one line."""
_FIRST_CHARACTERS, _HEAD_CHARACTERS = 22, 16


def matrix_picture(document: Document) -> str:
    """Return the matrix as a picture; accidents of which no cell was run are only counted."""
    run = {cell.accident for cell in document.cells}
    accidents = [accident for accident in document.accidents if accident.name in run]
    width = (PIXELS - _FIRST - 16) / max(len(document.systems), 1)
    content = _text(16, 26, "Requests that failed in a release, by what went wrong meanwhile", "b") + _legend()
    for column, system in enumerate(document.systems):
        title = textwrap.wrap(system.title, _HEAD_CHARACTERS)[:3]
        content += _lines(_FIRST + column * width + 8, _HEAD + 18 - 16 * len(title), title, "b")
    for row, accident in enumerate(accidents):
        y = _HEAD + 16 + row * _ROW
        words = textwrap.wrap(_SECONDS.sub("\\1\u00a0s", accident.title), _FIRST_CHARACTERS)[:4]
        content += _lines(16, y + 38 - 8 * len(words), words)
        for column, system in enumerate(document.systems):
            cell = document.cell(accident.name, system.name)
            content += _cell(cell, accident, _FIRST + column * width, y, width, own=system.name == OURS)
    bottom = _HEAD + 24 + len(accidents) * _ROW
    if left := len(document.accidents) - len(accidents):
        content += _text(16, bottom + 8, f"Not run: {left} more.", "m")
        bottom += 20
    return _svg(bottom, "Accidents and systems, failed requests", content)


def _legend() -> str:
    x, items = 16.0, ""
    for kind, text in list(LEGEND.items())[:4]:
        short = text.partition(":")[0]
        items += f'<rect class="{kind}" x="{x:.0f}" y="38" width="22" height="20" rx="3"/>'
        items += _text(x + 11, 53, SIGNS[kind], anchor="middle") + _text(x + 28, 53, short)
        x += 7.2 * len(short) + 48
    return items


def _lines(x: float, y: float, texts: Sequence[str], first: str = "") -> str:
    return "".join(_text(x, y + 16 * number, text, first) for number, text in enumerate(texts))


def _cell(cell: Cell | None, accident: Accident, x: float, y: float, width: float, *, own: bool) -> str:
    kind = severity(cell, accident)
    box = f'x="{x + 2:.0f}" y="{y:.0f}" width="{width - 5:.0f}" height="{_ROW - 5}" rx="4"'
    drawn = f'<rect class="{kind}" {box}/><rect class="{kind}-edge" x="{x + 2:.0f}" y="{y:.0f}" width="4" height="{_ROW - 5}"/>'
    if own:
        drawn += f'<rect class="own" {box}/>'
    if cell is None:
        return drawn + _text(x + 12, y + 22, "not run", "m")
    if kind is Severity.UNSUPPORTED:
        return drawn + _text(x + 12, y + 22, "–", "m")
    texts = _text(x + 12, y + 20, f"{SIGNS[kind]} {cell.failed:,} failed", "b")
    texts += _text(x + 12, y + 38, f"of {cell.sent:,}" if cell.given_up else f"of {cell.sent:,}, {cell.rest}")
    return drawn + texts + _text(x + 12, y + 55, f"given up, {cell.outcome}" if cell.given_up else cell.outcome)
