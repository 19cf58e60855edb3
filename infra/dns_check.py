"""Rows of `make aws-check` on names: what is in the way of the shop's and the previews', and whether they share a site."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from infra import domains, zone
from infra.findings import Row, State, asked
from infra.record import LOAD_BALANCER

if TYPE_CHECKING:
    from infra.aws_clients import AwsClients
    from infra.settings import Settings


def read(settings: Settings, clients: AwsClients) -> list[Row]:
    """Every row; what can't be asked is a row too."""
    found = []
    if settings.preview_domain_shared:
        found.append(Row("previews' site", State.LOOK, domains.warning(settings.domain, settings.preview_domain)))
    if settings.dns == "external":
        text = "entered elsewhere (shopcat:dns is external)"
        return [*found, Row("DNS", State.LOOK, text, "the first update says what to enter")]
    for name in zone.names(settings, LOAD_BALANCER):
        found += asked(f"DNS {name.host}", partial(_record, clients, name))
    return found


def _record(clients: AwsClients, name: zone.Name) -> list[Row]:
    zone_id, subject = zone.find(clients, name), f"DNS {name.host}"
    wrong = zone.obstacles(zone.read(clients, zone_id, name), name, clients.region)
    if wrong:
        return [Row(subject, State.CHANGE, found, f"in Route 53 zone {name.zone} ({zone_id})") for found in wrong]
    servers = clients.get("route53").get_hosted_zone(Id=zone_id).get("DelegationSet", {}).get("NameServers", [])
    return [
        Row(subject, State.OK, f"free in zone {name.zone}"),
        Row(
            f"{subject}: delegation",
            State.LOOK,
            f"zone {name.zone} is answered by {', '.join(servers) or 'unknown servers'}",
            f"compare with `dig +short NS {name.zone}`; no certificate is issued until they are the same",
        ),
    ]
