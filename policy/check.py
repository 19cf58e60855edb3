"""Judge what production and a preview declare with the settings in the stack files (``make policy``); nothing is asked of AWS.

PULUMI_OPTION_CONFIG_FILE names another stack file than Pulumi.prod.yaml, as for pulumi itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra.commands.recorded_stacks import record_preview, record_production
from infra.commands.takeover.declaration import Declared
from infra.errors import ShopCatError
from infra.settings import read_preview, read_stack
from policy.acceptances import Acceptance, acceptances
from policy.judgement import Finding, judge, judge_production
from policy.rules import RULES


def main() -> int:
    """Run ``python -m policy.check``; 1 if a rule is broken."""
    try:
        region, settings = read_stack(Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml")))
        _, preview = read_preview(Path("Pulumi.pr.yaml"), {"shopcat:tag": "v0"})
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    production = record_production(settings, region, "000000000000")
    previews = record_preview(preview, region)
    given = acceptances(settings)
    found = [*findings(production, given), *(("production", each) for each in judge_production(production, given))]
    found += findings(previews)
    broken = [(where, finding) for where, finding in found if finding.acceptance is None]
    for where, finding in found:
        if finding.acceptance is not None:
            print(f"{where}: {finding.remark}")
    for where, finding in broken:
        print(f"error: {where}: {finding.rule}: {finding.problem}", file=sys.stderr)
    judged = len(production) + len(previews)
    print(
        f"{judged} resources of production and of a preview, {len(RULES) + 1} rules: {len(broken) or 'none'} broken, "
        f"{len(found) - len(broken)} accepted by a setting"
    )
    return 1 if broken else 0


def findings(resources: Sequence[Declared], given: Sequence[Acceptance] = ()) -> Iterator[tuple[str, Finding]]:
    """Return each finding with its resource, in the resources' order by type and name."""
    for resource in sorted(resources, key=lambda each: each.key):
        for finding in judge(resource, given):
            yield f"{resource.pulumi_type} {resource.name}", finding


if __name__ == "__main__":
    sys.exit(main())
