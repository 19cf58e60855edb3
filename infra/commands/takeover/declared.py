"""Record what this program declares for these settings: type, logical name and inputs of every resource that may be taken over.

The components themselves run, against a monitor of Pulumi's SDK that records each resource and answers with references in
place of ids. So a changed component changes the plan, and no second list has to be kept. One part is by hand: the eks component
is another plugin's program, which only the engine can run. `_eks_component` says what it declares (pulumi-eks 4.4.0, createCore),
and a unit test compares that with what the engine was given.

A release is left out: its colours are made anew beside what runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import pulumi
import pulumi_aws as aws
import pulumi_eks
import pulumi_kubernetes as kubernetes
from pulumi.runtime import mocks

from infra.access import boundary
from infra.access.github_roles import GithubRoles
from infra.access.iam_policies import AwsScope
from infra.clients.aws import AwsClients
from infra.clients.kubernetes import kubeconfig
from infra.commands.takeover.declaration import UNKNOWN, Declared, refer
from infra.foundation import cluster, dns
from infra.foundation.addons import Addons
from infra.foundation.alarms import WatchedResources
from infra.foundation.database import Database
from infra.foundation.existing_network import ExistingNetwork
from infra.foundation.existing_resources import FINDERS, HELM_RELEASE
from infra.foundation.load_balancers import LoadBalancers
from infra.foundation.log_shipper import LogShipper
from infra.foundation.monitoring import Monitoring
from infra.foundation.network import Network
from infra.foundation.registry import Registry
from infra.names import LOAD_BALANCER, PRODUCTION_STACK, PROJECT

if TYPE_CHECKING:
    from infra.settings import Settings

_OUTPUTS: Mapping[str, Mapping[str, Any]] = {
    "aws:acm/certificate:Certificate": {
        "domainValidationOptions": [
            dict.fromkeys(("resourceRecordName", "resourceRecordType", "resourceRecordValue"), UNKNOWN)
        ]
    },
    "aws:ec2/eip:Eip": {"publicIp": UNKNOWN},
    "aws:ec2/launchTemplate:LaunchTemplate": {"latestVersion": UNKNOWN},
    "aws:eks/cluster:Cluster": {"endpoint": UNKNOWN, "certificateAuthority": {"data": UNKNOWN}},
    "aws:lb/loadBalancer:LoadBalancer": {"arnSuffix": UNKNOWN, "dnsName": UNKNOWN, "zoneId": UNKNOWN},
    "aws:lb/targetGroup:TargetGroup": {"arnSuffix": UNKNOWN},
    "aws:rds/instance:Instance": {"address": UNKNOWN, "port": 5432, "masterUserSecrets": [{"secretArn": UNKNOWN}]},
}
"""Outputs that the components compute with, by type."""


_STACK_TYPE = "pulumi:pulumi:Stack"


class _Recorder(mocks.Mocks):
    """Makes nothing; keeps each resource, and answers with references."""

    def __init__(self) -> None:
        self.declared: list[Declared] = []

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if args.custom and not args.typ.startswith("pulumi:"):
            self.declared.append(Declared(args.typ, args.name, dict(args.inputs)))
        mark = refer(args.typ, args.name)
        outputs = {"arn": mark, "name": mark, "uniqueId": mark, **_OUTPUTS.get(args.typ, {}), **args.inputs}
        if args.typ == "aws:eks/cluster:Cluster":
            outputs["vpcConfig"] = {**args.inputs["vpcConfig"], "clusterSecurityGroupId": UNKNOWN}
        return mark, outputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise NotImplementedError(f"the program asks {args.token} while it declares")


class _Monitor(mocks.MockMonitor):
    """Keeps what mocks are not told, and makes URNs as the engine does: those of mocks have one parent's type alone."""

    def __init__(self, recorder: _Recorder, stack: str) -> None:
        super().__init__(recorder)
        self._stack = stack
        self.kept: dict[tuple[str, str], tuple[bool, bool, str]] = {}
        """Type and name → the options that say what may delete a resource, and its parent's URN."""

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """Return a URN: types from the outermost parent inwards, without the stack's (sdk/go/common/resource/urn, New)."""
        types = parent.split("::")[2] if parent else _STACK_TYPE
        chain = type_ if types == _STACK_TYPE else f"{types}${type_}"
        return f"urn:pulumi:{self._stack}::{PROJECT}::{chain}::{name}"

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the base class's name
        self.kept[request.type, request.name] = bool(request.protect), bool(request.retainOnDelete), request.parent
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]


class _Hooks:
    """In place of the server that the engine would call hooks through: they belong to updates, and none runs here."""

    def register_resource_hook(self, hook: pulumi.ResourceHook) -> None:
        """Take note of nothing."""


def _eks_component(account: str) -> type[pulumi.ComponentResource]:
    """Return a component that declares what pulumi-eks's Cluster does with the arguments of infra/foundation/cluster.py."""

    class EksCluster(pulumi.ComponentResource):
        def __init__(self, title: str, /, *, opts: pulumi.ResourceOptions, **arguments: Any) -> None:
            own = pulumi.ResourceOptions(parent=opts.parent, protect=opts.protect, depends_on=opts.depends_on)
            super().__init__("eks:index:Cluster", title, None, own)
            child = pulumi.ResourceOptions(parent=self)
            service_role = pulumi.ComponentResource("eks:index:ServiceRole", f"{title}-eksRole", None, child)
            role = _cluster_role(title, account, pulumi.ResourceOptions(parent=service_role))
            self.eks_cluster = _declared_cluster(title, arguments, role, child)
            self.register_outputs({})

    return EksCluster


def _cluster_role(name: str, account: str, opts: pulumi.ResourceOptions) -> aws.iam.Role:
    statement = {
        "Action": ["sts:AssumeRole", "sts:TagSession"],
        "Effect": "Allow",
        "Principal": {"Service": ["eks.amazonaws.com"]},
    }
    role = aws.iam.Role(
        f"{name}-eksRole-role",
        assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        description="Allows EKS to manage clusters on your behalf.",
        permissions_boundary=boundary.boundary_arn(account, boundary.EKS_BOUNDARY_NAME),
        opts=opts,
    )
    aws.iam.RolePolicyAttachment(
        f"{name}-eksRole-4b490823",
        role=role.name,
        policy_arn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy",
        opts=opts,
    )
    return role


def _declared_cluster(
    name: str, arguments: Mapping[str, Any], role: aws.iam.Role, opts: pulumi.ResourceOptions
) -> aws.eks.Cluster:
    return aws.eks.Cluster(
        f"{name}-eksCluster",
        name=arguments["name"],
        role_arn=role.arn,
        version=arguments["version"],
        access_config=aws.eks.ClusterAccessConfigArgs(
            authentication_mode="API", bootstrap_cluster_creator_admin_permissions=True
        ),
        bootstrap_self_managed_addons=True,
        enabled_cluster_log_types=arguments["enabled_cluster_log_types"],
        encryption_config=aws.eks.ClusterEncryptionConfigArgs(
            provider=aws.eks.ClusterEncryptionConfigProviderArgs(key_arn=arguments["encryption_config_key_arn"]),
            resources=["secrets"],
        ),
        upgrade_policy=arguments["upgrade_policy"],
        vpc_config=aws.eks.ClusterVpcConfigArgs(
            endpoint_private_access=arguments["endpoint_private_access"],
            endpoint_public_access=arguments["endpoint_public_access"],
            public_access_cidrs=arguments["public_access_cidrs"],
            subnet_ids=[*arguments["public_subnet_ids"], *arguments["private_subnet_ids"]],
        ),
        tags={"Name": f"{name}-eksCluster"},
        opts=opts,
    )


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute for a while."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def _say_nothing(*_: Any, **__: Any) -> None:
    """Leave out what the components tell a person who runs an update."""


def _no_cluster() -> NoReturn:
    raise NotImplementedError("only a hook would ask the cluster")


def recorded(stack: str, declare: Callable[[], None]) -> list[Declared]:
    """Return every resource that a function declares as a stack's program: nothing is made, and hooks don't run."""
    recorder = _Recorder()
    monitor = _Monitor(recorder, stack)
    pulumi.runtime.set_mocks(recorder, preview=False, project=PROJECT, stack=stack, monitor=monitor)
    with (
        replaced(pulumi.runtime.settings.SETTINGS, "callbacks", _Hooks()),
        replaced(pulumi.log, "warn", _say_nothing),
        replaced(pulumi.log, "info", _say_nothing),
    ):
        pulumi.runtime.test(declare)()  # type: ignore[no-untyped-call]
    declared = []
    for each in recorder.declared:
        protect, retain, parent = monitor.kept[each.key]
        is_guarded = each.pulumi_type in {*FINDERS, HELM_RELEASE}
        kept = replace(each, parent=parent, is_guarded=is_guarded, protect=protect, retain_on_delete=retain)
        declared.append(kept)
    return declared


def record_declared(
    settings: Settings, region: str, account: str, zone_ids: Mapping[str, str] | None = None
) -> list[Declared]:
    """Return every resource that an update of the prod stack declares, without the release and what confines previews.

    Args:
        settings: of the stack.
        region: of AWS.
        account: its number, or a text in place of it.
        zone_ids: name of a Route 53 zone → its id, as far as they are known.
    """
    with replaced(pulumi_eks, "Cluster", _eks_component(account)):
        return recorded(PRODUCTION_STACK, lambda: _declare(settings, region, account, zone_ids or {}))


def _declare(settings: Settings, region: str, account: str, zone_ids: Mapping[str, str]) -> None:
    """Declare as `infra.production.Production` does."""
    top = pulumi.ResourceOptions(parent=pulumi.ComponentResource("shopcat:index:Production", "shopcat"))
    scope = AwsScope(account, region, settings.cluster.name, settings.ledger_table, settings.registry.repository)
    clients = AwsClients(region)  # only hooks would use it
    existing = settings.cluster.existing
    Registry("registry", settings.registry, protect=settings.protection, opts=top)
    database = Database("database", settings, clients=clients, region=region, opts=top)
    network: Any
    security_group: pulumi.Input[str]
    if existing is None:
        network = Network(
            "shopcat",
            settings.vpc,
            cluster_name=settings.cluster.name,
            region=region,
            protect=settings.protection,
            opts=top,
        )
        own = cluster.Cluster(
            "shopcat",
            settings,
            boundary=boundary.boundary_arn(account, boundary.EKS_BOUNDARY_NAME),
            network=network,
            region=region,
            components=lambda _: None,
            opts=top,
        )
        security_group, control_plane_logs = own.security_group_id, own.control_plane_logs
    else:
        network, security_group = ExistingNetwork.of(existing), existing.security_group_id
        control_plane_logs = None
    addons = Addons(
        "addons",
        settings,
        scope=scope,
        kubernetes_api=_no_cluster,
        kubeconfig=pulumi.Output.from_input(kubeconfig(settings.cluster.name, "https://cluster.invalid", "", region)),
        vpc_id=network.vpc_id,
        depends_on=[],
        opts=top,
    )
    names = dns.dns_names(settings, LOAD_BALANCER) if settings.dns == "route53" else []
    balancers = LoadBalancers(
        "edge",
        settings,
        zone_ids={name.balancer: zone_ids.get(name.zone, UNKNOWN) for name in names},
        network=network,
        cluster_security_group_id=security_group,
        opts=top,
    )
    if settings.monitoring:
        Monitoring(
            "monitoring",
            settings,
            scope=scope,
            watched=WatchedResources.of(balancers),
            control_plane_logs=control_plane_logs,
            opts=top,
        )
        if settings.monitoring.logs:
            LogShipper("logs", settings, settings.monitoring.logs, scope=scope, depends_on=[], opts=top)
    database.declare(
        operator=addons.operator,
        vpc_id=network.vpc_id,
        subnet_ids=list(network.private_subnet_ids),
        cluster_security_group_id=security_group,
        cluster=kubernetes.Provider("kubernetes"),
        depends_on=[],
    )
    GithubRoles(
        "identity",
        settings.github,
        scope=scope,
        listener_arn=balancers.previews.listener.arn,
        in_our_cluster=existing is None,
        is_monitored=settings.monitoring is not None,
        depends_on=[],
        opts=top,
    )
