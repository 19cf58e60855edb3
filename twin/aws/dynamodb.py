"""Point-in-time recovery of moto's DynamoDB tables: each write of a table that has it keeps the items as they are then.

moto copies the table as it is now whatever moment is asked for; here a restored table holds what the source held at the moment.
"""

from __future__ import annotations

import copy
import time
from datetime import UTC, datetime
from typing import Any, cast
from weakref import WeakKeyDictionary

from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.dynamodb import models, responses

LATEST_SECONDS = 30.0
"""Age of the latest moment that can be restored. DynamoDB's is five minutes
(docs.aws.amazon.com/amazondynamodb/latest/developerguide, PointInTimeRecovery_Howitworks), a tenth keeps a rehearsal short."""
_WRITES = ("put_item", "update_item", "delete_item", "transact_write_items")
_ARGUMENTS = {"SourceTableName", "TargetTableName", "RestoreDateTime", "UseLatestRestorableTime"}

Items = Any


class RestoreError(JsonRESTError):  # type: ignore[misc]
    """DynamoDB's answer to a restore that can't be."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"com.amazonaws.dynamodb.v20120810#{kind}", message)


class Journal:
    """Items of each table with point-in-time recovery after each of its writes, with the time."""

    def __init__(self) -> None:
        # By the table itself: another one may be made under a name that was deleted.
        self._states: WeakKeyDictionary[Any, list[tuple[float, Items]]] = WeakKeyDictionary()

    def record(self, tables: Any) -> None:
        """Keep the items of every table that has recovery and has changed."""
        for table in tables.values():
            states = self._states.setdefault(table, [])
            if not _is_recoverable(table):
                states.clear()
            elif not states or states[-1][1] != table.items:
                states.append((time.time(), copy.deepcopy(table.items)))

    def window(self, table: Any) -> tuple[float, float]:
        """Return the first and the last moment that can be restored; the first is later while there is none yet."""
        states = self._states.setdefault(table, [])
        return (states[0][0] if states else float("inf")), time.time() - LATEST_SECONDS

    def at(self, table: Any, moment: float) -> Items:
        """Return the items at a moment.

        Raises:
            RestoreError: the moment is outside of what is kept.
        """
        first, last = self.window(table)
        if not first <= moment <= last:
            raise RestoreError(
                "InvalidRestoreTimeException", f"the table can be restored between {first:.0f} and {last:.0f}"
            )
        kept = [items for then, items in self._states.setdefault(table, []) if then <= moment]
        return copy.deepcopy(kept[-1])


def _is_recoverable(table: Any) -> bool:
    recovery = table.continuous_backups["PointInTimeRecoveryDescription"]
    return bool(recovery["PointInTimeRecoveryStatus"] == "ENABLED")


def _seconds(moment: Any) -> float:
    """Return seconds since the epoch; moto's parser makes a time in UTC without a zone of them."""
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return float(moment)


def patch_recovery() -> None:
    """Give moto's tables point-in-time recovery."""
    journal = Journal()
    backend, handler = cast("Any", models.DynamoDBBackend), cast("Any", responses.DynamoHandler)

    def recorded(name: str) -> None:
        write = getattr(backend, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            answer = write(self, *args, **kwargs)
            journal.record(self.tables)
            return answer

        setattr(backend, name, call)

    for name in (*_WRITES, "update_continuous_backups"):
        recorded(name)

    describe = backend.describe_continuous_backups

    def describe_backups(self: Any, table_name: str) -> dict[str, Any]:
        backups: dict[str, Any] = describe(self, table_name)
        recovery = backups["PointInTimeRecoveryDescription"]
        if "LatestRestorableDateTime" in recovery:
            first, last = journal.window(self.get_table(table_name))
            recovery |= {"EarliestRestorableDateTime": first, "LatestRestorableDateTime": last}
        return backups

    def restore(self: Any) -> ActionResult:
        body, tables = self.body, self.dynamodb_backend
        unknown = sorted(set(body) - _ARGUMENTS)
        if unknown:
            raise RestoreError("ValidationException", f"twin: {', '.join(unknown)} of a restore is not implemented")
        source = tables.tables.get(body["SourceTableName"])
        if source is None:
            raise RestoreError(
                "SourceTableNotFoundException",
                "twin: what DynamoDB keeps of a deleted table is not implemented by the stand-in",
            )
        if not _is_recoverable(source):
            raise RestoreError("PointInTimeRecoveryUnavailableException", "point-in-time recovery is not enabled")
        latest = journal.window(source)[1]
        moment = latest if body.get("UseLatestRestorableTime") else _seconds(body["RestoreDateTime"])
        items = journal.at(source, moment)
        restored = tables.restore_table_to_point_in_time(body["TargetTableName"], body["SourceTableName"])
        restored.items = items
        restored.restore_date_time = moment
        return cast("ActionResult", responses.DynamoResult(restored.describe()))

    backend.describe_continuous_backups = describe_backups
    handler.restore_table_to_point_in_time = restore
