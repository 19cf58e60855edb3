"""``python -m bench.documents``: writes the bench's figures into the documents that argue with them.

The prose is written by hand; the table between the two markers comes from docs/bench.json alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import schema
from bench.systems import ARGO_BLUE_GREEN, ARGO_CANARY, LEGACY, OURS, PATCHED
from pipeline.marked_text import fill
from twin.errors import TwinError
from twin.paths import REPOSITORY

DOCS = REPOSITORY / "docs"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
MAX_WORDS = 300
_CELLS = (
    ("nothing", LEGACY),
    ("nothing", PATCHED),
    ("nothing", OURS),
    ("slow", OURS),
    ("bad-version", OURS),
)
_TITLES = {
    "post-mortem.md": {
        "head": ("on the twin", "failed", "requests"),
        "nothing": "release",
        "slow": "load balancer too slow",
        "bad-version": "bad version",
        LEGACY: "old",
        PATCHED: "old, patched",
        OURS: "new",
    },
    "post-mortem.ru.md": {
        "head": ("на двойнике", "сбоев", "запросов"),
        "nothing": "релиз",
        "slow": "медленный балансировщик",
        "bad-version": "плохая версия",
        LEGACY: "старый",
        PATCHED: "старый с патчами",
        OURS: "новый",
    },
}
POST_MORTEMS = tuple(_TITLES)
UNDOING = "a live release begins to answer 500, and is undone by the fastest documented way"
LATE_RATIOS = (1, 2, 3)
"""Points of the curve that have a row in the matrix: the load balancer's delay ÷ the budgeted one."""
_NOT_RUN = "not run"
COMPARED = {"why-not-argo.md": (ARGO_CANARY, ARGO_BLUE_GREEN, OURS)}
"""Documents with the whole matrix of some systems, and their curve."""


def post_mortem(raw: Mapping[str, Any], file: str) -> str:
    """Return a post-mortem's table in its language.

    Raises:
        KeyError: the bench lacks one of the cells.
    """
    titles: Mapping[str, Any] = _TITLES[file]
    cells = {(entry["accident"], entry["system"]): entry for entry in raw["cells"]}
    rows = ["| " + " | ".join(titles["head"]) + " |", "|---|---|---|"]
    for accident, system in _CELLS:
        entry = cells[accident, system]
        rows.append(f"| {titles[accident]}: {titles[system]} | {entry['failed']} | {entry['sent']} |")
    return "\n".join(rows)


def matrix(raw: Mapping[str, Any], systems: Sequence[str]) -> str:
    """Return these systems' matrix and curve, and in how many accidents each failed; rows without figures are left out."""
    document = schema.read(raw)
    rows = [
        _row(accident.title, [_cell(document.cell(accident.name, system)) for system in systems])
        for accident in document.accidents
        if any(document.cell(accident.name, system) for system in systems)
    ]
    rows += _curve_rows(document, systems)
    ways = {each.system: f"{each.failed} of {each.sent}, {each.seconds:.0f} s" for each in document.undo}
    rows.append(_row(UNDOING, [ways.get(system, _NOT_RUN) for system in systems]))
    named = {system.name for system in document.systems}
    notes = [f"{name[:1].upper()}{name[1:]}: {UNDOING}: {way}." for name, way in ways.items() if name not in named]
    counts = []
    for system in systems:
        failed = [cell.failed for cell in document.cells if cell.system == system]
        counts.append(f"{document.title(system)} {sum(count > 0 for count in failed)} of {len(failed)}")
    return "\n".join(
        [
            _row("failed of sent, until at rest, outcome", [document.title(system) for system in systems]),
            f"|---|{'---|' * len(systems)}",
            *rows,
            "",
            f"Accidents in which requests failed, of those that were run: {', '.join(counts)}.",
            *notes,
        ]
    )


def _row(title: str, texts: Sequence[str]) -> str:
    return f"| {title} | {' | '.join(texts)} |"


def _cell(cell: schema.Cell | None) -> str:
    return f"{cell.failed} of {cell.sent}, {cell.rest}, {cell.outcome}" if cell else _NOT_RUN


def _curve_rows(document: schema.Document, systems: Sequence[str]) -> list[str]:
    points = {(system, point.ratio): point for system in systems for point in document.curves.get(system, [])}
    ratios = [ratio for ratio in LATE_RATIOS if any((system, ratio) in points for system in systems)]
    texts = {key: f"{point.failed} of {point.sent}" for key, point in points.items()}
    return [
        _row(
            f"one pod leaves while the load balancer is {ratio} × as late as budgeted: failed",
            [texts.get((system, ratio), _NOT_RUN) for system in systems],
        )
        for ratio in ratios
    ]


def tables(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return each document's table."""
    return {file: post_mortem(raw, file) for file in POST_MORTEMS} | {
        file: matrix(raw, systems) for file, systems in COMPARED.items()
    }


def filled(text: str, table: str, name: str) -> str:
    """Return a document with the table between its marks.

    Raises:
        TwinError: the marks are gone.
    """
    return fill(text, BEGIN, END, table, name=name, error=TwinError)


def count_words(text: str) -> int:
    """Count the words of a document: headings and figures too, marks and markers not."""
    plain = text.replace(BEGIN, " ").replace(END, " ")
    return sum(any(letter.isalnum() for letter in word) for word in plain.split())


def write(directory: Path = DOCS) -> None:
    """Fill the documents that stand beside the JSON."""
    raw = json.loads((directory / "bench.json").read_text())
    for file, table in tables(raw).items():
        path = directory / file
        if path.exists():
            path.write_text(filled(path.read_text(), table, file))


if __name__ == "__main__":
    write()
    sys.exit(0)
