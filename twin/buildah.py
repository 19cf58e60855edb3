"""``buildah`` on the twin: the pipeline calls it by that name, as it would on a runner without a Docker engine."""

from __future__ import annotations

import sys

from twin import config, images
from twin.errors import TwinError


def main() -> int:
    """Buildah's own exit code."""
    try:
        return images.run_buildah(config.load(), sys.argv[1:])
    except TwinError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
