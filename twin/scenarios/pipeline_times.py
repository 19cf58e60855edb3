"""``make pr-times``: a preview opened without any cached layer, opened with them, updated and closed, each step timed.

The table in docs/pipeline.md between its two marks is written by this and never by hand.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.marked_text import fill
from pipeline.steps import BUDGET_SECONDS
from twin import config
from twin.config import Twin
from twin.errors import TwinError
from twin.host import processes
from twin.paths import REPOSITORY
from twin.scenarios import preview, rehearsal

PAGE = REPOSITORY / "docs" / "pipeline.md"
BEGIN, END = "<!-- measured: make pr-times -->", "<!-- measured until here -->"
NUMBERS = (9001, 9002)
"""Numbers of pull requests that do not exist."""


def table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """One row a step, one column a run, their sums below."""
    titles: list[str] = []
    for steps in columns.values():
        titles += [title for title in steps if title not in titles]
    lines = [f"| step | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for title in titles:
        cells = [f"{steps[title]:.1f}" if title in steps else "" for steps in columns.values()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    sums = [f"**{sum(steps.values()):.1f}**" for steps in columns.values()]
    return "\n".join([*lines, f"| all together, of {BUDGET_SECONDS} s | {' | '.join(sums)} |"])


def written(page: str, text: str) -> str:
    """The page with what stands between its marks replaced.

    Raises:
        TwinError: the marks are gone.
    """
    return fill(page, BEGIN, END, text, name=str(PAGE), error=TwinError)


def measure(twin: Twin) -> dict[str, dict[str, float]]:
    """Seconds by run and step.

    Raises:
        TwinError: a run failed.
    """
    columns: dict[str, dict[str, float]] = {}
    application = os.environ.get("APP_SRC")
    source, (first, second) = rehearsal.source(), NUMBERS

    def took(title: str) -> None:
        columns[title] = json.loads(preview.times_file(twin).read_text())

    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["APP_SRC"] = str(rehearsal.changed_source(source, Path(folder), "first"))
            preview.up(twin, first, fresh=True)
            took("opened, no layer cached")
            os.environ["APP_SRC"] = str(rehearsal.changed_source(source, Path(folder), "next"))
            preview.up(twin, first)
            took("next commit")
            os.environ["APP_SRC"] = str(rehearsal.changed_source(source, Path(folder), "second"))
            preview.up(twin, second)
            took("opened, layers cached")
            preview.close(twin, second)
            took("closed")
    finally:
        if application is None:
            os.environ.pop("APP_SRC", None)
        else:
            os.environ["APP_SRC"] = application
        for number in NUMBERS:
            preview.close(twin, number)
    return columns


def main(arguments: Sequence[str]) -> int:
    """Measure and write the page; with ``--print`` only print."""
    processes.heed_interrupts()
    try:
        twin = config.load()
        text = table(measure(twin))
        print(text)
        if "--print" not in arguments:
            machine = f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d', time.gmtime())}"
            PAGE.write_text(written(PAGE.read_text(), f"\nSeconds on the twin, {machine}:\n\n{text}\n"))
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
