"""The first thing on the page: who failed requests, how long each takes, how fast a bad release is undone."""

from __future__ import annotations

import statistics
from html import escape

from bench.drawing.titles import title_of
from bench.schema import QUIET, Document, System
from bench.systems import OURS
from bench.verdicts import AsGood, Summary, peers_as_good, summary, was_run


def headline_html(document: Document) -> str:
    """Return the numbers that answer the three questions."""
    if document.is_full:
        return _full(document)
    return _matrix(document) if document.cells else _scenarios(document)


def _full(document: Document) -> str:
    releases = [measurement for measurement in document.measurements if measurement.floor]
    failed = sum(measurement.failed for measurement in document.measurements)
    sent = sum(document.short["requests"].values()) if document.short else 0
    median = statistics.median(release.ended - release.began for release in releases) if releases else 0.0
    return (
        f'<p class="lede"><b>{failed:,} of {sent:,} requests failed</b> in {len(releases)} releases in a row, with '
        f"production's own drain numbers; a release took {median:.0f} s (median).</p>"
    )


def _scenarios(document: Document) -> str:
    released = {row.scenario for row in document.measurements[:2] if row.floor}
    lines = [
        f"{escape(title_of(document, row.system))}: <b>{row.failed:,} of {row.requests:,} requests failed</b>, "
        f"{row.ended - row.began:.0f} s"
        for row in document.measurements
        if row.scenario in released
    ]
    return f'<p class="lede">A release on a quiet day. {"; ".join(lines)}.</p>' if lines else ""


# --- with a matrix


def _matrix(document: Document) -> str:
    ours = summary(document, OURS)
    rows = "".join(_row(document, system) for system in document.systems)
    head = "".join(
        f"<th scope=col>{text}"
        for text in (
            "",
            "cases with failed requests",
            "ended stuck or wrong",
            "failed of all requests",
            "a quiet release takes",
            "a bad release is undone in",
        )
    )
    return (
        f'<p class="lede">{_sentence(document, ours)}</p>'
        f'<table class="tiles"><thead><tr>{head}</thead><tbody>{rows}</tbody></table>'
    )


def _sentence(document: Document, ours: Summary) -> str:
    clean = ours.run - ours.losing
    missing = len(document.accidents) - ours.run
    more = f" ({missing} more were not run)" if missing else ""
    parts = [f"This program failed <b>no request in {clean} of {ours.run} cases</b>{more}."]
    for accident in document.accidents:
        cell = document.cell(accident.name, OURS)
        if cell is not None and cell.failed:
            because = f" ({escape(accident.reason)})" if accident.reason else ""
            parts.append(f"In “{escape(accident.title)}” it failed {cell.failed:,} of {cell.sent:,} requests{because}.")
    undo = document.undo_of(OURS)
    if undo is not None and undo.sent:
        parts.append(
            f"A live release that answers 500 is <b>undone in {undo.seconds:.0f} s</b>, with {undo.failed:,} failed requests."
        )
    return " ".join(parts)


def _row(document: Document, system: System) -> str:
    each = summary(document, system.name)
    undo = document.undo_of(system.name)
    undone = "not run" if undo is None else "–" if not undo.sent else f"{undo.seconds:.0f} s, {undo.failed:,} failed"
    cell = document.cell(QUIET, system.name)
    quiet = cell.rest if cell and was_run(cell) else "not run"
    values = (
        ("failed in", f"<b>{each.losing} of {each.run}</b>" if each.run else "not run"),
        ("stuck or wrong", f"{each.wrong} of {each.run}" if each.run else "not run"),
        ("requests failed", f"{each.failed:,} of {each.sent:,}" if each.run else "not run"),
        ("quiet release", quiet),
        ("undone in", undone),
    )
    cells = "".join(f'<td data-name="{name}">{value}' for name, value in values)
    ours = ' class="ours"' if system.name == OURS else ""
    return f"<tr{ours}><th scope=row>{escape(system.title)}{cells}"


def peers_html(document: Document) -> str:
    """Return for each accident the peers that are as good as this program; empty where no cell of ours was run."""
    rows = ""
    for accident in document.accidents:
        ours = document.cell(accident.name, OURS)
        if ours is None or not was_run(ours):
            continue
        peers = [each for each in peers_as_good(document) if each.accident == accident]
        quicker = [_peer(document, each) for each in peers if each.quicker]
        slower = [_peer(document, each) for each in peers if not each.quicker]
        rows += (
            f'<tr><td>{escape(accident.title)}<td data-name="this program">{ours.failed:,} failed, '
            f'{ours.rest}<td data-name="as good, and quicker">{"; ".join(quicker) or "none"}'
            f'<td data-name="as good, not quicker">{"; ".join(slower) or "none"}'
        )
    if not rows:
        return ""
    head = "<tr><th>accident<th>this program<th>as good, and quicker<th>as good, not quicker"
    return f'<table class="plain stack"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def _peer(document: Document, each: AsGood) -> str:
    title = escape(document.title(each.peer.system))
    return f"{title} ({each.peer.failed:,} failed, {each.peer.rest})"
