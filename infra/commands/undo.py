"""Move all users back to the former release at once, while its pods still run (``make undo``).

`shopcat:keepFormer` keeps them. Each must have served users and have run ever since, behind an open gate and as a healthy
target. Nothing else is waited for: no engine, no pod, no smoke test, no watch. The rollback is open in the ledger then, and the
next `pulumi up -s prod` goes on with it: smoke test, watch, live pointer, and the pods that users have left.
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from infra.clients.aws import AwsClients
from infra.errors import LedgerError, ReleaseError, ShopCatError
from infra.release.decide import go_on_or_abort, up_command
from infra.release.ledger import Ledger
from infra.release.plan import make_plan
from infra.release.promotion import Hooks
from infra.settings import Settings, read_stack

if TYPE_CHECKING:
    from infra.release.state import LedgerState


def rollback_of(state: LedgerState) -> str:
    """Return the rollback, as `shopcat:rollback` has it, that goes back from the live release to the one right before it.

    Raises:
        LedgerError: there is none, or a release is open, which is aborted.
    """
    opened, live, former = state.open, state.live, state.kept_former
    if opened and opened.kind != "rollback":
        raise LedgerError(f"{opened.kind} {opened.name} is not live yet; abort it: {up_command('abort', opened.tag)}")
    if live is None:
        raise LedgerError("nothing is live, so there is nothing to go back from")
    if opened:
        return f"{live.name}->{opened.name}"
    if former is None:
        raise LedgerError(
            f"no release stands beside {live.name} that users could be moved to at once; see `make releases`, and roll "
            f"back with all steps: {up_command('rollback', f'{live.tag}-><former tag>')}"
        )
    return f"{live.name}->{former.name}"


async def undo(settings: Settings, clients: AwsClients) -> None:
    """Move all users back; say how to go on.

    Raises:
        ShopCatError: nothing was moved, or the message says where the weights are.
    """
    rollback = rollback_of(Ledger(clients.get("dynamodb"), settings.ledger_table).read())
    plan = make_plan(settings.model_copy(update={"rollback": rollback}), clients)
    say = partial(print, flush=True)
    hooks = Hooks(plan, clients, say)
    try:
        await hooks.move_users_back()
    except ReleaseError as error:
        raise ReleaseError(f"{error}\nroll back with all steps: {up_command('rollback', rollback)}") from error
    if opened := plan.decision.open:
        say(f"all users are on {opened.name} in {opened.colour}; {go_on_or_abort(opened)}")


def main() -> int:
    """Run ``python -m infra.commands.undo``; PULUMI_OPTION_CONFIG_FILE names another stack file, as for pulumi itself."""
    try:
        region, settings = read_stack(Path(os.environ.get("PULUMI_OPTION_CONFIG_FILE", "Pulumi.prod.yaml")))
        asyncio.run(undo(settings, AwsClients(region, endpoint_url=settings.aws_endpoint)))
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
