"""Print docs/cost.md, or write it (``make cost``); nothing is asked of AWS.

PULUMI_OPTION_CONFIG_FILE names another stack file than Pulumi.prod.yaml, as for pulumi itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.capacity import CapacityError
from infra.commands.cost.page import CostSubject, cost_page
from infra.commands.cost.prices import read_prices
from infra.commands.recorded_stacks import record_preview, record_production
from infra.errors import ShopCatError
from infra.settings import read_preview, read_stack

ANY_ACCOUNT = "000000000000"
"""In ARNs: no price depends on the account."""
ANY_TAG = "v0"
PREVIEW_FILE = "Pulumi.pr.yaml"


def cost_text(folder: Path) -> str:
    """Return the page for the stack files in a folder.

    Raises:
        ShopCatError: settings or prices can't be used, or something has no price.
    """
    region, settings = read_stack(folder / os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml"))
    _, preview = read_preview(folder / PREVIEW_FILE, {"shopcat:tag": ANY_TAG})
    return cost_page(
        CostSubject(
            settings,
            read_prices(region),
            lambda other: record_production(other, region, ANY_ACCOUNT),
            record_preview(preview, region),
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m infra.commands.cost``."""
    parser = argparse.ArgumentParser(prog="infra.commands.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="file to write; without it the page is printed")
    chosen = parser.parse_args(arguments)
    try:
        text = cost_text(Path())
    except (ShopCatError, CapacityError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if chosen.write is None:
        print(text, end="")
        return 0
    try:
        chosen.write.write_text(text)
    except OSError as error:
        print(
            f"error: {chosen.write} can't be written ({error.strerror or error}); name another with --write",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
