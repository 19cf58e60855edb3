"""The program's settings, typed. One message lists everything that is wrong with them, each with its fix.

Keys are camelCase in the stack's file, under the namespace ``shopcat:``; nested settings are maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from infra import capacity
from infra.errors import SettingsError, ShopCatError
from infra.settings import domains, stack_file
from infra.settings.environment import wrong_command
from infra.settings.limits import REGION, RULE_CONDITION_VALUES
from infra.settings.monitoring import MonitoringSettings
from infra.settings.platform import (
    ChartDigests,
    ChartMirror,
    Charts,
    ClusterSettings,
    DatabaseSettings,
    Images,
    RegistrySettings,
    Vpc,
)
from infra.settings.values import (
    CheckedEnvironment,
    Model,
    Seconds,
    Switch,
    Whole,
    checked_tag,
    is_reserved,
    lines_of,
    name_of,
    network,
    settings_refusal,
)
from infra.timeouts import DrainBudget, DrainError, DrainInputs, DrainOverrides


class DrainSettings(Model):
    """Measured times of the application and the load balancer, in seconds (infra/timeouts.py derives every timeout)."""

    section = "drain."

    app_drain: Seconds = 60
    longest_request: Seconds = 30
    propagation: Seconds = 45
    controller_lag: Seconds = 25
    app_keep_alive: Seconds = 75
    margin: Seconds = 10
    startup: Seconds = 60
    health_interval: Seconds = 5
    health_threshold: Whole = 2
    requeue: Seconds = 5
    idle_timeout: Seconds | None = None
    deregistration_delay: Seconds | None = None
    settle: Seconds | None = None
    progress_deadline: Seconds | None = None
    pulumi_timeout: Seconds | None = None

    @model_validator(mode="after")
    def _holds(self) -> DrainSettings:
        try:
            _ = self.budget
        except DrainError as error:
            raise ValueError("\n".join(error.violations)) from error
        return self

    @property
    def budget(self) -> DrainBudget:
        """Return every timeout of the chain.

        Raises:
            DrainError: the numbers contradict each other.
        """

        def of(kind: type[DrainInputs | DrainOverrides]) -> dict[str, Any]:
            return {each.name: getattr(self, each.name.removesuffix("_seconds")) for each in fields(kind)}

        return DrainBudget.derive(DrainInputs(**of(DrainInputs)), DrainOverrides(**of(DrainOverrides)))


class ReleaseSettings(Model):
    """Pods of a new release; a running one keeps its own record."""

    section = "release."

    replicas: Whole = 2
    cpu: str = "200m"
    memory: str = "384Mi"
    env: CheckedEnvironment = Field(default_factory=dict)
    migrate: tuple[str, ...] = ()
    """Command of the migration, run once in the new image before its pods start."""
    migrate_memory: str = ""
    """Memory of the migration's pod, which needs what the application needs to start; empty takes `memory`."""
    migrate_deadline: Whole = 300
    """Seconds until a migration that has not ended is stopped, and the release with it."""
    contracts: Switch = False

    @property
    def pod(self) -> capacity.PodRequest:
        """Return the requests of one pod."""
        disk = capacity.APPLICATION_DISK_MEBIBYTES
        return capacity.PodRequest(_millicores(self.cpu), _mebibytes(self.memory), disk)

    @property
    def migration(self) -> capacity.PodRequest | None:
        """Return the requests of the migration's pod, if there is one."""
        memory = self.migrate_memory or self.memory
        return replace(self.pod, memory_mebibytes=_mebibytes(memory)) if self.migrate else None

    @model_validator(mode="after")
    def _command(self) -> ReleaseSettings:
        lines = [f"migrate: {line}" for line in wrong_command(self.migrate, self.env)]
        if self.migrate_memory and not self.migrate:
            lines.append("migrateMemory says nothing without migrate; set migrate, or remove it")
        if lines:
            raise ValueError("\n".join(lines))
        return self


def _millicores(quantity: str) -> int:
    return int(quantity.removesuffix("m")) * (1 if quantity.endswith("m") else 1000)


def _mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * (1024 if quantity.endswith("Gi") else 1)


class GithubSettings(Model):
    """The repository whose workflows get roles; empty makes none."""

    section = "github."

    repository: str = ""
    environment: str = "production"
    updates_platform: Switch = False
    """Let the release role also make ordinary updates of the platform (infra/access/release_role.py): versions of cluster, nodes
    and add-ons, drain times, health checks. What changes who may do what, or holds data, is an administrator's either way."""
    unprotected_main: Switch = False
    """Release although nobody has to review what reaches main (pipeline/protection.py); each release says so."""


class Settings(Model):
    """Settings of the production stack."""

    domain: str
    preview_domain: str
    """Previews answer as pr-<n>.<preview_domain>, so pull requests' code does. No default: infra/settings/domains.py says why."""
    api_access: Literal["public", "cidrs", "private"]
    """Reach of the Kubernetes API: public (IAM decides, anyone may knock), cidrs, or private (inside the VPC)."""
    charts: Charts
    chart_digests: ChartDigests
    images: Images
    api_access_cidrs: tuple[str, ...] = ()
    dns: Literal["route53", "external"] = "route53"
    hosted_zone: str = ""
    """Name of the Route 53 zone; empty takes `domain` itself."""
    domain_aliases: tuple[str, ...] = ()
    """Other names of the shop, such as www.shop.example.com: they are in its certificate and in its zone. Another list is another
    certificate, which the load balancer takes once it is issued; the former one goes last."""
    preview_hosted_zone: str = ""
    """Name of the previews' Route 53 zone; empty takes the shop's if `preview_domain` lies in it, else that itself."""
    preview_domain_shared: Switch = False
    """Accepts that previews share the shop's site; each update says so."""
    admin_cidrs: tuple[str, ...] = ()
    """Networks whose header X-ShopCat-Colour chooses a colour, besides the cluster's own way out."""
    aws_endpoint: str | None = None
    """URL of every AWS API, for a private or simulated AWS; handed to every client and provider."""
    chart_mirror: ChartMirror = ChartMirror()
    ledger_table: str = "shopcat-releases"
    keep_former: Switch = False
    """Keep the former release's pods, without weight, until the next release begins: a rollback to it starts no pods. The next
    release waits until they are gone. Two alarms follow it, so an administrator turns it on."""
    protection: Switch = True
    """Guards what holds data or traffic against deletion; false, then one `up`, is the first step of taking all down."""
    vpc: Vpc = Vpc()
    cluster: ClusterSettings = ClusterSettings()
    registry: RegistrySettings = RegistrySettings()
    database: DatabaseSettings = DatabaseSettings()
    drain: DrainSettings = DrainSettings()
    release: ReleaseSettings = ReleaseSettings()
    github: GithubSettings = GithubSettings()
    monitoring: MonitoringSettings | None = None
    tag: str = ""
    abort: str = ""
    rollback: str = ""
    rotate: str = ""
    """Name of the live release, such as v1.4.0-r1: its pods start anew in the other colour, with a new database password."""
    accept_unserved: str = ""
    hold_traffic: Switch = False
    """A release stops once it has passed every check, before any traffic moves. For one run, as `tag` is; the next goes on or
    aborts."""
    rebuild_state: Switch = False
    """The state is lost: import what is there (infra/foundation/state_rebuild.py). For one run, which releases nothing."""

    @field_validator("api_access_cidrs", "admin_cidrs")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a network is there twice")
        return tuple(str(network(each)) for each in value)

    @field_validator("tag")
    @classmethod
    def _tag(cls, value: str) -> str:
        return checked_tag(value) if value else value

    @model_validator(mode="after")
    def _together(self) -> Settings:
        wrong = [*self._wrong_access(), *self._wrong_names()]
        if sum(bool(each) for each in (self.tag, self.abort, self.rollback, self.rotate)) > 1:
            wrong.append("tag, abort, rollback and rotate: one of them at a time")
        if self.rebuild_state and (self.tag or self.abort or self.rollback or self.rotate):
            wrong.append(
                "rebuildState releases nothing; remove tag, abort, rollback and rotate until the state is whole"
            )
        if self.is_logging and self.aws_endpoint:
            wrong.append(
                "monitoring.logs: what sends the logs reaches AWS's own CloudWatch alone; remove it where awsEndpoint is set"
            )
        try:
            capacity.plan(self.production)
        except capacity.CapacityError as error:
            wrong += [f"release: {line}" for line in error.shortages]
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def _wrong_access(self) -> list[str]:
        """List why requests could not reach the Kubernetes API, or choose a colour, as it is set."""
        wrong = []
        if self.api_access == "cidrs" and not self.api_access_cidrs:
            wrong.append("apiAccess is cidrs, so apiAccessCidrs must name at least one network")
        if self.api_access != "cidrs" and self.api_access_cidrs:
            wrong.append(f"apiAccessCidrs says nothing while apiAccess is {self.api_access}; set apiAccess to cidrs")
        reserved = [text for text in self.api_access_cidrs if is_reserved(text)]
        if self.api_access == "cidrs" and reserved:
            wrong.append(
                f"apiAccessCidrs: {', '.join(reserved)}: EKS takes no reserved addresses "
                "(docs.aws.amazon.com/eks/latest/userguide/config-cluster-endpoint.html); name the public ones behind them"
            )
        existing = self.cluster.existing
        nat_count = len(existing.nat_addresses) if existing else self.vpc.nat_gateways
        if nat_count + len(self.admin_cidrs) + 1 > RULE_CONDITION_VALUES:
            wrong.append(
                f"adminCidrs: {len(self.admin_cidrs)} networks, {nat_count} addresses of the cluster's own and the colour are "
                f"{nat_count + len(self.admin_cidrs) + 1} values of one listener rule, an ALB takes {RULE_CONDITION_VALUES} "
                "(docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html); "
                f"leave {max(RULE_CONDITION_VALUES - 1 - nat_count, 0)} in adminCidrs"
            )
        if nat_count + len(self.admin_cidrs) == 0:
            wrong.append(
                "adminCidrs: a listener rule needs one source; name one here or in cluster.existing.natAddresses"
            )
        return wrong

    def _wrong_names(self) -> list[str]:
        """List why a domain can't have its records in its zone, or previews can't answer below theirs."""
        wrong = [
            f"{setting}: {domain} does not lie in {zone.rstrip('.')}; name the zone that it lies in, or set dns to external"
            for setting, domain, zone in (
                ("hostedZone", self.domain, self.zone),
                ("previewHostedZone", self.preview_domain, self.preview_zone),
            )
            if self.dns == "route53" and not _lies_in(domain, zone)
        ]
        shared = domains.domain_refusal(self.hosts, self.preview_domain, accepted=self.preview_domain_shared)
        return [*wrong, *([shared] if shared else []), *self._wrong_aliases()]

    def _wrong_aliases(self) -> Iterator[str]:
        """Yield why a name can't be another one of the shop's."""
        for alias in self.domain_aliases:
            if alias == self.domain:
                yield f"domainAliases: {alias} is domain itself, which has its records already; remove it from the list"
            elif self.dns == "route53" and not _lies_in(alias, self.zone):
                yield (
                    f"domainAliases: {alias} does not lie in {self.zone.rstrip('.')}; name the zone of all names in hostedZone, "
                    "or set dns to external"
                )

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return every name of the shop, its own first."""
        return (self.domain, *self.domain_aliases)

    @property
    def production(self) -> capacity.ProductionDemand:
        """Return what decides how much room a release needs."""
        existing = self.cluster.existing
        return capacity.ProductionDemand(
            node=existing.nodes.shape if existing else capacity.T3_MEDIUM,
            nodes=existing.nodes.count if existing else capacity.NODES,
            replicas=self.release.replicas,
            pod=self.release.pod,
            migration=self.release.migration,
            database_pool_size=self.database.pool_size,
            database_max_connections=self.database.max_connections,
            platform=(*capacity.PLATFORM, capacity.LOG_SHIPPER) if self.is_logging else capacity.PLATFORM,
        )

    @property
    def is_logging(self) -> bool:
        """Tell whether pods' logs go to CloudWatch."""
        return self.monitoring is not None and self.monitoring.logs is not None

    @property
    def zone(self) -> str:
        """Return the name of the Route 53 zone."""
        return self.hosted_zone or self.domain

    @property
    def preview_zone(self) -> str:
        """Return the name of the Route 53 zone that the previews' name goes into."""
        return self.preview_hosted_zone or (
            self.zone if _lies_in(self.preview_domain, self.zone) else self.preview_domain
        )

    @property
    def url(self) -> str:
        """Return the URL of the shop."""
        return f"https://{self.domain}"


def _lies_in(domain: str, zone: str) -> bool:
    return f".{domain}".endswith(f".{zone.rstrip('.')}")


class PreviewImages(Model):
    """Tools of a preview, by digest."""

    section = "images."

    database: Annotated[str, Field(description="PostgreSQL")]


class PreviewSettings(Model):
    """Settings of a preview stack; what is not here is production's and comes by its contract."""

    tag: str
    """The image in the previews' repository: the commit's sha."""
    images: PreviewImages
    drain: DrainSettings
    aws_endpoint: str | None = None
    database_pool_size: Whole = 5
    env: CheckedEnvironment = Field(default_factory=dict)

    @field_validator("tag")
    @classmethod
    def _tag(cls, value: str) -> str:
        return checked_tag(value)


def read_settings(values: Mapping[str, Any]) -> Settings:
    """Return the settings from a stack's values, camelCase, without their namespace.

    Raises:
        ShopCatError: one message with a line for everything that is wrong.
    """
    try:
        return Settings.model_validate(dict(values), by_alias=True, by_name=False)
    except ValidationError as error:
        raise settings_refusal(lines_of(error)) from error


def read_stack(path: Path) -> tuple[str, Settings]:
    """Return region and settings in a stack's file, without the engine: what it encrypts stays hidden.

    Raises:
        ShopCatError: the file can't be read, or one message with a line for everything that is wrong.
    """
    values = stack_file.handed_over(stack_file.without_secrets(stack_file.read_stack_file(path)["config"]))
    region = check_region(values.get("aws:region"), path.name)
    return region, read_settings(
        {key.partition(":")[2]: value for key, value in values.items() if key.startswith("shopcat:")}
    )


def check_region(value: Any, where: str) -> str:
    """Return the region, if it is one.

    Raises:
        ShopCatError: it is not set, or no region's name.
    """
    wrong = REGION.wrong(value) if isinstance(value, str) and value else "missing"
    if wrong:
        raise SettingsError(
            f"aws:region: {wrong}; set it in {where} to the region of the cluster, such as eu-central-1"
        )
    return str(value)


def read_preview(path: Path, stack: Mapping[str, Any]) -> tuple[str, PreviewSettings]:
    """Return region and settings of a preview: the file's, and above them the stack's own, setting by setting.

    Args:
        path: Pulumi.pr.yaml.
        stack: the stack's own configuration, keys with their namespace.

    Raises:
        ShopCatError: one message with a line for everything that is wrong.
    """
    values = {**stack_file.handed_over(stack_file.read_stack_file(path)["config"]), **stack}
    lines = []
    region = ""
    try:
        region = check_region(values.pop("aws:region", None), path.name)
    except ShopCatError as error:
        lines.append(str(error))
    ours = {key.partition(":")[2]: value for key, value in values.items() if key.startswith("shopcat:")}
    lines += [
        f"{name_of((key,))}: unknown setting of a preview; remove it"
        for key in sorted(values)
        if not key.startswith(("shopcat:", "pulumi:"))
    ]
    try:
        preview = PreviewSettings.model_validate(ours, by_alias=True, by_name=False)
    except ValidationError as error:
        raise settings_refusal([*lines, *lines_of(error)]) from error
    if lines:
        raise settings_refusal(lines)
    return region, preview
