"""``python -m bench``: every scenario on a twin of its own, then the report."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bench import report, scenarios
from twin import config, parts
from twin.errors import TwinError
from twin.paths import REPOSITORY, is_root


def main() -> int:
    """Run, report, take the twin down."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--results", type=Path, default=REPOSITORY / "docs" / "bench", help="where the report goes")
    parser.add_argument("--keep", action="store_true", help="leave the twin running")
    arguments = parser.parse_args()
    if not is_root():
        print("error: the bench needs real pods, and those need root", file=sys.stderr)
        return 1
    twin = config.load("bench", simulated=False)
    try:
        with tempfile.TemporaryDirectory(prefix="shopcat-bench-") as directory:
            result = scenarios.play(twin, Path(directory))
        report.write(result, arguments.results)
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if not arguments.keep:
            left = parts.down(twin)
            if left:
                print("\n".join(left), file=sys.stderr)
            else:
                shutil.rmtree(twin.directory, ignore_errors=True)
                config.release_index(twin)
    found = report.problems(result)
    print(f"{result.seconds:.0f} s; report: {arguments.results / 'bench.html'}")
    for one in found:
        print(f"error: {one}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
