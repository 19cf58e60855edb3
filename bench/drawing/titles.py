"""Names of the systems on the page."""

from __future__ import annotations

from bench.schema import Document

_TITLES = {"ours": "this program", "legacy": "old chart", "patched": "old chart, patched"}


def title_of(document: Document, system: str) -> str:
    """Return what a system is called, also where the document names no systems."""
    title = document.title(system)
    return title if title != system else _TITLES.get(system, system)


def titles_of_measured(document: Document) -> dict[str, str]:
    """Return the systems that the scenarios measured, with their titles."""
    measured = {measurement.system: None for measurement in document.measurements}
    return {system: title_of(document, system) for system in measured}
