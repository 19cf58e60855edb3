"""``python -m twin.build``: every program and system image of the twin, built into the cache."""

from __future__ import annotations

import sys

from twin import config
from twin.build import programs
from twin.errors import TwinError


def main() -> int:
    """Build, print the table, and turn a TwinError into one line."""
    try:
        programs.everything(config.load())
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
