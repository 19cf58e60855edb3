"""Everything of previews that is anywhere on the twin: what an open preview has, and what a closed one must not have left.

``declared`` lists what a preview's stack declares; it must be empty once the stack is destroyed, or its update was refused.
``everything`` lists besides what the pipeline and the twin keep for it; it must be empty once the preview is closed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Collection, Iterable
from typing import Any

from twin import pulumi
from twin.config import Twin
from twin.errors import TwinError
from twin.loadbalancer import hostnames
from twin.scenarios import preview

_STACK = re.compile(r"(?<![a-z0-9])pr-([1-9][0-9]{0,8})(?![a-z0-9])")
_NOT_OBJECTS = ("events", "events.events.k8s.io", "componentstatuses")
"""Events are a log that Kubernetes forgets by itself; component statuses are no objects."""
LEFTOVER_KINDS = (
    "namespaces",
    "target groups",
    "rules",
    "secrets",
    "places",
    "objects",
    "DNS entries",
    "host names",
    "images",
    "stacks",
    "settings",
)
"""Kinds of leftovers that are looked for."""


def concerns(text: str, number: int | None) -> bool:
    """Report whether a name contains this preview's name, or any's (None): `shopcat-pr-7` contains `pr-7`, `pr-71` does not."""
    return any(number in (None, int(found)) for found in _STACK.findall(text))


def of_objects(items: Iterable[dict[str, Any]], number: int | None) -> list[str]:
    """Kubernetes objects in a preview's namespace, or with its name, wherever they are."""
    found = set()
    for one in items:
        metadata = one["metadata"]
        name = f"{one['kind']} {'/'.join(filter(None, (metadata.get('namespace'), metadata['name'])))}"
        if concerns(name, number):
            found.add(name)
    return sorted(found)


def declared(twin: Twin, number: int | None = None) -> dict[str, list[str]]:
    """Existing resources of the kinds in a preview's stack, of one preview or of all; kinds without any are left out."""
    elb = pulumi.client(twin, "elbv2")
    groups = [one["TargetGroupName"] for one in elb.describe_target_groups()["TargetGroups"]]
    hosts = [
        value
        for balancer in elb.describe_load_balancers()["LoadBalancers"]
        for listener in elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
        for rule in elb.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]
        for condition in rule["Conditions"]
        for value in condition.get("HostHeaderConfig", {}).get("Values", [])
    ]
    secrets = pulumi.client(twin, "secretsmanager").get_paginator("list_secrets")
    names = [one["Name"] for page in secrets.paginate(IncludePlannedDeletion=True) for one in page["SecretList"]]
    taken = pulumi.client(twin, "dynamodb").scan(TableName=preview.contract(twin)["placesTable"])["Items"]
    found = {
        "namespaces": [one["metadata"]["name"] for one in _get(twin, "namespaces")],
        "target groups": groups,
        "rules": hosts,
        "secrets": names,
    }
    mine = {kind: [one for one in values if concerns(one, number)] for kind, values in found.items()}
    mine["places"] = [one["place"]["S"] for one in taken if concerns(one["stack"]["S"], number)]
    return {kind: values for kind, values in mine.items() if values}


def everything(twin: Twin, number: int | None = None, tags: Collection[str] | None = None) -> dict[str, list[str]]:
    """All that there is of a preview, or of any; only what there is has a key.

    Args:
        twin: where.
        number: the pull request; None for every one.
        tags: of its images; None: every image in the previews' repository is a preview's.
    """
    ecr = pulumi.client(twin, "ecr").get_paginator("list_images")
    images = [
        str(one.get("imageTag") or one["imageDigest"])
        for page in ecr.paginate(repositoryName=preview.REPOSITORY_NAME)
        for one in page["imageIds"]
    ]
    settings = [path.name for path in preview.settings_file(twin, "pr-0").parent.glob("*.yaml")]
    found = {
        "objects": of_objects(_objects(twin), number),
        "DNS entries": [one for one in _dns_names(twin) if concerns(one, number)],
        "host names": [one for one in hostnames.names(twin) if concerns(one, number)],
        "images": [one for one in images if tags is None or one in tags],
        "stacks": [one for one in preview.stacks(twin) if concerns(one, number)],
        "settings": [one for one in settings if concerns(one, number)],
    }
    return {**declared(twin, number), **{kind: values for kind, values in found.items() if values}}


def cluster_scoped(twin: Twin) -> set[str]:
    """Kind and name of every Kubernetes object outside namespaces, whosever it is."""
    items = _get(twin, *_resources(twin, namespaced=False))
    return {f"{one['kind']} {one['metadata']['name']}" for one in items}


def _dns_names(twin: Twin) -> list[str]:
    """Names in Route 53, and those that the twin's own DNS answers."""
    route53 = pulumi.client(twin, "route53")
    found = []
    for zone in route53.list_hosted_zones()["HostedZones"]:
        pages = route53.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone["Id"])
        found += [str(one["Name"]) for page in pages for one in page["ResourceRecordSets"]]
    for path in twin.hosts_directory.glob("[!.]*"):
        found += [name for line in path.read_text().splitlines() for name in line.split()[1:]]
    return found


def _objects(twin: Twin) -> list[dict[str, Any]]:
    """Every object in the cluster, in namespaces and out of them."""
    return _get(twin, *_resources(twin, namespaced=True)) + _get(twin, *_resources(twin, namespaced=False))


def _resources(twin: Twin, *, namespaced: bool) -> list[str]:
    """Every kind that can be listed, as `kubectl` calls it."""
    asked = ["api-resources", "--verbs=list", f"--namespaced={str(namespaced).lower()}", "-o", "name"]
    return [one for one in _kubectl(twin, *asked).split() if one not in _NOT_OBJECTS]


def _get(twin: Twin, *resources: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_kubectl(twin, "get", ",".join(resources), "-A", "-o", "json"))["items"]
    return found


def _kubectl(twin: Twin, *arguments: str) -> str:
    result = subprocess.run(
        ["kubectl", *arguments],
        env={**os.environ, **pulumi.environment(twin)},
        text=True,
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode != 0:
        raise TwinError(f"`kubectl {' '.join(arguments[:2])} …` failed: {result.stderr.strip()}")
    return result.stdout
