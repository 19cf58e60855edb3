"""The database that is there, checked before an update changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import error_code, explain
from infra.errors import PreflightError
from infra.foundation.database_fit import LiveDatabase, database_refusals

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
    )


def refuse_unfit_database(clients: AwsClients, wanted: DatabaseSettings, *, protect: bool) -> None:
    """Check the database that has the settings' identifier; one that is not there, or not made yet, takes any settings.

    Credentials that may not read it may not change it either: those of a release from before it was read here.

    Raises:
        PreflightError: the settings describe it otherwise than it is; the message has every reason.
        AwsError: RDS can't be asked.
    """
    try:
        listed = clients.get("rds").describe_db_instances(DBInstanceIdentifier=wanted.identifier)["DBInstances"]
    except (BotoCoreError, ClientError) as error:
        if any(word in error_code(error) for word in ("NotFound", "AccessDenied")):
            return
        raise explain(error, f"database {wanted.identifier}", clients.endpoint_url) from error
    if not listed or not listed[0].get("Endpoint"):
        return
    reasons = database_refusals(live_database(listed[0]), wanted, protect=protect)
    if reasons:
        raise PreflightError(
            f"database {wanted.identifier} is not as the settings describe it, and nothing was changed:\n"
            + "\n".join(f"  - {reason}" for reason in reasons)
        )


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
