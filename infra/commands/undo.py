"""Move all users back to the former release at once, while its pods still run (``make undo``).

`shopcat:keepFormer` keeps them. Each must have served users and have run ever since, unless this rollback's own smoke test has
passed, behind an open gate and as a healthy target. Nothing else is waited for: no engine, no pod, no smoke test, no watch. The
rollback is open in the ledger then, and the next `pulumi up -s prod` goes on with it: smoke test, watch, live pointer, and the
pods that users have left.
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

from infra.clients.aws import AwsClients
from infra.errors import ReleaseError, ShopCatError
from infra.release.decide import up_command
from infra.release.plan import make_undo_plan
from infra.release.promotion import Hooks
from infra.settings import Settings, read_stack


async def undo(settings: Settings, clients: AwsClients) -> None:
    """Move all users back; say how to go on.

    Raises:
        ShopCatError: nothing was moved, or the message says where the weights are.
    """
    say = partial(print, flush=True)
    plan = make_undo_plan(settings, clients)
    opened, live = plan.decision.open, plan.state.live
    try:
        await Hooks(plan, clients, say).move_users_back()
    except ReleaseError as error:
        if opened and live:
            command = up_command("rollback", f"{live.name}->{opened.name}")
            raise ReleaseError(f"{error}\nroll back with all steps: {command}") from error
        raise
    if opened:
        say(
            f"all weight is on {opened.name} in {opened.colour}, and each node of the load balancer follows; finish it: "
            "pulumi up -s prod (an abort would move users to the live release again)"
        )


def main() -> int:
    """Run ``python -m infra.commands.undo``; PULUMI_OPTION_CONFIG_FILE names another stack file, as for pulumi itself."""
    try:
        region, settings = read_stack(Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml")))
        asyncio.run(undo(settings, AwsClients(region, endpoint_url=settings.aws_endpoint)))
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; run it again, which says where users are", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
