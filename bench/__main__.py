"""``python -m bench``: every scenario on twins of its own, then the report."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench import load, postmortem, report, run, scenarios, workloads
from twin.errors import TwinError
from twin.paths import REPOSITORY

RESULTS = REPOSITORY / "bench" / "results"
PUBLISHED = REPOSITORY / "docs"


def _publish(results: Path, published: Path, name: str) -> None:
    published.mkdir(parents=True, exist_ok=True)
    for ending in ("json", "html"):
        shutil.copy(results / f"{name}.{ending}", published)


def main() -> int:
    """Run, keep the logs, report, take the twins down.

    Exit code 1 if a step failed or the run proves nothing; only a run that proves something is published.
    """
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="consecutive releases with the committed settings: two hours"
    )
    parser.add_argument("--releases", type=int, default=workloads.FULL_RELEASES, help="with --full; fewer proves less")
    parser.add_argument("--published", type=Path, default=PUBLISHED, help="where a report that proves something goes")
    parser.add_argument("--keep", action="store_true", help="leave the twins running")
    arguments = parser.parse_args()
    first = os.environ.get("SHOPCAT_TWIN_NAME", "bench")
    names = [first] if arguments.full else [first, scenarios.second_name(first)]
    if reason := run.why_not(names):
        print(f"error: {reason}", file=sys.stderr)
        return 1
    run.prepare_process()
    title = "bench-full" if arguments.full else "bench"
    try:
        with tempfile.TemporaryDirectory(prefix="shopcat-bench-") as directory:
            try:
                if arguments.full:
                    result = scenarios.run_full(first, Path(directory), arguments.releases)
                else:
                    result = scenarios.run_short(first, Path(directory))
            finally:
                run.keep_logs(Path(directory), RESULTS / f"{title}-logs")
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if not arguments.keep:
            run.take_down(names)
    RESULTS.mkdir(exist_ok=True)
    for name, outcomes in result.outcomes.items():
        load.write(outcomes, RESULTS / f"{name.replace(' ', '-')}.jsonl")
    report.write(result, RESULTS, title)
    problems = report.problems(result)
    print(f"{result.seconds:.0f} s; report: {RESULTS / title}.html")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        return 1
    _publish(RESULTS, arguments.published, title)
    if title == "bench":
        postmortem.write(arguments.published)
    return 0


if __name__ == "__main__":
    sys.exit(main())
