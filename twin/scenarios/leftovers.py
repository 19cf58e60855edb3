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
    return any(number in (None, int(digits)) for digits in _STACK.findall(text))


def of_objects(items: Iterable[dict[str, Any]], number: int | None) -> list[str]:
    """Kubernetes objects in a preview's namespace, or with its name, wherever they are."""
    names = set()
    for item in items:
        metadata = item["metadata"]
        name = f"{item['kind']} {'/'.join(filter(None, (metadata.get('namespace'), metadata['name'])))}"
        if concerns(name, number):
            names.add(name)
    return sorted(names)


def declared(twin: Twin, number: int | None = None) -> dict[str, list[str]]:
    """Existing resources of the kinds in a preview's stack, of one preview or of all; kinds without any are left out."""
    elb = pulumi.client(twin, "elbv2")
    groups = [group["TargetGroupName"] for group in elb.describe_target_groups()["TargetGroups"]]
    hosts = [
        value
        for balancer in elb.describe_load_balancers()["LoadBalancers"]
        for listener in elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
        for rule in elb.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]
        for condition in rule["Conditions"]
        for value in condition.get("HostHeaderConfig", {}).get("Values", [])
    ]
    secrets = pulumi.client(twin, "secretsmanager").get_paginator("list_secrets")
    names = [secret["Name"] for page in secrets.paginate(IncludePlannedDeletion=True) for secret in page["SecretList"]]
    taken = pulumi.client(twin, "dynamodb").scan(TableName=preview.contract(twin)["placesTable"])["Items"]
    by_kind = {
        "namespaces": [namespace["metadata"]["name"] for namespace in _get(twin, "namespaces")],
        "target groups": groups,
        "rules": hosts,
        "secrets": names,
    }
    mine = {kind: [value for value in values if concerns(value, number)] for kind, values in by_kind.items()}
    mine["places"] = [place["place"]["S"] for place in taken if concerns(place["stack"]["S"], number)]
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
        str(name.get("imageTag") or name["imageDigest"])
        for page in ecr.paginate(repositoryName=preview.REPOSITORY_NAME)
        for name in page["imageIds"]
    ]
    settings = [path.name for path in preview.settings_file(twin, "pr-0").parent.glob("*.yaml")]
    by_kind = {
        "objects": of_objects(_objects(twin), number),
        "DNS entries": [name for name in _dns_names(twin) if concerns(name, number)],
        "host names": [name for name in hostnames.names(twin) if concerns(name, number)],
        "images": [name for name in images if tags is None or name in tags],
        "stacks": [name for name in preview.stacks(twin) if concerns(name, number)],
        "settings": [name for name in settings if concerns(name, number)],
    }
    return {**declared(twin, number), **{kind: values for kind, values in by_kind.items() if values}}


def cluster_scoped(twin: Twin) -> set[str]:
    """Kind and name of every Kubernetes object outside namespaces, whosever it is."""
    items = _get(twin, *_resources(twin, namespaced=False))
    return {f"{item['kind']} {item['metadata']['name']}" for item in items}


def _dns_names(twin: Twin) -> list[str]:
    """Names in Route 53, and those that the twin's own DNS answers."""
    route53 = pulumi.client(twin, "route53")
    names = []
    for zone in route53.list_hosted_zones()["HostedZones"]:
        pages = route53.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone["Id"])
        names += [str(record_set["Name"]) for page in pages for record_set in page["ResourceRecordSets"]]
    for path in twin.hosts_directory.glob("[!.]*"):
        names += [name for line in path.read_text().splitlines() for name in line.split()[1:]]
    return names


def _objects(twin: Twin) -> list[dict[str, Any]]:
    """Every object in the cluster, in namespaces and out of them."""
    return _get(twin, *_resources(twin, namespaced=True)) + _get(twin, *_resources(twin, namespaced=False))


def _resources(twin: Twin, *, namespaced: bool) -> list[str]:
    """Every kind that can be listed, as `kubectl` calls it."""
    asked = ["api-resources", "--verbs=list", f"--namespaced={str(namespaced).lower()}", "-o", "name"]
    return [resource for resource in _kubectl(twin, *asked).split() if resource not in _NOT_OBJECTS]


def _get(twin: Twin, *resources: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(_kubectl(twin, "get", ",".join(resources), "-A", "-o", "json"))["items"]
    return items


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
