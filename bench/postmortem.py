"""``python -m bench.postmortem``: writes the bench's figures into the post-mortem, in both of its languages.

The prose is written by hand; what stands between the two markers comes from docs/bench.json and from nowhere else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.scenarios import NEW_TAG, TOO_SMALL
from bench.systems import LEGACY, OURS, PATCHED
from twin.paths import REPOSITORY

DOCS = REPOSITORY / "docs"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
MOST_WORDS = 300
_CELLS = (
    (NEW_TAG, LEGACY),
    (NEW_TAG, PATCHED),
    (NEW_TAG, OURS),
    ("node drain", LEGACY),
    ("node drain", OURS),
    (TOO_SMALL, OURS),
)
_TITLES = {
    "post-mortem.md": {
        "head": ("on the twin", "failed", "requests"),
        NEW_TAG: "release",
        "node drain": "node drain",
        TOO_SMALL: "drain budget too small, two evictions",
        LEGACY: "old",
        PATCHED: "old, patched",
        OURS: "new",
    },
    "post-mortem.ru.md": {
        "head": ("на двойнике", "сбоев", "запросов"),
        NEW_TAG: "релиз",
        "node drain": "дренаж узла",
        TOO_SMALL: "слишком малый запас, два выселения",
        LEGACY: "старый",
        PATCHED: "старый с патчами",
        OURS: "новый",
    },
}
FILES = tuple(_TITLES)


def figures(raw: Mapping[str, Any], file: str) -> str:
    """The table of a language, from what the bench has measured.

    Raises:
        KeyError: the bench lacks one of the cells.
    """
    titles: Mapping[str, Any] = _TITLES[file]
    measured = {(one["scenario"], one["system"]): one for one in raw["measured"]}
    rows = ["| " + " | ".join(titles["head"]) + " |", "|---|---|---|"]
    for scenario, system in _CELLS:
        one = measured[scenario, system]
        rows.append(f"| {titles[scenario]}: {titles[system]} | {one['failed']} | {one['requests']} |")
    return "\n".join(rows)


def filled(text: str, table: str) -> str:
    """The document with the table between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def words(text: str) -> int:
    """Words of a document, headings and figures counted, marks and markers not."""
    plain = text.replace(BEGIN, " ").replace(END, " ")
    return sum(any(letter.isalnum() for letter in word) for word in plain.split())


def write(directory: Path = DOCS) -> None:
    """The documents that stand beside the JSON."""
    raw = json.loads((directory / "bench.json").read_text())
    for path in (directory / file for file in FILES):
        if path.exists():
            path.write_text(filled(path.read_text(), figures(raw, path.name)))


if __name__ == "__main__":
    write()
    sys.exit(0)
