"""AWS's rules for changes of Route 53, which moto has not: a batch is all or nothing, and DELETE compares every value."""

from __future__ import annotations

from typing import Any

from moto.route53.exceptions import Route53ClientError
from moto.route53.models import RecordSet, Route53Backend

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


def apply_batch(backend: Route53Backend, zone_id: str, changes: list[dict[str, Any]]) -> None:
    """Carry out a change batch as Route 53 does.

    Raises:
        Route53ClientError: InvalidChangeBatch; nothing was changed.
    """
    zone = backend.get_hosted_zone(zone_id)
    standing = list(zone.rrsets)
    for change in changes:
        action, record = change["Action"], _record(change["ResourceRecordSet"])
        same = next((other for other in standing if _key(other) == _key(record)), None)
        if action == "CREATE" and same:
            _refuse(f"Tried to create {_key(record)} but it already exists")
        if action == "DELETE":
            if same is None:
                _refuse(f"Tried to delete {_key(record)} but it was not found")
            elif _values(same) != _values(record):
                _refuse(f"Tried to delete {_key(record)} but the values provided do not match the current values")
        if same:
            standing.remove(same)
        if action != "DELETE":
            standing.append(record)
    _check(standing)
    zone.rrsets = standing


def patch_names() -> None:
    """Give moto these rules."""
    Route53Backend.change_resource_record_sets = apply_batch
