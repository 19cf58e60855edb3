"""Settings of what a release stands on: network, cluster, add-ons, tools, repository and database."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from infra import capacity
from infra.names import COLOURS, DATABASE_PORT, PREVIEW_REPOSITORY, RELEASE_REPOSITORY, RESTORED_SNAPSHOT, login_role
from infra.settings.values import PRIVATE_NETWORKS, Model, Switch, Whole, network

_CLASS_MULTIPLES = {"large": 1, "xlarge": 2, "2xlarge": 4, "4xlarge": 8, "8xlarge": 16, "12xlarge": 24, "16xlarge": 32}
_CLASS_GIBIBYTES = {
    **{
        f"db.{family}.{size}": gibibytes
        for family in ("t3", "t4g")
        for size, gibibytes in (
            ("micro", 1),
            ("small", 2),
            ("medium", 4),
            ("large", 8),
            ("xlarge", 16),
            ("2xlarge", 32),
        )
    },
    **{
        f"db.{family}.{size}": least * times
        for families, least in (
            (("m5", "m6g", "m6i", "m7g", "m7i", "m8g"), 8),
            (("r5", "r6g", "r6i", "r7g", "r7i", "r8g"), 16),
        )
        for family in families
        for size, times in _CLASS_MULTIPLES.items()
    },
}
"""Memory of each instance class (docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Concepts.DBInstanceClass.Summary.html)."""
MAX_CONNECTIONS = {name: min((gibibytes << 30) // 9_531_392, 5000) for name, gibibytes in _CLASS_GIBIBYTES.items()}
"""Connections that RDS for PostgreSQL allows: LEAST(DBInstanceClassMemory / 9531392, 5000), with the class's whole
memory; what RDS keeps for itself takes some of it, so this is an upper bound. A parameter group may say less.
Source: docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Limits.html."""
LONGEST_RESTORED_NAME = 46
"""Longest name of an instance that is part of a secret version's id: an id has 64 characters, some of them its own
(infra/foundation/secret_versions.py)."""
DEFAULT_MASTER = "shopcat_admin"
"""Master user of a database that this program makes."""
LARGEST_STORAGE_GIBIBYTES = 65_536
"""docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Storage.html, gp2, gp3, io1 and io2 for PostgreSQL."""
GP3_IOPS_GIBIBYTES = 400
"""Storage from which on gp3 takes IOPS of one's own choice (the same page, "gp3 storage", RDS for PostgreSQL)."""

SHORTEST_WINDOW_MINUTES = 30
"""docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_ModifyDBInstance.html, PreferredMaintenanceWindow."""
_WEEK = 7 * 24 * 60
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
RESERVED_PARAMETERS = {
    "rds.force_ssl": "set by this program, so that no connection goes without TLS",
    "max_connections": "what the capacity plan takes from the instance class",
}
"""Parameter that is no setting → why."""


def window_minutes(window: str) -> int:
    """Return how many minutes a maintenance window such as sun:23:45-mon:00:15 has; one that ends where it begins has none."""
    start, end = window_span(window)
    return end - start


def window_span(window: str) -> tuple[int, int]:
    """Return the begin and the end of a maintenance window, in minutes since Monday 00:00 UTC.

    The end of one that goes past the week's end is larger than the week.
    """
    start, end = (
        (_DAYS.index(day) * 24 + int(hour)) * 60 + int(minute)
        for day, hour, minute in (moment.split(":") for moment in window.split("-"))
    )
    return start, end if end >= start else end + _WEEK


DEFAULT_DISK_GIBIBYTES = 20
"""Disk of a node whose node group and launch template say nothing of it
(docs.aws.amazon.com/eks/latest/APIReference/API_CreateNodegroup.html, diskSize)."""


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


class ExistingNodes(Model):
    """Nodes of a cluster that somebody else keeps: all of one type, and one at a time away for an update."""

    section = "cluster.existing.nodes."

    instance_type: str = capacity.T3_MEDIUM.name
    count: Whole = capacity.NODES
    """Number that is always there: the least that an autoscaler leaves."""
    disk_gibibytes: Whole = DEFAULT_DISK_GIBIBYTES

    @field_validator("instance_type")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in capacity.NODE_SHAPES:
            raise ValueError(
                f"{value[:40]!r} is none whose room is known (infra/capacity.py); use {', '.join(capacity.NODE_SHAPES)}"
            )
        return value

    @property
    def shape(self) -> capacity.NodeShape:
        """Return what pods may use on one of them."""
        return capacity.known_shape(self.instance_type, self.disk_gibibytes)


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
    nodes: ExistingNodes = ExistingNodes()
    """Nodes that the release and the previews have to fit on; what else runs on them is not counted."""

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


class RegistrySettings(Model):
    """The repository of releases.

    AWS can change neither setting of one that is there, and its protection refuses a replacement. So they are for one that
    was there before this program (docs/takeover.md).
    """

    section = "registry."

    repository: str = RELEASE_REPOSITORY
    kms_key: str = ""
    """ARN of the KMS key that encrypts it; empty is AES256, with a key of Amazon ECR's own."""

    @field_validator("repository")
    @classmethod
    def _is_not_the_previews(cls, value: str) -> str:
        if value == PREVIEW_REPOSITORY:
            raise ValueError(f"{value} is the previews', which a pull request writes; name another")
        return value


MOMENT = "%Y-%m-%dT%H:%M:%SZ"


def read_moment(text: str) -> datetime:
    """Return a moment that is written in UTC and whole seconds, with all its digits.

    Raises:
        ValueError: it is written otherwise, or there is no such moment.
    """
    try:
        moment = datetime.strptime(text, MOMENT).replace(tzinfo=UTC)
    except ValueError:
        moment = None
    # strptime takes one digit in place of two, and those of other scripts.
    if moment is None or f"{moment:{MOMENT}}" != text:
        raise ValueError(f"{text[:40]!r} is no moment such as 2026-11-29T10:00:00Z, in UTC")
    return moment


class Restore(Model):
    """A second instance, as the database was at a moment (docs/restore.md)."""

    section = "database.restore."

    at: str
    """The moment, in UTC and whole seconds: "2026-11-29T10:00:00Z". RDS keeps `backupRetentionDays`, up to five minutes ago
    (`aws rds describe-db-instances`, LatestRestorableTime)."""
    identifier: str = ""
    """Name of the second instance; empty is the first one's with `-restored` behind it."""
    serves: Switch = False
    """Releases from now on use the second instance. Those that serve stay with the one that they began with; a release of the
    same tag moves the application over."""

    @field_validator("at")
    @classmethod
    def _is_moment(cls, value: str) -> str:
        read_moment(value)
        return value

    @property
    def last_snapshot(self) -> str:
        """Return the name of the snapshot that the second instance leaves when it goes."""
        return f"{RESTORED_SNAPSHOT}{read_moment(self.at):%Y%m%d%H%M%S}"


class DatabaseSettings(Model):
    """RDS for PostgreSQL: one that this program makes, or one that is there and is imported (docs/takeover.md).

    Each default is what this program makes. For a database that is there, every setting has to say what it has: with another
    `dbName`, `username`, `encrypted` or `kmsKeyArn` it would be replaced, with another `identifier` renamed or replaced, and
    what else differs is changed while it runs.
    """

    section = "database."

    engine_version: str = "16"
    """A major version leaves the minor one to RDS, which restarts the database for it in a maintenance window. A whole version
    stays until this setting moves it. For a database that is there the whole version, such as "15.8": an import takes note of
    that, and of "15" RDS would choose the minor version itself."""
    instance_class: str = "db.t4g.micro"
    storage_gibibytes: Whole = 20
    max_storage_gibibytes: Whole | None = None
    """Size up to which RDS makes the storage larger by itself; 0 never does, and nothing here takes four times
    `storageGibibytes`."""
    storage_type: Literal["gp2", "gp3", "io1", "io2", "standard"] = "gp3"
    iops: Whole = 0
    """I/O operations a second, for io1, io2 and large gp3; 0 leaves them to RDS."""
    encrypted: Switch = True
    """false accepts a database whose storage is not encrypted, and each update says so. RDS encrypts none that is there. Later:
    stop the writers, make a snapshot, copy it with a key (`aws rds copy-db-snapshot --kms-key-id …`), restore the copy under
    another identifier (`aws rds restore-db-instance-from-db-snapshot`), `pulumi state delete` the old instance, set
    `encrypted: true`, `kmsKeyArn` and the new `identifier`, and import the new one."""
    kms_key_arn: str = ""
    """Key of the storage; empty leaves what is there, and takes the account's aws/rds for a new one."""
    multi_zone: Switch = False
    backup_retention_days: Whole = 14
    """From 0 on and to 0 RDS is out for some seconds up to minutes (docs.aws.amazon.com/AmazonRDS/latest/UserGuide/
    USER_WorkingWithAutomatedBackups.html), so 0 is accepted while `masterSecret` stands."""
    identifier: str = "shopcat"
    db_name: str = "shopcat"
    username: str = DEFAULT_MASTER
    """The master user. With another than the default, or with groups or a secret of before, the database is somebody else's: what
    that user has made in schema public is given to `applicationRole`, and whoever may connect still may."""
    port: Whole = DATABASE_PORT
    parameter_group: str = ""
    """Name of one that is there; empty makes one that forces TLS (`rds.force_ssl`). Each update says that TLS is up to it."""
    parameters: Mapping[str, str] = Field(default_factory=dict)
    """Parameters of PostgreSQL in this program's own group, such as work_mem: "8192", in RDS's units. A dynamic one holds at
    once, a static one from the next restart on (infra/foundation/database_fit.py); the plan says so."""
    maintenance_window: str = ""
    """Time of the week, in UTC, in which RDS may restart the database, such as sun:03:00-sun:03:30; empty keeps RDS's own."""
    apply_immediately: Switch = True
    """true: a change that restarts the database does so within the update that makes it. false: in the maintenance window."""
    subnet_group: str = ""
    """Name of one that is there; empty makes one of the private subnets."""
    security_group_ids: tuple[str, ...] = ()
    """Groups that the database keeps besides this program's own, which lets in the cluster's pods."""
    security_group_name: str = "shopcat-database"
    """Name of this program's own group; another one where the network has this name already."""
    iam_authentication: Switch = False
    """Keep signing in by IAM on, where it is; this program does not use it."""
    master_secret: str = ""
    """ARN of a secret {"password": …} in Secrets Manager that holds the master password, encrypted by AWS's own key
    (aws/secretsmanager). While it is set, the password is nobody's but yours: it is neither declared nor changed.

    Without it RDS keeps the password. Turned on for a database that is there, RDS sets a new one at once, and whoever signs in
    with the old one is shut out (docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-secrets-manager.html): so remove it last,
    once no old pod runs."""
    application_role: str = "shopcat"
    """The role that owns the tables; each colour signs in as a member of it, named after it (shopcat_blue). In a database that
    is there the Job refuses a role that it has not made."""
    pool_size: Whole = 5
    """Connections of one pod."""
    restore: Restore | None = None

    @field_validator("instance_class")
    @classmethod
    def _class_is_known(cls, value: str) -> str:
        if value not in MAX_CONNECTIONS:
            families = sorted({name.rpartition(".")[0] for name in MAX_CONNECTIONS})
            raise ValueError(
                f"{value!r} is no instance class of which this program knows the memory: {', '.join(families)}"
            )
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> DatabaseSettings:
        wrong = (self._wrong_storage(), self._wrong_takeover(), self._wrong_restore(), self._wrong_maintenance())
        if lines := [line for each in wrong for line in each]:
            raise ValueError("\n".join(lines))
        return self

    def _wrong_storage(self) -> Iterator[str]:
        """Yield what RDS refuses of the storage."""
        kind, size, largest = self.storage_type, self.storage_gibibytes, self.max_storage_gibibytes
        if self.kms_key_arn and not self.encrypted:
            yield "kmsKeyArn says nothing while encrypted is false; set encrypted to true, or remove kmsKeyArn"
        if kind in {"io1", "io2"} and not self.iops:
            yield f"iops is missing, and storageType {kind} needs it; set iops to what the instance has"
        if kind in {"gp2", "standard"} and self.iops:
            yield f"iops says nothing while storageType is {kind}; remove iops"
        if kind == "gp3" and self.iops and size < GP3_IOPS_GIBIBYTES:
            yield f"iops: gp3 takes it from {GP3_IOPS_GIBIBYTES} GiB on, storageGibibytes is {size}; remove iops"
        if largest and 10 * largest < 11 * size:
            yield (
                f"maxStorageGibibytes {largest} is less than a tenth above storageGibibytes {size}; set it to at least "
                f"{-(-11 * size // 10)}, or to 0"
            )

    def _wrong_takeover(self) -> Iterator[str]:
        """Yield what contradicts the way that a database is taken over, or would shut out who uses it."""
        if self.application_role == self.username:
            yield (
                f"applicationRole and username are both {self.username}, and pods of before sign in as that user; set "
                "applicationRole to a role that nobody uses, such as shopcat_app"
            )
        if self.username in {login_role(self.application_role, colour) for colour in COLOURS}:
            yield f"username {self.username} is the role of a colour of applicationRole {self.application_role}; set another one"
        family, major = self.parameter_group.removeprefix("default.postgres"), self.engine_version.partition(".")[0]
        if family not in {self.parameter_group, major}:
            yield f"parameterGroup {self.parameter_group} is not of engineVersion {self.engine_version}; change both together"
        if not self.backup_retention_days and not self.master_secret:
            yield (
                "backupRetentionDays is 0, and no backup is only accepted while masterSecret stands for a database that is "
                "taken over; set at least 1"
            )

    def _wrong_maintenance(self) -> Iterator[str]:
        """Yield what RDS refuses of the maintenance window, and parameters that this program could not keep to."""
        if self.maintenance_window and window_minutes(self.maintenance_window) < SHORTEST_WINDOW_MINUTES:
            yield (
                f"maintenanceWindow {self.maintenance_window} is shorter than {SHORTEST_WINDOW_MINUTES} minutes; make it longer"
            )
        if self.parameters and self.parameter_group:
            yield f"parameters say nothing while parameterGroup is {self.parameter_group}; set them in that group"
        for name in sorted(set(RESERVED_PARAMETERS) & set(self.parameters)):
            yield f"parameters: {name} is {RESERVED_PARAMETERS[name]}; remove it"

    def _wrong_restore(self) -> Iterator[str]:
        """Yield what keeps a second instance from being made."""
        if self.restore is None:
            return
        if self.restored_identifier == self.identifier:
            yield f"restore.identifier is {self.identifier}, the instance that is restored from; name another"
        if len(self.restored_identifier) > LONGEST_RESTORED_NAME:
            yield (
                f"restore: {self.restored_identifier} has more than {LONGEST_RESTORED_NAME} characters; set restore.identifier "
                "to a shorter name"
            )
        if not self.backup_retention_days:
            yield "restore: backupRetentionDays is 0, so there is no backup to restore from; remove restore"

    @property
    def restored_identifier(self) -> str:
        """Return the name of the second instance, also while there is none."""
        return (self.restore and self.restore.identifier) or f"{self.identifier}-restored"

    @property
    def serving_restored(self) -> str:
        """Return the name of the restored instance that releases use; empty while they use the first one."""
        return self.restored_identifier if self.restore and self.restore.serves else ""

    @property
    def serving_identifier(self) -> str:
        """Return the name of the instance that releases use."""
        return self.serving_restored or self.identifier

    @property
    def login_identifiers(self) -> list[str]:
        """Return the names of the instances in which each claim sets its password: the one that releases use, and a restored one.

        The first one is left alone while a restored one serves, so that releases go on where the first one is lost.
        """
        restored = [self.restored_identifier] if self.restore else []
        return list(dict.fromkeys((self.serving_identifier, *restored)))

    @property
    def max_connections(self) -> int:
        """Return how many connections the instance class allows."""
        return MAX_CONNECTIONS[self.instance_class]

    @property
    def largest_storage_gibibytes(self) -> int:
        """Return the size up to which RDS makes the storage larger by itself; 0 if it never does."""
        if self.max_storage_gibibytes is not None:
            return self.max_storage_gibibytes
        return min(4 * self.storage_gibibytes, LARGEST_STORAGE_GIBIBYTES)

    @property
    def is_taken_over(self) -> bool:
        """Tell whether somebody else has made the database, so that others use it and own what is in it."""
        kept = (self.master_secret, self.parameter_group, self.subnet_group, self.security_group_ids)
        return self.username != DEFAULT_MASTER or any(kept)

    def remarks(self) -> list[str]:
        """Return what each update says of a database that is less than what this program makes."""
        facts = {
            "encrypted is false: the orders are stored as they are": not self.encrypted,
            f"parameterGroup is {self.parameter_group}: that group decides whether a connection needs TLS": bool(
                self.parameter_group
            ),
            "backupRetentionDays is 0: there is no backup": not self.backup_retention_days,
            f"restore: {self.restored_identifier} is a second database and costs as much as the first": bool(
                self.restore
            ),
            "masterSecret is set: remove it once no pod of before runs, and RDS keeps the master password": bool(
                self.master_secret
            ),
        }
        return [f"shopcat:database.{text}" for text, is_so in facts.items() if is_so]
