"""Blue/green: two colours behind one weighted listener rule, and the steps of a release in their order.

A release is these steps; each begins once the one before it is done. An abort or a rollback takes the same path.

    1  claim         tag and slot in the ledger             Hooks.claim, before the release's first object is written
    2  secret        a password of its own, and its Secret  Hooks.renew_login, Job, ExternalSecret (logins.py)
    3  migrate       if the settings name a command         Job
    4  start         the idle colour, until available       Deployment
    5  smoke test    against the idle colour                Job
    6  check         pods, gates, targets                   Hooks.promote, before the ConfigMap `shopcat-live` is written
    7  canary        a tenth of the traffic, watched        "
    8  shift         all of it, read back twice             "
    9  watch         settle time, whole minutes of metrics  "
    10 live          one conditional write in the ledger    "
    11 stop          the old colour, to no pods             Hooks.guard_deployment, before its Deployment is written

A rollback has no step 7. With `shopcat:keepFormer` step 11 leaves the old colour its pods, and step 2 of the next release stops
them and waits until they are gone, since its password is the colour's; after a rollback none are kept.

What is guaranteed meanwhile:

* A colour is declared from its record and nothing else; no output of another resource can enter a pod template.
* A NetworkPolicy lets production's load balancer and the smoke test reach the pods, and nobody else in the cluster.
* Names, selectors and ports of the two Services, bindings and Deployments are constants, and all of them are protected:
  a replacement, which would delete first, is refused by the engine.
* Before a Deployment or the live pointer is written, the hooks of promotion.py keep the invariants that stand there.
* Where something of it stands otherwise in the cluster than declared, because somebody changed it by hand, the next update
  writes it (drift.py).

Everything decisive is a before-hook on what it protects. Hooks don't run in previews. `pulumi up` prints each step as it begins
(progress.py).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_kubernetes as kubernetes

from infra.clients import threads
from infra.errors import ShopCatError
from infra.names import (
    APPLICATION,
    APPLICATION_PORT,
    COLOURS,
    GATES_LABEL,
    POD_SECURITY,
    POD_SECURITY_LABEL,
    SHOP_NAMESPACE,
    SHOP_PRIORITY_CLASS,
    Colour,
    colour_selector,
    workload_name,
)
from infra.release import drift
from infra.release.login_job import declare_logins
from infra.release.manifests import (
    SERVICE_PORT,
    deployment_spec,
    ingress_policy,
    render_migration,
    render_pod_template,
    render_smoke,
    smoke_deadline_seconds,
)
from infra.release.migration import read_why_failed
from infra.release.pod_losses import TEMPLATE_ANNOTATION
from infra.release.promotion import INTENT_ANNOTATION, Hooks
from infra.release.record import fingerprint
from infra.release.secrets import declare_release_secret, declare_store
from infra.release.state import LedgerState, table_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infra.clients.aws import AwsClients
    from infra.foundation.database_jobs import DatabaseJobs
    from infra.release.plan import Checks, ColourPlan, Plan

COMPONENT_TYPE = "shopcat:release:BlueGreen"
SHOP_PRIORITY = 100_000
POINTER = "shopcat-live"


class BlueGreen(pulumi.ComponentResource):
    """The application and everything of it in its namespace, with the guarantees at the top of this file."""

    def __init__(
        self,
        name: str,
        *,
        plan: Plan,
        clients: AwsClients,
        target_group_arns: Mapping[Colour, pulumi.Input[str]],
        load_balancer_cidrs: Sequence[str],
        databases: Sequence[DatabaseJobs],
        platform: Sequence[pulumi.Resource] = (),
        protect: bool = True,
        is_shared: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare it.

        Args:
            name: of the component.
            plan: what is decided.
            clients: AWS.
            target_group_arns: of each colour.
            load_balancer_cidrs: networks that production's load balancer has its addresses in.
            databases: where the colours' passwords are set.
            platform: what a release needs.
            protect: guard what serves against deletion.
            is_shared: pods that another program made still serve in the namespace, and must be able to start again.
            opts: of the component.
        """
        super().__init__(COMPONENT_TYPE, name, None, opts)
        self._plan = plan
        self._protected = protect
        self._platform = list(platform)
        self._databases = list(databases)
        self.hooks = Hooks(plan, clients, pulumi.log.info)
        self._changed_by_hand: list[str] = []

        async def claim(args: pulumi.ResourceHookArgs) -> None:
            await self.hooks.claim()
            self.hooks.begin_object(args.name)

        self._claim = pulumi.ResourceHook("claim", claim)
        self._renew_login = pulumi.ResourceHook("renew-login", lambda args: self.hooks.renew_login(args.name))
        self._again = pulumi.ResourceHook("make-again", lambda args: self.hooks.make_again(args.new_inputs or {}))

        namespace = kubernetes.core.v1.Namespace(
            "namespace",
            metadata={
                "name": SHOP_NAMESPACE,
                "labels": {
                    "kubernetes.io/metadata.name": SHOP_NAMESPACE,
                    GATES_LABEL: "enabled",
                    **({} if is_shared else {POD_SECURITY_LABEL: POD_SECURITY}),
                },
            },
            opts=self._options(depends_on=self._platform, protect=protect),
        )
        priority = kubernetes.scheduling.v1.PriorityClass(
            "priority",
            metadata={"name": SHOP_PRIORITY_CLASS},
            value=SHOP_PRIORITY,
            global_default=False,
            description="ShopCat's production: above previews, below what the cluster itself needs",
            opts=self._options(depends_on=self._platform),
        )
        ingress = ingress_policy(load_balancer_cidrs, is_shared=is_shared)
        ingress_rule = kubernetes.networking.v1.NetworkPolicy(
            "ingress",
            metadata=self._metadata("NetworkPolicy", "ingress", ingress),
            spec=ingress,
            opts=self._kept(depends_on=[namespace]),
        )
        bindings = [self._colour(colour, namespace, target_group_arns[colour]) for colour in COLOURS]
        # Each depends on what comes right before it and no more: the engine walks every path through the dependencies when a
        # protected stack is to be destroyed (pkg/v3 3.250.0, resource/graph, markAsDependency), and paths multiply.
        ready: list[pulumi.Resource] = [ingress_rule, priority, *bindings]
        self.pointer = self._release(clients.region, ready)
        self._outputs()

    def _options(self, **options: Any) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, **options)

    def _kept(self, **options: Any) -> pulumi.ResourceOptions:
        """Return options of an object that stands for ever, so it is made again where somebody deleted it."""
        return self._options(hooks=pulumi.ResourceHookBinding(before_update=[self._again]), **options)

    def _metadata(
        self,
        kind: str,
        name: str,
        spec: Mapping[str, Any],
        *,
        annotations: Mapping[str, str] | None = None,
        is_expected: bool = True,
    ) -> dict[str, Any]:
        """Return an object's metadata; a mark in it makes this update write what somebody changed or deleted by hand."""
        declared, standing = annotations or {}, self._plan.standing
        differences = drift.Drift()
        if standing is not None:
            differences = drift.compare_objects(
                spec, declared, standing.get(f"{kind}/{name}"), intent=INTENT_ANNOTATION, is_expected=is_expected
            )
        self._changed_by_hand += [f"{kind} {name}: {line}" for line in differences.lines]
        return {"name": name, "namespace": SHOP_NAMESPACE, "annotations": {**declared, **differences.mark}}

    def _colour(
        self,
        colour: Colour,
        namespace: pulumi.Resource,
        target_group_arn: pulumi.Input[str],
    ) -> pulumi.Resource:
        """Declare the colour's Service and its binding to its target group, which exist before any pod and for ever."""
        name, labels = workload_name(colour), {"labels": colour_selector(colour)}
        serves = {
            "type": "ClusterIP",
            "selector": colour_selector(colour),
            "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": APPLICATION_PORT, "protocol": "TCP"}],
        }
        # An idle colour has no endpoints to wait for.
        unawaited = {"pulumi.com/skipAwait": "true"}
        service = kubernetes.core.v1.Service(
            f"service-{colour}",
            metadata={**self._metadata("Service", name, serves, annotations=unawaited), **labels},
            spec=serves,
            opts=self._kept(depends_on=[namespace], protect=self._protected),
        )
        # No `networking`: which ports the load balancer reaches is load_balancers.py's, not the controller's.
        binds = {"serviceRef": {"name": name, "port": SERVICE_PORT}, "targetType": "ip"}
        binding: pulumi.Resource = kubernetes.apiextensions.CustomResource(
            f"binding-{colour}",
            api_version="elbv2.k8s.aws/v1beta1",
            kind="TargetGroupBinding",
            metadata={**self._metadata("TargetGroupBinding", name, binds), **labels},
            spec={**binds, "targetGroupARN": target_group_arn},
            opts=self._kept(depends_on=[service], protect=self._protected),
        )
        # Evictions never take more than one pod of a colour; a budget over both colours would count idle pods.
        budget = {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": colour_selector(colour)},
        }
        kubernetes.policy.v1.PodDisruptionBudget(
            f"disruption-{colour}",
            metadata={**self._metadata("PodDisruptionBudget", name, budget), **labels},
            spec=budget,
            opts=self._kept(depends_on=[namespace]),
        )
        return binding

    def _release(self, region: str, ready: list[pulumi.Resource]) -> kubernetes.core.v1.ConfigMap | None:
        """Declare the steps of a release in their order, as far as the decision asks for them."""
        if not self._plan.colours:
            return None
        store = declare_store(region, self._metadata, self._kept(depends_on=ready))
        secrets = self._secrets(store)
        migrated = self._migrate(secrets)
        started = self._start(secrets, migrated)
        tested = self._smoke_test(secrets, migrated, started)
        live = self._make_live([*started.values(), *tested] or [store])
        self._stop(secrets, migrated, live)
        return live

    def _secrets(self, store: pulumi.Resource) -> dict[str, pulumi.Resource]:
        """Declare step 2: the Secret of each release that has pods or is to have some, by the release's name."""
        plan = self._plan
        records = {each.record.name: each.record for each in plan.colours.values()}
        if plan.checks:
            records[plan.checks.record.name] = plan.checks.record
        renew = pulumi.ResourceHookBinding(before_create=[self._renew_login], before_update=[self._renew_login])
        logins = declare_logins(plan, records, self._databases, self._options(depends_on=[store], hooks=renew))
        return {
            name: declare_release_secret(
                record,
                self._metadata,
                self._secret_options([store, *logins[name]], name),
                awaited=self._awaits_secret(name),
                is_expected=name in plan.state.releases and plan.state.releases[name].record.login == record.login,
            )
            for name, record in sorted(records.items())
        }

    def _migrate(self, secrets: Mapping[str, pulumi.Resource]) -> list[pulumi.Resource]:
        """Declare step 3: the migration, if the release has one."""
        checks = self._plan.checks
        if checks is None or not checks.migrates:
            return []
        return [self._migration(checks, [secrets[checks.record.name]])]

    def _start(
        self, secrets: Mapping[str, pulumi.Resource], migrated: list[pulumi.Resource]
    ) -> dict[Colour, pulumi.Resource]:
        """Declare step 4: every colour but the one that loses its pods."""
        return {
            colour: self._deployment(each, [*migrated, secrets[each.record.name]])
            for colour, each in self._plan.colours.items()
            if not each.changes_last
        }

    def _smoke_test(
        self,
        secrets: Mapping[str, pulumi.Resource],
        migrated: list[pulumi.Resource],
        started: Mapping[Colour, pulumi.Resource],
    ) -> list[pulumi.Resource]:
        """Declare step 5: the smoke test, if a release is checked."""
        checks = self._plan.checks
        if checks is None:
            return []
        tested = started.get(checks.colour, secrets[checks.record.name])
        return [self._smoke(checks, [*migrated, tested])]

    def _stop(
        self,
        secrets: Mapping[str, pulumi.Resource],
        migrated: list[pulumi.Resource],
        live: pulumi.Resource,
    ) -> None:
        """Declare step 11: the colour that loses its pods, once the other one is live."""
        for each in self._plan.colours.values():
            if each.changes_last:
                self._deployment(each, [*migrated, secrets[each.record.name], live])

    def _secret_options(self, depends_on: list[pulumi.Resource], name: str) -> pulumi.ResourceOptions:
        """Return a Secret's options: the open release's is made once the slot is taken, the others exist already."""
        opened = self._plan.decision.open
        if opened is None or opened.name != name:
            return self._kept(depends_on=depends_on)
        hooks = pulumi.ResourceHookBinding(before_create=[self._claim], before_update=[self._again])
        return self._options(depends_on=depends_on, hooks=hooks)

    def _awaits_secret(self, name: str) -> bool:
        """Check for a Secret that somebody needs: one that an aborted release waited for may never come."""
        plan = self._plan
        needed = {each.record.name for each in plan.colours.values() if each.replicas}
        if plan.checks:
            needed.add(plan.checks.record.name)
        known = plan.state.releases.get(name)
        return name in needed or known is None or known.attempts[-1].outcome == "live"

    def _deployment(self, each: ColourPlan, depends_on: list[pulumi.Resource]) -> pulumi.Resource:
        colour, record, drain = each.colour, each.record, each.record.template.drain
        template = render_pod_template(record, colour)
        before = pulumi.ResourceHook(
            f"before-deployment-{colour}", lambda args: self.hooks.guard_deployment(colour, args.new_inputs or {})
        )
        spec = deployment_spec(record, colour, each.replicas, template)
        annotations = {
            # On the Deployment, not on its pods: a new intent is a difference, and no pod is made anew for it.
            INTENT_ANNOTATION: self._plan.intent,
            TEMPLATE_ANNOTATION: fingerprint(template),
            # `kubectl scale` makes somebody else the owner of `replicas`; the hook has looked at what stands there.
            "pulumi.com/patchForce": "true",
            # Pods that serve nobody hold up no update.
            **({"pulumi.com/skipAwait": "true"} if each.is_kept else {}),
        }
        name = workload_name(colour)
        deployment: pulumi.Resource = kubernetes.apps.v1.Deployment(
            f"deployment-{colour}",
            metadata={
                **self._metadata(
                    "Deployment", name, spec, annotations=annotations, is_expected=colour in self._plan.state.occupants
                ),
                "labels": colour_selector(colour),
            },
            spec=spec,
            opts=self._options(
                depends_on=depends_on,
                protect=self._protected,
                hooks=pulumi.ResourceHookBinding(before_create=[before], before_update=[before, self._again]),
                custom_timeouts=pulumi.CustomTimeouts(
                    create=f"{drain.pulumi_timeout_seconds}s",
                    update=f"{drain.pulumi_timeout_seconds}s",
                    delete=f"{drain.grace_seconds + 60}s",
                ),
            ),
        )
        return deployment

    def _migration(self, checks: Checks, depends_on: list[pulumi.Resource]) -> pulumi.Resource:
        name, template = checks.migrate_name, checks.record.template

        async def explain(_: pulumi.ErrorHookArgs) -> bool:
            # The engine reports that the Job failed; that it can't be explained must not hide that.
            with contextlib.suppress(ShopCatError):
                reason = await threads.in_thread(read_why_failed, self._plan.kubernetes(), name, template)
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
        seconds = smoke_deadline_seconds(checks.record)
        return self._job(checks.smoke_name, render_smoke(checks.record, checks.colour), seconds, depends_on)

    def _job(
        self,
        name: str,
        template: dict[str, Any],
        deadline_seconds: int,
        depends_on: list[pulumi.Resource],
        on_error: list[pulumi.ErrorHook] | None = None,
    ) -> pulumi.Resource:
        """Declare a Job that is tried once; the next update replaces one that failed."""
        job: pulumi.Resource = kubernetes.batch.v1.Job(
            name,
            metadata={
                "name": name,
                "namespace": SHOP_NAMESPACE,
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

    def _make_live(self, depends_on: list[pulumi.Resource]) -> kubernetes.core.v1.ConfigMap:
        """Declare steps 6 to 10, which run right before this ConfigMap is written.

        It names the live release, for people and for the engine's order; the truth is the ledger's.
        """
        before = pulumi.ResourceHook("before-live-pointer", lambda _: self.hooks.promote())
        return kubernetes.core.v1.ConfigMap(
            "live",
            metadata={
                **self._metadata("ConfigMap", POINTER, {}, is_expected=self._plan.state.live is not None),
                "labels": {"app.kubernetes.io/name": APPLICATION},
            },
            data=dict(self._plan.pointer),
            opts=self._options(
                depends_on=depends_on,
                hooks=pulumi.ResourceHookBinding(before_create=[before], before_update=[before, self._again]),
            ),
        )

    def _outputs(self) -> None:
        """Show a person the ledger as it is once the live pointer is written or its write has failed."""
        session, pointer = self._plan.session, self.pointer

        async def settled() -> LedgerState:
            if pointer is not None:
                # Its failure is reported by the engine; what is live is worth showing all the same.
                with contextlib.suppress(Exception):
                    await pointer.id.future()
            if self._plan.is_traffic_misplaced and not pulumi.runtime.is_dry_run():
                try:
                    await self.hooks.restore()
                except ShopCatError as error:
                    raise pulumi.RunError(str(error)) from None
            return session.state

        state: pulumi.Output[LedgerState] = pulumi.Output.from_input(settled())
        self.live_release = state.apply(lambda ledger: ledger.live.tag if ledger.live else "")
        self.live_colour = state.apply(lambda ledger: str(ledger.live.colour) if ledger.live else "")
        self.table = state.apply(table_rows)
        self.notes = list(self._plan.notes)
        if self._changed_by_hand:
            self.notes.append("changed by hand, put back by this update: " + "; ".join(self._changed_by_hand))
        for note in self.notes:
            pulumi.log.info(note)
        self.register_outputs({"liveRelease": self.live_release, "liveColour": self.live_colour})
