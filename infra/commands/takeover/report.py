"""Print a plan. Every cell passes the redactor, and nothing in it can move the terminal's cursor."""

from __future__ import annotations

from collections.abc import Sequence

from infra.commands.takeover.differences import Difference
from infra.commands.takeover.plan import TakeoverPlan
from infra.commands.takeover.redaction import Redactor
from infra.commands.takeover.rows import Outcome, TakeoverRow
from infra.commands.takeover.suggestions import without_secret

LONGEST = 3000
"""Characters of one cell: a command has two URNs and an import id that may be two ARNs, and has to be whole."""
IMPORT_ORDER = (
    "pulumi import: run a command only once `pulumi up -s prod` has stopped with it, since the state has its parent from then on "
    "(docs/takeover.md)"
)
LONGEST_VALUE = 60
"""Characters of an argument's value."""


def plan_text(plan: TakeoverPlan, redactor: Redactor, *, data_sources: int = 0) -> str:
    """Return a plan as text: rows by outcome, what is made anew, settings that would fit, errors, and the count."""
    lines = [line for row in _ordered(plan.rows) for line in _row_lines(row, redactor)]
    if plan.anew:
        lines += ["", "made anew, with nothing of the kind to take over:"]
        lines += [cell(f"  {pulumi_type}: {', '.join(names)}", redactor) for pulumi_type, names in plan.anew.items()]
    if plan.suggestion:
        lines += ["", "settings that describe what is there:"]
        lines += [f"  {printable(without_secret(line, redactor))}" for line in plan.suggestion]
    if any(row.detail.startswith("pulumi import ") for row in plan.rows):
        lines += ["", IMPORT_ORDER]
    lines += ["", *(cell(f"error: {error}", redactor) for error in plan.errors)]
    counts = ", ".join(
        f"{number} {outcome}" for outcome in Outcome if (number := sum(row.outcome is outcome for row in plan.rows))
    )
    lines.append(
        f"{len(plan.rows)} owned: {counts or 'nothing'}; {data_sources} more are only read; {len(plan.errors)} errors"
    )
    return "\n".join(lines)


def _ordered(rows: Sequence[TakeoverRow]) -> list[TakeoverRow]:
    order = list(Outcome)
    return sorted(rows, key=lambda row: order.index(row.outcome))


def _row_lines(row: TakeoverRow, redactor: Redactor) -> list[str]:
    indent = " " * 22
    lines = [f"{row.outcome:<21} {cell(row.address, redactor)}", f"{indent}{cell(row.detail, redactor)}"]
    lines += [f"{indent}{difference.effect:<13} {_difference(difference, redactor)}" for difference in row.differences]
    lines += [f"{indent}{cell(remark, redactor)}" for remark in row.remarks]
    return lines


def _difference(difference: Difference, redactor: Redactor) -> str:
    actual, declared = (
        cell(text, redactor, longest=LONGEST_VALUE) for text in (difference.actual, difference.declared)
    )
    text = f"{cell(difference.argument, redactor)}: {actual} → {declared}"
    return f"{text} ({cell(difference.note, redactor)})" if difference.note else text


def cell(text: str, redactor: Redactor, *, longest: int = LONGEST) -> str:
    """Return a text on one line, without secrets and without what a terminal would obey."""
    shown = printable(redactor.hide(text))
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def printable(text: str) -> str:
    """Return a text without what a terminal would obey."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
