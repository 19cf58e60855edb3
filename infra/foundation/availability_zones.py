"""Availability zones: which of them can hold the cluster, decided by zone id before a network is made.

A zone's letter means another place in each account; its id (`use1-az3`) means the same one everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from infra.capacity import T3_MEDIUM
from infra.clients.aws import explain
from infra.errors import PreflightError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from infra.clients.aws import AwsClients

WITHOUT_EKS = frozenset({"use1-az3", "usw1-az2", "cac1-az3"})
"""Zones in which EKS takes no subnet of a cluster
(docs.aws.amazon.com/eks/latest/userguide/network-reqs.html, subnet requirements)."""


def zone_names(region: str, letters: tuple[str, ...]) -> list[str]:
    """Return the names of availability zones."""
    return [f"{region}{letter}" for letter in letters]


def zone_obstacles(zones: Mapping[str, str], offering: Collection[str], instance_type: str) -> dict[str, str]:
    """Return why a zone can't hold the cluster, for each that can't.

    Args:
        zones: name → id of every zone that this account has.
        offering: ids of the zones that offer the nodes' instance type.
        instance_type: the nodes'.
    """
    obstacles = {}
    for name, zone_id in zones.items():
        if zone_id in WITHOUT_EKS:
            obstacles[name] = f"EKS takes no subnet in {zone_id}"
        elif zone_id not in offering:
            obstacles[name] = f"{zone_id} has no {instance_type}"
    return obstacles


def zone_refusal(
    wanted: list[str], zones: Mapping[str, str], offering: Collection[str], instance_type: str
) -> str | None:
    """Return what is wrong with the wanted zones and which ones to take instead; None if nothing is."""
    wrong = zone_obstacles(zones, offering, instance_type)
    lines = [
        f"{name} ({wrong[name]})" if name in zones else f"{name} (this account has no such zone)"
        for name in wanted
        if name in wrong or name not in zones
    ]
    if not lines:
        return None
    fit = [f"{name} ({zone_id})" for name, zone_id in sorted(zones.items()) if name not in wrong]
    mend = (
        f"Those that can: {', '.join(fit)}; choose two of them, by their letters"
        if len(fit) >= 2
        else f"Fewer than two can ({', '.join(fit) or 'none'}); choose another aws:region"
    )
    return f"shopcat:vpc.zones: the cluster can't be in {', '.join(lines)}. {mend}"


def read_zones(clients: AwsClients, instance_type: str = T3_MEDIUM.name) -> tuple[dict[str, str], set[str]]:
    """Read name → id of every zone of this account, and the ids of those that offer the instance type.

    Raises:
        ShopCatError: AWS can't be asked.
    """
    try:
        ec2 = clients.get("ec2")
        answer = ec2.describe_availability_zones(
            Filters=[{"Name": "zone-type", "Values": ["availability-zone"]}, {"Name": "state", "Values": ["available"]}]
        )
        pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone-id", Filters=[{"Name": "instance-type", "Values": [instance_type]}]
        )
        offering = {item["Location"] for page in pages for item in page["InstanceTypeOfferings"]}
    except (BotoCoreError, ClientError) as error:
        raise explain(error, "availability zones", clients.endpoint_url) from error
    return {item["ZoneName"]: item["ZoneId"] for item in answer["AvailabilityZones"]}, offering


def refuse_unusable(clients: AwsClients, letters: tuple[str, ...]) -> None:
    """Check the zones of the settings; the subnets of a cluster can't be moved to others later.

    Raises:
        ShopCatError: a zone can't hold the cluster, or AWS can't be asked.
    """
    wrong = zone_refusal(zone_names(clients.region, letters), *read_zones(clients), T3_MEDIUM.name)
    if wrong:
        raise PreflightError(wrong)
