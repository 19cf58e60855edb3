"""Decisive steps of a release: claim, guard, shift, go live, abort, restore.

Each runs in a hook just before a Deployment or the live pointer is written. These invariants hold whoever interferes
(`kubectl scale`, a refresh, an older state, a kill between two writes, a second update); they are checked here, right
before the write:

1. Weight goes only to the live release, or to the open release once it has passed every check of this attempt: N pods of
   exactly its digest, their gates open, N healthy targets, its smoke test. Instead of the smoke test of a rollback it counts
   that each of these pods has served users: it has run since before the live release began. Weight never goes to a release
   that is being aborted, nor to a former one (`_refuse_weight`, asked by `Traffic.set_weights` before each write).
2. Weight doesn't go to a colour without a healthy target while the other colour has one (likewise).
3. The live colour keeps its pods: it is declared with all its replicas from its own record, so a write only puts back what
   somebody changed by hand, pod by pod (`_refuse_live`).
4. Any other colour loses pods, or gets another template, only while it carries no weight, read in the same step right
   before the write (`guard`). So at any moment at most one colour may lose pods, and it isn't the live one.
5. A release goes on only from weights that invariant 1 allows; others are put back on the live release first (`_settle`).
   A rollback that has everything when an update begins keeps it while a pod of its own serves: nothing but an abort brings
   users back to what a person wanted gone, not even a watch that fails.
6. An update that was overtaken in the ledger writes neither weights nor pods.
7. A colour's password changes only while no pod of it, leaving ones included, holds another one (`renew_login`). Pods that
   `shopcat:keepFormer` has kept are emptied first as well.

Where nothing has ever been live, nobody is served yet: then the weights move at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NoReturn

from infra.clients import threads
from infra.errors import LedgerConflictError, ReleaseError, TrafficError
from infra.names import SHOP_NAMESPACE, Colour, colour_selector, other_colour, workload_name
from infra.release import drift, health, logins
from infra.release.decide import go_on_or_abort, up_command
from infra.release.listener_weights import View, all_on
from infra.release.login_renewal import LoginRenewal
from infra.release.manifests import SECRET_SECONDS, smoke_deadline_seconds
from infra.release.pod_losses import losses, refuse_other_pods, wanted_pods
from infra.release.probes import HttpsProber, Prober
from infra.release.progress import Progress, ReleaseStep
from infra.release.record import Record
from infra.release.traffic_shift import Mode, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from infra.clients.aws import AwsClients
    from infra.release.plan import Plan
    from infra.release.state import Kind, Open

GOING_SECONDS = 300
"""Longest time that a deleted object may wait for its finalizers, or for its pods: their longest grace period, and some more."""
INTENT_ANNOTATION = "shopcat/intent"


def _mode(kind: Kind) -> Mode:
    """Return the way in which traffic moves from a live release."""
    return "rollback" if kind == "rollback" else "canary"


def _first_secrets(record: Record) -> Sequence[str]:
    """Name the resources of which the first one begins the step `secret`: one for each database, or the release's own."""
    return logins.secret_resources(record.login) if record.login else (record.secret_resource,)


class Hooks:
    """Steps that run just before a Deployment or the live pointer is written."""

    def __init__(
        self, plan: Plan, clients: AwsClients, log: Callable[[str], None], prober: Prober | None = None
    ) -> None:
        self._plan = plan
        self._traffic = Traffic(clients, plan.load_balancer, log, overtaken=self._overtaken, refuse=self._refuse_weight)
        self._log = log
        self._progress = Progress(log)
        self._renewal = LoginRenewal(plan, clients, log, self._progress, guard=self.guard)
        self._prober = prober or (HttpsProber(plan.public_url, address=plan.probe_address) if plan.public_url else None)
        self._claiming = asyncio.Lock()
        self._is_secret_begun = False
        self._deciding = asyncio.Lock()
        """Held by the one that reads weights in order to write weights or to let pods go."""

    # Invariants -------------------------------------------------------------------------------------------------------

    async def _overtaken(self) -> str:
        try:
            await threads.in_thread(self._plan.session.refuse_overtaken)
        except LedgerConflictError as error:
            return str(error)
        return ""

    async def _refuse_weight(self, colour: Colour) -> list[str]:
        """List what forbids giving the colour more weight (invariants 1 and 2); empty if it may have it.

        Raises:
            ShopCatError: the load balancer or the cluster can't be asked.
        """
        decision, state = self._plan.decision, self._plan.session.state
        if state.live is None and decision.action == "abort":
            return []
        if state.live and state.live.colour == colour:
            if not await self._serves(colour) and await self._serves(other_colour(colour)):
                return [f"live {state.live.name} has no healthy target in {colour}, and {other_colour(colour)} has"]
            return []
        opened, record = decision.open, decision.record
        if opened and record and opened.colour == colour and decision.action in ("release", "resume"):
            return await self._reasons_not_ready(record, colour, attempt=True)
        occupant = state.occupants.get(colour) or "nothing"
        fate = "is being aborted" if opened and opened.colour == colour else "is neither live nor being released"
        return [f"{occupant}, which is in {colour}, {fate}"]

    async def _serves(self, colour: Colour) -> bool:
        targets = await self._traffic.targets_of(colour, self._traffic.deadline(self._plan.timing))
        return any(target.state == "healthy" for target in targets)

    async def _has_everything(self, view: View) -> bool:
        """Check for a rollback that has everything, with pods of its own alone, one of which serves (invariant 5)."""
        decision = self._plan.decision
        opened, record = decision.open, decision.record
        if decision.action == "abort" or opened is None or record is None or opened.kind != "rollback":
            return False
        if not view.agree(all_on(opened.colour)):
            return False
        client, deadline = self._plan.kubernetes(), self._traffic.deadline(self._plan.timing)
        pods = await threads.in_thread(client.pods, SHOP_NAMESPACE, colour_selector(opened.colour))
        return health.is_served(record, pods, await self._traffic.targets_of(opened.colour, deadline))

    # Steps ------------------------------------------------------------------------------------------------------------

    def begin(self, step: ReleaseStep, colour: Colour, waits_for: str) -> None:
        """Print that a step begins; only a release or a rollback has numbered steps."""
        if self._plan.decision.action in ("release", "resume"):
            self._progress.begin(step, colour, waits_for)

    def begin_object(self, name: str) -> None:
        """Print the step that waits for an object: the release's Secret, or one of its Jobs, by the resource's name."""
        checks = self._plan.checks
        if checks is None:
            return
        record = checks.record
        jobs = {
            checks.migrate_name: (ReleaseStep.MIGRATE, record.template.migrate_deadline_seconds),
            checks.smoke_name: (ReleaseStep.SMOKE_TEST, smoke_deadline_seconds(record)),
        }
        if name in jobs:
            step, seconds = jobs[name]
            self.begin(step, checks.colour, f"until Job {name} has ended, at most {seconds} s")
        elif name in _first_secrets(record) and not self._is_secret_begun:
            self._is_secret_begun = True
            written = f"until its Secret is written, at most {SECRET_SECONDS} s"
            renewed = "until its password is set and its Secret is written"
            self.begin(ReleaseStep.SECRET, checks.colour, renewed if record.login else written)

    async def claim(self) -> None:
        """Take tag and slot before anything of the release is made; the second time there is nothing left to do.

        Raises:
            ShopCatError: somebody else has one of them, or the weights stand where they must not and can't be put back.
        """
        decision = self._plan.decision
        if not decision.moves or decision.open is None:
            return
        async with self._claiming:  # who comes second waits until the weights are settled, too
            if not await threads.in_thread(self._plan.session.take):
                return
            self.begin(ReleaseStep.CLAIM, decision.open.colour, "one conditional write in the ledger")
            self._log(
                f"{decision.open.kind} {decision.open.name}: slot taken for attempt {decision.open.attempt}; "
                f"should this update end before it is live, {go_on_or_abort(decision.open)}"
            )
            if decision.action != "abort":
                await self._settle()

    async def renew_login(self, name: str) -> None:
        """Make the open release's password, once no pod of its colour holds another one and no Job sets another one.

        A password that was made before is set once more only by an update that nobody has overtaken.

        Args:
            name: of the resource that is made next.

        Raises:
            ShopCatError: somebody else has the slot, pods don't end, or Secrets Manager says no.
        """
        await self.claim()
        await threads.in_thread(self._plan.session.refuse_overtaken)
        checks = self._plan.checks if self._plan.decision.action in ("release", "resume") else None
        login = checks.record.login if checks else None
        if checks is None or login is None or name not in logins.resource_names(login):
            return
        self.begin_object(name)
        await self._renewal.make(checks, login)

    async def guard_deployment(self, colour: Colour, declared: Mapping[str, Any]) -> None:
        """Claim the slot for the colour that is about to change, and keep the pods that serve.

        Raises:
            ShopCatError: somebody else has the slot or has written the ledger meanwhile, or the colour can't be proven to
                carry nothing.
        """
        opened, client = self._plan.decision.open, self._plan.kubernetes()
        if opened and opened.colour == colour:
            await self.claim()
            template = self._plan.colours[colour].record.template
            seconds = template.drain.pulumi_timeout_seconds
            self.begin(ReleaseStep.START, colour, f"until {template.replicas} pods are available, at most {seconds} s")
        # What is declared comes from the ledger as it was read; a colour may be another update's by now.
        await threads.in_thread(self._plan.session.refuse_overtaken)
        standing = await threads.in_thread(client.deployment, SHOP_NAMESPACE, workload_name(colour))
        live, live_record = self._plan.session.state.live, self._plan.session.state.live_record
        if live and live_record and live.colour == colour:
            way_out = "release it with the former program, or release a new tag with this one"
            refuse_other_pods(live_record, f"{live.name} is live in {colour}", way_out, declared, standing)
            return
        if opened and opened.colour == colour and await self._has_everything(await self._read_weights()):
            record, state = self._plan.colours[colour].record, f"users are on the pods of {opened.name} in {colour}"
            way_out = f"go on with that one, or abort: {up_command('abort', opened.tag)}"
            refuse_other_pods(record, state, way_out, declared, standing)
            return
        pods = health.staying(await threads.in_thread(client.pods, SHOP_NAMESPACE, colour_selector(colour)))
        if lost := losses(declared, standing, pods):
            if not self._plan.decision.moves:  # so that nobody gives these pods users meanwhile
                await threads.in_thread(self._plan.session.hold)
            if opened and opened.colour != colour:
                seconds = self._plan.colours[colour].record.template.drain.grace_seconds
                self.begin(ReleaseStep.STOP, colour, f"its pods have {seconds} s to end")
            await self.guard(colour, ", ".join(lost))
        elif opened and self._plan.colours[colour].is_kept:
            self._log(f"{len(pods)} pods stay in {colour} without weight until the next release: a rollback finds them")

    async def make_again(self, declared: Mapping[str, Any]) -> None:
        """Make an object again that somebody deleted; whatever stands is left to the provider.

        Raises:
            ShopCatError: its namespace is gone too, or it doesn't go.
        """
        client, kind, name = self._plan.kubernetes(), str(declared["kind"]), str(declared["metadata"]["name"])
        until = time.monotonic() + GOING_SECONDS
        wait = self._progress.wait(GOING_SECONDS)
        while drift.is_gone(standing := await threads.in_thread(client.release_object, kind, SHOP_NAMESPACE, name)):
            if standing is None:
                if not await threads.in_thread(client.recreate, declared):
                    raise ReleaseError(
                        f"namespace {SHOP_NAMESPACE} is gone; make all of it again: pulumi up --refresh -s prod"
                    )
                self._log(f"{kind} {name} was deleted; it is made again")
                return
            if time.monotonic() > until:
                raise ReleaseError(
                    f"{kind} {name} is still being deleted after {GOING_SECONDS} s; see what holds it: "
                    f"kubectl -n {SHOP_NAMESPACE} get {kind} {name} -o jsonpath='{{.metadata.finalizers}}'"
                )
            wait.report(f"{kind} {name} is being deleted; it is made again after that")
            await asyncio.sleep(2)

    async def guard(self, colour: Colour, why: str) -> None:
        """Go on only once the colour carries no weight on any listener; if it does, move that to the live release first.

        Raises:
            ShopCatError: the live release can't be proven healthy, or the load balancer doesn't say where traffic goes.
        """
        async with self._deciding:
            timing, state = self._plan.timing, self._plan.session.state
            view = await self._read_weights()
            if not view.rules:
                raise TrafficError(
                    f"guard of {colour} ({why}): no listener forwards to both colours, so where traffic goes is unknown"
                )
            if not view.carries(colour):
                self._log(f"guard of {colour} ({why}): it carries no weight ({view.describe()})")
                return
            carries = f"guard of {colour} ({why}): it carries weight ({view.describe()})"
            if state.live is None:
                if self._plan.decision.action != "abort":
                    opened = self._plan.decision.open
                    way_out = f"; {go_on_or_abort(opened)}" if opened else ""
                    raise TrafficError(f"{carries} and nothing is live that could take it{way_out}")
                self._log(f"{carries}; nothing was ever live, so nobody is served by the other either")
                await self._traffic.set_weights(all_on(other_colour(colour)), timing)
                return
            self._log(f"{carries}; it goes to {state.live.name}")
            await self._return_to_live(whole=True)
            # That took minutes, in which another update, or a person, may have moved it once more.
            await threads.in_thread(self._plan.session.refuse_overtaken)
            await self._refuse_moved(state.live.colour)

    async def promote(self) -> None:
        """Finish what was decided: shift and go live, or take back.

        Raises:
            ShopCatError: it failed; the message says where the weights are and what to do next.
        """
        decision, session = self._plan.decision, self._plan.session
        opened, record = decision.open, decision.record
        if not decision.moves or opened is None or record is None:
            return
        await self.claim()
        if decision.action == "abort":
            await self._abort(opened.colour)
            self._log(f"{opened.kind} {opened.name}: aborted; {opened.colour} is empty and carries no weight")
            return
        if session.state.open is None:
            return
        async with self._deciding:
            await threads.in_thread(session.refuse_overtaken)
            if self._plan.is_held and not (await self._read_weights()).agree(all_on(opened.colour)):
                await self._hold(opened, record)
            try:
                await self._traffic.shift_all_traffic(
                    opened.colour,
                    mode=_mode(opened.kind) if session.state.live else "immediate",
                    readiness=lambda: self._reasons_not_ready(record, opened.colour, attempt=True),
                    timing=self._plan.timing,
                    prober=self._prober,
                )
            except TrafficError:
                if opened.kind == "rollback":
                    await self._leave_deserted(opened.colour)
                raise
            await threads.in_thread(session.refuse_overtaken)
            await self._refuse_moved(opened.colour)
            self.begin(ReleaseStep.LIVE, opened.colour, "one conditional write in the ledger")
            await threads.in_thread(session.go_live)
        self._log(f"{opened.name} is live in {opened.colour}")

    async def move_users_back(self) -> None:
        """Give a rollback's target everything at once, and leave the rest to the next update, which goes on with the rollback.

        Only pods that have served users and have run ever since get it; nothing is started, tested or watched here.

        Raises:
            ShopCatError: there are no such pods, or the weights can't be written; the message says where they are.
        """
        opened, record = self._plan.decision.open, self._plan.decision.record
        if opened is None or record is None:
            raise ReleaseError(f"{self._plan.decision.message}: there is nobody to move back")
        is_open = self._plan.session.state.open is not None
        if is_open and (await self._read_weights()).agree(all_on(opened.colour)):
            self._log(f"{opened.name} has all users already")
            return
        if missing := await self._reasons_not_ready(record, opened.colour, attempt=True):
            raise ReleaseError(
                f"{opened.name} can't take over at once, so nothing was moved:\n"
                + "\n".join(f"  - {each}" for each in missing)
            )
        await self.claim()
        async with self._deciding:
            await self._traffic.set_weights(all_on(opened.colour), self._plan.timing)
            # A plain update that had found no weight there may have stopped these pods while the weights were read back.
            name = workload_name(opened.colour)
            standing = await threads.in_thread(self._plan.kubernetes().deployment, SHOP_NAMESPACE, name)
            if wanted_pods(standing) < record.template.replicas:
                await self._return_to_live(whole=False)
                raise ReleaseError(
                    f"somebody stopped pods of {opened.name} at the same time; users are back as they were"
                )

    async def _leave_deserted(self, colour: Colour) -> None:
        """Bring users back to the live release from a colour in which nobody serves them any more.

        What fails here is printed: the error that led here is the one that says what to do.
        """
        live = self._plan.session.state.live
        try:
            if live is None or not (await self._read_weights()).carries(colour) or await self._serves(colour):
                return
            if await self._serves(live.colour):
                self._log(f"no pod serves in {colour} any more; users go to {live.name}")
                await self._return_to_live(whole=False)
        except TrafficError as error:
            self._log(str(error))

    async def _hold(self, opened: Open, record: Record) -> NoReturn:
        """End the update where traffic would move, with every check passed and no weight written."""
        if missing := await self._reasons_not_ready(record, opened.colour, attempt=True):
            raise ReleaseError(f"{opened.name} can't carry traffic: {'; '.join(missing)}; {go_on_or_abort(opened)}")
        view = await self._read_weights()
        raise ReleaseError(
            f"{opened.name} has passed every check in {opened.colour} and is held before traffic moves, as "
            f"shopcat:holdTraffic or rebuildState asks ({view.describe()}); {go_on_or_abort(opened)}"
        )

    async def restore(self) -> None:
        """While no release is open, move everything to the live colour, whoever moved it away.

        Raises:
            ShopCatError: the live colour has no pod that serves, or the load balancer can't be written.
        """
        live = self._plan.session.state.live
        if live is None:
            return
        self._log(f"{live.name} is live in {live.colour}: everything goes back there")
        async with self._deciding:
            await self._return_to_live(whole=False)

    async def _settle(self) -> None:
        """Put the weights back on the live release unless the open one has passed its checks (invariant 5)."""
        state, opened, record = self._plan.session.state, self._plan.decision.open, self._plan.decision.record
        if state.live is None or opened is None or record is None:
            return
        async with self._deciding:
            view = await self._read_weights()
            if not view.rules or not view.carries(opened.colour):
                return
            missing = await self._reasons_not_ready(record, opened.colour, attempt=True)
            if not missing:
                return  # killed in the middle of its shift
            if await self._has_everything(view):
                self._log(f"{opened.name} keeps all users while it is made whole ({missing[0]})")
                return
            self._log(
                f"{opened.name} carries weight ({view.describe()}) without having passed its checks ({missing[0]}); "
                f"it goes back to {state.live.name} first"
            )
            try:
                await self._return_to_live(whole=False)
            except TrafficError as error:
                self._log(f"the weights stay as they are while {opened.name} is brought up: {error}")

    async def _return_to_live(self, *, whole: bool) -> None:
        """Move everything to the live release at once.

        Args:
            whole: every pod of it must be ready first. Otherwise one healthy target is enough in the end, since the weights
                stand on something that must not have them.
        """
        state, timing = self._plan.session.state, self._plan.timing
        live, record = state.live, state.live_record
        if live is None or record is None:
            raise TrafficError("nothing is live")

        async def missing() -> list[str]:
            return await self._reasons_not_ready(record, live.colour)

        async def unserved() -> list[str]:
            reasons = await missing()
            return reasons if reasons and not await self._serves(live.colour) else []

        try:
            await self._traffic.shift_all_traffic(
                live.colour,
                mode="restore",
                readiness=missing if whole else unserved,
                timing=timing,
                prober=self._prober,
            )
        except TrafficError as error:
            raise TrafficError(
                f"{error}\nput {live.name} right with `pulumi up --refresh -s prod`, or see its pods"
            ) from error

    async def _abort(self, colour: Colour) -> None:
        await self.guard(colour, "abort")
        name = workload_name(colour)
        deployment = await threads.in_thread(self._plan.kubernetes().deployment, SHOP_NAMESPACE, name)
        if deployment and deployment["spec"].get("replicas"):
            raise ReleaseError(f"abort: {name} still wants {deployment['spec']['replicas']} pods; run it again")
        await threads.in_thread(self._plan.session.abort)

    # Reading ----------------------------------------------------------------------------------------------------------

    async def _read_weights(self) -> View:
        return await self._traffic.read_weights(self._traffic.deadline(self._plan.timing))

    async def _refuse_moved(self, colour: Colour) -> None:
        view = await self._read_weights()
        if not view.agree(all_on(colour)):
            raise TrafficError(
                f"somebody else moved traffic: everything was put on {colour}, now it is {view.describe()}; see who "
                "writes the load balancer's rules, then run it again"
            )

    async def _reasons_not_ready(self, record: Record, colour: Colour, *, attempt: bool = False) -> list[str]:
        """List what keeps the colour from carrying everything, by the cluster's and the load balancer's APIs.

        Args:
            record: of the release that shall serve there.
            colour: where it is.
            attempt: the checks of the present attempt at this release count too.
        """
        client, checks = self._plan.kubernetes(), self._plan.checks
        deadline = self._traffic.deadline(self._plan.timing)
        pods = await threads.in_thread(client.pods, SHOP_NAMESPACE, colour_selector(colour))
        reasons = health.unready_reasons(record, colour, pods, await self._traffic.targets_of(colour, deadline))
        if attempt and checks is not None:
            job = await threads.in_thread(client.job, SHOP_NAMESPACE, checks.smoke_name)
            status = (job or {}).get("status") or {}
            if status.get("failed"):
                reasons.append(f"smoke test {checks.smoke_name} has failed")
            elif not status.get("succeeded") and not self._have_served(pods):
                nor = ", nor has each pod run since before the live release began" if checks.again else ""
                reasons.append(f"smoke test {checks.smoke_name} has not passed{nor}")
        return reasons

    def _have_served(self, pods: Sequence[Mapping[str, Any]]) -> bool:
        """Check that the pods of a rollback served users until the live release took over, and have run ever since."""
        opened, state = self._plan.decision.open, self._plan.session.state
        if opened is None or opened.kind != "rollback" or state.live is None:
            return False
        began = [each.at for each in state.release(state.live.name).attempts if each.outcome == "live"]
        return bool(began) and health.run_since(pods, began[-1])
