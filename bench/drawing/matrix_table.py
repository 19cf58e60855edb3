"""The matrix as a table: a row for each accident, a column for each system; on a phone a card for each accident."""

from __future__ import annotations

from html import escape

from bench.schema import Accident, Cell, Document
from bench.systems import OURS
from bench.verdicts import MANY_FAILED, Severity, severity

CONFIGURED = "configured"
"""Name by which the systems' configuration is found on the page."""
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
    Severity.FEW: f"fewer than {MANY_FAILED} failed: less than a second of the load",
    Severity.MANY: f"{MANY_FAILED} or more failed",
    Severity.WRONG: "stuck, or a bad version or wrong code live: someone has to mend it",
    Severity.UNSUPPORTED: "the system can't do this",
}
_OUTCOMES = (
    "<p><b>released</b>: the new version alone serves. <b>undone</b>: the former version serves, by the system's own doing. "
    "<b>stuck</b>: neither serves alone, or something still moves; someone has to act. <b>wrong code</b>: what serves is not "
    "what was pushed under its tag when that was released.</p>"
)


def anchor(accident: str, system: str) -> str:
    """Return the name by which a cell's timeline is found on the page."""
    return f"{accident}--{system}"


def headline(cell: Cell) -> str:
    """Return a cell's count."""
    return f"{cell.failed:,} of {cell.sent:,} failed"


def lines(cell: Cell) -> tuple[str, str, str]:
    """Return a cell in three short lines."""
    repeated = f", worst of {len(cell.runs)}" if len(cell.runs) > 1 else ""
    sent = f"of {cell.sent:,}, {cell.rest}" if cell.given_up else f"of {cell.sent:,} in {cell.rest}"
    return f"{cell.failed:,} failed", sent, f"{cell.outcome}{repeated}"


def times(cell: Cell) -> str:
    """Return a cell's seconds and outcome, and how often it was run."""
    repeated = f", worst of {len(cell.runs)}" if len(cell.runs) > 1 else ""
    return f"{cell.rest}, {cell.outcome}{repeated}"


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


def systems_html(document: Document) -> str:
    """Return what the columns are, in a sentence, and where their configuration stands if the page has it."""
    titles = "; ".join(escape(system.title) for system in document.systems)
    configured = any(system.tuned for system in document.systems)
    link = f' <a href="#{CONFIGURED}">How each is configured</a> stands below.' if configured else ""
    return f"<p>The columns are {len(document.systems)} ways to release the same shop: {titles}.{link}</p>"


def matrix_html(document: Document) -> str:
    """Return the table, then its outcomes in plain words; each cell that was run leads to its timeline."""
    heads = "".join(f"<th scope=col>{escape(system.title)}" for system in document.systems)
    rows = "".join(
        f"<tr><th scope=row>{escape(accident.title)}"
        + "".join(_cell(document, accident, system.name) for system in document.systems)
        for accident in document.accidents
    )
    return (
        f'{legend()}<table class="matrix"><thead><tr><th scope=col>During a release: {heads}</thead>'
        f"<tbody>{rows}</tbody></table>{_OUTCOMES}"
    )
