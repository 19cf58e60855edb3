"""Limits that a setting can reach, one row each, with the source of every number.

`LIMITS` holds what a single setting may be, by its name in the stack file. What two settings reach together (values of a
listener rule, the environment's size) is a constant here and is compared in infra/settings/stacks.py. All of it is refused when
the settings are read, before anything is asked of AWS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from infra.timeouts import DEREGISTRATION_SECONDS, HEALTH_INTERVAL_SECONDS, HEALTH_THRESHOLD, IDLE_SECONDS

_AWS = "docs.aws.amazon.com"
_DNS_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = rf"({_DNS_LABEL}\.)+(?=[a-z0-9-]*[a-z])[a-z0-9][a-z0-9-]{{0,61}}[a-z0-9]"
_URL_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HEX_ID = "[0-9a-f]{8}([0-9a-f]{9})?"

CERTIFICATE_NAME_OCTETS = 64
"""The first name of an ACM certificate (docs.aws.amazon.com/acm/latest/APIReference/API_RequestCertificate.html)."""
PREVIEW_HOSTS = "*."
"""Label before the previews' domain in the name of their certificate (infra/foundation/load_balancers.py)."""
RULE_CONDITION_VALUES = 5
"""Values of all conditions of one listener rule (docs.aws.amazon.com/elasticloadbalancing/latest/application/
load-balancer-limits.html, "Condition Values per Rule"); the colour in the header is one of them."""
OLDEST_KUBERNETES = (1, 33)
"""A deleted namespace's pods go before its NetworkPolicies (kubernetes.io, feature gate OrderedNamespaceDeletion)."""
EKS_ACCESS_CIDRS = 40
"""docs.aws.amazon.com/eks/latest/userguide/service-quotas.html, "Public endpoint access CIDR ranges per cluster"."""
ENVIRONMENT_BYTES = 65_536
"""All names and values together, in JSON. Pulumi hands every setting to the program in one environment variable, and Linux takes
131,072 bytes in one (execve(2), MAX_ARG_STRLEN); DynamoDB's 400 KB for a record is further off."""
COMMAND_BYTES = 32_768
"""All words of a command: it is in the same variable as the environment."""
LONGEST_WAIT_SECONDS = 3600
"""Longest single wait: .github/workflows/release.yml ends a job after 60 minutes."""


@dataclass(frozen=True)
class Number:
    """The least and the most that a number may be."""

    least: float
    most: float
    source: str
    unit: str = ""

    def wrong(self, value: Any) -> str:
        """Say what is wrong with a value; nothing if it is within the limit."""
        if self.least <= value <= self.most:
            return ""
        return f"{value:g} is outside {self.least:g} to {self.most:g}{self.unit} ({self.source})"


@dataclass(frozen=True)
class Text:
    """The form of a text, and its length."""

    pattern: str
    form: str
    """A noun phrase with an example."""
    source: str
    most: int = 2048
    may_be_secret: bool = False
    """A person may take the setting for the place of a secret itself, which no message may repeat."""

    def wrong(self, value: Any) -> str:
        """Say what is wrong with a value; nothing if it has the form."""
        if self.may_be_secret:
            return "" if re.fullmatch(self.pattern, value) else f"is not {self.form} ({self.source})"
        if len(value) > self.most:
            return f"{value[:20]!r}… has {len(value)} characters, the most is {self.most} ({self.source})"
        if not re.fullmatch(self.pattern, value):
            return f"{value!r} is not {self.form} ({self.source})"
        return ""


@dataclass(frozen=True)
class Items:
    """The form of each item of a list or value of a map, and how many there may be."""

    most: int
    source: str
    each: Text | None = None

    def wrong(self, value: Any) -> str:
        """Say what is wrong with a list; nothing if it is within the limit."""
        if len(value) > self.most:
            return f"has {len(value)} entries, the most is {self.most} ({self.source})"
        if not isinstance(value, Mapping) and len(set(value)) != len(value):
            return f"{', '.join(sorted(map(repr, value)))}: each may be there once"
        named = (
            [(f"{key!r}: ", text) for key, text in value.items()]
            if isinstance(value, Mapping)
            else [("", text) for text in value]
        )
        wrong = (f"{key}{line}" for key, text in named if self.each and (line := self.each.wrong(text)))
        return next(wrong, "")


Limit: TypeAlias = Number | Text | Items

_DURATION = Number(0, LONGEST_WAIT_SECONDS, "the release workflow's own 60 minutes", " s")
_URL = Text(
    rf"https?://(?=.{{1,253}}([:/]|$)){_URL_LABEL}(\.{_URL_LABEL})*(:{_PORT})?(/[A-Za-z0-9._~!&'()*+,;=:@/%-]*)?",
    "a URL such as https://charts.example.com",
    "RFC 3986: scheme, host, port and path",
)
CHART_VERSION = Text(
    r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){2}",
    "the exact version of a release, three numbers such as 3.5.0",
    "semver.org; neither publisher's index writes a v, and nobody supports a pre-release",
)
"""Also what `make upgrade-check` takes for an offer (infra/foundation/crds.py)."""
_REPOSITORY_PATTERN = (
    r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?/)?"
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
)
TAG = ":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
BY_DIGEST = "@sha256:[0-9a-f]{64}"
_ADDON_IMAGE = Text(
    f"{_REPOSITORY_PATTERN}{TAG}({BY_DIGEST})?",
    "an image by tag and digest; write <registry>/<name>:<tag>@sha256:<64 hex digits>",
    "github.com/distribution/reference",
    most=512,
)
_IMAGE = Text(
    f"{_REPOSITORY_PATTERN}({TAG})?{BY_DIGEST}",
    "an image by digest; write <registry>/<name>@sha256:<64 hex digits>",
    "github.com/distribution/reference",
    most=512,
)
_ZONE = Text(rf"({_HOST}\.?)?", "a zone such as example.com", "host names, RFC 1123", most=254)
_DIGEST_LIMIT = Text(
    "sha256:[0-9a-f]{64}", "a digest such as sha256:<64 hex digits>", "`sha256sum` of the chart's archive, or its index"
)
_SECURITY_GROUP = Text(rf"sg-{_HEX_ID}", "a security group such as sg-0123456789abcdef0", "ids of EC2")
_ARN_START = "arn:aws(-[a-z]+)*"
_RDS_GUIDE = f"{_AWS}/AmazonRDS/latest/UserGuide"
_CREATE_DATABASE = f"{_AWS}/AmazonRDS/latest/APIReference/API_CreateDBInstance.html"
_SUBNET = Text(rf"subnet-{_HEX_ID}", "a subnet such as subnet-0123456789abcdef0", "ids of EC2")

_WEEK_MOMENT = "(mon|tue|wed|thu|fri|sat|sun):([01][0-9]|2[0-3]):[0-5][0-9]"
_RELEASE = Text("[a-z0-9.-]{0,63}", "a tag or a release such as v1.4.0 or v1.4.0-r1", "docs/runbook.md")
_MEMORY = Text(
    "(([6-9]|[1-9][0-9]{1,6})Mi|[1-9][0-9]{0,3}Gi)",
    "a memory quantity such as 384Mi or 1Gi",
    "at least 6Mi: docs.docker.com, resource constraints, --memory",
)

LIMITS: Mapping[str, Limit] = {
    "domain": Text(
        _HOST,
        "a host name such as shop.example.com",
        f"host names, RFC 1123; it is a certificate's name, {_AWS}/acm API_RequestCertificate",
        most=CERTIFICATE_NAME_OCTETS,
    ),
    "previewDomain": Text(
        _HOST,
        "a host name such as shop-previews.example.net",
        f"host names, RFC 1123; {PREVIEW_HOSTS}<previewDomain> is a certificate's name, {_AWS}/acm API_RequestCertificate",
        most=CERTIFICATE_NAME_OCTETS - len(PREVIEW_HOSTS),
    ),
    "domainAliases": Items(
        9,
        f"{_AWS}/acm/latest/userguide/acm-limits.html, 10 names in a certificate",
        Text(_HOST, "a host name such as www.shop.example.com", "host names, RFC 1123", most=253),
    ),
    "hostedZone": _ZONE,
    "previewHostedZone": _ZONE,
    "apiAccessCidrs": Items(EKS_ACCESS_CIDRS, f"{_AWS}/eks/latest/userguide/service-quotas.html"),
    "awsEndpoint": _URL,
    "ledgerTable": Text(
        "[a-zA-Z0-9_.-]{3,255}",
        "a table such as shopcat-releases",
        f"{_AWS}/amazondynamodb/latest/APIReference/API_CreateTable.html",
        most=255,
    ),
    "vpc.natGateways": Number(1, 2, "one for each of the two zones at most"),
    "cluster.name": Text(
        "[0-9A-Za-z][A-Za-z0-9_-]*",
        "a cluster's name such as shopcat",
        f"{_AWS}/eks/latest/APIReference/API_CreateCluster.html",
        most=100,
    ),
    "cluster.kubernetesVersion": Text(
        r"1\.(3[3-9]|[4-9][0-9])",
        'a version from "1.33" on, such as "1.35", in quotes',
        f"{_AWS}/eks/latest/userguide/kubernetes-versions.html; from 1.33 on a namespace's pods go before its policies",
    ),
    "cluster.amiReleaseVersion": Text(
        r"(1\.[1-9][0-9]\.[0-9]{1,3}-[0-9]{8})?",
        "a release such as 1.35.7-20260903",
        f"{_AWS}/eks/latest/userguide/retrieve-ami-id.html, release_version",
    ),
    "cluster.addonVersions": Items(
        4,
        "the managed add-ons",
        Text(
            r"v[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}-eksbuild\.[0-9]{1,4}",
            "a version such as v1.21.1-eksbuild.7",
            f"{_AWS}/eks/latest/APIReference/API_DescribeAddonVersions.html",
        ),
    ),
    "cluster.administrators": Items(
        100,
        "a list for people to read",
        Text(
            r"arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/[\x21-\x7e]{1,512}",
            "a role such as arn:aws:iam::123456789012:role/admin",
            f"{_AWS}/eks/latest/APIReference/API_CreateAccessEntry.html",
        ),
    ),
    "cluster.existing.vpcId": Text(rf"vpc-{_HEX_ID}", "a VPC such as vpc-0123456789abcdef0", "ids of EC2"),
    "cluster.existing.publicSubnetIds": Items(20, "a load balancer has one subnet in a zone", _SUBNET),
    "cluster.existing.previewSubnetIds": Items(20, "a load balancer has one subnet in a zone", _SUBNET),
    "cluster.existing.privateSubnetIds": Items(
        20, f"{_AWS}/AmazonRDS/latest/UserGuide/CHAP_Limits.html, subnets per DB subnet group", _SUBNET
    ),
    "cluster.existing.natAddresses": Items(RULE_CONDITION_VALUES - 1, "values of a listener rule beside the colour"),
    "cluster.existing.securityGroupId": _SECURITY_GROUP,
    "cluster.existing.oldImages": Items(
        20,
        "an old chart's containers; each is a value in an admission policy",
        Text(
            f"{_REPOSITORY_PATTERN}({TAG})?({BY_DIGEST})?",
            "an image as a pod names it, such as shopcat:latest",
            "github.com/distribution/reference",
            most=512,
        ),
    ),
    "cluster.existing.nodes.count": Number(
        2, 100, "one may be drained; EKS takes 450 in a group, which is no small shop's"
    ),
    "cluster.existing.nodes.diskGibibytes": Number(
        20, 16_384, f"{_AWS}/ebs/latest/userguide/volume-constraints.html", " GiB"
    ),
    "registry.repository": Text(
        r"(?=.{2,256}$)(?!.*\.dkr\.ecr\.)([a-z0-9]+([._-][a-z0-9]+)*/)*[a-z0-9]+([._-][a-z0-9]+)*",
        "a repository such as shopcat or shop/shopcat, without its registry's host",
        f"{_AWS}/AmazonECR/latest/APIReference/API_CreateRepository.html",
        most=256,
    ),
    "registry.kmsKey": Text(
        r"(arn:aws(-[a-z]+)*:kms:[a-z0-9-]{1,40}:[0-9]{12}:key/[a-z0-9-]{36,})?",
        "a key such as arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef",
        f"{_AWS}/AmazonECR/latest/APIReference/API_EncryptionConfiguration.html; the provider reads an ARN back",
    ),
    "chartMirror.loadBalancerController": _URL,
    "chartMirror.externalSecrets": _URL,
    "charts.loadBalancerController": CHART_VERSION,
    "charts.externalSecrets": CHART_VERSION,
    "chartDigests.loadBalancerController": _DIGEST_LIMIT,
    "chartDigests.externalSecrets": _DIGEST_LIMIT,
    "images.database": _IMAGE,
    "images.smoke": _IMAGE,
    "images.loadBalancerController": _ADDON_IMAGE,
    "images.externalSecrets": _ADDON_IMAGE,
    "database.engineVersion": Text(
        r"1[0-9](\.[0-9]{1,2})?",
        'a version such as "16" or "16.4", in quotes',
        f"{_AWS}/AmazonRDS/latest/PostgreSQLReleaseNotes",
    ),
    "database.instanceClass": Text(
        r"db\.[a-z0-9]{2,8}\.[a-z0-9]{5,8}",
        "an instance class such as db.t4g.micro",
        f"{_RDS_GUIDE}/Concepts.DBInstanceClass.html",
    ),
    "database.storageGibibytes": Number(
        20, 65_536, f"{_RDS_GUIDE}/CHAP_Storage.html, gp2 and gp3 for PostgreSQL", " GiB"
    ),
    "database.maxStorageGibibytes": Number(
        0, 65_536, f"{_RDS_GUIDE}/CHAP_Storage.html; 0 never makes it larger", " GiB"
    ),
    "database.iops": Number(0, 256_000, f"{_RDS_GUIDE}/CHAP_Storage.html, io2; 0 leaves them to RDS"),
    "database.backupRetentionDays": Number(0, 35, f"{_CREATE_DATABASE}; 0 keeps no backup", " days"),
    "database.kmsKeyArn": Text(
        rf"({_ARN_START}:kms:[a-z0-9-]+:[0-9]{{12}}:key/(mrk-)?[0-9a-f-]{{32,36}})?",
        "a key such as arn:aws:kms:eu-central-1:123456789012:key/<id>; no alias, since RDS answers with the key",
        _CREATE_DATABASE,
    ),
    "database.identifier": Text(
        "[a-z](-?[a-z0-9])*", "an instance such as shopcat, in small letters", _CREATE_DATABASE, most=63
    ),
    "database.restore.identifier": Text(
        "([a-z](-?[a-z0-9])*)?", "an instance such as shopcat-restored, in small letters", _CREATE_DATABASE, most=46
    ),
    "database.restore.at": Text(
        "[0-9TZ:-]*", "a moment such as 2026-11-29T10:00:00Z, in UTC", f"{_RDS_GUIDE}/USER_PIT.html", most=20
    ),
    "database.dbName": Text("[A-Za-z_][A-Za-z0-9_]*", "a database such as shopcat", _CREATE_DATABASE, most=63),
    "database.username": Text(
        "(?!rdsadmin$|pg_)[A-Za-z_][A-Za-z0-9_]*", "a user such as shopcat_admin", _CREATE_DATABASE, most=63
    ),
    "database.applicationRole": Text(
        "(?!postgres$|public$|rds|pg_)[a-z_][a-z0-9_]*",
        "a role of your own such as shopcat_app, in small letters",
        "postgresql.org/docs/current/sql-createrole.html; RDS has those that begin with rds; a colour's role is named after it",
        most=57,
    ),
    "database.port": Number(1150, 65_535, _CREATE_DATABASE),
    "database.parameterGroup": Text(
        r"([A-Za-z]([.-]?[A-Za-z0-9])*)?", "a parameter group such as default.postgres16", _CREATE_DATABASE, most=255
    ),
    "database.parameters": Items(
        20,
        f"{_RDS_GUIDE}/USER_WorkingWithParamGroups.html; AWS changes 20 in one call",
        Text(r"[^\s'\\][^'\\\n]*", "a value such as 8192, in quotes", _CREATE_DATABASE, most=255),
    ),
    "database.maintenanceWindow": Text(
        rf"({_WEEK_MOMENT}-{_WEEK_MOMENT})?", "a window such as sun:03:00-sun:03:30, in UTC", _CREATE_DATABASE
    ),
    "database.subnetGroup": Text(
        "([A-Za-z0-9][A-Za-z0-9 ._-]*)?",
        "a DB subnet group such as shopcat",
        f"{_AWS}/AmazonRDS API_CreateDBSubnetGroup",
        most=255,
    ),
    "database.securityGroupIds": Items(
        4,
        f"{_AWS}/vpc/latest/userguide/amazon-vpc-limits.html, 5 groups at one interface, one of them this program's",
        _SECURITY_GROUP,
    ),
    "database.securityGroupName": Text(
        "(?!sg-)[A-Za-z0-9][A-Za-z0-9._-]*",
        "a name such as shopcat-database",
        f"{_AWS}/AWSEC2 API_CreateSecurityGroup",
        most=255,
    ),
    "database.masterSecret": Text(
        rf"({_ARN_START}:secretsmanager:[a-z0-9-]+:[0-9]{{12}}:secret:[A-Za-z0-9/_+=.@!-]+-[A-Za-z0-9]{{6}})?",
        "the whole ARN of a secret, such as arn:aws:secretsmanager:eu-central-1:123456789012:secret:shopcat/master-AbCdEf",
        f"{_AWS}/secretsmanager/latest/userguide/troubleshoot.html, ARN format",
        may_be_secret=True,
    ),
    "database.poolSize": Number(1, 50, "connections of one pod; capacity says what the instance takes"),
    "databasePoolSize": Number(1, 20, "connections of a preview's pod; its PostgreSQL takes 100"),
    "drain.appDrain": _DURATION,
    "drain.longestRequest": _DURATION,
    "drain.propagation": _DURATION,
    "drain.controllerLag": _DURATION,
    "drain.appKeepAlive": Number(0, 86_400, "a day; it is only compared", " s"),
    "drain.margin": _DURATION,
    "drain.startup": _DURATION,
    "drain.healthInterval": Number(
        *HEALTH_INTERVAL_SECONDS, f"{_AWS}/elasticloadbalancing API_CreateTargetGroup", " s"
    ),
    "drain.healthThreshold": Number(*HEALTH_THRESHOLD, f"{_AWS}/elasticloadbalancing API_CreateTargetGroup"),
    "drain.requeue": Number(
        1, 60, "0 is never, and gates stay shut; the controller's --targetgroupbinding-requeue-duration", " s"
    ),
    "drain.idleTimeout": Number(1, IDLE_SECONDS, f"{_AWS}/elasticloadbalancing, connection idle timeout", " s"),
    "drain.deregistrationDelay": Number(
        0, DEREGISTRATION_SECONDS, f"{_AWS}/elasticloadbalancing, deregistration delay", " s"
    ),
    "drain.settle": _DURATION,
    "drain.progressDeadline": Number(1, 2 * LONGEST_WAIT_SECONDS, "twice the release workflow's 60 minutes", " s"),
    "drain.pulumiTimeout": Number(1, 3 * LONGEST_WAIT_SECONDS, "longer than any other wait", " s"),
    "release.replicas": Number(1, 20, "two nodes hold 34 pods", " pods"),
    "release.cpu": Text(
        "[1-9][0-9]{0,5}m?", "a CPU quantity such as 200m or 1", "Kubernetes: no finer than 1m, never 0"
    ),
    "release.memory": _MEMORY,
    "release.migrateMemory": replace(_MEMORY, pattern=f"({_MEMORY.pattern})?"),
    "release.migrateDeadline": Number(10, LONGEST_WAIT_SECONDS, "the release workflow's own 60 minutes", " s"),
    "abort": _RELEASE,
    "rotate": _RELEASE,
    "acceptUnserved": _RELEASE,
    "rollback": Text(
        " *([a-z0-9.-]{1,63} *-> *[a-z0-9.-]{1,63})? *",
        "<live tag>-><former tag>, such as v1.4.0->v1.3.0",
        "docs/runbook.md",
    ),
    "github.repository": Text(
        r"([A-Za-z0-9]([A-Za-z0-9]|-(?=[A-Za-z0-9])){0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100})?",
        "<owner>/<name>",
        "docs.github.com: an owner has 39 characters, a repository 100",
    ),
    "github.environment": Text(
        "[A-Za-z0-9][A-Za-z0-9 ._-]{0,254}",
        "an environment such as production",
        "docs.github.com, environments: 255 characters; no character that IAM reads as a pattern",
        most=255,
    ),
    "monitoring.email": Text(
        r"([A-Za-z0-9._%+-]{1,64}@(?=.{1,253}$)" + _HOST + ")?",
        "an address such as ops@example.com",
        f"{_AWS}/sns/latest/api/API_Subscribe.html; RFC 5321, without quotes and comments",
        most=320,
    ),
    "monitoring.webhook": Text(
        # What is encrypted in the file reads so without the key (infra/settings/stack_file.py, without_secrets).
        rf"(\[secret\]|https://(?=.{{1,253}}([:/]|$)){_URL_LABEL}(\.{_URL_LABEL})+(:{_PORT})?(/[A-Za-z0-9._~!&'()*+,;=:@/%?-]*)?)?",
        "a URL such as https://hooks.example.com/shopcat",
        f"{_AWS}/sns/latest/dg/sns-http-https-endpoint-as-subscriber.html",
        may_be_secret=True,
    ),
    "monitoring.logs.image": _IMAGE,
    "monitoring.slowestSeconds": Number(0.01, 4000, "an ALB's longest idle timeout", " s"),
    "monitoring.monthlyBudgetUsd": Number(0, 10_000_000, "0 tells nobody", " USD"),
}

REGION = Text(
    "[a-z]{2}(-[a-z]{2,12}){1,3}-[0-9]{1,2}", "a region such as eu-central-1", f"{_AWS}/general/latest/gr/rande.html"
)
