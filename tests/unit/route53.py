"""Route 53 at moto with AWS's rules for change batches, which moto has not: all or nothing, and DELETE compares every value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moto.route53.exceptions import Route53ClientError
from moto.route53.models import RecordSet, Route53Backend

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

_FIELDS = ("name", "type", "set_identifier", "weight", "ttl", "records", "alias_target", "region", "failover")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in sorted(value.items())}
    return [_plain(each) for each in value] if isinstance(value, list) else str(value).lower().rstrip(".")


def _values(record: RecordSet) -> list[Any]:
    return [_plain(getattr(record, field) or "") if field != "weight" else str(record.weight) for field in _FIELDS]


def _key(record: RecordSet) -> tuple[str, str, str]:
    return record.name, record.type or "", record.set_identifier or ""


def _record(values: dict[str, Any]) -> RecordSet:
    listed = [each["Value"] for each in values.get("ResourceRecords") or []]
    return RecordSet({**values, "Name": values["Name"].rstrip(".") + ".", "ResourceRecords": listed})


def _refuse(message: str) -> None:
    raise Route53ClientError("InvalidChangeBatch", message)


def _check(records: list[RecordSet]) -> None:
    """Refuse sets of records that Route 53 takes none of."""
    by_name: dict[str, list[RecordSet]] = {}
    for record in records:
        by_name.setdefault(record.name, []).append(record)
    for name, there in by_name.items():
        types = {record.type for record in there}
        if "CNAME" in types and len(types) > 1:
            _refuse(f"RRSet of type CNAME with DNS name {name} is not permitted beside others")
        for kind in types:
            group = [record for record in there if record.type == kind]
            if len({record.set_identifier or "" for record in group}) < len(group):
                _refuse(f"{name} {kind} is there twice")
            if len(group) > 1 and any(record.weight is None for record in group):
                _refuse(f"{name} {kind}: a non-weighted record can't be with the same name and type as weighted ones")
            if len({str(record.ttl) for record in group}) > 1:
                _refuse(f"{name} {kind}: weighted records differ in TTL")


def strict_batches(
    monkeypatch: pytest.MonkeyPatch, observe: Callable[[list[RecordSet], list[RecordSet]], None]
) -> None:
    """Give moto AWS's rules; what stood before and after each batch is handed over."""

    def change(backend: Route53Backend, zoneid: str, change_list: list[dict[str, Any]]) -> None:
        zone = backend.get_hosted_zone(zoneid)
        standing = list(zone.rrsets)
        for each in change_list:
            record = _record(each["ResourceRecordSet"])
            same = [other for other in standing if _key(other) == _key(record)]
            if each["Action"] == "DELETE":
                if not same:
                    _refuse(f"Tried to delete {_key(record)} but it was not found")
                if _values(same[0]) != _values(record):
                    _refuse(f"Tried to delete {_key(record)} but the values provided do not match the current values")
                standing.remove(same[0])
            elif each["Action"] == "CREATE":
                if same:
                    _refuse(f"Tried to create {_key(record)} but it already exists")
                standing.append(record)
            else:
                raise AssertionError(each)
        _check(standing)
        before, zone.rrsets = zone.rrsets, standing
        observe(before, standing)

    monkeypatch.setattr(Route53Backend, "change_resource_record_sets", change)
