"""The Route 53 zones of the shop's name and the previews': found, and searched for what is in the way of a name."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import explain
from infra.errors import AwsError, PreflightError
from infra.settings.limits import PREVIEW_HOSTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.clients.aws import AwsClients
    from infra.settings import Settings

ADDRESSES = frozenset({"A", "AAAA", "CNAME"})
"""Types of records that lead to a host. Route 53 takes no second set of a name and type, and nothing beside a CNAME."""

AMAZON = frozenset({"amazon.com", "amazontrust.com", "awstrust.com", "amazonaws.com"})
"""Certificate authorities one of which a CAA record has to allow for ACM
(docs.aws.amazon.com/acm/latest/userguide/setup-caa.html)."""

DnsRecord = dict[str, Any]


@dataclass(frozen=True)
class DnsName:
    """A load balancer's name in DNS."""

    balancer: str
    """Name of the load balancer that it leads to."""
    host: str
    """The host that its certificate and record are for."""
    zone: str
    """Name of the Route 53 zone that it goes into."""
    setting: str
    """The setting that names the zone."""
    aliases: tuple[str, ...] = ()
    """Other hosts that its certificate and records are for."""

    def each_host(self) -> list[DnsName]:
        """Return a name for each of its hosts alone, its own first."""
        return [replace(self, host=host, aliases=()) for host in (self.host, *self.aliases)]


def dns_names(settings: Settings, load_balancer: str) -> list[DnsName]:
    """Return the name of each load balancer: production's, and the previews', which has one of its own."""
    return [
        DnsName(load_balancer, settings.domain, settings.zone.rstrip("."), "hostedZone", settings.domain_aliases),
        DnsName(
            f"{load_balancer}-preview",
            f"{PREVIEW_HOSTS}{settings.preview_domain}",
            settings.preview_zone.rstrip("."),
            "previewHostedZone",
        ),
    ]


class ZoneMissingError(PreflightError):
    """This account has no public zone of the name."""


UNKNOWN_ZONE = "unknown"
"""In place of a zone's id on a way back, where records keep what they have: without any they would no longer be declared."""


def find_zone(clients: AwsClients, name: DnsName) -> str:
    """Return the id of the public zone that a name goes into.

    Raises:
        ZoneMissingError: there is none.
        ShopCatError: there is more than one, of which the registrar delegates to one at most, or Route 53 can't be asked.
    """
    wanted = name.zone
    try:
        pages = clients.get("route53").get_paginator("list_hosted_zones").paginate()
        zone_ids = [
            str(zone["Id"].rpartition("/")[2])
            for page in pages
            for zone in page["HostedZones"]
            if zone["Name"].rstrip(".") == wanted and not zone.get("Config", {}).get("PrivateZone")
        ]
    except (BotoCoreError, ClientError) as error:
        raise explain(error, "Route 53", clients.endpoint_url) from error
    if len(zone_ids) == 1:
        return zone_ids[0]
    if zone_ids:
        raise PreflightError(
            f"{len(zone_ids)} public Route 53 zones are called {wanted} ({', '.join(zone_ids)}), and a zone is known by its "
            f"name: keep the one whose name servers (`aws route53 get-hosted-zone --id {zone_ids[0]}`) are those of "
            f"`dig +short NS {wanted}`, and delete the other (`aws route53 delete-hosted-zone --id …`); or set shopcat:dns to "
            "external to enter the names by hand"
        )
    raise ZoneMissingError(
        f"no public Route 53 zone {wanted} in this account: make it, or set shopcat:{name.setting} to the zone that "
        f"{name.host.removeprefix(PREVIEW_HOSTS)} lies in, or shopcat:dns to external to enter the names elsewhere"
    )


def lineage(host: str, zone: str) -> list[str]:
    """Return a host and every name above it, up to the zone's own; a wildcard is first."""
    names = [host.rstrip(".")]
    while names[-1] != zone and "." in names[-1]:
        names.append(names[-1].partition(".")[2])
    return names


def routing_obstacle(records: Sequence[DnsRecord], zone_id: str) -> str:
    """Return why no simple record can be made beside records of its name and type, and what mends it; empty if it can.

    A record with a routing policy has a SetIdentifier, and Route 53 takes no simple one of that name and type beside it
    (docs.aws.amazon.com/Route53/latest/APIReference/API_ResourceRecordSet.html).
    """
    routed = [record for record in records if "SetIdentifier" in record]
    if not routed:
        return ""
    host, kind = routed[0]["Name"].replace("\\052", "*").rstrip("."), routed[0]["Type"]
    obstacle = (
        f"{host} {kind} has a routing policy (SetIdentifier {', '.join(record['SetIdentifier'] for record in routed)}), and "
        "Route 53 takes no simple record beside it; "
    )
    targets = [record.get("AliasTarget", {}) for record in routed]
    if "" in (names := {target.get("DNSName", "").lower() for target in targets}) or len(names) > 1:
        return f"{obstacle}delete those that lead elsewhere (while users are moved: make takeover-dns STEP=finish)"
    simple = {"Name": routed[0]["Name"], "Type": kind, "AliasTarget": {**targets[0], "EvaluateTargetHealth": False}}
    changes = [
        *({"Action": "DELETE", "ResourceRecordSet": record} for record in routed),
        {"Action": "CREATE", "ResourceRecordSet": simple},
    ]
    batch = shlex.quote(json.dumps({"Changes": changes}))
    return (
        f"{obstacle}put one in their place: "
        f"`aws route53 change-resource-record-sets --hosted-zone-id {zone_id} --change-batch {batch}`"
    )


def dns_obstacles(records: Sequence[DnsRecord], wanted: DnsName, region: str, zone_id: str) -> list[str]:
    """Return what of a zone's records stands in the way of a load balancer's name, one line each.

    A simple record that already leads to a load balancer of ours, by its name and region, is no obstacle: an earlier update
    made it.
    """
    by_name: dict[str, list[DnsRecord]] = {}
    for record in records:
        name = record["Name"].replace("\\052", "*").rstrip(".").lower()
        by_name.setdefault(name, []).append(record)
    obstacles, host = [], wanted.host
    ours = re.compile(rf"(dualstack\.)?{re.escape(wanted.balancer)}-\d+\.{re.escape(region)}\.elb\.amazonaws\.com\.?")
    above = lineage(host, wanted.zone)
    for record in by_name.get(host, []):
        target = record.get("AliasTarget", {}).get("DNSName", "").lower()
        if record["Type"] in ADDRESSES and not (record["Type"] == "A" and ours.fullmatch(target)):
            values = target or ", ".join(each["Value"] for each in record.get("ResourceRecords", []))
            obstacles.append(
                f"{host} {record['Type']} leads to {values or 'something else'}; delete it, or choose another domain"
            )
    if not obstacles and (
        routed := routing_obstacle([each for each in by_name.get(host, []) if each["Type"] == "A"], zone_id)
    ):
        obstacles.append(routed)
    for name in above[:-1]:
        if any(record["Type"] == "NS" for record in by_name.get(name, [])):
            obstacles.append(
                f"{name} NS hands {host} over to another zone; set shopcat:{wanted.setting} to {name}, or delete it"
            )
    return obstacles + _forbidden(host, above, by_name)


def _forbidden(host: str, names: Sequence[str], by_name: dict[str, list[DnsRecord]]) -> list[str]:
    """Return a line on the CAA record that lets ACM make no certificate, if there is one.

    Records of the nearest name count (RFC 8659), for a wildcard `issuewild` before `issue`.
    """
    for name in names:
        values = [
            value["Value"].split(None, 2)
            for record in by_name.get(name, [])
            if record["Type"] == "CAA"
            for value in record["ResourceRecords"]
        ]
        if not values:
            continue
        tags: dict[str, set[str]] = {}
        for _, tag, issuer in values:
            tags.setdefault(tag.lower(), set()).add(issuer.strip('"').partition(";")[0].strip().lower())
        allowed = tags.get("issue")
        if host.startswith("*."):
            allowed = tags.get("issuewild", allowed)
        if allowed is not None and not allowed & AMAZON:
            return [f'{name} CAA lets no certificate of ACM be made for {host}; add `0 issue "amazon.com"`']
        return []
    return []


def read_dns_records(clients: AwsClients, zone_id: str, wanted: DnsName) -> list[DnsRecord]:
    """Read the records of a name and of those above it; a zone may hold ten thousand others."""
    route53 = clients.get("route53")
    records: list[DnsRecord] = []
    for name in sorted(lineage(wanted.host, wanted.zone)):
        page = route53.list_resource_record_sets(HostedZoneId=zone_id, StartRecordName=name, MaxItems="100")
        records += [
            record for record in page["ResourceRecordSets"] if record["Name"].replace("\\052", "*").rstrip(".") == name
        ]
    return records


def certificate_arns(clients: AwsClients, host: str) -> list[str]:
    """Return the ARNs of all certificates of a host, whoever made them; a failed call is left to whoever asks."""
    pages = clients.get("acm").get_paginator("list_certificates").paginate()
    listed = (each for page in pages for each in page["CertificateSummaryList"])
    return [str(each["CertificateArn"]) for each in listed if each["DomainName"] == host]


def refuse_taken_aliases(clients: AwsClients, zone_id: str, wanted: DnsName) -> None:
    """Check that other names are free or lead here already; none where these credentials may not read the zone, nor change it.

    Raises:
        ShopCatError: a record of somebody else's is in the way, or Route 53 can't be asked.
    """
    for alias in wanted.each_host()[1:]:
        try:
            refuse_taken_name(clients, zone_id, alias)
        except AwsError as error:
            if "AccessDenied" not in error.code:
                raise


def refuse_taken_name(clients: AwsClients, zone_id: str, wanted: DnsName) -> None:
    """Check, before the first load balancer is made, that its name is free.

    Raises:
        ShopCatError: a record of somebody else's is in the way, or Route 53 can't be asked.
    """
    try:
        records = read_dns_records(clients, zone_id, wanted)
    except (BotoCoreError, ClientError) as error:
        raise explain(error, f"records of Route 53 zone {wanted.zone}", clients.endpoint_url) from error
    obstacles = dns_obstacles(records, wanted, clients.region, zone_id)
    if obstacles:
        raise PreflightError(
            f"Route 53 zone {wanted.zone} ({zone_id}) holds records that are in the way: " + ". ".join(obstacles)
        )
