"""The database that is there, checked before an update changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import error_code, explain
from infra.errors import PreflightError
from infra.foundation.database_fit import (
    OUTAGE,
    LiveDatabase,
    database_refusals,
    restart_command,
    restart_note,
    restarts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.clients.aws import AwsClients
    from infra.settings.platform import DatabaseSettings


def live_database(description: Mapping[str, Any]) -> LiveDatabase:
    """Return a database from what RDS answers (DescribeDBInstances)."""
    endpoint = description.get("Endpoint") or {}
    return LiveDatabase(
        engine=str(description["Engine"]),
        version=str(description["EngineVersion"]),
        storage_gibibytes=int(description["AllocatedStorage"]),
        db_name=str(description.get("DBName") or ""),
        username=str(description["MasterUsername"]),
        is_encrypted=bool(description.get("StorageEncrypted")),
        kms_key_arn=str(description.get("KmsKeyId") or ""),
        port=int(endpoint.get("Port") or description.get("DbInstancePort") or 0),
        instance_class=str(description.get("DBInstanceClass") or ""),
        backup_retention_days=int(description.get("BackupRetentionPeriod") or 0),
        backup_window=str(description.get("PreferredBackupWindow") or ""),
        waits_for_restart=any(
            group.get("ParameterApplyStatus") == "pending-reboot"
            for group in description.get("DBParameterGroups") or []
        ),
    )


def refuse_unfit_database(clients: AwsClients, wanted: DatabaseSettings, *, protect: bool) -> LiveDatabase | None:
    """Check the database that has the settings' identifier, and return it; one that is not made yet takes any settings.

    `None` where nothing was checked: there is none, or these credentials may not read it. Such credentials, of a release from
    before it was read here, may not change it either.

    Raises:
        PreflightError: the settings describe it otherwise than it is; the message has every reason.
        AwsError: RDS can't be asked.
    """
    try:
        listed = clients.get("rds").describe_db_instances(DBInstanceIdentifier=wanted.identifier)["DBInstances"]
    except (BotoCoreError, ClientError) as error:
        if any(word in error_code(error) for word in ("NotFound", "AccessDenied")):
            return None
        raise explain(error, f"database {wanted.identifier}", clients.endpoint_url) from error
    if not listed or not listed[0].get("Endpoint"):
        return None
    live = live_database(listed[0])
    reasons = database_refusals(live, wanted, protect=protect)
    if reasons:
        raise PreflightError(
            f"database {wanted.identifier} is not as the settings describe it, and nothing was changed:\n"
            + "\n".join(f"  - {reason}" for reason in reasons)
        )
    return live


def restart_notes(live: LiveDatabase | None, wanted: DatabaseSettings, release: str) -> list[str]:
    """Decide about a restart of the database that this update would make.

    Args:
        live: the database; `None` if it is not known.
        wanted: the settings.
        release: the release that is open, or that this update begins; empty if there is none.

    Returns:
        Lines for the plan, also on a restart that is owed.

    Raises:
        PreflightError: a restart within this update would fail that release.
    """
    if live is None:
        return []
    changes = restarts(live, wanted)
    if changes and wanted.apply_immediately and release:
        raise PreflightError(
            f"{', '.join(changes)}: RDS would restart the database in the middle of release {release}. Nothing was changed; set "
            "it back until that release is live or aborted, or set shopcat:database.applyImmediately to false"
        )
    note = restart_note(changes, wanted)
    owed = (
        f"database {wanted.identifier} has static parameters that hold only from its next restart on: `"
        f"{restart_command(wanted.identifier)}` restarts it, and {OUTAGE}"
    )
    return [*filter(None, [note]), *([owed] if live.waits_for_restart else [])]


def has_snapshot(clients: AwsClients, name: str) -> bool:
    """Tell whether RDS has a snapshot of this name; false for credentials that may not ask, which may not restore either.

    Raises:
        AwsError: RDS can't be asked.
    """
    try:
        return bool(clients.get("rds").describe_db_snapshots(DBSnapshotIdentifier=name)["DBSnapshots"])
    except (BotoCoreError, ClientError) as error:
        if any(word in error_code(error) for word in ("NotFound", "AccessDenied")):
            return False
        raise explain(error, f"snapshot {name}", clients.endpoint_url) from error


def refuse_taken_snapshot(clients: AwsClients, database: DatabaseSettings) -> None:
    """Refuse to restore a moment of which a copy has left its last snapshot: RDS would not let the next copy go.

    A copy that is there is let be: its snapshot is made when it goes.

    Raises:
        PreflightError: the snapshot's name is taken.
        AwsError: RDS can't be asked.
    """
    if database.restore is None or not has_snapshot(clients, name := database.restore.last_snapshot):
        return
    found = clients.get("rds").describe_db_instances(
        Filters=[{"Name": "db-instance-id", "Values": [database.restored_identifier]}]
    )
    if not found["DBInstances"]:
        raise PreflightError(
            f"shopcat:database.restore.at is {database.restore.at}, and a copy of that moment has left snapshot {name}: choose "
            f"another second, or first `aws rds delete-db-snapshot --db-snapshot-identifier {name}`"
        )
