"""Reads and writes of the move at AWS: the zone, both load balancers, the records, the counts, the live release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import AwsClients, error_code, explain, is_transient
from infra.commands.traffic_move.counting import PERIOD_SECONDS, metric_queries
from infra.commands.traffic_move.records import (
    Edge,
    EdgeKind,
    RecordSet,
    ShopRecords,
    plain_name,
    read_shape,
    stands,
    swap_batch,
)
from infra.commands.traffic_move.rules import LiveRelease, RequestCounts
from infra.errors import PreflightError
from infra.foundation import dns
from infra.names import LOAD_BALANCER
from infra.release.ledger import Ledger
from infra.release.metrics import LATE_SECONDS
from infra.settings import Settings

HTTPS_PORT = 443


@contextmanager
def _explained(clients: AwsClients, doing: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise explain(error, doing, clients.endpoint_url) from error


class ShopZone:
    """The Route 53 zone that holds the shop's name."""

    def __init__(self, clients: AwsClients, zone_id: str, name: dns.DnsName) -> None:
        self._clients = clients
        self._name = name
        self.zone_id = zone_id
        self.zone = name.zone
        self._doing = f"change of Route 53 zone {name.zone}"

    def read(self, new: Edge | None) -> ShopRecords:
        """Return what stands for the shop's name.

        Raises:
            ShopCatError: Route 53 can't be asked, or holds records that can't be moved.
        """
        with _explained(self._clients, f"records of Route 53 zone {self.zone}"):
            found = dns.read_dns_records(self._clients, self.zone_id, self._name)
        host = self._name.host
        records: list[RecordSet] = [record for record in found if record["Name"].rstrip(".").lower() == host]
        return read_shape(host, records, new)

    def write(self, records: ShopRecords, new: Edge | None, weight: int | None) -> str:
        """Write what is wanted in one batch, if what was read still stands; return the id of the change.

        A batch that fails because what is wanted stands already (written by somebody else, or by an attempt whose answer was
        lost) is written once more over it: Route 53 tells of a change only by its id.

        Raises:
            PreflightError: the records are others by now; nothing was changed.
            AwsError: Route 53 refused what is wanted (an alias to a load balancer deleted just now), or did not answer.
        """
        try:
            return self._change(swap_batch(records, new, weight))
        except ClientError as error:
            if error_code(error) != "InvalidChangeBatch":
                raise explain(error, self._doing, self._clients.endpoint_url) from error
            refused = error
        except BotoCoreError as error:
            raise explain(error, self._doing, self._clients.endpoint_url) from error
        current = self.read(new)
        if current.records == records.records and not stands(current, new, weight):
            raise explain(refused, self._doing, self._clients.endpoint_url) from refused
        if not stands(current, new, weight):
            raise PreflightError(
                f"Route 53 records of {records.host} are not those that were read, so nothing was changed ({refused}); "
                "somebody else writes them too: run `make takeover-dns STEP=status`, then the step again"
            ) from refused
        with _explained(self._clients, self._doing):
            return self._change(swap_batch(current, new, weight))

    def _change(self, changes: list[dict[str, Any]]) -> str:
        answer = self._clients.get("route53").change_resource_record_sets(
            HostedZoneId=self.zone_id, ChangeBatch={"Comment": "shopcat takeover-dns", "Changes": changes}
        )
        return str(answer["ChangeInfo"]["Id"])

    def is_in_sync(self, change_id: str) -> bool:
        """Tell whether every server of Route 53 has a change; False too if it can't be asked just now.

        Raises:
            AwsError: these credentials may not ask.
        """
        try:
            answer = self._clients.get("route53").get_change(Id=change_id)
        except (BotoCoreError, ClientError) as error:
            if is_transient(error):
                return False
            raise explain(error, "Route 53 change", self._clients.endpoint_url) from error
        return bool(answer["ChangeInfo"]["Status"] == "INSYNC")


def find_shop_zone(clients: AwsClients, settings: Settings) -> ShopZone | None:
    """Return the nearest public zone above the shop's name; None if this account has none.

    With dns external the setting `hostedZone` may be empty, so every name above the shop's is tried.
    """
    name = dns.dns_names(settings, LOAD_BALANCER)[0]
    names = [settings.hosted_zone.rstrip(".")] if settings.hosted_zone else dns.lineage(name.host, "")
    for zone in names:
        candidate = replace(name, zone=zone)
        try:
            return ShopZone(clients, dns.find_zone(clients, candidate), candidate)
        except dns.ZoneMissingError:
            continue
    return None


def find_edge(clients: AwsClients, name: str) -> Edge | None:
    """Return the load balancer of any kind that has a name or DNS name; None if there is none.

    Raises:
        AwsError: AWS can't be asked.
    """
    return _find_edge(clients, name, frozenset(EdgeKind))


def _find_edge(clients: AwsClients, name: str, kinds: frozenset[EdgeKind]) -> Edge | None:
    wanted = plain_name(name)
    with _explained(clients, "load balancers"):
        for page in clients.get("elbv2").get_paginator("describe_load_balancers").paginate():
            for each in page["LoadBalancers"]:
                if each["Type"] in kinds and wanted in {each["LoadBalancerName"].lower(), plain_name(each["DNSName"])}:
                    return _edge(clients, each)
        if EdgeKind.CLASSIC in kinds:
            for page in clients.get("elb").get_paginator("describe_load_balancers").paginate():
                for each in page["LoadBalancerDescriptions"]:
                    if wanted in {each["LoadBalancerName"].lower(), plain_name(each["DNSName"])}:
                        return _classic_edge(each)
    return None


def _edge(clients: AwsClients, balancer: Mapping[str, Any]) -> Edge | None:
    arn = str(balancer["LoadBalancerArn"])
    pages = clients.get("elbv2").get_paginator("describe_listeners").paginate(LoadBalancerArn=arn)
    try:
        listeners = [(listener["Protocol"], listener["Port"]) for page in pages for listener in page["Listeners"]]
    except ClientError as error:
        if error_code(error) == "LoadBalancerNotFound":  # deleted since it was listed
            return None
        raise
    return Edge(
        str(balancer["LoadBalancerName"]),
        arn,
        str(balancer["DNSName"]),
        str(balancer["CanonicalHostedZoneId"]),
        has_ipv6=str(balancer.get("IpAddressType", "")).startswith("dualstack"),
        scheme=_scheme(listeners),
        kind=EdgeKind(balancer["Type"]),
    )


def _classic_edge(balancer: Mapping[str, Any]) -> Edge:
    listeners = [each["Listener"] for each in balancer["ListenerDescriptions"]]
    return Edge(
        str(balancer["LoadBalancerName"]),
        "",
        str(balancer["DNSName"]),
        str(balancer.get("CanonicalHostedZoneNameID", "")),
        scheme=_scheme([(listener["Protocol"], listener["LoadBalancerPort"]) for listener in listeners]),
        kind=EdgeKind.CLASSIC,
    )


def _scheme(listeners: Sequence[tuple[str, int]]) -> str:
    """Return how the shop is asked: a Network or Classic Load Balancer may hand TLS on to the pods as TCP."""
    return "https" if any(protocol == "HTTPS" or port == HTTPS_PORT for protocol, port in listeners) else "http"


def find_new_edge(clients: AwsClients) -> Edge | None:
    """Return this program's load balancer; None if there is none (`records.require_new` is for steps that need it).

    Raises:
        AwsError: AWS can't be asked.
    """
    return _find_edge(clients, LOAD_BALANCER, frozenset({EdgeKind.APPLICATION}))


def read_live(clients: AwsClients, settings: Settings) -> LiveRelease:
    """Return what the ledger says is live and open.

    Raises:
        LedgerUnavailableError: it can't be read.
    """
    state = Ledger(clients.get("dynamodb"), settings.ledger_table).read()
    live = state.live_record
    return LiveRelease(live.name if live else "", state.open.name if state.open else "")


def count_window(now: datetime, minutes: int) -> tuple[datetime, datetime]:
    """Return begin and end of the last whole periods whose counts are there by now.

    A local clock that is ahead asks for periods that nobody reported yet, which is no proof of 0; one that is behind leaves out
    as much of the window's end.
    """
    end = int(now.timestamp() - LATE_SECONDS) // PERIOD_SECONDS * PERIOD_SECONDS
    return (
        datetime.fromtimestamp(end, now.tzinfo) - timedelta(minutes=minutes),
        datetime.fromtimestamp(end, now.tzinfo),
    )


def read_counts(clients: AwsClients, edge: Edge, now: datetime, minutes: int) -> RequestCounts:
    """Read a load balancer's requests of the last minutes (a multiple of 5), and in how many periods it reported anything.

    Raises:
        AwsError: AWS can't be asked.
    """
    start, end = count_window(now, minutes)
    with _explained(clients, f"counts of load balancer {edge.name}"):
        queries = metric_queries(edge, _groups_behind(clients, edge))
        values: dict[str, dict[datetime, float]] = {name: {} for name in queries}
        status = dict.fromkeys(queries, "no answer")
        notes: list[str] = []
        pages = clients.get("cloudwatch").get_paginator("get_metric_data")
        for page in pages.paginate(MetricDataQueries=list(queries.values()), StartTime=start, EndTime=end):
            notes += [str(note.get("Value") or note.get("Code")) for note in page.get("Messages", [])]
            for result in page["MetricDataResults"]:
                status[result["Id"]] = result.get("StatusCode", "no status")
                points = zip(result["Timestamps"], result["Values"], strict=True)
                values[result["Id"]].update({at: value for at, value in points if start <= at < end})
    reported = {at for points in values.values() for at in points}
    open_by_time = values.get("open") or {end: 0.0}
    return RequestCounts(
        requests=round(sum(values["requests"].values())),
        without_target=round(sum(values.get("without_target", {}).values())),
        connections=round(open_by_time[max(open_by_time)]),
        periods=minutes * 60 // PERIOD_SECONDS,
        reported=len(reported),
        incomplete=(*notes, *(f"{name}: {code}" for name, code in status.items() if code != "Complete")),
        unit="connections" if edge.kind is EdgeKind.NETWORK else "requests",
    )


def _groups_behind(clients: AwsClients, edge: Edge) -> list[str]:
    if edge.kind is not EdgeKind.APPLICATION:
        return []
    groups = clients.get("elbv2").describe_target_groups(LoadBalancerArn=edge.arn)["TargetGroups"]
    return [str(group["TargetGroupArn"]) for group in groups]
