"""Settings of what a release stands on: network, cluster, add-ons, tools and database."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from infra.settings.values import PRIVATE_NETWORKS, Model, Switch, Whole, network

MAX_CONNECTIONS = {"db.t4g.micro": 112, "db.t4g.small": 225, "db.t4g.medium": 450}
"""Connections that RDS for PostgreSQL allows: LEAST(DBInstanceClassMemory / 9531392, 5000), with the class's whole
memory; what RDS keeps for itself takes some of it, so this is an upper bound.
Source: docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Limits.html."""


class Vpc(Model):
    """The network."""

    section = "vpc."

    cidr: str = "10.64.0.0/16"
    zones: Annotated[tuple[Annotated[str, Field(pattern="^[a-z]$")], ...], Field(min_length=2, max_length=2)] = (
        "a",
        "b",
    )
    """Letters of two availability zones of the region. Not asked for at each update: a zone that AWS stops listing would
    move the subnets, and with them everything."""
    nat_gateways: Whole = 1
    """1: cheap, and one zone's outage stops what pods call outside. 2: one in each zone."""
    interface_endpoints: Switch = False
    """ECR, STS, logs, Secrets Manager by PrivateLink: five endpoints in two zones (docs/cost.md has what that costs)."""

    @field_validator("zones")
    @classmethod
    def _differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("two different zones are needed")
        return value

    @field_validator("cidr")
    @classmethod
    def _check(cls, value: str) -> str:
        cidr = network(value)
        if not 16 <= cidr.prefixlen <= 20:
            raise ValueError(f"{value}: a network between /16 and /20 is needed (six subnets with room for pods)")
        if not any(cidr.subnet_of(private) for private in PRIVATE_NETWORKS):
            raise ValueError(f"{value} is not private; take one of {', '.join(map(str, PRIVATE_NETWORKS))}")
        return value


class ExistingCluster(Model):
    """An EKS cluster with its network that somebody else keeps; then neither is made here."""

    section = "cluster.existing."

    kubeconfig: str
    """Pulumi's provider signs in with it. A secret: pulumi config set --secret --path shopcat:cluster.existing.kubeconfig.

    The program's own reads find the cluster by `cluster.name` and sign in with the AWS credentials at hand."""
    vpc_id: str
    vpc_cidr: str
    public_subnet_ids: Annotated[tuple[str, ...], Field(min_length=2)]
    """Subnets of production's load balancer; production's pods take requests from their addresses."""
    preview_subnet_ids: Annotated[tuple[str, ...], Field(min_length=2)]
    """Subnets of the previews' load balancer; others than production's, so that addresses tell the two apart."""
    private_subnet_ids: Annotated[tuple[str, ...], Field(min_length=2)]
    security_group_id: str
    """The cluster's security group, which its nodes and pods are in."""
    nat_addresses: tuple[str, ...] = ()
    """Addresses that the cluster's own requests come from; each is a value of a listener rule."""
    old_images: tuple[str, ...] = ()
    """Images of pods that served in the namespace `shopcat` before this program did, as those pods name them. While any is
    named, such pods may start again there: the namespace asks for no pod security, and its NetworkPolicy leaves them alone."""

    @model_validator(mode="after")
    def _are_apart(self) -> ExistingCluster:
        shared = sorted({*self.public_subnet_ids, *self.private_subnet_ids} & {*self.preview_subnet_ids})
        if shared:
            raise ValueError(
                f"previewSubnetIds: {', '.join(shared)} is production's too; name subnets that the previews' load balancer has "
                "for itself"
            )
        return self

    @field_validator("vpc_cidr")
    @classmethod
    def _is_network(cls, value: str) -> str:
        return str(network(value))

    @field_validator("nat_addresses")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(ipaddress.IPv4Address(address)) for address in value)
        except ValueError as error:
            raise ValueError(f"{error}; expected addresses such as 203.0.113.7") from error


class ClusterSettings(Model):
    """The EKS cluster, or an existing one."""

    section = "cluster."

    name: str = "shopcat"
    kubernetes_version: str = "1.35"
    support_type: Literal["EXTENDED", "STANDARD"] = "EXTENDED"
    """At the end of a version's standard support (14 months) EXTENDED costs 0.50 USD an hour more, and STANDARD lets AWS
    move the cluster to the next version by itself, which production's settings then contradict (aws.amazon.com/eks/pricing)."""
    ami_release_version: str = ""
    """Pins the nodes' AMI; empty takes the newest at the first `up`."""
    log_retention_days: Literal[7, 14, 30, 60, 90, 180, 365] = 30
    addon_versions: Mapping[str, str] = Field(default_factory=dict)
    """Version of each managed add-on: vpc-cni, coredns, kube-proxy, eks-pod-identity-agent."""
    administrators: tuple[str, ...] = ()
    """ARNs of IAM roles that administer the cluster, besides whoever makes it."""
    existing: ExistingCluster | None = None

    @field_validator("addon_versions")
    @classmethod
    def _known(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        unknown = sorted(set(value) - {"vpc-cni", "coredns", "kube-proxy", "eks-pod-identity-agent"})
        if unknown:
            raise ValueError(f"no such managed add-on here: {', '.join(map(repr, unknown))}")
        return value

    @model_validator(mode="after")
    def _ami_fits(self) -> ClusterSettings:
        if self.ami_release_version and not self.ami_release_version.startswith(f"{self.kubernetes_version}."):
            raise ValueError(
                f"amiReleaseVersion {self.ami_release_version} is not of kubernetesVersion {self.kubernetes_version}; "
                "change both together"
            )
        return self


class ChartMirror(Model):
    """Sources of the add-ons' charts: their publishers, or a mirror."""

    section = "chartMirror."

    load_balancer_controller: str = "https://aws.github.io/eks-charts"
    external_secrets: str = "https://charts.external-secrets.io"


class Charts(Model):
    """Versions of the add-ons' charts."""

    section = "charts."

    load_balancer_controller: str
    external_secrets: str


class ChartDigests(Model):
    """Checksums of the add-ons' charts: the SHA-256 of each archive, at the version in `charts`."""

    section = "chartDigests."

    load_balancer_controller: str
    external_secrets: str


class Images(Model):
    """Tools that Jobs run, and the add-ons' own images, by digest."""

    section = "images."

    database: Annotated[str, Field(description="psql")]
    smoke: Annotated[str, Field(description="curl")]
    load_balancer_controller: Annotated[str, Field(description="of the chart aws-load-balancer-controller")]
    external_secrets: Annotated[str, Field(description="of the chart external-secrets")]


class DatabaseSettings(Model):
    """RDS for PostgreSQL."""

    section = "database."

    engine_version: str = "16"
    instance_class: Literal["db.t4g.micro", "db.t4g.small", "db.t4g.medium"] = "db.t4g.micro"
    storage_gibibytes: Whole = 20
    multi_zone: Switch = False
    backup_retention_days: Whole = 14
    pool_size: Whole = 5
    """Connections of one pod."""

    @property
    def max_connections(self) -> int:
        """Return how many connections the instance class allows."""
        return MAX_CONNECTIONS[self.instance_class]
