"""Step 2 of a release in the cluster: empty the idle colour, then make its new password (logins.py has the order and why)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from infra.clients import threads
from infra.errors import ReleaseError
from infra.names import DATABASE_NAMESPACE, SHOP_NAMESPACE, Colour, colour_selector, workload_name
from infra.release import logins

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from infra.clients.aws import AwsClients
    from infra.release.plan import Checks, Plan
    from infra.release.progress import Progress
    from infra.release.record import Login

END_SECONDS = 300
"""Wait beyond the longest grace period of the pods. A Job of another claim ends within its own deadline, 300 s."""


class LoginRenewal:
    """Makes the password of the open release once nothing holds or sets another one of its colour."""

    def __init__(
        self,
        plan: Plan,
        clients: AwsClients,
        log: Callable[[str], None],
        progress: Progress,
        *,
        guard: Callable[[Colour, str], Awaitable[None]],
    ) -> None:
        """Take what a renewal needs; nothing is read.

        Args:
            plan: what is decided.
            clients: AWS.
            log: prints a line.
            progress: prints a wait.
            guard: goes on only once a colour carries no weight; its second argument is why that is asked.
        """
        self._plan, self._clients, self._log, self._progress, self._guard = plan, clients, log, progress, guard
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self._renewing = asyncio.Lock()
        """Held by the one that empties a colour and makes its password."""

    async def make(self, checks: Checks, login: Login) -> None:
        """Make the password, once no pod of the colour holds another one and no Job sets another one.

        Raises:
            ShopCatError: somebody else has the slot, pods don't end, or Secrets Manager says no.
        """
        async with self._renewing:  # each database has a Job of its own
            await self._empty(checks.colour, checks.record.secret_name, login)
            await threads.in_thread(self._plan.session.refuse_overtaken)
            owner = self._plan.database_owner
            if await threads.in_thread(logins.make_password, self._clients, login, owner, checks.colour):
                self._log(f"{login.secret_id}: made version {login.version} for {login.claim}")

    async def _empty(self, colour: Colour, secret_name: str, login: Login) -> None:
        """Wait until no pod of the colour holds another password; pods that are there to stay are stopped first."""
        client, name = self._plan.kubernetes(), workload_name(colour)
        await threads.in_thread(self._plan.session.refuse_overtaken)
        standing = await threads.in_thread(client.deployment, SHOP_NAMESPACE, name)
        if logins.keeps_another(standing, secret_name):
            live = self._plan.session.state.live
            if live and live.colour == colour:
                raise ReleaseError(f"{live.name} is live in {colour}; its password is not changed under its pods")
            await self._guard(colour, "its password is renewed")
            self._log(f"{name} has pods with the colour's former password; they are stopped first")
            await threads.in_thread(client.stop_pods, SHOP_NAMESPACE, name)
        pods = await threads.in_thread(client.pods, SHOP_NAMESPACE, colour_selector(colour))
        seconds = END_SECONDS + max((pod["spec"].get("terminationGracePeriodSeconds") or 0 for pod in pods), default=0)
        until, wait = time.monotonic() + seconds, self._progress.wait(seconds)
        while left := await self._holding_up(colour, secret_name, login):
            if time.monotonic() > until:
                raise ReleaseError(
                    f"{', '.join(left)}: still there after {seconds} s, and the password of {colour} is not changed "
                    "before they have ended; then run pulumi up -s prod again. A node that is not Ready (kubectl get nodes) ends "
                    "no pod: terminate its EC2 instance, and its pods go with its Node object"
                )
            wait.report(f"{', '.join(left)}: to end before the password of {colour} changes", change=left)
            await self.sleep(2)

    async def _holding_up(self, colour: Colour, secret_name: str, login: Login) -> list[str]:
        """Name what still needs, or sets, another password of the colour."""
        client = self._plan.kubernetes()
        standing = await threads.in_thread(client.deployment, SHOP_NAMESPACE, workload_name(colour))
        pods = await threads.in_thread(client.pods, SHOP_NAMESPACE, colour_selector(colour))
        jobs = await threads.in_thread(client.jobs, DATABASE_NAMESPACE, logins.LOGIN_JOB_LABELS)
        return [
            *(f"pod {name}" for name in logins.holders_of_another(pods, secret_name)),
            *(f"Job {name}" for name in logins.unfinished_jobs(jobs, login)),
            *([f"Deployment {workload_name(colour)}"] if logins.has_yet_to_stop(standing, secret_name) else []),
        ]
