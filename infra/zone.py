"""Finds the Route 53 zone that the shop's names go into, before anything is declared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from infra.aws_clients import explain
from infra.errors import Refused

if TYPE_CHECKING:
    from infra.aws_clients import AwsClients


def find(clients: AwsClients, name: str) -> str:
    """Id of the public zone of that name.

    Raises:
        Refused: there is none, or Route 53 can't be asked.
    """
    wanted = name.rstrip(".")
    try:
        pages = clients.get("route53").get_paginator("list_hosted_zones").paginate()
        for page in pages:
            for zone in page["HostedZones"]:
                if zone["Name"].rstrip(".") == wanted and not zone.get("Config", {}).get("PrivateZone"):
                    return str(zone["Id"].rpartition("/")[2])
    except (BotoCoreError, ClientError) as error:
        raise explain(error, "Route 53", clients.endpoint_url) from error
    raise Refused(
        f"no public Route 53 zone {wanted} in this account: make it, or set shopcat:hostedZone to the zone that "
        "shopcat:domain lies in, or shopcat:dns to external to enter the names elsewhere"
    )
