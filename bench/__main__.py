"""``python -m bench``: who fails requests when, on twins of its own; then figures, page and documents in docs/.

A run that breaks off keeps its cells and parts (bench/results), and the next one goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import assembly, cells, curve, documents, full, matrix, page, report, run
from bench.accidents import ACCIDENTS, Accident
from bench.figures import as_text
from twin.errors import TwinError
from twin.paths import REPOSITORY

RESULTS = REPOSITORY / "bench" / "results"
PUBLISHED = REPOSITORY / "docs"
_SYSTEMS = [name for stage in matrix.STAGES for name in stage]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every accident, and the curve of delays: hours")
    parser.add_argument("--report", action="store_true", help="run nothing; publish what was kept")
    parser.add_argument(
        "--again", action="store_true", help="forget the cells, or with --full the parts, of former runs"
    )
    parser.add_argument(
        "--runs", type=int, default=1, help="releases for each cell, with those kept; the worst is shown"
    )
    parser.add_argument("--systems", nargs="+", choices=_SYSTEMS, default=_SYSTEMS)
    parser.add_argument("--accidents", nargs="+", choices=[accident.name for accident in ACCIDENTS], default=[])
    parser.add_argument(
        "--full",
        action="store_true",
        help="ours alone, with the committed settings: a million requests, three hours in parts of forty minutes",
    )
    parser.add_argument("--parts", type=int, default=full.MAX_PARTS, help="with --full; the most of them now")
    parser.add_argument("--published", type=Path, default=PUBLISHED, help="where a report that proves something goes")
    return parser.parse_args()


def chosen_accidents(names: Sequence[str], *, every: bool) -> list[Accident]:
    """Return the accidents with these names; without names those of the headline, or every one."""
    return [each for each in ACCIDENTS if (each.name in names if names else every or each.headline)]


def _run_matrix(names: Sequence[str], arguments: argparse.Namespace) -> list[str]:
    """Run what is missing, and publish all that is known; return why it proves nothing."""
    if arguments.again:
        for folder in (cells.CELLS, curve.FOLDER):
            shutil.rmtree(folder, ignore_errors=True)
    accidents = chosen_accidents(arguments.accidents, every=arguments.all)
    broken: dict[str, str] = {}
    if not arguments.report:
        broken = matrix.run_all(names, arguments.systems, accidents, runs=arguments.runs, with_curve=arguments.all)
    figures = assembly.assemble()
    print(cells.table(cells.read(), {each.name: each.title for each in assembly.SYSTEMS}))
    problems = [*figures["problems"], *(f"{name}: {text}" for name, text in broken.items())]
    target = arguments.published if not problems else RESULTS
    (target / "bench.json").write_text(as_text(figures))
    page.main([target / "bench.json"])
    if not problems:
        documents.write(target)
    return problems


def _run_full(name: str, arguments: argparse.Namespace) -> list[str]:
    """Run what is missing of the million requests; publish the report if it proves something; return why it does not."""
    kept = RESULTS / "full"
    if arguments.again:
        shutil.rmtree(kept, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="shopcat-bench-") as directory:
        try:
            result = full.run_full(name, Path(directory), kept, arguments.parts)
        finally:
            run.keep_logs(Path(directory), RESULTS / "bench-full-logs")
    problems = report.problems(result)
    report.write(result, RESULTS if problems else arguments.published, "bench-full")
    return problems


def main() -> int:
    """Run, report, take the twins down; 1 if a step failed or the run proves nothing, which is then not published."""
    arguments = _arguments()
    first = os.environ.get("SHOPCAT_TWIN_NAME", "bench")
    names = [] if arguments.report else [first] if arguments.full else [first, f"{first}-2", f"{first}-3"]
    if reason := run.why_not(names):
        print(f"error: {reason}", file=sys.stderr)
        return 1
    run.prepare_process()
    RESULTS.mkdir(exist_ok=True)
    try:
        problems = _run_full(first, arguments) if arguments.full else _run_matrix(names, arguments)
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        run.take_down(names)
        os._exit(130)  # threads that wait for what was killed would hold up an exit
    finally:
        run.take_down(names)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
