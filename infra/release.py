"""BlueGreen: two colours behind one weighted listener rule.

What it guarantees:

* A colour is declared from its record and nothing else; no output of another resource can enter a pod template.
* A NetworkPolicy lets the load balancers and the smoke test reach the pods, and nobody else in the cluster.
* Names, selectors and ports of the two Services, bindings and Deployments are constants, and all of them are protected:
  a replacement, which would delete first, is refused by the engine.
* Nothing of a colour loses replicas or changes its template before `Hooks.before_deployment` has proven that it carries
  no weight; the live pointer is not written before `Hooks.before_pointer` has moved all traffic to a proven colour.

Everything decisive is a before-hook on what it protects. Hooks don't run in previews.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_kubernetes as kubernetes

from infra import proof
from infra.errors import Refused
from infra.external_secrets import declare_release_secret, declare_store
from infra.fence import GATES_LABEL
from infra.ledger import LedgerConflict, State, go_on_or_abort, table_rows
from infra.migration import read_why_failed
from infra.record import (
    APPLICATION,
    COLOURS,
    NAMESPACE,
    PORT,
    PRIORITY_CLASS,
    SMOKE,
    SMOKE_SECONDS,
    Colour,
    Record,
    fingerprint,
    other,
    render,
    render_migration,
    render_smoke,
    selector,
    workload_name,
)
from infra.traffic import HttpsProber, Prober, Traffic, TrafficError, all_on

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from infra.aws_clients import AwsClients
    from infra.preflight import Checks, ColourPlan, Plan

SERVICE_PORT = 80
MINIMUM_READY_SECONDS = 5
PRIORITY = 100_000
POINTER = "shopcat-live"
INTENT_ANNOTATION = "shopcat/intent"
TEMPLATE_ANNOTATION = "shopcat/template"


def loses(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, found: Mapping[str, Any] | None = None
) -> list[str]:
    """What the write of a Deployment takes from its running pods: replicas, or the template they were made from.

    Args:
        before: its inputs by the engine's state.
        after: its inputs as they are to be.
        found: as it stands in the cluster. Where that is known it counts: another checkout's state may be older.
    """
    old, new = dict((before or {}).get("spec") or {}), dict((after or {}).get("spec") or {})
    had, has = int(old.get("replicas") or 0), int(new.get("replicas") or 0)
    now = had if found is None else int(found["spec"].get("replicas") or 0)
    lost = []
    # Scaled up by hand and back by this: pods leave one after the other, as they do at an eviction.
    if has < now and (has < had or has == 0):
        lost.append(f"replicas {now} -> {has}")
    if made := _template_mark(found):
        changed = made != _template_mark(after)
    else:
        changed = bool(old) and new.get("template") != old.get("template")
    return [*lost, "template"] if changed else lost


def _template_mark(deployment: Mapping[str, Any] | None) -> str:
    """Which template a Deployment was made from; empty if it doesn't say."""
    metadata = (deployment or {}).get("metadata") or {}
    return str((metadata.get("annotations") or {}).get(TEMPLATE_ANNOTATION, ""))


def ingress_policy(load_balancer_cidrs: Sequence[str]) -> dict[str, Any]:
    """Who reaches a pod of this namespace: the load balancers' nodes and the smoke test, at the application's port.

    A preview's pods are neither, whatever policies their own namespace has.
    """
    smoke = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": SMOKE}}}
    return {
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [*({"ipBlock": {"cidr": one}} for one in load_balancer_cidrs), smoke],
                "ports": [{"protocol": "TCP", "port": PORT}],
            }
        ],
    }


class Hooks:
    """What happens just before a Deployment or the live pointer is written, while the update runs."""

    def __init__(
        self, plan: Plan, clients: AwsClients, log: Callable[[str], None], prober: Prober | None = None
    ) -> None:
        self._plan = plan
        self._traffic = Traffic(clients, plan.load_balancer, log, overtaken=self._overtaken)
        self._log = log
        self._prober = prober or (HttpsProber(plan.public_url) if plan.public_url else None)

    async def _overtaken(self) -> str:
        try:
            await asyncio.to_thread(self._plan.session.still_ours)
        except LedgerConflict as error:
            return str(error)
        return ""

    async def claim(self) -> None:
        """Take tag and slot before anything of the release is made; the second time there is nothing left to do.

        Raises:
            Refused: somebody else has one of them.
        """
        decision = self._plan.decision
        if decision.moves and decision.open and await asyncio.to_thread(self._plan.session.take):
            self._log(
                f"{decision.open.kind} {decision.open.name}: slot taken for attempt {decision.open.attempt}; "
                f"should this update end before it is live, {go_on_or_abort(decision.open)}"
            )

    async def before_deployment(
        self, colour: Colour, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
    ) -> None:
        """Claim the slot for the colour that is about to change, and guard its pods.

        Raises:
            Refused: somebody else has the slot or has written the ledger meanwhile, or the colour can't be proven to
                carry nothing.
        """
        opened = self._plan.decision.open
        if opened and opened.colour == colour:
            await self.claim()
        # What is declared comes from the ledger as it was read; a colour may be another update's by now.
        await asyncio.to_thread(self._plan.session.still_ours)
        found = await asyncio.to_thread(self._plan.kubernetes().deployment, NAMESPACE, workload_name(colour))
        lost = loses(before, after, found)
        if lost:
            await self.guard(colour, ", ".join(lost))

    async def guard(self, colour: Colour, why: str) -> None:
        """Go on only once the colour carries no weight on any listener; if it does, move that away first.

        Raises:
            Refused: the other colour can't be proven healthy, or the load balancer doesn't say where traffic goes.
        """
        timing = self._plan.timing
        view = await self._traffic.look(self._traffic.deadline(timing))
        if not view.rules:
            raise TrafficError(
                f"guard of {colour} ({why}): no listener forwards to both colours, so where traffic goes is unknown"
            )
        if not view.carries(colour):
            self._log(f"guard of {colour} ({why}): it carries no weight ({view.describe()})")
            return
        state = self._plan.session.state
        if state.live is None and self._plan.decision.action == "abort":
            self._log(
                f"guard of {colour} ({why}): nothing was ever live, so nobody is served by {other(colour)} either"
            )
            await self._traffic.set_weights(all_on(other(colour)), timing)
            return
        name = state.occupants.get(other(colour))
        if name is None:
            raise TrafficError(
                f"guard of {colour} ({why}): it carries weight ({view.describe()}) and {other(colour)} has never had a "
                "release"
            )
        self._log(f"guard of {colour} ({why}): it carries weight ({view.describe()}); moving that to {other(colour)}")
        record = state.release(name).record
        await self._traffic.make_carry_everything(
            other(colour),
            proof=lambda: self._missing(record, other(colour)),
            timing=timing,
            prober=self._prober,
            watched=True,
            returning=self._plan.decision.action == "abort",
        )
        # That took minutes, in which another update, or a person, may have moved it once more.
        await asyncio.to_thread(self._plan.session.still_ours)
        await self._refuse_moved(other(colour))

    async def _refuse_moved(self, colour: Colour) -> None:
        view = await self._traffic.look(self._traffic.deadline(self._plan.timing))
        if not view.agree(all_on(colour)):
            raise TrafficError(
                f"somebody else moved traffic: everything was put on {colour}, now it is {view.describe()}; see who "
                "writes the load balancer's rules, then run it again"
            )

    async def before_pointer(self) -> None:
        """Finish what was decided: shift and go live, or take back.

        Raises:
            Refused: it did not work out; the message says where the weights are and what to do next.
        """
        decision, session = self._plan.decision, self._plan.session
        opened, record = decision.open, decision.record
        if not decision.moves or opened is None or record is None:
            return
        await self.claim()
        if decision.action == "abort":
            await self._abort(opened.colour)
            return
        if session.state.open is None:
            return
        await asyncio.to_thread(session.still_ours)
        await self._traffic.make_carry_everything(
            opened.colour,
            proof=lambda: self._missing(record, opened.colour, self._plan.checks),
            timing=self._plan.timing,
            prober=self._prober,
            # Before the first release nobody is served, so there is nothing to settle or to compare with.
            watched=session.state.live is not None,
        )
        await asyncio.to_thread(session.still_ours)
        await self._refuse_moved(opened.colour)
        await asyncio.to_thread(session.go_live)
        self._log(f"{opened.name} is live in {opened.colour}")

    async def restore(self) -> None:
        """While no release is open, everything goes to the live colour, whoever moved it away.

        Raises:
            Refused: the live colour can't be proven healthy, or the load balancer can't be written.
        """
        state = self._plan.session.state
        if state.live is None or state.live_record is None:
            return
        live, record = state.live, state.live_record
        self._log(f"{live.name} is live in {live.colour}: everything goes back there")
        await self._traffic.make_carry_everything(
            live.colour,
            proof=lambda: self._missing(record, live.colour),
            timing=self._plan.timing,
            prober=self._prober,
            watched=True,
            returning=True,
        )

    async def _abort(self, colour: Colour) -> None:
        await self.guard(colour, "abort")
        found = await asyncio.to_thread(self._plan.kubernetes().deployment, NAMESPACE, workload_name(colour))
        if found and found["spec"].get("replicas"):
            raise Refused(f"abort: {workload_name(colour)} still wants {found['spec']['replicas']} pods; run it again")
        await asyncio.to_thread(self._plan.session.abort)
        self._log(f"aborted; {colour} is empty and carries no weight")

    async def _missing(self, record: Record, colour: Colour, checks: Checks | None = None) -> list[str]:
        """What keeps the colour from carrying everything, from the cluster's and the load balancer's own words."""
        client = self._plan.kubernetes()
        deadline = self._traffic.deadline(self._plan.timing)
        pods = await asyncio.to_thread(client.pods, NAMESPACE, selector(colour))
        reasons = proof.missing(record, colour, pods, await self._traffic.targets_of(colour, deadline))
        if checks is not None:
            job = await asyncio.to_thread(client.job, NAMESPACE, checks.smoke_name)
            if not job or not (job.get("status") or {}).get("succeeded"):
                reasons.append(f"smoke test {checks.smoke_name} has not passed")
        return reasons


class BlueGreen(pulumi.ComponentResource):
    """Everything of the application in its namespace; what it guarantees stands at the top of this file."""

    def __init__(
        self,
        name: str,
        *,
        plan: Plan,
        clients: AwsClients,
        target_group_arns: Mapping[Colour, pulumi.Input[str]],
        load_balancer_cidrs: Sequence[str],
        platform: Sequence[pulumi.Resource] = (),
        protect: bool = True,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("shopcat:release:BlueGreen", name, None, opts)
        self._plan = plan
        self._protected = protect
        self._platform = list(platform)
        self.hooks = Hooks(plan, clients, pulumi.log.info)

        async def claim(_: pulumi.ResourceHookArgs) -> None:
            await self.hooks.claim()

        self._claim = pulumi.ResourceHook("claim", claim)

        namespace = kubernetes.core.v1.Namespace(
            "namespace",
            metadata={
                "name": NAMESPACE,
                "labels": {
                    "kubernetes.io/metadata.name": NAMESPACE,
                    GATES_LABEL: "enabled",
                    "pod-security.kubernetes.io/enforce": "restricted",
                },
            },
            opts=self._options(depends_on=self._platform, protect=protect),
        )
        priority = kubernetes.scheduling.v1.PriorityClass(
            "priority",
            metadata={"name": PRIORITY_CLASS},
            value=PRIORITY,
            global_default=False,
            description="ShopCat's production: above previews, below what the cluster itself needs",
            opts=self._options(depends_on=self._platform),
        )
        fence = kubernetes.networking.v1.NetworkPolicy(
            "ingress",
            metadata={"name": "ingress", "namespace": NAMESPACE},
            spec=ingress_policy(load_balancer_cidrs),
            opts=self._options(depends_on=[namespace]),
        )
        bindings = [self._colour(colour, namespace, target_group_arns[colour]) for colour in COLOURS]
        ready: list[pulumi.Resource] = [*self._platform, namespace, fence, priority, *bindings]
        self.pointer = self._release(clients.region, ready)
        self._outputs()

    def _options(self, **given: Any) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, **given)

    def _colour(
        self,
        colour: Colour,
        namespace: pulumi.Resource,
        target_group_arn: pulumi.Input[str],
    ) -> pulumi.Resource:
        """The colour's Service and what binds it to its target group: there before any pod, and for ever."""
        name = workload_name(colour)
        service = kubernetes.core.v1.Service(
            f"service-{colour}",
            metadata={
                "name": name,
                "namespace": NAMESPACE,
                "labels": selector(colour),
                # An idle colour has no endpoints to wait for.
                "annotations": {"pulumi.com/skipAwait": "true"},
            },
            spec={
                "type": "ClusterIP",
                "selector": selector(colour),
                "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": PORT, "protocol": "TCP"}],
            },
            opts=self._options(depends_on=[*self._platform, namespace], protect=self._protected),
        )
        # No `networking`: which ports the load balancer reaches is edge.py's, not the controller's.
        binding: pulumi.Resource = kubernetes.apiextensions.CustomResource(
            f"binding-{colour}",
            api_version="elbv2.k8s.aws/v1beta1",
            kind="TargetGroupBinding",
            metadata={"name": name, "namespace": NAMESPACE, "labels": selector(colour)},
            spec={
                "serviceRef": {"name": name, "port": SERVICE_PORT},
                "targetGroupARN": target_group_arn,
                "targetType": "ip",
            },
            opts=self._options(depends_on=[service], protect=self._protected),
        )
        # Evictions never take more than one pod of a colour; a budget over both colours would count idle pods.
        kubernetes.policy.v1.PodDisruptionBudget(
            f"disruption-{colour}",
            metadata={"name": name, "namespace": NAMESPACE, "labels": selector(colour)},
            spec={
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": selector(colour)},
            },
            opts=self._options(depends_on=[namespace]),
        )
        return binding

    def _release(self, region: str, ready: list[pulumi.Resource]) -> kubernetes.core.v1.ConfigMap | None:
        """Secrets, checks, Deployments and the live pointer, in the order that the decision asks for."""
        plan = self._plan
        if not plan.colours:
            return None
        store = declare_store(region, self._options(depends_on=ready))
        records = {each.record.name: each.record for each in plan.colours.values()}
        if plan.checks:
            records[plan.checks.record.name] = plan.checks.record
        secrets = {
            name: declare_release_secret(
                record, self._secret_options([*ready, store], name), awaited=self._awaits_secret(name)
            )
            for name, record in sorted(records.items())
        }
        done: list[pulumi.Resource] = []
        before = list(ready)
        if plan.checks and plan.checks.migrates:
            before.append(self._migrate(plan.checks, [*ready, secrets[plan.checks.record.name]]))
        deployments: dict[Colour, pulumi.Resource] = {}
        for colour, each in plan.colours.items():
            if not each.changes_last:
                deployments[colour] = self._deployment(each, [*before, secrets[each.record.name]])
                done.append(deployments[colour])
        if plan.checks:
            tested = [deployments[plan.checks.colour]] if plan.checks.colour in deployments else []
            done.append(self._smoke(plan.checks, [*before, *tested]))
        pointer = self._pointer([*ready, *done])
        for each in plan.colours.values():
            if each.changes_last:
                self._deployment(each, [*before, secrets[each.record.name], pointer])
        return pointer

    def _secret_options(self, depends_on: list[pulumi.Resource], name: str) -> pulumi.ResourceOptions:
        """The open release's Secret is made once the slot is taken; the others are there already."""
        opened = self._plan.decision.open
        if opened is None or opened.name != name:
            return self._options(depends_on=depends_on)
        return self._options(depends_on=depends_on, hooks=pulumi.ResourceHookBinding(before_create=[self._claim]))

    def _awaits_secret(self, name: str) -> bool:
        """The secret that a release was waiting for when it was aborted may never come, and nobody needs it any more."""
        plan = self._plan
        needed = {each.record.name for each in plan.colours.values() if each.replicas}
        if plan.checks:
            needed.add(plan.checks.record.name)
        known = plan.state.releases.get(name)
        return name in needed or known is None or known.attempts[-1].outcome == "live"

    def _deployment(self, each: ColourPlan, depends_on: list[pulumi.Resource]) -> pulumi.Resource:
        colour, record, drain = each.colour, each.record, each.record.template.drain
        template = render(record, colour)

        async def hook(args: pulumi.ResourceHookArgs) -> None:
            await self.hooks.before_deployment(colour, args.old_inputs, args.new_inputs)

        before = pulumi.ResourceHook(f"before-deployment-{colour}", hook)
        deployment: pulumi.Resource = kubernetes.apps.v1.Deployment(
            f"deployment-{colour}",
            metadata={
                "name": workload_name(colour),
                "namespace": NAMESPACE,
                "labels": selector(colour),
                # On the Deployment, not on its pods: a new intent is a difference, and no pod is made anew for it.
                "annotations": {
                    INTENT_ANNOTATION: self._plan.intent,
                    TEMPLATE_ANNOTATION: fingerprint(template),
                    # `kubectl scale` makes somebody else the owner of `replicas`; the hook has looked at what stands there.
                    "pulumi.com/patchForce": "true",
                },
            },
            spec={
                "replicas": each.replicas,
                "minReadySeconds": MINIMUM_READY_SECONDS,
                "progressDeadlineSeconds": drain.progress_deadline_seconds,
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": selector(colour)},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": template,
            },
            opts=self._options(
                depends_on=depends_on,
                protect=self._protected,
                hooks=pulumi.ResourceHookBinding(before_create=[before], before_update=[before]),
                custom_timeouts=pulumi.CustomTimeouts(
                    create=f"{drain.pulumi_timeout_seconds}s",
                    update=f"{drain.pulumi_timeout_seconds}s",
                    delete=f"{drain.grace_seconds + 60}s",
                ),
            ),
        )
        return deployment

    def _migrate(self, checks: Checks, depends_on: list[pulumi.Resource]) -> pulumi.Resource:
        name, template = checks.migrate_name, checks.record.template

        async def explain(_: pulumi.ErrorHookArgs) -> bool:
            # The engine reports that the Job failed; that it can't be explained must not hide that.
            with contextlib.suppress(Refused):
                reason = await asyncio.to_thread(read_why_failed, self._plan.kubernetes(), name, template)
                if reason:
                    pulumi.log.error(reason, self)
            return False

        return self._job(
            name,
            render_migration(checks.record, checks.colour),
            template.migrate_deadline_seconds,
            depends_on,
            on_error=[pulumi.ErrorHook("migration-failed", explain)],
        )

    def _smoke(self, checks: Checks, depends_on: list[pulumi.Resource]) -> pulumi.Resource:
        seconds = SMOKE_SECONDS + checks.record.template.drain.pre_stop_seconds
        return self._job(checks.smoke_name, render_smoke(checks.record, checks.colour), seconds, depends_on)

    def _job(
        self,
        name: str,
        template: dict[str, Any],
        deadline_seconds: int,
        depends_on: list[pulumi.Resource],
        on_error: list[pulumi.ErrorHook] | None = None,
    ) -> pulumi.Resource:
        """A Job that is tried once; the next update replaces one that failed."""
        job: pulumi.Resource = kubernetes.batch.v1.Job(
            name,
            metadata={
                "name": name,
                "namespace": NAMESPACE,
                "labels": template["metadata"]["labels"],
                "annotations": {"pulumi.com/replaceUnready": "true"},
            },
            spec={"backoffLimit": 0, "activeDeadlineSeconds": deadline_seconds, "template": template},
            opts=self._options(
                depends_on=depends_on,
                custom_timeouts=pulumi.CustomTimeouts(create=f"{deadline_seconds + 60}s", delete="2m"),
                hooks=pulumi.ResourceHookBinding(before_create=[self._claim], on_error=on_error),
            ),
        )
        return job

    def _pointer(self, depends_on: list[pulumi.Resource]) -> kubernetes.core.v1.ConfigMap:
        """Which release is live, for people and for the engine's order; the truth is the ledger's."""

        async def hook(_: pulumi.ResourceHookArgs) -> None:
            await self.hooks.before_pointer()

        before = pulumi.ResourceHook("before-live-pointer", hook)
        return kubernetes.core.v1.ConfigMap(
            "live",
            metadata={"name": POINTER, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": APPLICATION}},
            data=dict(self._plan.pointer),
            opts=self._options(
                depends_on=depends_on,
                hooks=pulumi.ResourceHookBinding(before_create=[before], before_update=[before]),
            ),
        )

    def _outputs(self) -> None:
        """What a person wants to see: the ledger as it is when the live pointer is written, or has failed to be."""
        session, pointer = self._plan.session, self.pointer

        async def settled() -> State:
            if pointer is not None:
                # Its failure is reported by the engine; what is live is worth showing all the same.
                with contextlib.suppress(Exception):
                    await pointer.id.future()
            if self._plan.astray and not pulumi.runtime.is_dry_run():
                try:
                    await self.hooks.restore()
                except Refused as error:
                    raise pulumi.RunError(str(error)) from None
            return session.state

        state: pulumi.Output[State] = pulumi.Output.from_input(settled())
        self.live_release = state.apply(lambda found: found.live.tag if found.live else "")
        self.live_colour = state.apply(lambda found: str(found.live.colour) if found.live else "")
        self.table = state.apply(table_rows)
        self.notes = list(self._plan.notes)
        for note in self.notes:
            pulumi.log.info(note)
        self.register_outputs({"liveRelease": self.live_release, "liveColour": self.live_colour})
