"""The program's settings, typed. What is wrong with them comes out as one message that lists everything, each with its fix.

Keys are camelCase in the stack's file, under the namespace ``shopcat:``; nested settings are maps.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from infra import capacity
from infra.drain import DrainBudget, DrainError, DrainInputs, DrainOverrides
from infra.errors import Refused
from infra.record import check_tag

_HOSTNAME = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9./:_-]*@sha256:[0-9a-f]{64}")
_QUANTITY = re.compile(r"(?P<number>[0-9]+)(?P<unit>m|Mi|Gi)?")

MAX_CONNECTIONS = {"db.t4g.micro": 112, "db.t4g.small": 225, "db.t4g.medium": 450}
"""Connections that RDS for PostgreSQL allows: LEAST(DBInstanceClassMemory / 9531392, 5000), with the class's whole
memory; what RDS keeps for itself takes some of it, so this is an upper bound.
Source: docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Limits.html."""

INTERFACE_ENDPOINT_MONTHLY_USD = 7.3
"""One interface endpoint in one zone: 0.01 USD an hour times 730 hours (aws.amazon.com/privatelink/pricing, us-east-1)."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


def _cidr(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is not a network such as 203.0.113.0/24 ({error})") from error


def _url(value: str) -> str:
    if not re.match(r"https?://[^/\s]+", value):
        raise ValueError(f"{value!r} is not a URL such as https://charts.example.com")
    return value


def _image(value: str) -> str:
    if not _IMAGE.fullmatch(value):
        raise ValueError(f"{value!r} is not an image by digest; write <registry>/<name>@sha256:<64 hex digits>")
    return value


class Vpc(_Model):
    """The network."""

    cidr: str = "10.64.0.0/16"
    zones: Annotated[tuple[Annotated[str, Field(pattern="^[a-z]$")], ...], Field(min_length=2, max_length=2)] = (
        "a",
        "b",
    )
    """Letters of two availability zones of the region. Not asked for at each update: a zone that AWS stops listing would
    move the subnets, and with them everything."""
    nat_gateways: Annotated[int, Field(ge=1, le=2)] = 1
    """1: cheap, and one zone's outage stops what pods call outside. 2: one in each zone."""
    interface_endpoints: bool = False
    """ECR, STS, logs, Secrets Manager by PrivateLink: five endpoints in two zones, about 73 USD a month."""

    @field_validator("zones")
    @classmethod
    def _differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("two different zones are needed")
        return value

    @field_validator("cidr")
    @classmethod
    def _check(cls, value: str) -> str:
        network = ipaddress.ip_network(_cidr(value))
        if not 16 <= network.prefixlen <= 20:
            raise ValueError(f"{value}: a network between /16 and /20 is needed (four subnets with room for pods)")
        return value


class ExistingCluster(_Model):
    """An EKS cluster with its network that somebody else keeps; then neither is made here."""

    kubeconfig: str
    """A secret: pulumi config set --secret --path shopcat:cluster.existing.kubeconfig."""
    vpc_id: str
    vpc_cidr: str
    public_subnet_ids: Annotated[tuple[str, ...], Field(min_length=2)]
    private_subnet_ids: Annotated[tuple[str, ...], Field(min_length=2)]
    security_group_id: str
    """The cluster's security group, which its nodes and pods are in."""
    nat_addresses: tuple[str, ...] = ()


class Cluster(_Model):
    """The EKS cluster, or an existing one."""

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

    @property
    def kubeconfig(self) -> str:
        """The existing cluster's; empty for our own, whose API is found through EKS."""
        return self.existing.kubeconfig if self.existing else ""

    @field_validator("addon_versions")
    @classmethod
    def _known(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        unknown = sorted(set(value) - {"vpc-cni", "coredns", "kube-proxy", "eks-pod-identity-agent"})
        if unknown:
            raise ValueError(f"no such managed add-on here: {', '.join(unknown)}")
        return value


class ChartMirror(_Model):
    """Where the add-ons' charts come from: their publishers, or a mirror."""

    load_balancer_controller: str = "https://aws.github.io/eks-charts"
    external_secrets: str = "https://charts.external-secrets.io"

    @field_validator("load_balancer_controller", "external_secrets")
    @classmethod
    def _is_url(cls, value: str) -> str:
        return _url(value)


class Charts(_Model):
    """Versions of the add-ons' charts."""

    load_balancer_controller: str
    external_secrets: str


class Images(_Model):
    """Tools that Jobs run, by digest."""

    database: Annotated[str, Field(description="psql")]
    smoke: Annotated[str, Field(description="curl")]

    _by_digest = field_validator("database", "smoke")(_image)


class Database(_Model):
    """RDS for PostgreSQL."""

    engine_version: str = "16"
    instance_class: Literal["db.t4g.micro", "db.t4g.small", "db.t4g.medium"] = "db.t4g.micro"
    storage_gibibytes: Annotated[int, Field(ge=20, le=1000)] = 20
    multi_zone: bool = False
    backup_retention_days: Annotated[int, Field(ge=1, le=35)] = 14
    pool_size: Annotated[int, Field(ge=1, le=50)] = 5
    """Connections of one pod."""

    @property
    def max_connections(self) -> int:
        """What the instance class allows."""
        return MAX_CONNECTIONS[self.instance_class]


class Drain(_Model):
    """What is known of the application and the load balancer, in seconds (infra/drain.py makes every timeout of it)."""

    app_drain: float = 60
    longest_request: float = 30
    propagation: float = 45
    controller_lag: float = 25
    app_keep_alive: float = 75
    margin: float = 10
    startup: float = 60
    health_interval: float = 5
    health_threshold: int = 2
    requeue: float = 5
    idle_timeout: float | None = None
    deregistration_delay: float | None = None
    settle: float | None = None
    progress_deadline: float | None = None
    pulumi_timeout: float | None = None

    @model_validator(mode="after")
    def _holds(self) -> Drain:
        try:
            _ = self.budget
        except DrainError as error:
            raise ValueError("\n".join(error.violations)) from error
        return self

    @property
    def budget(self) -> DrainBudget:
        """Every timeout of the chain.

        Raises:
            DrainError: the numbers contradict each other.
        """
        inputs = DrainInputs(
            app_drain_seconds=self.app_drain,
            longest_request_seconds=self.longest_request,
            propagation_seconds=self.propagation,
            controller_lag_seconds=self.controller_lag,
            app_keep_alive_seconds=self.app_keep_alive,
            margin_seconds=self.margin,
            startup_seconds=self.startup,
            health_interval_seconds=self.health_interval,
            health_threshold=self.health_threshold,
            requeue_seconds=self.requeue,
        )
        overrides = DrainOverrides(
            idle_timeout_seconds=self.idle_timeout,
            deregistration_delay_seconds=self.deregistration_delay,
            settle_seconds=self.settle,
            progress_deadline_seconds=self.progress_deadline,
            pulumi_timeout_seconds=self.pulumi_timeout,
        )
        return DrainBudget.derive(inputs, overrides)


class Release(_Model):
    """What the pods of a new release look like; a running one keeps its own record."""

    replicas: Annotated[int, Field(ge=1, le=20)] = 2
    cpu: str = "200m"
    memory: str = "384Mi"
    env: Mapping[str, str] = Field(default_factory=dict)
    """Plain values only; what is secret belongs in the application's secret in Secrets Manager."""
    migrate: tuple[str, ...] = ()
    contracts: bool = False

    @property
    def cpu_millicores(self) -> int:
        """CPU request of one pod."""
        match = _QUANTITY.fullmatch(self.cpu)
        assert match is not None  # noqa: S101 - checked below when the settings were read
        return int(match["number"]) * (1 if match["unit"] == "m" else 1000)

    @property
    def memory_mebibytes(self) -> int:
        """Memory request and limit of one pod."""
        match = _QUANTITY.fullmatch(self.memory)
        assert match is not None  # noqa: S101
        return int(match["number"]) * (1024 if match["unit"] == "Gi" else 1)

    @field_validator("cpu")
    @classmethod
    def _cpu(cls, value: str) -> str:
        match = _QUANTITY.fullmatch(value)
        if match is None or match["unit"] not in (None, "m"):
            raise ValueError(f"{value!r} is not a CPU quantity such as 200m or 1")
        return value

    @field_validator("memory")
    @classmethod
    def _memory(cls, value: str) -> str:
        match = _QUANTITY.fullmatch(value)
        if match is None or match["unit"] not in ("Mi", "Gi"):
            raise ValueError(f"{value!r} is not a memory quantity such as 384Mi or 1Gi")
        return value


class Github(_Model):
    """The repository whose workflows get roles; empty makes none."""

    repository: str = ""
    environment: str = "production"

    @field_validator("repository")
    @classmethod
    def _owner_and_name(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+", value):
            raise ValueError(f"{value!r} is not <owner>/<name>")
        return value


class Settings(_Model):
    """Everything of the production stack."""

    domain: str
    api_access: Literal["public", "cidrs", "private"]
    """Who reaches the Kubernetes API: public (IAM decides, anyone may knock), cidrs, or private (inside the VPC)."""
    charts: Charts
    images: Images
    api_access_cidrs: tuple[str, ...] = ()
    dns: Literal["route53", "external"] = "route53"
    hosted_zone: str = ""
    """Name of the Route 53 zone; empty takes `domain` itself."""
    admin_cidrs: tuple[str, ...] = ()
    """Networks whose header X-ShopCat-Colour chooses a colour, besides the cluster's own way out."""
    aws_endpoint: str | None = None
    """URL of every AWS API, for a private or simulated AWS; handed to every client and provider."""
    chart_mirror: ChartMirror = ChartMirror()
    ledger_table: str = "shopcat-releases"
    protection: bool = True
    """Guards what holds data or traffic against deletion; false, then one `up`, is the first step of taking all down."""
    vpc: Vpc = Vpc()
    cluster: Cluster = Cluster()
    database: Database = Database()
    drain: Drain = Drain()
    release: Release = Release()
    github: Github = Github()
    tag: str = ""
    abort: str = ""
    rollback: str = ""
    accept_unserved: str = ""

    @field_validator("domain")
    @classmethod
    def _domain(cls, value: str) -> str:
        if not _HOSTNAME.fullmatch(value):
            raise ValueError(f"{value!r} is not a host name such as shop.example.com")
        return value

    @field_validator("api_access_cidrs", "admin_cidrs")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_cidr(one) for one in value)

    @field_validator("aws_endpoint")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        return None if value is None else _url(value)

    @model_validator(mode="after")
    def _together(self) -> Settings:
        wrong = []
        if self.api_access == "cidrs" and not self.api_access_cidrs:
            wrong.append("apiAccess is cidrs, so apiAccessCidrs must name at least one network")
        if self.api_access != "cidrs" and self.api_access_cidrs:
            wrong.append(f"apiAccessCidrs says nothing while apiAccess is {self.api_access}; set apiAccess to cidrs")
        if sum(bool(one) for one in (self.tag, self.abort, self.rollback)) > 1:
            wrong.append("tag, abort and rollback: one of them at a time")
        try:
            capacity.plan(self.production)
        except capacity.CapacityError as error:
            wrong += str(error).splitlines()
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    @property
    def production(self) -> capacity.Production:
        """What decides the room a release needs."""
        return capacity.Production(
            replicas=self.release.replicas,
            pod=capacity.PodRequest(self.release.cpu_millicores, self.release.memory_mebibytes),
            database_pool_size=self.database.pool_size,
            database_max_connections=self.database.max_connections,
        )

    @property
    def zone(self) -> str:
        """Name of the Route 53 zone."""
        return self.hosted_zone or self.domain

    @property
    def url(self) -> str:
        """Where people find the shop."""
        return f"https://{self.domain}"


class PreviewImages(_Model):
    """Tools of a preview, by digest."""

    database: Annotated[str, Field(description="PostgreSQL")]

    _by_digest = field_validator("database")(_image)


class Preview(_Model):
    """Everything of a preview stack; what is not here is production's and comes by its contract."""

    tag: str
    """The image in the previews' repository: the commit's sha."""
    images: PreviewImages
    drain: Drain
    aws_endpoint: str | None = None
    database_pool_size: Annotated[int, Field(ge=1, le=20)] = 5
    env: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("tag")
    @classmethod
    def _tag(cls, value: str) -> str:
        try:
            return check_tag(value)
        except Refused as error:
            raise ValueError(str(error)) from error

    @field_validator("aws_endpoint")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        return None if value is None else _url(value)


_HELP = {
    "apiAccess": (
        "has no default: set it to public (anyone may connect, IAM decides; needed by hosted CI runners), cidrs (only "
        "apiAccessCidrs) or private (only from inside the VPC)"
    ),
    "domain": "set it to the host name of the shop, such as shop.example.com",
    "tag": "name the image in shopcat-preview, such as `pulumi up -s pr-<n> -c shopcat:tag=<sha>`",
}


def _lines(error: ValidationError) -> list[str]:
    found = []
    for one in error.errors(include_url=False):
        path = ".".join(to_camel(part) if isinstance(part, str) else str(part) for part in one["loc"])
        name = f"shopcat:{path}" if path else ""
        if one["type"] == "extra_forbidden":
            found.append(f"{name}: unknown setting; see infra/settings.py for what there is, or remove it")
        elif one["type"] == "missing":
            found.append(f"{name}: missing; {_HELP.get(path, 'set it in the stack file')}")
        elif one["type"] == "value_error":
            text = str(one["ctx"]["error"])
            found += [f"{name}: {line}" if name else f"shopcat:{line}" for line in text.splitlines()]
        else:
            found.append(f"{name}: {one['msg']} (found {one['input']!r}){_after(path)}")
    return found


def _after(path: str) -> str:
    return f"; {_HELP[path]}" if path in _HELP else ""


def read(values: Mapping[str, Any]) -> Settings:
    """Settings from a stack's values, camelCase, without their namespace.

    Raises:
        Refused: one message with a line for everything that is wrong.
    """
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise _refusal(_lines(error)) from error


def read_preview(path: Path, stack: Mapping[str, Any]) -> tuple[str, Preview]:
    """Region and settings of a preview: the file's, and above them the stack's own, setting by setting.

    Args:
        path: Pulumi.pr.yaml.
        stack: the stack's own configuration, keys with their namespace.

    Raises:
        Refused: one message with a line for everything that is wrong.
    """
    try:
        committed = yaml.safe_load(path.read_text())["config"] or {}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise Refused(f"{path.name}: expected a file with `config:` beside Pulumi.yaml ({error})") from error
    values = {**committed, **stack}
    region = str(values.pop("aws:region", ""))
    lines = [] if region else ["aws:region: missing; set it in Pulumi.pr.yaml to the region of the cluster"]
    ours = {key.partition(":")[2]: value for key, value in values.items() if key.startswith("shopcat:")}
    lines += [
        f"{key}: unknown setting of a preview; remove it"
        for key in sorted(values)
        if not key.startswith(("shopcat:", "pulumi:"))
    ]
    try:
        given = Preview.model_validate(ours)
    except ValidationError as error:
        raise _refusal([*lines, *_lines(error)]) from error
    if lines:
        raise _refusal(lines)
    return region, given


def _refusal(lines: list[str]) -> Refused:
    return Refused("settings can't be used:\n" + "\n".join(f"  - {line}" for line in lines))
