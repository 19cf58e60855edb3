"""``python -m twin.build.actionlint``: the workflows' linter, built like every other Go program; no wheel carries it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twin.build import cache, golang
from twin.errors import TwinError
from twin.paths import REPOSITORY, cache_directory


def main() -> int:
    """Run actionlint and return its exit code; shellcheck, which it calls for `run:`, is found beside Python."""
    try:
        program = cache.ensure(cache_directory(), golang.part("actionlint")) / "bin" / "actionlint"
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        [program, "-color"], cwd=REPOSITORY, env={**os.environ, "PATH": path}, check=False, stdin=subprocess.DEVNULL
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
