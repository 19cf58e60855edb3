"""Rules: each takes one resource as it is declared, and returns what is wrong with it, one sentence each.

They are plain functions of a type and its arguments, so they judge whatever hands those over: the recorded program (`make
policy`), what the engine was given (tests), and the engine itself (policy/pack.py). Arguments have the provider's names,
camelCase. A value that only AWS knows yet (`is_computed`) is not judged: the engine hands it over again, known, in an update.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from infra.commands.takeover.declaration import Declared, is_computed, reference
from infra.names import ALARMS_KEY, PREVIEW_REPOSITORY, PREVIEW_SECRET_PATH, PREVIEW_SLOTS_TABLE

DATABASE, DATABASE_CLUSTER = "aws:rds/instance:Instance", "aws:rds/cluster:Cluster"
REPOSITORY = "aws:ecr/repository:Repository"
CLUSTER = "aws:eks/cluster:Cluster"
KEY = "aws:kms/key:Key"
SECRET = "aws:secretsmanager/secret:Secret"  # noqa: S105 - a type
PUBLIC_PORTS = frozenset({80, 443})
"""Ports that anybody may reach: those of the load balancers."""
_NARROW = {4: 8, 6: 16}
"""IP version → shortest prefix that is no large part of the internet; 10.0.0.0/8 is the largest private network of IPv4."""
_PRIVATE = ipaddress.IPv6Network("fc00::/7")
_TCP = frozenset({"tcp", "6"})
EVERYBODY = frozenset(
    {"system:anonymous", "system:unauthenticated", "system:authenticated", "system:serviceaccounts"}
)  # fmt: skip
"""Kubernetes' user and groups of whoever asks, and of every pod (kubernetes.io/docs/reference/access-authn-authz/rbac)."""
_DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")

Rule = Callable[[Declared], Sequence[str]]


def refuse_public_access(resource: Declared) -> list[str]:
    """Refuse a database with a public address, and a security group that lets the world in to another port than 80 and 443."""
    if resource.pulumi_type in {DATABASE, "aws:rds/clusterInstance:ClusterInstance"}:
        value = resource.inputs.get("publiclyAccessible")
        is_private = value is False or is_computed(value)
        return [] if is_private else ["publiclyAccessible must be false: the database would get a public address"]
    return [
        f"{_ports(rule)} are open to {', '.join(world)}: name the security group or the networks that need them"
        for rule in _openings(resource)
        if (world := sorted(filter(_is_world, _sources(rule)))) and not _is_public_port(rule)
    ]


def _openings(resource: Declared) -> Sequence[Mapping[str, Any]]:
    """Return what a security group lets in, wherever it is declared."""
    kind, inputs = resource.pulumi_type, resource.inputs
    if kind in {"aws:ec2/securityGroup:SecurityGroup", "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup"}:
        return _each(inputs.get("ingress"))
    is_ingress = kind == "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule" or (
        kind == "aws:ec2/securityGroupRule:SecurityGroupRule" and inputs.get("type") == "ingress"
    )
    return [inputs] if is_ingress else []


def _sources(rule: Mapping[str, Any]) -> Iterator[str]:
    for argument in ("cidrIpv4", "cidrIpv6"):
        if isinstance(rule.get(argument), str):
            yield rule[argument]
    for argument in ("cidrBlocks", "ipv6CidrBlocks"):
        yield from (each for each in _list(rule.get(argument)) if isinstance(each, str))


def _is_world(source: str) -> bool:
    """Tell whether a network is the internet or a large part of it, such as one of its two halves."""
    try:
        network = ipaddress.ip_network(source.strip(), strict=False)
    except ValueError:
        return False  # a value that is not known yet; AWS refuses what is no network
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_PRIVATE):
        return False
    return network.prefixlen < _NARROW[network.version]


def _ports(rule: Mapping[str, Any]) -> str:
    return f"ports {rule.get('fromPort')} to {rule.get('toPort')} ({_protocol(rule)})"


def _protocol(rule: Mapping[str, Any]) -> str:
    return str(rule.get("ipProtocol", rule.get("protocol", "all"))).lower()


def _is_public_port(rule: Mapping[str, Any]) -> bool:
    """Tell whether a rule opens one of the public ports alone. Ports beside another protocol than TCP mean nothing to EC2."""
    port = rule.get("fromPort")
    return port == rule.get("toPort") and port in PUBLIC_PORTS and _protocol(rule) in _TCP


_ENCRYPTED: Mapping[str, str] = {
    DATABASE: "storageEncrypted",
    DATABASE_CLUSTER: "storageEncrypted",
    "aws:ebs/volume:Volume": "encrypted",
    "aws:ebs/snapshotCopy:SnapshotCopy": "encrypted",
    "aws:efs/fileSystem:FileSystem": "encrypted",
    "aws:elasticache/replicationGroup:ReplicationGroup": "atRestEncryptionEnabled",
}
"""Type → the argument that has to be true, since AWS leaves it unencrypted without."""


def refuse_unencrypted_storage(resource: Declared) -> list[str]:
    """Refuse storage that is not encrypted at rest; S3, DynamoDB, CloudWatch and Secrets Manager always encrypt theirs."""
    kind, inputs = resource.pulumi_type, resource.inputs
    if kind in _ENCRYPTED:
        return [f"{_ENCRYPTED[kind]} must be true"] if _is_off(inputs.get(_ENCRYPTED[kind])) else []
    return [*_unencrypted_disks(kind, inputs), *_unencrypted_service(kind, inputs)]


def _is_off(value: Any) -> bool:
    """Tell whether a switch isn't on; launch templates have theirs as text."""
    return value not in (True, "true") and not is_computed(value)


def _unencrypted_disks(kind: str, inputs: Mapping[str, Any]) -> Iterator[str]:
    if kind == "aws:ec2/launchTemplate:LaunchTemplate":
        for mapping in _each(inputs.get("blockDeviceMappings")):
            if mapping.get("ebs") is not None and _is_off(mapping["ebs"].get("encrypted")):
                yield f"the disk {mapping.get('deviceName')}: encrypted must be true"
    if kind == "aws:ec2/instance:Instance":
        for disk in [inputs.get("rootBlockDevice") or {}, *_each(inputs.get("ebsBlockDevices"))]:
            if _is_off(disk.get("encrypted")):
                yield f"the disk {disk.get('deviceName', 'it starts from')}: encrypted must be true"
    if kind == "aws:eks/nodeGroup:NodeGroup" and not inputs.get("launchTemplate"):
        yield "launchTemplate must be set: without one the nodes' disks are not encrypted"


def _unencrypted_service(kind: str, inputs: Mapping[str, Any]) -> Iterator[str]:
    if kind == REPOSITORY and not inputs.get("encryptionConfigurations"):
        yield "encryptionConfigurations must name AES256 or KMS"
    if kind == CLUSTER and "secrets" not in ((inputs.get("encryptionConfig") or {}).get("resources") or ()):
        yield "encryptionConfig must encrypt secrets with a key"
    if kind == "aws:sns/topic:Topic" and not inputs.get("kmsMasterKeyId"):
        yield "kmsMasterKeyId must be set: a topic without one keeps its messages unencrypted"
    if (
        kind == "aws:sqs/queue:Queue"
        and inputs.get("sqsManagedSseEnabled") is False
        and not inputs.get("kmsMasterKeyId")
    ):
        yield "sqsManagedSseEnabled must be true, or kmsMasterKeyId set"


def refuse_wildcard_principals(resource: Declared) -> list[str]:
    """Refuse a policy that lets everybody in, whatever its conditions, and a Kubernetes binding to everybody."""
    if resource.pulumi_type.startswith("kubernetes:rbac."):
        names = [subject.get("name") for subject in _each(resource.inputs.get("subjects"))]
        return [f"the subject {name} is everybody: name a group of your own" for name in names if name in EVERYBODY]
    if not resource.pulumi_type.startswith("aws:"):
        return []
    return [f"{argument} {problem}" for argument, text in _policies(resource.inputs) for problem in _wildcards(text)]


def _policies(value: Any) -> Iterator[tuple[str, str | Mapping[str, Any]]]:
    """Return the policies in a resource's arguments, however deep they are, each with its argument's name."""
    for inner in _list(value):
        yield from _policies(inner)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            is_policy = name.lower().endswith("policy") and isinstance(inner, str | Mapping)
            yield from [(name, inner)] if is_policy else _policies(inner)


def _wildcards(policy: str | Mapping[str, Any]) -> Iterator[str]:
    if isinstance(policy, str) and not policy.lstrip().startswith("{"):
        return  # not IAM's: TLS, scaling and others are called policies too
    try:
        document = json.loads(policy) if isinstance(policy, str) else policy
    except ValueError as error:
        yield f"is no JSON, so nobody knows whom it lets in ({error})"
        return
    for statement in _each(document.get("Statement")):
        if statement.get("Effect") != "Allow":
            continue
        if "NotPrincipal" in statement:
            yield "allows all principals but some (NotPrincipal): name those that need it"
        for name in sorted({name for name in _principals(statement.get("Principal")) if "*" in name}):
            yield f'allows the principal "{name}": name the roles or services that need it'


def _principals(principal: Any) -> Iterator[str]:
    for value in principal.values() if isinstance(principal, Mapping) else [principal]:
        yield from (name for name in ([value] if isinstance(value, str) else _list(value)) if isinstance(name, str))


def refuse_mutable_images(resource: Declared) -> list[str]:
    """Refuse a repository whose tags move, a pod's image without a digest, and a chart's image without a tag of its own.

    The charts' own images may have a tag alone: `shopcat:images` takes them by digest, and an update warns of one without.
    """
    kind, inputs = resource.pulumi_type, resource.inputs
    if kind == REPOSITORY:
        return [] if inputs.get("imageTagMutability") == "IMMUTABLE" else ["imageTagMutability must be IMMUTABLE"]
    if kind == "kubernetes:helm.sh/v3:Release":
        tag = ((inputs.get("values") or {}).get("image") or {}).get("tag") or "latest"
        problems = [] if str(tag).partition("@")[0] != "latest" else ["values.image.tag must be set, and not to latest"]
        return problems if inputs.get("version") else [*problems, "version must name the chart's version"]
    if not kind.startswith("kubernetes:"):
        return []
    return [
        f"the image {image} has no digest: write <name>@sha256:<64 hex digits>"
        for image in _images(inputs)
        if not _DIGEST.fullmatch(image) and not reference(image)
    ]


def _images(value: Any) -> Iterator[str]:
    """Return the images of all containers in an object, wherever its pod template is, and those mounted as volumes."""
    for inner in _list(value):
        yield from _images(inner)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _CONTAINERS:
                yield from (str(container.get("image")) for container in _each(inner))
            elif key == "volumes":
                yield from (str(volume["image"].get("reference")) for volume in _each(inner) if volume.get("image"))
            else:
                yield from _images(inner)


def refuse_unguarded_data(resource: Declared) -> list[str]:
    """Refuse what holds data, or the keys to it, and could be deleted by one update; what previews throw away is left out."""
    if not _holds_data(resource):
        return []
    inputs, problems = resource.inputs, []
    if not (resource.protect or resource.retain_on_delete):
        problems.append(f"protect or retain_on_delete must be set, since it holds {HOLDS_DATA[resource.pulumi_type]}")
    if resource.pulumi_type in {DATABASE, DATABASE_CLUSTER}:
        if inputs.get("deletionProtection") is not True:
            problems.append("deletionProtection must be true")
        if inputs.get("skipFinalSnapshot") is not False:
            problems.append("skipFinalSnapshot must be false")
        if not inputs.get("backupRetentionPeriod"):
            problems.append("backupRetentionPeriod must be at least a day")
    if inputs.get("forceDelete") is True:
        problems.append("forceDelete must be false: what is in it would go with it")
    if inputs.get("forceDestroy") is True:
        problems.append("forceDestroy must be false: what is in it would go with it")
    if inputs.get("recoveryWindowInDays") == 0:
        problems.append("recoveryWindowInDays must not be 0: a deleted secret could not be brought back")
    return problems


HOLDS_DATA: Mapping[str, str] = {
    REPOSITORY: "the released images",
    CLUSTER: "the cluster",
    KEY: "the key of the cluster's secrets",
    DATABASE: "the database",
    DATABASE_CLUSTER: "a database",
    SECRET: "a password that is nowhere else",
    "aws:dynamodb/table:Table": "a table",
    "aws:ebs/volume:Volume": "a disk",
    "aws:efs/fileSystem:FileSystem": "files",
    "aws:s3/bucket:Bucket": "objects",
    "aws:s3/bucketV2:BucketV2": "objects",
}
"""Type → what is lost with one of it."""
_THROW_AWAY_NAMES = frozenset({PREVIEW_REPOSITORY, PREVIEW_SLOTS_TABLE})


def _is_unused_copy(resource: Declared) -> bool:
    """Tell whether a database is a restored copy that no release uses yet: what is in it is in its source's backups."""
    if resource.pulumi_type != DATABASE or not resource.inputs.get("restoreToPointInTime"):
        return False
    guards = resource.protect or resource.inputs.get("deletionProtection")
    return not guards and resource.inputs.get("skipFinalSnapshot") is False


def _holds_data(resource: Declared) -> bool:
    """Tell whether data would be lost with a resource that is not a preview's."""
    if _is_unused_copy(resource):
        return False
    name = str(resource.inputs.get("name", ""))
    is_throw_away = name in _THROW_AWAY_NAMES or name.startswith(f"{PREVIEW_SECRET_PATH}/")
    return resource.pulumi_type in HOLDS_DATA and not is_throw_away and resource.key != (KEY, ALARMS_KEY)


RULES: Mapping[str, Rule] = {
    "public-access": refuse_public_access,
    "unencrypted-storage": refuse_unencrypted_storage,
    "wildcard-principal": refuse_wildcard_principals,
    "mutable-image": refuse_mutable_images,
    "unguarded-data": refuse_unguarded_data,
}

MISSING_DATA = "missing-data"
KEPT = (DATABASE, SECRET, REPOSITORY, CLUSTER, KEY)
"""Types of which production always has one that holds data."""


def missing_data(resources: Sequence[Declared]) -> list[tuple[str, str]]:
    """Refuse production without one of the types that hold its data; return each that is missing, and what is wrong with that.

    Pulumi refuses to delete what is protected. What an earlier update has unprotected it deletes once nothing declares it.
    """
    there = {resource.pulumi_type for resource in resources if _holds_data(resource)}
    return [
        (
            kind,
            f"{kind}: production declares none, so an update deletes {HOLDS_DATA[kind]} unless it was protected before",
        )
        for kind in KEPT
        if kind not in there
    ]


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def _each(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list, or the one that stands in place of a list."""
    return [one for one in ([value] if isinstance(value, Mapping) else _list(value)) if isinstance(one, Mapping)]
