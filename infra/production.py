"""The production stack: the platform, and the release on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import pulumi

from infra import capacity
from infra.access import boundary
from infra.access.github_roles import GithubRoles
from infra.access.iam_policies import AwsScope
from infra.clients import threads
from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.foundation import (
    auto_names,
    availability_zones,
    chart_upgrade,
    dns,
    existing_database,
    existing_namespace,
    existing_network,
    existing_resources,
    state_rebuild,
    upgrade,
)
from infra.foundation.addons import Addons
from infra.foundation.alarms import WatchedResources
from infra.foundation.cluster import Cluster
from infra.foundation.database import Database, misleading_version
from infra.foundation.load_balancers import LoadBalancers
from infra.foundation.log_shipper import LogShipper
from infra.foundation.monitoring import Monitoring
from infra.foundation.network import Network, subnets
from infra.foundation.providers import aws_provider, eks_provider, kubernetes_provider
from infra.foundation.registry import Registry
from infra.names import (
    DATABASE_NAMESPACE,
    LOAD_BALANCER,
    PREVIEW_REPOSITORY,
    PREVIEW_SLOTS_TABLE,
    SHOP_NAMESPACE,
)
from infra.previews import admission_policies, cluster_info, rbac, slots
from infra.previews.admission_facts import AdmissionFacts
from infra.previews.image_policies import smoke_images
from infra.release import plan as release_plan
from infra.release import standing_settings, way_back
from infra.release.blue_green import BlueGreen
from infra.release.ledger import Ledger
from infra.settings import domains

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infra.settings import Settings


def next_step(live: str, repository: str, domain: str) -> str:
    """Return what a person does next."""
    if live:
        return f"{live} is live at https://{domain}"
    return (
        f"nothing is released yet: push an image to {repository}:v1.0.0, then release it with `pulumi up -s prod` and "
        "`-c shopcat:tag=v1.0.0` on a throw-away copy of the settings (`--config-file`)"
    )


def _refuse_late_previews(clients: AwsClients) -> pulumi.ResourceHookBinding:
    """Look for previews again once the contract that lets none open is written.

    A preview takes its slot and then reads the contract again (infra/previews/preview.py), so one of the two sees the other.
    """

    async def hook(_: pulumi.ResourceHookArgs) -> None:
        await threads.in_thread(slots.refuse_open_previews, clients, PREVIEW_SLOTS_TABLE)

    after = pulumi.ResourceHook("no-preview-left", hook)
    return pulumi.ResourceHookBinding(after_create=[after], after_update=[after])


@dataclass(frozen=True)
class _Known:
    """Facts that are read before anything is declared."""

    plan: release_plan.Plan
    zone_ids: Mapping[str, str]
    """Route 53 zone of each load balancer's name; empty with `shopcat:dns: external`."""
    production_cidrs: Sequence[str]
    """Networks that production's load balancer has its addresses in."""
    preview_cidrs: Sequence[str]
    misleading_version: str
    """Version of the application's secret, where it leads to another database than the settings say; empty where it does not."""
    notes: Sequence[str]
    """On what a way back leaves, on a restart of the database that this update makes, or that is owed, and on the charts."""


def _read_all(settings: Settings, clients: AwsClients, stack: str) -> tuple[Settings, _Known]:
    """Read everything once, and say by which settings: on a way back by those that the platform stands by.

    Raises:
        ShopCatError: what is wanted is not allowed, or can't be known.
    """
    opened = Ledger(clients.get("dynamodb"), settings.ledger_table).read().open
    if not release_plan.is_way_back(settings, opened):
        return settings, _read(settings, clients)
    try:
        standing = standing_settings.of_way_back(settings, standing_settings.read_kept(stack))
    except ShopCatError as error:
        known = _read(settings, clients)
        note = f"a way back goes by the present settings, since those of the last update are not known: {error}"
        return settings, replace(known, notes=[*known.notes, note])
    return standing, _read(standing, clients)


def _read(settings: Settings, clients: AwsClients) -> _Known:
    """Read everything once; a refusal here leaves no half plan.

    Raises:
        ShopCatError: what is wanted is not allowed, or can't be known.
    """
    plan = release_plan.make_plan(settings, clients)
    lenient = way_back.Leniency(is_way_back=plan.is_way_back)
    names = dns.dns_names(settings, LOAD_BALANCER) if settings.dns == "route53" else []
    zone_ids = {
        name.balancer: lenient.judge(partial(dns.find_zone, clients, name)) or dns.UNKNOWN_ZONE for name in names
    }
    if not settings.protection:
        slots.refuse_open_previews(clients, PREVIEW_SLOTS_TABLE)
    if plan.decision.action == "platform":
        if settings.cluster.existing is None:
            availability_zones.refuse_unusable(clients, settings.vpc.zones)
        for name in names:
            dns.refuse_taken_name(clients, zone_ids[name.balancer], name)
    for name in names:
        lenient.judge(partial(dns.refuse_taken_aliases, clients, zone_ids[name.balancer], name))
    live = lenient.judge(
        partial(existing_database.refuse_unfit_database, clients, settings.database, protect=settings.protection)
    )
    opened = plan.decision.open or plan.state.open
    restarting = opened.name if opened else ""
    notes = [] if plan.is_way_back else existing_database.restart_notes(live, settings.database, restarting)
    lenient.judge(partial(existing_database.refuse_taken_snapshot, clients, settings.database))
    chart_notes = lenient.judge(partial(chart_upgrade.refuse_unfit_charts, plan.kubernetes, settings)) or []
    existing, cluster = settings.cluster.existing, settings.cluster
    if existing is None:
        lenient.judge(partial(upgrade.refuse_unfit_version, clients, cluster.name, cluster.kubernetes_version))
        production_cidrs, preview_cidrs, _ = subnets(settings.vpc.cidr)
    else:
        lenient.judge(lambda: existing_network.refuse_old(plan.kubernetes()))
        lenient.judge(lambda: existing_namespace.refuse_shut_out(plan.kubernetes(), existing.old_images))
        production_cidrs, preview_cidrs = existing_network.load_balancer_cidrs(clients, existing)
    misleading = lenient.judge(partial(misleading_version, clients, settings.database)) or ""
    return _Known(plan, zone_ids, production_cidrs, preview_cidrs, misleading, [*lenient.notes, *notes, *chart_notes])


@dataclass(frozen=True)
class _Platform:
    """The cluster and its network, made here or somebody else's."""

    network: Network
    kubeconfig: pulumi.Output[str]
    security_group: pulumi.Input[str]
    ready: list[pulumi.Resource]
    control_plane_logs: pulumi.Input[str] | None = None
    """Name of the log group; None where the cluster is somebody else's."""


class Production(pulumi.ComponentResource):
    """The stack `prod`."""

    def __init__(self, settings: Settings, region: str, stack: str) -> None:
        clients = AwsClients(region, endpoint_url=settings.aws_endpoint)
        account, _ = clients.identity()
        settings, known = _read_all(settings, clients, stack)
        cloud, components = aws_provider(settings, region, stack, {}), eks_provider()
        guard = existing_resources.ImportGuard(clients, known.plan.kubernetes, stack, pulumi.get_project())
        pulumi.runtime.register_stack_transformation(guard.own)
        pulumi.runtime.register_stack_transformation(auto_names.keep_name)
        if known.plan.is_way_back:
            pulumi.runtime.register_resource_transform(way_back.leave_platform)
        if settings.rebuild_state:
            standing = state_rebuild.read_known_resources(stack)
            rebuild = state_rebuild.StateRebuild(clients, known.plan.kubernetes, stack, standing)
            pulumi.runtime.register_resource_transform(rebuild.transform)
        super().__init__(
            "shopcat:index:Production", "shopcat", None, pulumi.ResourceOptions(providers=[cloud, components])
        )
        if settings.preview_domain_shared:
            pulumi.log.warn(domains.domain_warning(settings.hosts, settings.preview_domain), self)
        for note in known.notes:
            pulumi.log.warn(note, self)
        self._settings, self._region = settings, region
        scope = AwsScope(account, region, settings.cluster.name, settings.ledger_table, settings.registry.repository)
        child = pulumi.ResourceOptions(parent=self)

        self.registry = Registry("registry", settings.registry, protect=settings.protection, opts=child)
        database = Database("database", settings, clients=clients, region=region, opts=child)
        platform = self._platform(account, guard)
        self.kubeconfig = platform.kubeconfig
        provider = kubernetes_provider(self.kubeconfig, platform.ready)
        # What the provider makes waits for it, and the provider for the cluster. A component waits for its providers, so
        # AWS's own parts are in components without it and don't wait for the cluster.
        inner = pulumi.ResourceOptions(parent=self, providers=[cloud, provider])
        addons = Addons(
            "addons",
            settings,
            scope=scope,
            kubernetes_api=known.plan.kubernetes,
            kubeconfig=self.kubeconfig,
            vpc_id=platform.network.vpc_id,
            depends_on=platform.ready,
            opts=inner,
        )
        confined = self._confine_previews(scope, known, addons, inner)
        self.load_balancers = LoadBalancers(
            "edge",
            settings,
            zone_ids=known.zone_ids,
            network=platform.network,
            cluster_security_group_id=platform.security_group,
            opts=child,
        )
        if settings.monitoring:
            watched = WatchedResources.of(self.load_balancers)
            Monitoring(
                "monitoring",
                settings,
                scope=scope,
                watched=watched,
                control_plane_logs=platform.control_plane_logs,
                opts=child,
            )
            if settings.monitoring.logs:
                LogShipper(
                    "logs", settings, settings.monitoring.logs, scope=scope, depends_on=platform.ready, opts=inner
                )
        stored = database.declare(
            operator=addons.operator,
            vpc_id=platform.network.vpc_id,
            subnet_ids=list(platform.network.private_subnet_ids),
            cluster_security_group_id=platform.security_group,
            cluster=provider,
            depends_on=addons.ready,
            misleading=known.misleading_version,
            stays_as_it_is=known.plan.is_way_back,
        )
        # In the cluster the previews' identity is known only once it is confined.
        self.github_roles = GithubRoles(
            "identity",
            settings.github,
            scope=scope,
            listener_arn=self.load_balancers.previews.listener.arn,
            in_our_cluster=settings.cluster.existing is None,
            is_monitored=settings.monitoring is not None,
            depends_on=confined,
            opts=inner,
        )
        self.release = BlueGreen(
            "shopcat",
            plan=known.plan,
            clients=clients,
            protect=settings.protection,
            target_group_arns={colour: group.arn for colour, group in self.load_balancers.target_groups.items()},
            load_balancer_cidrs=known.production_cidrs,
            databases=stored.logins,
            is_shared=bool(existing_namespace.old_images(settings)),
            platform=[*addons.ready, *confined, *self.load_balancers.ready, *stored.ready],
            opts=inner,
        )
        self._publish(clients, known, platform, addons, confined, inner)
        self.register_outputs({})

    def _platform(self, account: str, guard: existing_resources.ImportGuard) -> _Platform:
        """Declare network and cluster, or take those that are there."""
        settings, child = self._settings, pulumi.ResourceOptions(parent=self)
        existing = settings.cluster.existing
        if existing is not None:
            return _Platform(
                existing_network.ExistingNetwork.of(existing),  # type: ignore[arg-type]
                pulumi.Output.secret(existing.kubeconfig),
                existing.security_group_id,
                [],
            )
        network = Network(
            "shopcat",
            settings.vpc,
            cluster_name=settings.cluster.name,
            region=self._region,
            protect=settings.protection,
            opts=child,
        )
        cluster = Cluster(
            "shopcat",
            settings,
            boundary=boundary.boundary_arn(account, boundary.EKS_BOUNDARY_NAME),
            network=network,
            region=self._region,
            components=guard.components,
            opts=child,
        )
        return _Platform(
            network, cluster.kubeconfig, cluster.security_group_id, cluster.ready, cluster.control_plane_logs
        )

    def _confine_previews(
        self, scope: AwsScope, known: _Known, addons: Addons, opts: pulumi.ResourceOptions
    ) -> list[pulumi.Resource]:
        """Declare what a pull request may do in the cluster: RBAC, and what the API server admits."""
        images = self._settings.images
        released = [release.record for release in known.plan.state.releases.values()]
        facts = AdmissionFacts(
            account=scope.account,
            region=self._region,
            load_balancer_cidrs=known.preview_cidrs,
            secrets_role=addons.secrets_role,
            tools={
                SHOP_NAMESPACE: [*smoke_images(images.smoke, released), *existing_namespace.old_images(self._settings)],
                DATABASE_NAMESPACE: [images.database],
            },
            database_image=images.database,
            most_grace_seconds=self._settings.drain.budget.grace_seconds,
        )
        policies = admission_policies.declare_admission_policies(
            facts,
            self.registry.release.repository_url,
            self.registry.preview.repository_url,
            protect=self._settings.protection,
            opts=opts,
        )
        return [*rbac.declare_rbac(opts), *policies]

    def _publish(
        self,
        clients: AwsClients,
        known: _Known,
        platform: _Platform,
        addons: Addons,
        confined: list[pulumi.Resource],
        opts: pulumi.ResourceOptions,
    ) -> None:
        """Publish what previews need to know, once they are confined."""
        settings, previews = self._settings, self.load_balancers.previews
        cluster_info.publish_cluster_info(
            {
                "cluster": settings.cluster.name,
                "region": self._region,
                "previewDomain": settings.preview_domain,
                "loadBalancerCidrs": known.preview_cidrs,
                "previewRepository": PREVIEW_REPOSITORY,
                "releaseRepository": settings.registry.repository,
                "secretsRole": addons.secrets_role,
                # None opens any more once production's protection is lifted, which is refused while one is open.
                "previews": capacity.plan(settings.production).previews if settings.protection else 0,
            },
            {
                "vpcId": platform.network.vpc_id,
                "previewListenerArn": previews.listener.arn,
                "previewDnsName": previews.balancer.dns_name,
                "previewRepositoryUrl": self.registry.preview.repository_url,
                "previewRoleId": self.github_roles.preview_role_id,
            },
            self.kubeconfig,
            confined,
            opts,
            None if settings.protection else _refuse_late_previews(clients),
        )

    def seal(self) -> None:
        """Declare one protected thing that depends on all others: `pulumi destroy` of a protected stack deletes nothing.

        The engine goes on past a protected resource and deletes what that does not depend on (pkg/v3 3.250.0,
        resource/deploy/step_executor.go, cancelDueToError).
        """
        protected = pulumi.ResourceOptions(protect=self._settings.protection, depends_on=[self])
        seal = pulumi.ComponentResource("shopcat:index:Seal", "seal", None, protected)
        # Known once all else is done, as it should be.
        kept = standing_settings.keep(self._settings)
        pulumi.export(standing_settings.OUTPUT, pulumi.Output.secret(seal.urn.apply(lambda _: kept)))

    def export(self) -> None:
        """Export the stack's outputs for people."""
        repository = self.registry.release.repository_url
        pulumi.export("url", self._settings.url)
        pulumi.export("liveRelease", self.release.live_release)
        pulumi.export("liveColour", self.release.live_colour)
        pulumi.export("releases", self.release.table)
        pulumi.export("kubeconfig", self.kubeconfig)
        pulumi.export("repositoryUrl", repository)
        pulumi.export("previewRepositoryUrl", self.registry.preview.repository_url)
        pulumi.export("loadBalancer", self.load_balancers.production.balancer.dns_name)
        pulumi.export("dnsRecords", self.load_balancers.records)
        pulumi.export("githubRoles", self.github_roles.roles)
        pulumi.export(
            "nextStep",
            pulumi.Output.all(self.release.live_release, repository).apply(
                lambda values: next_step(values[0], values[1], self._settings.domain)
            ),
        )
