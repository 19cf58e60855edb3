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
from infra.names import ALARMS_KEY, PREVIEW_REPOSITORY, PREVIEW_SECRET_PATH, PREVIEW_SLOTS_TABLE, RESTORED_SNAPSHOT

DATABASE, DATABASE_CLUSTER = "aws:rds/instance:Instance", "aws:rds/cluster:Cluster"
REPOSITORY = "aws:ecr/repository:Repository"
CLUSTER = "aws:eks/cluster:Cluster"
KEY = "aws:kms/key:Key"
SECRET = "aws:secretsmanager/secret:Secret"  # noqa: S105 - a type
PUBLIC_PORTS = (80, 443)
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
    """Refuse a database with a public address, what is shared with everybody, and a port other than 80 and 443 for the world."""
    kind, inputs = resource.pulumi_type, resource.inputs
    if kind.startswith("kubernetes:core/v1:Service"):
        types = [spec.get("type") for each in _mappings(inputs) for spec in _each(each.get("spec"))]
        is_balancer = "LoadBalancer" in types
        return (
            ["spec.type must not be LoadBalancer: it makes one that the whole internet reaches"] if is_balancer else []
        )
    return [*_public_addresses(kind, inputs), *_shares_with_everybody(kind, inputs), *_open_ports(resource)]


def _public_addresses(kind: str, inputs: Mapping[str, Any]) -> Iterator[str]:
    value = inputs.get("publiclyAccessible")
    has_to_say = kind in {DATABASE, "aws:rds/clusterInstance:ClusterInstance", "aws:redshift/cluster:Cluster"}
    if value in (True, "true") or (has_to_say and value not in (False, "false") and not is_computed(value)):
        yield "publiclyAccessible must be false: the database would get a public address"


def _shares_with_everybody(kind: str, inputs: Mapping[str, Any]) -> Iterator[str]:
    if "all" in _list(inputs.get("sharedAccounts")):
        yield "sharedAccounts must not hold all: everybody could restore the snapshot"
    if inputs.get("group") == "all" and kind == "aws:ec2/amiLaunchPermission:AmiLaunchPermission":
        yield "group must not be all: everybody could start the image"
    acl = inputs.get("acl")
    if isinstance(acl, str) and acl.startswith(("public-", "authenticated-")):
        yield f"acl must not be {acl}: everybody could read the objects"
    if kind.endswith("PublicAccessBlock"):
        for name in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"):
            if _is_off(inputs.get(name)):
                yield f"{name} must be true: S3 blocks what is public unless this resource says otherwise"


def _open_ports(resource: Declared) -> Iterator[str]:
    for entry in _prefixes(resource):
        if isinstance(cidr := entry.get("cidr"), str) and _is_world(cidr):
            yield f"the prefix list holds {cidr}: name the networks that need what it opens"
    for rule in _openings(resource):
        if (world := sorted(filter(_is_world, _sources(rule)))) and not _is_public_port(rule):
            opened = f"{_ports(rule)} are open to {', '.join(world)}"
            yield f"{opened}: name the security group or the networks that need them"


def _prefixes(resource: Declared) -> Sequence[Mapping[str, Any]]:
    """Return the entries of a prefix list, wherever they are declared."""
    if resource.pulumi_type == "aws:ec2/managedPrefixList:ManagedPrefixList":
        return _each(resource.inputs.get("entries"))
    return [resource.inputs] if resource.pulumi_type == "aws:ec2/managedPrefixListEntry:ManagedPrefixListEntry" else []


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
        return not is_computed(source)  # another spelling, which only AWS understands
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
    "aws:rds/globalCluster:GlobalCluster": "storageEncrypted",
    "aws:docdb/cluster:Cluster": "storageEncrypted",
    "aws:neptune/cluster:Cluster": "storageEncrypted",
    "aws:redshift/cluster:Cluster": "encrypted",
    "aws:ebs/volume:Volume": "encrypted",
    "aws:ebs/snapshotCopy:SnapshotCopy": "encrypted",
    "aws:efs/fileSystem:FileSystem": "encrypted",
    "aws:elasticache/replicationGroup:ReplicationGroup": "atRestEncryptionEnabled",
}
"""Type → the argument that has to be true, since AWS leaves it unencrypted without."""
_ENCRYPTS = frozenset(_ENCRYPTED.values())
"""Arguments that must not be false in whatever has them, such as a disk of an image."""
_MACHINES = {"aws:ec2/instance:Instance", "aws:ec2/launchConfiguration:LaunchConfiguration"}


def refuse_unencrypted_storage(resource: Declared) -> list[str]:
    """Refuse storage that is not encrypted at rest; S3, DynamoDB, CloudWatch and Secrets Manager always encrypt theirs."""
    kind, inputs = resource.pulumi_type, resource.inputs
    if kind in _ENCRYPTED and _is_off(inputs.get(_ENCRYPTED[kind])):
        return [f"{_ENCRYPTED[kind]} must be true"]
    if problems := [*_unencrypted_disks(kind, inputs), *_unencrypted_service(kind, inputs)]:
        return problems
    said = {name for each in _mappings(inputs) for name in _ENCRYPTS if each.get(name) in (False, "false")}
    return [f"{name} must be true" for name in sorted(said)] if kind.startswith("aws:") else []


def _is_off(value: Any) -> bool:
    """Tell whether a switch isn't on; launch templates have theirs as text."""
    return value not in (True, "true") and not is_computed(value)


def _unencrypted_disks(kind: str, inputs: Mapping[str, Any]) -> Iterator[str]:
    if kind == "aws:ec2/launchTemplate:LaunchTemplate":
        mappings = inputs.get("blockDeviceMappings")
        disks = [(mapping, disk) for mapping in _each(mappings) for disk in _each(mapping.get("ebs"))]
        for mapping, disk in disks:
            if _is_off(disk.get("encrypted")):
                yield f"the disk {mapping.get('deviceName')}: encrypted must be true"
        is_known = not is_computed(mappings) and not any(is_computed(each.get("ebs")) for each in _each(mappings))
        if not disks and is_known:
            yield "blockDeviceMappings must name the disk that a machine starts from, encrypted"
    if kind in _MACHINES:
        root = inputs.get("rootBlockDevice")
        for disk in [*([{}] if root is None else _each(root)), *_each(inputs.get("ebsBlockDevices"))]:
            if _is_off(disk.get("encrypted")):
                yield f"the disk {disk.get('deviceName', 'it starts from')}: encrypted must be true"
    if kind == "aws:eks/nodeGroup:NodeGroup" and not inputs.get("launchTemplate"):
        yield "launchTemplate must be set: without one the nodes' disks are not encrypted"


def _unencrypted_service(kind: str, inputs: Mapping[str, Any]) -> Iterator[str]:
    if kind == REPOSITORY and not inputs.get("encryptionConfigurations"):
        yield "encryptionConfigurations must name AES256 or KMS"
    config = inputs.get("encryptionConfig")
    if kind == CLUSTER and not is_computed(config):
        resources = [each.get("resources") for each in _each(config)]
        if not any(is_computed(each) or "secrets" in _list(each) for each in resources):
            yield "encryptionConfig must encrypt secrets with a key"
    if kind == "aws:sns/topic:Topic" and not inputs.get("kmsMasterKeyId"):
        yield "kmsMasterKeyId must be set: a topic without one keeps its messages unencrypted"
    if (
        kind == "aws:sqs/queue:Queue"
        and inputs.get("sqsManagedSseEnabled") in (False, "false")
        and not inputs.get("kmsMasterKeyId")
    ):
        yield "sqsManagedSseEnabled must be true, or kmsMasterKeyId set"


def refuse_wildcard_principals(resource: Declared) -> list[str]:
    """Refuse a policy that lets everybody in, whatever its conditions, and a Kubernetes binding to everybody."""
    kind, inputs = resource.pulumi_type, resource.inputs
    if kind.startswith("kubernetes:"):
        subjects = [subject.get("name") for each in _mappings(inputs) for subject in _each(each.get("subjects"))]
        everybody = [name for name in subjects if isinstance(name, str) and name in EVERYBODY]
        return [f"the subject {name} is everybody: name a group of your own" for name in everybody]
    return [*_wildcards(inputs, "")] if kind.startswith("aws:") else []


def _wildcards(value: Any, argument: str) -> Iterator[str]:
    """Return what lets everybody in, however deep it is and also as JSON in a text: statements of a policy, and principals.

    A policy is what has statements, whatever the argument is called.
    """
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(value)
        except ValueError as error:
            if argument.lower().endswith(("policy", "policydocument")):
                yield f"{argument} is no JSON, so nobody knows whom it lets in ({error})"
            return
    if isinstance(value, str) and "*" in value and "principal" in argument.lower():
        yield f"{argument} {_everybody(value)}"
    for inner in _list(value):
        yield from _wildcards(inner, argument)
    if isinstance(value, Mapping):
        statements = _each(_lowered(value).get("statement"))
        yield from (f"{argument} {problem}" for each in statements for problem in _open_statement(_lowered(each)))
        for name, inner in value.items():
            if name.lower() != "statement":
                yield from _wildcards(inner, name)


def _lowered(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name.lower(): inner for name, inner in value.items()}


def _open_statement(statement: Mapping[str, Any]) -> Iterator[str]:
    if str(statement.get("effect")).lower() != "allow":
        return
    if "notprincipal" in statement:
        yield "allows all principals but some (NotPrincipal): name those that need it"
    for name in sorted({name for name in _names(statement.get("principal")) if "*" in name}):
        yield _everybody(name)


def _everybody(name: str) -> str:
    return f'allows the principal "{name}": name the roles or services that need it'


def _names(principal: Any) -> Iterator[str]:
    """Return the texts of a principal: of one, of a list, or of either by its kind."""
    for value in principal.values() if isinstance(principal, Mapping) else [principal]:
        yield from (name for name in ([value] if isinstance(value, str) else _list(value)) if isinstance(name, str))


def refuse_mutable_images(resource: Declared) -> list[str]:
    """Refuse a repository whose tags move, a pod's image without a digest, and a chart's image without a tag of its own.

    The charts' own images may have a tag alone: `shopcat:images` takes them by digest, and an update warns of one without.
    """
    kind, inputs = resource.pulumi_type, resource.inputs
    if kind == REPOSITORY:
        return (
            ["imageTagMutability must be IMMUTABLE"] if _is_other(inputs.get("imageTagMutability"), "IMMUTABLE") else []
        )
    if kind == "kubernetes:helm.sh/v3:Release":
        return [*dict.fromkeys(_mutable_chart(inputs))]
    if not kind.startswith("kubernetes:"):
        return []
    return [
        f"the image {image} has no digest: write <name>@sha256:<64 hex digits>"
        for image in map(str, _images(inputs))
        if not _DIGEST.fullmatch(image) and not reference(image)
    ]


def _mutable_chart(inputs: Mapping[str, Any]) -> Iterator[str]:
    values = inputs.get("values")
    if not is_computed(values):
        image = next((each.get("image") for each in _each(values)), None)
        has_tag = is_computed(image) or any(_chart_tags({"image": image}))
        if not has_tag or "latest" in _chart_tags(values):
            yield "values.image.tag must be set, and not to latest"
    if not inputs.get("version"):
        yield "version must name the chart's version"


def _chart_tags(values: Any) -> Iterator[str]:
    """Return the tags in a chart's values, however deep: of `tag`, and of an image that is one text."""
    for each in _mappings(values):
        if each.get("tag"):
            yield str(each["tag"]).partition("@")[0]
        if isinstance(image := each.get("image"), str) and not is_computed(image):
            name, _, digest = image.rpartition("/")[2].partition("@")
            yield name.partition(":")[2] or digest or "latest"


def _images(value: Any) -> Iterator[Any]:
    """Return the images of all containers in an object, wherever its pod template is, and those mounted as volumes."""
    for each in _mappings(value):
        for key in _CONTAINERS:
            yield from (container.get("image") for container in _each(each.get(key)))
        for volume in _each(each.get("volumes")):
            yield from (image.get("reference") for image in _each(volume.get("image")))


def refuse_unguarded_data(resource: Declared) -> list[str]:
    """Refuse what holds data, or the keys to it, and could be deleted by one update; what previews throw away is left out."""
    if not _holds_data(resource):
        return []
    inputs, problems = resource.inputs, []
    if not (resource.protect or resource.retain_on_delete):
        problems.append(f"protect or retain_on_delete must be set, since it holds {HOLDS_DATA[resource.pulumi_type]}")
    if resource.pulumi_type in {DATABASE, DATABASE_CLUSTER}:
        if _is_other(inputs.get("deletionProtection"), "true"):
            problems.append("deletionProtection must be true")
        if _is_other(inputs.get("skipFinalSnapshot"), "false"):
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
_THROW_AWAY = frozenset({(REPOSITORY, PREVIEW_REPOSITORY), ("aws:dynamodb/table:Table", PREVIEW_SLOTS_TABLE)})


def _is_unused_copy(resource: Declared) -> bool:
    """Tell whether a database is a restored copy that no release uses yet: what is in it is in its source's backups.

    It is known by the snapshot that it leaves: a state that was rebuilt has no moment.
    """
    snapshot = str(resource.inputs.get("finalSnapshotIdentifier", ""))
    if resource.pulumi_type != DATABASE or not snapshot.startswith(RESTORED_SNAPSHOT):
        return False
    guards = resource.protect or resource.inputs.get("deletionProtection")
    return not guards and not _is_other(resource.inputs.get("skipFinalSnapshot"), "false")


def _holds_data(resource: Declared) -> bool:
    """Tell whether data would be lost with a resource that is not a preview's."""
    if _is_unused_copy(resource):
        return False
    kind, name = resource.pulumi_type, str(resource.inputs.get("name", ""))
    is_previews = kind == SECRET and name.startswith(f"{PREVIEW_SECRET_PATH}/")
    is_throw_away = (kind, name) in _THROW_AWAY or is_previews or resource.key == (KEY, ALARMS_KEY)
    return kind in HOLDS_DATA and not is_throw_away


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


def _is_other(value: Any, wanted: str) -> bool:
    """Tell whether a value is known, and another one than it should be; a switch may be a text."""
    return str(value).lower() != wanted.lower() and not is_computed(value)


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Return each mapping in a value, however deep, and the value itself if it is one."""
    if isinstance(value, Mapping):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else _list(value):
        yield from _mappings(inner)


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def _each(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list, or the one that stands in place of a list."""
    return [one for one in ([value] if isinstance(value, Mapping) else _list(value)) if isinstance(one, Mapping)]
