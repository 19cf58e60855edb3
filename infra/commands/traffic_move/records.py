"""Records of the shop's name while traffic moves: what stands in Route 53, and the one batch that leads to what is wanted.

A batch deletes every record that was read, with all its values, and creates the wanted ones. Route 53 makes all of a batch or
none of it, and refuses a DELETE whose values are no longer the record's (docs.aws.amazon.com/Route53/latest/APIReference/
API_ChangeResourceRecordSets.html). So each batch is a compare-and-swap: nobody sees the name without an answer, and of two
people who write at once one is refused.

Every alias is written with EvaluateTargetHealth false. With true, Route 53 leaves out a load balancer without healthy
targets and then takes records of weight 0 too (Route 53's guide, health-checks-how-route-53-chooses-records.html): users would
reach the new one before anybody decided so, or the old one after its pods are gone. A simple record loses nothing by it, since
Route 53 answers with a group's records if none of them is healthy. This program's own record has false too.

Route 53 makes no alias to a load balancer that is gone ("that target was not found", github.com/boto/boto/issues/2519). So the
way back does not keep the target of the new record: at weight 0 without a new load balancer it leads to the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from infra.errors import PreflightError
from infra.names import LOAD_BALANCER

RecordSet = Mapping[str, Any]
"""A ResourceRecordSet, as Route 53 lists it."""
OLD_RECORD, NEW_RECORD = "shopcat-old", "shopcat-new"
"""SetIdentifier of the two weighted records."""
ALIAS_TTL_SECONDS = 60
"""Time for which a resolver keeps an alias to a load balancer (docs.aws.amazon.com/Route53/latest/DeveloperGuide/
resource-record-sets-choosing-alias-non-alias.html)."""
_LEADING = frozenset({"A", "AAAA", "CNAME"})
_OTHER_ROUTING = ("Region", "GeoLocation", "Failover", "MultiValueAnswer", "CidrRoutingConfig", "GeoProximityLocation",
                  "TrafficPolicyInstanceId")  # fmt: skip


class EdgeKind(StrEnum):
    """Kinds of load balancers whose requests CloudWatch counts, as ELB's API names them."""

    APPLICATION = "application"
    NETWORK = "network"
    CLASSIC = "classic"


@dataclass(frozen=True)
class Edge:
    """A load balancer that answers for the shop."""

    name: str
    arn: str
    """Empty of a Classic Load Balancer, which has none."""
    dns_name: str
    zone_id: str
    """Hosted zone of its DNS name, for an alias."""
    has_ipv6: bool = False
    scheme: str = "https"
    """`http` if it has no listener for HTTPS."""
    kind: EdgeKind = EdgeKind.APPLICATION


class Shape(StrEnum):
    """Records that the shop's name has."""

    NONE = "no record"
    SIMPLE = "simple record"
    PAIR = "weighted pair"
    NEW = "only the new one"


@dataclass(frozen=True)
class ShopRecords:
    """Records of the shop's name at one moment."""

    host: str
    shape: Shape
    records: tuple[RecordSet, ...] = ()
    old_target: str = ""
    """DNS name of the old load balancer, if a record leads there."""
    weight: int = 0
    """Percent of the answers that are the new record, wherever it leads; 0 and 100 only if all answers are one record."""
    new_target: str = ""
    """DNS name to which the pair's new record leads: the new load balancer's, or that of one made before it."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the types of the records: A and AAAA, or CNAME."""
        return tuple(sorted({str(record["Type"]) for record in self.records}))

    @property
    def ttl_seconds(self) -> int:
        """Return for how long a resolver may keep an answer."""
        return max((int(record.get("TTL", ALIAS_TTL_SECONDS)) for record in self.records), default=ALIAS_TTL_SECONDS)


def plain_name(name: str) -> str:
    """Return a DNS name for comparison: lower case, without the dot at the end and the `dualstack.` of Route 53's console."""
    return name.lower().rstrip(".").removeprefix("dualstack.")


def require_new(new: Edge | None) -> Edge:
    """Return this program's load balancer.

    Raises:
        PreflightError: it is not there.
    """
    if new is None:
        raise PreflightError(
            f"there is no load balancer {LOAD_BALANCER} in this account and region; run `pulumi up -s prod` with shopcat:dns "
            "external first, which makes it beside the old one"
        )
    return new


def read_shape(host: str, records: Sequence[RecordSet], new: Edge | None) -> ShopRecords:
    """Return what stands for a name.

    Args:
        host: the name.
        records: that Route 53 lists for it.
        new: this program's load balancer; without it a simple record counts as the old one's.

    Raises:
        PreflightError: the records are neither one simple record for each type nor a pair that this command wrote.
    """
    leading = tuple(record for record in records if record["Type"] in _LEADING)
    if not leading:
        return ShopRecords(host, Shape.NONE)
    routed = [key for record in leading for key in _OTHER_ROUTING if key in record]
    if routed:
        raise _foreign(host, f"they are routed by {', '.join(sorted(set(routed)))}")
    identifiers = {str(record.get("SetIdentifier", "")) for record in leading}
    if identifiers == {""}:
        target = _only_target(host, leading)
        if new and target == plain_name(new.dns_name):
            return ShopRecords(host, Shape.NEW, leading, weight=100)
        return ShopRecords(host, Shape.SIMPLE, leading, target)
    by_kind: dict[str, dict[str, RecordSet]] = {}
    for record in leading:
        by_kind.setdefault(record["Type"], {})[str(record.get("SetIdentifier", ""))] = record
    for kind, pair in by_kind.items():
        if set(pair) != {OLD_RECORD, NEW_RECORD}:
            names = ", ".join(name or "a simple one" for name in sorted(pair))
            raise _foreign(host, f"{kind} has the weighted records {names}, not {OLD_RECORD} and {NEW_RECORD}")
    old_target = _only_target(host, [pair[OLD_RECORD] for pair in by_kind.values()])
    weight = max(_share(pair) for pair in by_kind.values())
    # Of two targets the wrong one: nothing may be built on the other.
    targets = sorted((_named_target(pair[NEW_RECORD]) for pair in by_kind.values()), key=lambda name: _is_of(new, name))
    return ShopRecords(host, Shape.PAIR, leading, old_target, weight, targets[0])


def strays(records: ShopRecords, new: Edge | None) -> bool:
    """Tell whether the pair's new record gets users and leads elsewhere than to this program's load balancer."""
    return records.shape is Shape.PAIR and records.weight > 0 and not _is_of(new, records.new_target)


def wanted_records(records: ShopRecords, new: Edge | None, weight: int | None) -> list[dict[str, Any]]:
    """Return the records that shall stand.

    Args:
        records: that stand; a simple record or a pair if a weight is wanted.
        new: this program's load balancer. Without it, at weight 0 alone, both records lead to the old one.
        weight: percent for the new one; None for the one simple alias that this program declares itself
            (infra/foundation/load_balancers.py), and one more for AAAA where that was there.

    Raises:
        PreflightError: the new load balancer is to get users and is not there.
    """
    if weight is None:
        kinds, edge = ["A", *(kind for kind in records.kinds if kind == "AAAA")], require_new(new)
        return [{"Name": f"{records.host}.", "Type": kind, **_lead(kind, edge, 0)} for kind in kinds]
    if weight:
        require_new(new)
    wanted: list[dict[str, Any]] = []
    for record in records.records:
        if record.get("SetIdentifier", OLD_RECORD) != OLD_RECORD:
            continue
        head = {"Name": record["Name"], "Type": record["Type"]}
        old: dict[str, Any] = {key: record[key] for key in ("TTL", "ResourceRecords") if record.get(key)}
        if "AliasTarget" in record:
            old = {"AliasTarget": {**record["AliasTarget"], "EvaluateTargetHealth": False}}
        wanted += [
            {**head, "SetIdentifier": OLD_RECORD, "Weight": 100 - weight, **old},
            {
                **head,
                "SetIdentifier": NEW_RECORD,
                "Weight": weight,
                **(_lead(record["Type"], new, records.ttl_seconds) if new else old),
            },
        ]
    return wanted


def swap_batch(records: ShopRecords, new: Edge | None, weight: int | None) -> list[dict[str, Any]]:
    """Return the changes of one batch: delete exactly what was read, create what is wanted."""
    return [
        *({"Action": "DELETE", "ResourceRecordSet": dict(record)} for record in records.records),
        *({"Action": "CREATE", "ResourceRecordSet": record} for record in wanted_records(records, new, weight)),
    ]


def stands(records: ShopRecords, new: Edge | None, weight: int | None) -> bool:
    """Tell whether what is wanted stands already; of the way back, which needs no new load balancer, the weight alone."""
    if weight is None:
        return records.shape is Shape.NEW
    is_target_right = new is None or _is_of(new, records.new_target)
    return records.shape is Shape.PAIR and records.weight == weight and is_target_right


def _lead(kind: str, edge: Edge, ttl_seconds: int) -> dict[str, Any]:
    if kind == "CNAME":
        return {"TTL": ttl_seconds, "ResourceRecords": [{"Value": edge.dns_name}]}
    return {
        "AliasTarget": {"HostedZoneId": edge.zone_id, "DNSName": edge.dns_name, "EvaluateTargetHealth": False},
    }


def _target(host: str, record: RecordSet) -> str:
    if "AliasTarget" in record:
        return plain_name(str(record["AliasTarget"]["DNSName"]))
    values = [str(each["Value"]) for each in record.get("ResourceRecords", [])]
    if record["Type"] != "CNAME" or len(values) != 1:
        raise _foreign(
            host, f"{record['Type']} holds {', '.join(values)}, and an ALB has no addresses that stay or can be counted"
        )
    return plain_name(values[0])


def _only_target(host: str, records: Sequence[RecordSet]) -> str:
    targets = sorted({_target(host, record) for record in records})
    if len(targets) != 1:
        raise _foreign(host, f"they lead to {' and '.join(targets)}")
    return targets[0]


def _named_target(record: RecordSet) -> str:
    """Return where a record leads, which may be what this command did not write: the way back replaces it all the same."""
    values = [str(each["Value"]) for each in record.get("ResourceRecords", [])]
    return plain_name(str(record.get("AliasTarget", {}).get("DNSName", "")) or ", ".join(values))


def _is_of(edge: Edge | None, target: str) -> bool:
    return edge is not None and plain_name(edge.dns_name) == target


def _share(pair: Mapping[str, RecordSet]) -> int:
    """Return the percent of answers that are the new record."""
    weights = {name: int(record.get("Weight", 0)) for name, record in pair.items()}
    total = sum(weights.values())
    # Route 53 takes all records alike if every weight is 0.
    share = 50 if total == 0 else -(-100 * weights[NEW_RECORD] // total)
    return min(share, 99) if weights[OLD_RECORD] else share


def _foreign(host: str, why: str) -> PreflightError:
    return PreflightError(
        f"Route 53 records of {host} can't be moved by this command: {why}. Make them one simple record for each type, an "
        "alias or a CNAME to the old load balancer, then run `make takeover-dns STEP=status` again"
    )
