"""``python -m bench.page``: draws the pages in docs/ from the figures beside them (``python -m bench.page file.json`` another).

A page holds what its one file of figures holds and nothing else, so it can be drawn again without a run. It is a single HTML file
that loads nothing. Pictures for README stand beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench import schema
from bench.drawing.about import about_html, expectations_html
from bench.drawing.cells import cells_html
from bench.drawing.curve import curve_html
from bench.drawing.floor import floor_html
from bench.drawing.headline import headline_html, peers_html
from bench.drawing.latencies import distributions_html, ranges_html
from bench.drawing.matrix_table import matrix_html, systems_html
from bench.drawing.picture import chart_picture, matrix_picture
from bench.drawing.release import first_release, release_html
from bench.drawing.scenarios import over_time_html, table_html
from bench.drawing.titles import titles_of_measured
from bench.drawing.undoing import undo_html
from bench.schema import Document
from bench.verdicts import GOAL_SECONDS, QUICKER_SHARE
from twin.paths import REPOSITORY

LARGEST_BYTES = 400_000
"""The most that a page or a file of figures in docs/ may take."""
PUBLISHED = (REPOSITORY / "docs" / "bench.json", REPOSITORY / "docs" / "bench-full.json")
_STYLES = tuple(Path(__file__).parent / "drawing" / name for name in ("colours.css", "page.css"))
_SCRIPT = (
    "function show(){const e=document.getElementById(decodeURIComponent(location.hash.slice(1)));if(!e)return;"
    "const d=e.closest('details');if(d)d.open=true;e.scrollIntoView()}addEventListener('hashchange',show);show()"
)
"""Unfolds what a link leads to; without it everything can be unfolded by hand."""


def _sections(document: Document) -> list[tuple[str, str, str]]:
    """Return key, heading and content of every section, empty ones too."""
    matrix = matrix_html(document) if document.accidents and document.systems else ""
    return [
        ("matrix", "Accidents and systems", _with(f"{systems_html(document)}{_MATRIX_TEXT}", matrix)),
        ("peers", "Where a peer is as good", _with(_PEERS_TEXT, peers_html(document))),
        ("undo", "A bad release is undone", _with(_UNDO_TEXT, undo_html(document))),
        ("release", "One release", _with(_RELEASE_TEXT, release_html(document))),
        ("floor", "How long a release takes, and the least it could", floor_html(document)),
        ("curve", "A pod leaves while the load balancer is late", _with(_CURVE_TEXT, curve_html(document))),
        ("latency", "Latency before, during and after a release", _latency(document)),
        ("expected", "Expected before the run", _with(_EXPECTED_TEXT, expectations_html(document))),
        ("timelines", "Every cell over time", _with(_CELLS_TEXT, cells_html(document))),
        (
            "scenarios",
            "Scenarios of the run" if document.is_full else "Scenarios without an accident",
            _scenarios(document),
        ),
        ("about", "What was measured, on what, and how to run it again", about_html(document)),
    ]


_MATRIX_TEXT = (
    "<p>Every request that was due from the begin of a release until nothing moved any more. Seconds: until then. "
    "A cell leads to its timeline.</p>"
)
_PEERS_TEXT = (
    "<p>Accidents in which a peer failed no more requests than this program, and left nothing to mend. "
    f"Quicker: it was also at rest in less than {QUICKER_SHARE:.0%} of this program's seconds.</p>"
)
_UNDO_TEXT = (
    "<p>From “the live release answers 500” to “the last request failed”, by the fastest way that each system documents. "
    "At production's own drain numbers; the load balancer follows each change after the median of its delays, since drawn ones "
    "would decide who is ahead. A person's reaction is not measured. "
    f"Bars are as long as their seconds; the dashed line is at {GOAL_SECONDS} s, this program's goal. "
    "Grey: what the tool still does once no request fails any more.</p>"
)
_RELEASE_TEXT = "<p>Weights and pods by the release's own log, requests as the clients counted them.</p>"
_CURVE_TEXT = (
    "<p>One pod is evicted while the load balancer is slower, or faster, than the drain budget allows for. Up to 1 &times; no "
    "request of this program's users may fail. Beyond it some are expected to: the budget is too small then.</p>"
)
_EXPECTED_TEXT = "<p>What is expected of this program; it stands in the source before a run.</p>"
_CELLS_TEXT = "<p>Seconds count from the begin of the release. The timelines of an accident have the same axis.</p>"


def _with(text: str, content: str) -> str:
    return f"{text}{content}" if content else ""


def _latency(document: Document) -> str:
    ranges = ranges_html(document.measurements, titles_of_measured(document))
    distributions = distributions_html(document)
    if not distributions:
        return ranges
    text = "<p>A release on a quiet day, short requests that went well, from when each was due.</p>"
    folded = f"<details><summary>Latency in the other scenarios</summary>{ranges}</details>" if ranges else ""
    return f"{text}{distributions}{folded}"


def _scenarios(document: Document) -> str:
    if document.short is None:
        return ""
    over_time = f"<details><summary>Each load over time</summary>{over_time_html(document)}</details>"
    return f"{table_html(document)}{over_time}"


def _verdict(problems: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(problem)}" for problem in problems)
    return f'<div class="alarm"><h2>This run proves nothing</h2><ul>{items}</ul></div>' if items else ""


def draw(figures: Mapping[str, Any]) -> str:
    """Return the page of a file of figures, as HTML."""
    document = schema.read(figures)
    sections = [section for section in _sections(document) if section[2]]
    links = "".join(f'<a href="#{key}">{heading}</a>' for key, heading, _ in sections)
    body = "\n".join(f'<section id="{key}"><h2>{heading}</h2>{content}</section>' for key, heading, content in sections)
    verdict = _verdict([*document.problems, *(document.short or {}).get("problems", ())])
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>ShopCat: requests that failed at a release</title>
<style>{"".join(path.read_text() for path in _STYLES)}</style>
<main><h1>Requests that failed at a release</h1>
{verdict}{headline_html(document)}
<nav>{links}</nav>
{body}
</main><script>{_SCRIPT}</script></html>
"""


def pictures(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return README's pictures by file name: of the matrix and of a release, as far as the figures have them."""
    document = schema.read(figures)
    drawn = {}
    if document.cells and document.systems:
        drawn["matrix.svg"] = matrix_picture(document)
    if found := first_release(document):
        _, chart = found
        drawn["release.svg"] = chart_picture(chart, chart.summary)
    return drawn


def write(path: Path) -> list[Path]:
    """Draw the page beside a file of figures, and the pictures beside that of the short run; return what was written."""
    figures = json.loads(path.read_text())
    texts = {f"{path.stem}.html": draw(figures), **({} if schema.read(figures).is_full else pictures(figures))}
    for name, text in texts.items():
        (path.parent / name).write_text(text)
    return [path.parent / name for name in texts]


def main(paths: Sequence[Path]) -> int:
    """Draw the page and the pictures beside each file of figures."""
    for path in paths:
        print(*write(path), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]] or PUBLISHED))
