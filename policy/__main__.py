"""Judge what production and a preview declare with the settings in the stack files (``make policy``); nothing is asked of AWS.

PULUMI_OPTION_CONFIG_FILE names another stack file than Pulumi.prod.yaml, as for pulumi itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from infra.commands.recorded_stacks import record_preview, record_production
from infra.errors import ShopCatError
from infra.settings import read_preview, read_stack
from policy.rules import RULES, violations


def main() -> int:
    """Run ``python -m policy``; 1 if a rule is broken."""
    try:
        region, settings = read_stack(Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml")))
        _, preview = read_preview(Path("Pulumi.pr.yaml"), {"shopcat:tag": "v0"})
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    declared = [*record_production(settings, region, "000000000000"), *record_preview(preview, region)]
    broken = violations(declared)
    for line in broken:
        print(f"error: {line}", file=sys.stderr)
    print(
        f"{len(declared)} resources of production and of a preview, {len(RULES)} rules: {len(broken) or 'none'} broken"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
