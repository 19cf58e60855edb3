"""``python -m bench.postmortem``: writes the bench's figures into the post-mortem, in both of its languages.

The prose is written by hand; the table between the two markers comes from docs/bench.json alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.systems import LEGACY, OURS, PATCHED
from twin.paths import REPOSITORY

DOCS = REPOSITORY / "docs"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
MAX_WORDS = 300
_CELLS = (
    ("nothing", LEGACY),
    ("nothing", PATCHED),
    ("nothing", OURS),
    ("slow", PATCHED),
    ("slow", OURS),
    ("bad-version", LEGACY),
    ("bad-version", OURS),
)
_TITLES = {
    "post-mortem.md": {
        "head": ("on the twin", "failed", "requests"),
        "nothing": "release",
        "slow": "load balancer three times slower than budgeted",
        "bad-version": "version that answers 500 on one page of three",
        LEGACY: "old",
        PATCHED: "old, patched",
        OURS: "new",
    },
    "post-mortem.ru.md": {
        "head": ("на двойнике", "сбоев", "запросов"),
        "nothing": "релиз",
        "slow": "балансировщик втрое медленнее запаса",
        "bad-version": "версия с ответом 500 на каждой третьей странице",
        LEGACY: "старый",
        PATCHED: "старый с патчами",
        OURS: "новый",
    },
}
FILES = tuple(_TITLES)


def figures(raw: Mapping[str, Any], file: str) -> str:
    """Return the table in a document's language, from the bench's measurements.

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


def fill(text: str, table: str) -> str:
    """Return the document with the table between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def count_words(text: str) -> int:
    """Count the words of a document: headings and figures too, marks and markers not."""
    plain = text.replace(BEGIN, " ").replace(END, " ")
    return sum(any(letter.isalnum() for letter in word) for word in plain.split())


def write(directory: Path = DOCS) -> None:
    """Fill the documents that stand beside the JSON."""
    raw = json.loads((directory / "bench.json").read_text())
    for path in (directory / file for file in FILES):
        if path.exists():
            path.write_text(fill(path.read_text(), figures(raw, path.name)))


if __name__ == "__main__":
    write()
    sys.exit(0)
