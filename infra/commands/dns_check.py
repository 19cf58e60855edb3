"""Rows of `make aws-check` on names: what is in the way of the shop's and the previews', and whether they share a site."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from infra.commands.findings import FindingState, Row, read_rows
from infra.foundation import dns
from infra.names import LOAD_BALANCER
from infra.settings import domains

if TYPE_CHECKING:
    from infra.clients.aws import AwsClients
    from infra.settings import Settings


def check_dns(settings: Settings, clients: AwsClients) -> list[Row]:
    """Return every row; what can't be asked is a row too."""
    rows = []
    if settings.preview_domain_shared:
        rows.append(
            Row("previews' site", FindingState.LOOK, domains.domain_warning(settings.hosts, settings.preview_domain))
        )
    if settings.dns == "external":
        text = "entered elsewhere (shopcat:dns is external)"
        return [*rows, Row("DNS", FindingState.LOOK, text, "the first update says what to enter")]
    for name in (host for each in dns.dns_names(settings, LOAD_BALANCER) for host in each.each_host()):
        rows += read_rows(f"DNS {name.host}", partial(_record_row, clients, name))
    return rows


def _record_row(clients: AwsClients, name: dns.DnsName) -> list[Row]:
    zone_id, subject = dns.find_zone(clients, name), f"DNS {name.host}"
    obstacles = dns.dns_obstacles(dns.read_dns_records(clients, zone_id, name), name, clients.region, zone_id)
    if obstacles:
        return [
            Row(subject, FindingState.CHANGE, obstacle, f"in Route 53 zone {name.zone} ({zone_id})")
            for obstacle in obstacles
        ]
    servers = clients.get("route53").get_hosted_zone(Id=zone_id).get("DelegationSet", {}).get("NameServers", [])
    return [
        Row(subject, FindingState.OK, f"free in zone {name.zone}"),
        Row(
            f"{subject}: delegation",
            FindingState.LOOK,
            f"zone {name.zone} is answered by {', '.join(servers) or 'unknown servers'}",
            f"compare with `dig +short NS {name.zone}`; no certificate is issued until they are the same",
        ),
    ]
