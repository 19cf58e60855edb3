"""The matrix as a table: a row for each accident, a column for each system; on a phone a card for each accident."""

from __future__ import annotations

from html import escape

from bench.schema import Accident, Cell, Document
from bench.systems import OURS
from bench.verdicts import Severity, severity

SIGNS = {
    Severity.FINE: "✓",
    Severity.FEW: "▲",
    Severity.MANY: "✕",
    Severity.WRONG: "⚠",
    Severity.UNSUPPORTED: "–",
    Severity.NOT_RUN: "",
}
LEGEND = {
    Severity.FINE: "no request failed",
    Severity.FEW: "less than 1 % failed",
    Severity.MANY: "1 % or more failed",
    Severity.WRONG: "stuck, or a bad version or wrong code live: someone has to mend it",
    Severity.UNSUPPORTED: "the system can't do this",
}


def anchor(accident: str, system: str) -> str:
    """Return the name by which a cell's timeline is found on the page."""
    return f"{accident}--{system}"


def headline(cell: Cell) -> str:
    """Return a cell's count."""
    return f"{cell.failed:,} of {cell.sent:,} failed"


def lines(cell: Cell) -> tuple[str, str, str]:
    """Return a cell in three short lines."""
    repeated = f", worst of {len(cell.runs)}" if len(cell.runs) > 1 else ""
    return f"{cell.failed:,} failed", f"of {cell.sent:,} in {cell.settled_seconds:.0f} s", f"{cell.outcome}{repeated}"


def times(cell: Cell) -> str:
    """Return a cell's seconds and outcome, and how often it was run."""
    repeated = f", worst of {len(cell.runs)}" if len(cell.runs) > 1 else ""
    return f"{cell.settled_seconds:.0f} s, {cell.outcome}{repeated}"


def _content(cell: Cell | None, kind: Severity) -> str:
    if cell is None:
        return "not run"
    if kind is Severity.UNSUPPORTED:
        return f"<b>–</b><small>{escape(cell.reason)}</small>"
    first, second, third = lines(cell)
    text = f"<b>{SIGNS[kind]} {first}</b><small>{second}</small><small>{escape(third)}</small>"
    return f'<a href="#{escape(anchor(cell.accident, cell.system))}">{text}</a>'


def _cell(document: Document, accident: Accident, system: str) -> str:
    cell = document.cell(accident.name, system)
    kind = severity(cell, accident)
    ours = " ours" if system == OURS else ""
    return f'<td class="{kind}{ours}" data-system="{escape(document.title(system))}">{_content(cell, kind)}'


def legend() -> str:
    """Return what signs and colours mean."""
    items = "".join(f'<span><i class="box {kind}">{SIGNS[kind]}</i> {text}</span>' for kind, text in LEGEND.items())
    return f'<p class="legend">{items}</p>'


def matrix_html(document: Document) -> str:
    """Return the table; each cell that was run leads to its timeline."""
    heads = "".join(f"<th scope=col>{escape(system.title)}" for system in document.systems)
    rows = "".join(
        f"<tr><th scope=row>{escape(accident.title)}"
        + "".join(_cell(document, accident, system.name) for system in document.systems)
        for accident in document.accidents
    )
    return (
        f'{legend()}<table class="matrix"><thead><tr><th scope=col>During a release: {heads}</thead>'
        f"<tbody>{rows}</tbody></table>"
    )
