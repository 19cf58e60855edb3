"""Rules: each takes one resource as it is declared, and returns what is wrong with it, one sentence each.

They are plain functions of a type and its arguments, so they can judge whatever hands those over: the recorded program
(`make policy`), what the engine was given (tests), an analyzer of the engine. Arguments have the provider's names, camelCase.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from infra.commands.takeover.declaration import Declared
from infra.names import ALARMS_KEY, PREVIEW_REPOSITORY, PREVIEW_SECRET_PATH

WORLD = frozenset({"0.0.0.0/0", "::/0"})
PUBLIC_PORTS = frozenset({80, 443})
"""Ports that anybody may reach: those of the load balancers."""
EVERYBODY = frozenset({"system:anonymous", "system:unauthenticated", "system:authenticated"})
"""Kubernetes' user and groups of whoever asks (kubernetes.io/docs/reference/access-authn-authz/rbac)."""
_DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
_POLICY_ARGUMENTS = ("assumeRolePolicy", "policy", "repositoryPolicy", "resourcePolicy")
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")

Rule = Callable[[Declared], Sequence[str]]


def refuse_public_access(resource: Declared) -> list[str]:
    """Refuse a database with a public address, and a security group that lets the world in to another port than 80 and 443."""
    kind, inputs = resource.pulumi_type, resource.inputs
    if kind in {"aws:rds/instance:Instance", "aws:rds/clusterInstance:ClusterInstance"}:
        public = inputs.get("publiclyAccessible") is not False
        return ["publiclyAccessible must be false: the database would get a public address"] if public else []
    if kind == "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule":
        openings = [(inputs, {inputs.get("cidrIpv4"), inputs.get("cidrIpv6")})]
    elif kind == "aws:ec2/securityGroup:SecurityGroup":
        openings = [
            (rule, {*rule.get("cidrBlocks", ()), *rule.get("ipv6CidrBlocks", ())}) for rule in inputs.get("ingress", ())
        ]
    elif kind == "aws:ec2/securityGroupRule:SecurityGroupRule" and inputs.get("type") == "ingress":
        openings = [(inputs, {*inputs.get("cidrBlocks", ()), *inputs.get("ipv6CidrBlocks", ())})]
    else:
        openings = []
    return [
        f"ports {rule.get('fromPort')} to {rule.get('toPort')} are open to {', '.join(sorted(WORLD & sources))}: name the "
        "security group or the networks that need them"
        for rule, sources in openings
        if WORLD & sources and not _is_public_port(rule)
    ]


def _is_public_port(rule: Mapping[str, Any]) -> bool:
    return rule.get("fromPort") == rule.get("toPort") and rule.get("fromPort") in PUBLIC_PORTS


def refuse_unencrypted_storage(resource: Declared) -> list[str]:
    """Refuse storage that is not encrypted at rest. DynamoDB, CloudWatch and Secrets Manager always encrypt theirs."""
    kind, inputs = resource.pulumi_type, resource.inputs
    if kind in {"aws:rds/instance:Instance", "aws:rds/cluster:Cluster"}:
        wanted = {"storageEncrypted": inputs.get("storageEncrypted")}
    elif kind in {"aws:ebs/volume:Volume", "aws:efs/fileSystem:FileSystem"}:
        wanted = {"encrypted": inputs.get("encrypted")}
    elif kind == "aws:ec2/launchTemplate:LaunchTemplate":
        wanted = {
            f"the disk {mapping.get('deviceName')}: encrypted": mapping["ebs"].get("encrypted")
            for mapping in inputs.get("blockDeviceMappings", ())
            if mapping.get("ebs") is not None
        }
    elif kind == "aws:ecr/repository:Repository":
        return [] if inputs.get("encryptionConfigurations") else ["encryptionConfigurations must name AES256 or KMS"]
    elif kind == "aws:eks/cluster:Cluster":
        encrypted = "secrets" in (inputs.get("encryptionConfig") or {}).get("resources", ())
        return [] if encrypted else ["encryptionConfig must encrypt secrets with a key"]
    else:
        wanted = {}
    return [f"{argument} must be true" for argument, value in wanted.items() if value not in (True, "true")]


def refuse_wildcard_principals(resource: Declared) -> list[str]:
    """Refuse a policy that lets everybody in, whatever its conditions, and a Kubernetes binding to everybody."""
    found = []
    for argument in _POLICY_ARGUMENTS:
        text = resource.inputs.get(argument)
        if isinstance(text, str | Mapping) and resource.pulumi_type.startswith("aws:"):
            found += [f"{argument} {problem}" for problem in _wildcards(text)]
    if resource.pulumi_type.startswith("kubernetes:rbac."):
        names = [subject.get("name") for subject in resource.inputs.get("subjects") or ()]
        found += [f"the subject {name} is everybody: name a group of your own" for name in names if name in EVERYBODY]
    return found


def _wildcards(policy: str | Mapping[str, Any]) -> Iterator[str]:
    if isinstance(policy, str) and not policy.lstrip().startswith("{"):
        return  # not IAM's: TLS, scaling and others are called policies too
    try:
        document = json.loads(policy) if isinstance(policy, str) else policy
    except ValueError as error:
        yield f"is no JSON, so nobody knows whom it lets in ({error})"
        return
    statements = document.get("Statement", ())
    for statement in [statements] if isinstance(statements, Mapping) else statements:
        if statement.get("Effect") != "Allow":
            continue
        if "NotPrincipal" in statement:
            yield "allows all principals but some (NotPrincipal): name those that need it"
        principal = statement.get("Principal", ())
        values = principal.values() if isinstance(principal, Mapping) else [principal]
        names = [name for value in values for name in ([value] if isinstance(value, str) else value)]
        if "*" in names:
            yield 'allows the principal "*": name the roles or services that need it'


def refuse_mutable_images(resource: Declared) -> list[str]:
    """Refuse a repository whose tags move, a pod's image without a digest, and a chart's image without a tag of its own.

    The charts' own images may have a tag alone: `shopcat:images` takes them by digest, and an update warns of one without.
    """
    kind, inputs = resource.pulumi_type, resource.inputs
    if kind == "aws:ecr/repository:Repository":
        return [] if inputs.get("imageTagMutability") == "IMMUTABLE" else ["imageTagMutability must be IMMUTABLE"]
    if kind == "kubernetes:helm.sh/v3:Release":
        tag = ((inputs.get("values") or {}).get("image") or {}).get("tag") or "latest"
        problems = [] if tag.partition("@")[0] != "latest" else ["values.image.tag must be set, and not to latest"]
        return problems if inputs.get("version") else [*problems, "version must name the chart's version"]
    if not kind.startswith("kubernetes:"):
        return []
    return [
        f"the image {image} has no digest: write <name>@sha256:<64 hex digits>"
        for image in _images(inputs)
        if not _DIGEST.fullmatch(image)
    ]


def _images(value: Any) -> Iterator[str]:
    """Return the images of all containers in an object, wherever its pod template is."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _CONTAINERS and isinstance(inner, Sequence):
                yield from (str(container.get("image")) for container in inner if isinstance(container, Mapping))
            else:
                yield from _images(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _images(inner)


def refuse_unguarded_data(resource: Declared) -> list[str]:
    """Refuse what holds data, or the keys to it, and could be deleted by one update; what previews throw away is left out.

    With `shopcat:protection: false`, by which production is taken down (docs/destroy.md), production breaks this rule.
    """
    if resource.pulumi_type not in HOLDS_DATA or _is_throw_away(resource):
        return []
    inputs, problems = resource.inputs, []
    if not (resource.protect or resource.retain_on_delete):
        problems.append(f"protect or retain_on_delete must be set, since it holds {HOLDS_DATA[resource.pulumi_type]}")
    if resource.pulumi_type == "aws:rds/instance:Instance":
        if inputs.get("deletionProtection") is not True:
            problems.append("deletionProtection must be true")
        if inputs.get("skipFinalSnapshot") is not False:
            problems.append("skipFinalSnapshot must be false")
        if not inputs.get("backupRetentionPeriod"):
            problems.append("backupRetentionPeriod must be at least a day")
    if inputs.get("forceDelete") is True:
        problems.append("forceDelete must be false: what is in it would go with it")
    if inputs.get("recoveryWindowInDays") == 0:
        problems.append("recoveryWindowInDays must not be 0: a deleted secret could not be brought back")
    return problems


HOLDS_DATA: Mapping[str, str] = {
    "aws:ecr/repository:Repository": "the released images",
    "aws:eks/cluster:Cluster": "the cluster",
    "aws:kms/key:Key": "the key of the cluster's secrets",
    "aws:rds/instance:Instance": "the database",
    "aws:s3/bucket:Bucket": "objects",
    "aws:secretsmanager/secret:Secret": "a password that is nowhere else",
}
"""Type → what is lost with one of it."""


def _is_throw_away(resource: Declared) -> bool:
    if resource.pulumi_type == "aws:rds/instance:Instance" and resource.inputs.get("restoreToPointInTime"):
        # A copy that no release uses yet: what is in it is in its source's backups. One that serves is declared protected.
        guards = resource.protect or resource.inputs.get("deletionProtection")
        return not guards and resource.inputs.get("skipFinalSnapshot") is False
    name = str(resource.inputs.get("name", ""))
    if resource.key == ("aws:kms/key:Key", ALARMS_KEY):
        return True
    return name == PREVIEW_REPOSITORY or name.startswith(f"{PREVIEW_SECRET_PATH}/")


RULES: Mapping[str, Rule] = {
    "public-access": refuse_public_access,
    "unencrypted-storage": refuse_unencrypted_storage,
    "wildcard-principal": refuse_wildcard_principals,
    "mutable-image": refuse_mutable_images,
    "unguarded-data": refuse_unguarded_data,
}


def violations(resources: Sequence[Declared]) -> list[str]:
    """Return a line for everything that is wrong: the resource, the rule, and what has to be changed."""
    return [
        f"{resource.pulumi_type} {resource.name}: {name}: {problem}"
        for resource in sorted(resources, key=lambda each: each.key)
        for name, rule in RULES.items()
        for problem in rule(resource)
    ]
