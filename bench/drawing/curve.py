"""Failed requests when a pod leaves, against the load balancer's real delay ÷ the delay that the drain budget allows for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from bench.drawing.chart import Chart, Glyph, Key, Lane, Shape, Tick, as_html, line_path
from bench.drawing.colours import signs
from bench.drawing.titles import title_of
from bench.schema import Document, Point

_DECADES = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)
_ZERO = 0.06
"""Place of zero on the axis: signs there do not hide the axis below."""
_SIGN_PIXELS = 8
"""Distance of the signs of two systems with the same point."""


def _height(failed: int, most: int) -> float:
    """Return a fraction of the axis: zero stands at its foot, one a step above, ten and a hundred as far again."""
    return _ZERO + (1 - _ZERO) * ((1 + math.log10(failed)) / (1 + math.log10(most)) if failed else 0.0)


def _places(curves: Mapping[str, Sequence[Point]]) -> dict[float, float]:
    """Return where each delay stands on the horizontal axis."""
    ratios = sorted({point.ratio for line in curves.values() for point in line})
    return {ratio: 0.05 + 0.9 * number / max(len(ratios) - 1, 1) for number, ratio in enumerate(ratios)}


def curve(curves: Mapping[str, Sequence[Point]], titles: Mapping[str, str]) -> Chart:
    """Return the curves of the systems, of which there is at least one."""
    most = max(max(point.failed for point in line) for line in curves.values())
    top = next(decade for decade in _DECADES[1:] if decade >= most or decade == _DECADES[-1])
    x, sign = _places(curves), signs(list(curves))
    shapes, glyphs, keys = [], [], []
    for number, (system, line) in enumerate(curves.items()):
        css, glyph = sign[system]
        places = [(x[point.ratio], _height(point.failed, top)) for point in line]
        shapes.append(Shape(f"line {css}", line_path(places)))
        shift = round((number - (len(curves) - 1) / 2) * _SIGN_PIXELS)
        glyphs += [Glyph(at, height, glyph, css, shift) for at, height in places]
        keys.append(Key(css, titles[system], glyph))
    y_ticks = [Tick(_height(failed, top), f"{failed:,}") for failed in (0, *_DECADES) if failed <= top]
    lane = Lane("failed requests:", 220, shapes, y_ticks, keys, glyphs)
    return Chart(
        "Failed requests by system and delay; the table below has the same numbers",
        [lane],
        [Tick(at, f"{ratio:g} ×") for ratio, at in x.items()],
        "the load balancer's real delay ÷ the delay that the drain budget allows for",
    )


def curve_html(document: Document) -> str:
    """Return the curve with its numbers as a table; empty if nothing was measured."""
    curves = {system: line for system, line in document.curves.items() if line}
    if not curves:
        return ""
    titles = {system: title_of(document, system) for system in curves}
    ratios = list(_places(curves))
    head = "".join(f"<th>{ratio:g} ×" for ratio in ratios)
    rows = "".join(f"<tr><th>{escape(titles[system])}{_row(line, ratios)}" for system, line in curves.items())
    sent = [point.sent for line in curves.values() for point in line]
    text = f"<p>Failed requests, of {_range(sent)} sent to each system at each delay:</p>"
    table = f'<div class="scroll"><table class="numbers"><tr><th>{head}{rows}</table></div>'
    return f"{as_html(curve(curves, titles))}{text}{table}"


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"


def _row(line: Sequence[Point], ratios: Sequence[float]) -> str:
    failed = {point.ratio: f"{point.failed:,}" for point in line}
    return "".join(f"<td>{failed.get(ratio, '–')}" for ratio in ratios)
