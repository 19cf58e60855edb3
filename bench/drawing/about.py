"""Expectations from before the run, the machine, each system's configuration, and how to run it again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bench.drawing.matrix_table import CONFIGURED
from bench.schema import Document, System
from bench.systems import OURS
from bench.verdicts import broken_expectations, was_run

_BACKTICKS = re.compile("`([^`]*)`")
_ENGINE = {
    True: "ran only while nothing else wanted the processor (the kernel's idle class); the database, the cluster, the load "
    "balancer and the clients took it as they needed.",
    False: "took the processor from it here: they could not be put into the kernel's idle class (for groups: Linux 5.15).",
}


def expectations_html(document: Document) -> str:
    """Return what was expected of this program, row by row, beside what came; empty without a matrix."""
    if not document.accidents:
        return ""
    broken = {cell.accident for cell in broken_expectations(document)}
    rows = ""
    for accident in document.accidents:
        cell = document.cell(accident.name, OURS)
        measured, verdict = "not run", ""
        if cell is not None and was_run(cell):
            measured = f"{cell.failed:,} of {cell.sent:,}, {cell.outcome}"
            verdict = "✕ otherwise" if accident.name in broken else "✓ kept"
        rows += (
            f'<tr><td>{escape(accident.title)}<td data-name="expected">at most {accident.expected_failed:,} fail, '
            f'{accident.expected_outcome}<td data-name="measured">{measured}<td>{verdict}<td>{escape(accident.reason)}'
        )
    head = "<tr><th>accident<th>expected<th>measured<th><th>why"
    return f'<table class="plain stack"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def about_html(document: Document) -> str:
    """Return how it was measured."""
    return "".join(
        [
            _how(document),
            _stale(document.stale),
            _pairs("Machine", document.machine),
            _pairs("Numbers of the run", document.settings),
            _pairs("Drain budget of this program; how the others are configured stands below", document.budget),
            _load(document.mix),
            _tuned(document),
            _again(document),
        ]
    )


def _how(document: Document) -> str:
    text = (
        "<p>Measured on the <i>twin</i>, the real Pulumi engine and the real Kubernetes on one machine, not on AWS. Its load "
        "balancer's delays are chosen from the slowest that users report, since AWS publishes none: "
        "<code>twin/loadbalancer/parameters.yaml</code> names each source. The clients send on time whatever happened to the "
        "requests before, never try again, and count a latency from when the request was due; so it holds this machine's noise "
        "too.</p>"
    )
    if document.short is None:
        return text
    text += (
        "<p>In the scenarios, the clients' and the load balancers' own logs agree on every request "
        f"({len(document.short['disagreements'])} exceptions), and every acknowledged order is in PostgreSQL exactly once "
        f"({len(document.short['ordersLostOrDoubled'])} exceptions).</p>"
    )
    if document.is_full:
        engine = _ENGINE[document.short["engineYields"]]
        text += f"<p>Engine and AWS stand-in, which on AWS share no machine with the shop, {engine}</p>"
        if broken := document.short.get("partsBrokenOff"):
            text += f"<p>Parts of the run that broke off, and were measured once more from their begin: {broken}.</p>"
    retried = document.short["retriedUpdates"]
    return text + "".join(f"<p>An update failed and was run once more: {escape(line)}</p>" for line in retried)


def _stale(figures: Sequence[str]) -> str:
    """Return which figures are older than the code that put them together; empty if none is."""
    if not figures:
        return ""
    items = "".join(f"<li>{escape(each)}" for each in figures)
    text = "measured before the accident, the system, the application or the load was changed"
    return f"<details><summary>{len(figures)} of these figures were {text}</summary><ul>{items}</ul></details>"


def _pairs(title: str, pairs: Mapping[str, Any]) -> str:
    if not pairs:
        return ""
    rows = "".join(f"<dt>{escape(spoken(name))}<dd>{escape(_value(value))}" for name, value in pairs.items())
    return f"<h3>{title}</h3><dl>{rows}</dl>"


_WORD = re.compile(r"_|(?<=[a-z])(?=[A-Z])")
_UNITS = {"seconds": "s", "gibibytes": "GiB", "percent": "%"}


def spoken(name: str) -> str:
    """Return a name as words, with its unit behind a comma: memoryGibibytes is "memory, GiB"."""
    words = [word if " " in word else word.lower() for word in _WORD.split(name)]
    unit = _UNITS.get(words[-1]) if len(words) > 1 else None
    return f"{' '.join(words[:-1])}, {unit}" if unit else " ".join(words)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _load(mix: Sequence[Mapping[str, Any]]) -> str:
    items = "".join(f"<li>{escape(str(each.get('name')))}: {_value(each.get('rate'))} requests/s" for each in mix)
    return f"<h3>Load on each system</h3><ul>{items}</ul>" if items else ""


def _tuned(document: Document) -> str:
    systems = "".join(
        f"<h4>{escape(system.title)}</h4><ul>{''.join(f'<li>{_code(line)}' for line in _lines(system))}</ul>"
        for system in document.systems
        if system.tuned
    )
    return f'<h3 id="{CONFIGURED}">How each system is configured</h3>{systems}' if systems else ""


def _lines(system: System) -> Sequence[str]:
    return [system.tuned] if isinstance(system.tuned, str) else system.tuned


def _code(text: str) -> str:
    return _BACKTICKS.sub(r"<code>\1</code>", escape(text))


def _again(document: Document) -> str:
    if document.is_full:
        commands = [
            ("make bench FULL=1", "twenty releases and a million requests: four parts of forty minutes, which are kept")
        ]
    else:
        commands = [
            ("make bench", "the headline rows"),
            (
                "make bench ALL=1",
                "every row, and the curve; a run that breaks off goes on where it was",
            ),
            ("python -m bench.page docs/bench.json", "this page once more, from the same figures"),
        ]
    items = "".join(f"<li><code>{command}</code>: {meaning}" for command, meaning in commands)
    return (
        f"<h3>Run it again</h3><ul>{items}</ul><p>Debian, root, Python 3.11 and Go; no AWS account. "
        "Every figure stands in the JSON beside this page; <code>bench/schema.py</code> is its schema.</p>"
    )
