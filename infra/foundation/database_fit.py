"""Settings that a database which is there can't follow: RDS would refuse the update half-way, or the database be replaced.

Plain functions, for the takeover's plan and for the check before an update. What RDS changes while the database runs is none of
these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.names import DATABASE_PORT
from infra.settings.platform import window_span

if TYPE_CHECKING:
    from infra.settings.platform import DatabaseSettings

SECTION = "shopcat:database"
STATIC_PARAMETERS = frozenset(
    {
        "archive_mode", "autovacuum_freeze_max_age", "autovacuum_max_workers", "autovacuum_multixact_freeze_max_age",
        "bonjour", "bonjour_name", "cluster_name", "commit_timestamp_buffers", "data_directory", "data_sync_retry",
        "dynamic_shared_memory_type", "event_source", "external_pid_file", "hba_file", "hot_standby", "huge_page_size",
        "huge_pages", "ident_file", "jit_provider", "listen_addresses", "logging_collector", "max_connections",
        "max_files_per_process", "max_locks_per_transaction", "max_logical_replication_workers",
        "max_pred_locks_per_transaction", "max_prepared_transactions", "max_replication_slots", "max_wal_senders",
        "max_worker_processes", "min_dynamic_shared_memory", "multixact_member_buffers", "multixact_offset_buffers",
        "notify_buffers", "old_snapshot_threshold", "port", "recovery_target", "recovery_target_action",
        "recovery_target_inclusive", "recovery_target_lsn", "recovery_target_name", "recovery_target_time",
        "recovery_target_timeline", "recovery_target_xid", "reserved_connections", "serializable_buffers", "shared_buffers",
        "shared_memory_type", "shared_preload_libraries", "subtransaction_buffers", "superuser_reserved_connections",
        "track_activity_query_size", "track_commit_timestamp", "transaction_buffers", "unix_socket_directories",
        "unix_socket_group", "unix_socket_permissions", "wal_buffers", "wal_decode_buffer_size", "wal_level", "wal_log_hints",
        "rds.logical_replication", "pg_stat_statements.max",
    }
)  # fmt: skip
"""Parameters that PostgreSQL reads only when it starts (context "postmaster" of pg_settings, 15 to 17), and RDS's own that is
the same. RDS takes a static one with `pending-reboot` alone, and applies it at the next restart that somebody asks for; its
maintenance window restarts nothing for it (docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_RebootInstance.html)."""
OUTAGE = "requests that need the database fail meanwhile, mostly for less than a minute, at most for several"
"""RDS restarts a single instance, and of a Multi-AZ deployment both at once (docs.aws.amazon.com/AmazonRDS/latest/UserGuide/
USER_UpgradeDBInstance.PostgreSQL.html, minor version upgrades)."""
_DAY = 24 * 60
_NOTHING_THERE = {
    "dbName": f"it has none; name another database with {SECTION}.identifier",
    "kmsKeyArn": "it has none; remove the setting",
}
"""Setting that can't be empty, or need not be there → what mends it where the database has nothing of the kind."""


@dataclass(frozen=True)
class LiveDatabase:
    """A database as AWS describes it, in what no update may change and in what one restarts it by."""

    engine: str
    version: str
    storage_gibibytes: int
    db_name: str
    """Empty if it was made without one."""
    username: str
    is_encrypted: bool
    kms_key_arn: str
    """Empty without encryption."""
    port: int
    instance_class: str = ""
    backup_retention_days: int = 0
    backup_window: str = ""
    """Time of the day in UTC, such as 22:10-22:40; empty without backups."""
    waits_for_restart: bool = False
    """Static parameters were changed and don't hold yet."""


def storage_refusal(size: int, wanted: DatabaseSettings) -> str:
    """Return why the storage can't become what the settings say; empty if it can.

    The provider leaves storage that RDS has made larger by itself (hashicorp/terraform-provider-aws,
    internal/service/rds/instance.go, DiffSuppressFunc of allocated_storage). Beyond the largest size RDS refuses that one.
    """
    if size <= max(wanted.storage_gibibytes, wanted.largest_storage_gibibytes):
        return ""
    return f"it has {size} GiB, and RDS makes no storage smaller; set {SECTION}.storageGibibytes to {size}"


def engine_refusal(version: str, wanted: DatabaseSettings) -> str:
    """Return why the database can't run the version of the settings; empty if it can, or if what it runs is not known.

    RDS goes to another major version only where that is asked for (docs.aws.amazon.com/AmazonRDS/latest/APIReference/
    API_ModifyDBInstance.html, AllowMajorVersionUpgrade), and this program does not ask.
    """
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})?", version):
        return ""
    pairs = list(zip(wanted.engine_version.split("."), version.split("."), strict=False))
    new, live = next(((int(new), int(live)) for new, live in pairs if new != live), (0, 0))
    if new < live:
        return f"it runs PostgreSQL {version}, and RDS goes back to no older version; set {SECTION}.engineVersion to {version}"
    if pairs[0][0] != pairs[0][1]:
        return (
            f"it runs PostgreSQL {version}, and RDS goes to another major version only by `aws rds modify-db-instance "
            f"--allow-major-version-upgrade`; set {SECTION}.engineVersion to {version}"
        )
    return ""


def apply_method(parameter: str) -> str:
    """Return how RDS is to apply a parameter: at once, or a static one at the next restart."""
    return "pending-reboot" if parameter in STATIC_PARAMETERS else "immediate"


def static_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the static parameters whose value changes, also by being set or removed."""
    return sorted(name for name in STATIC_PARAMETERS if before.get(name) != after.get(name))


def restart_command(identifier: str) -> str:
    """Return the command that restarts a database."""
    return f"aws rds reboot-db-instance --db-instance-identifier {identifier}"


def restarts(live: LiveDatabase, wanted: DatabaseSettings) -> list[str]:
    """Return each change for which RDS restarts the database, as `<setting> <present> → <wanted>`.

    By docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_ModifyInstance.Settings.html, as far as this program has the setting:
    the engine's version, the instance class, and backups that are switched on or off.
    """
    changes = []
    if not f"{live.version}.".startswith(f"{wanted.engine_version}."):
        changes.append(("engineVersion", live.version, wanted.engine_version))
    if live.instance_class not in {"", wanted.instance_class}:
        changes.append(("instanceClass", live.instance_class, wanted.instance_class))
    if bool(live.backup_retention_days) != bool(wanted.backup_retention_days):
        changes.append(("backupRetentionDays", str(live.backup_retention_days), str(wanted.backup_retention_days)))
    return [f"{SECTION}.{setting} {present} → {chosen}" for setting, present, chosen in changes]


def restart_note(changes: Sequence[str], wanted: DatabaseSettings) -> str:
    """Return what the plan says of changes that restart the database; empty if there is none."""
    if not changes:
        return ""
    if wanted.apply_immediately:
        return (
            f"{', '.join(changes)}: RDS restarts the database within this update, and {OUTAGE}; {SECTION}.applyImmediately: "
            "false leaves it to the maintenance window"
        )
    window = f" ({wanted.maintenance_window} UTC)" if wanted.maintenance_window else ""
    return f"{', '.join(changes)}: RDS restarts the database in its maintenance window{window}, and {OUTAGE}"


def window_refusal(window: str, backup_window: str) -> str:
    """Return why RDS would refuse a maintenance window: it overlaps the daily backup; empty if it would not.

    Args:
        window: of the settings; empty keeps RDS's own.
        backup_window: of the database; empty if it has none.
    """
    if not window or not backup_window:
        return ""
    begin, end = (
        int(hour) * 60 + int(minute) for hour, minute in (each.split(":") for each in backup_window.split("-"))
    )
    length = (end - begin) % _DAY
    start, stop = window_span(window)
    # The backup of each day of the week, of the day before it and of the week's first day again.
    days = ((day * _DAY + begin, day * _DAY + begin + length) for day in range(-1, 15))
    if all(stop <= first or last <= start for first, last in days):
        return ""
    return (
        f"its backups are made at {backup_window} UTC, within {SECTION}.maintenanceWindow {window}, and RDS takes no overlap; "
        "choose another time"
    )


def _replacements(live: LiveDatabase, wanted: DatabaseSettings) -> Iterator[str]:
    """Yield each setting that differs and that AWS changes only in a new, empty database."""
    if live.engine != "postgres":
        yield f"it is {live.engine}, and this program declares postgres; name another with {SECTION}.identifier"
    settings = {
        "dbName": (live.db_name, wanted.db_name),
        "username": (live.username, wanted.username),
        "encrypted": (str(live.is_encrypted).lower(), str(wanted.encrypted).lower()),
        "kmsKeyArn": (live.kms_key_arn, wanted.kms_key_arn or live.kms_key_arn),
    }
    for setting, (value, chosen) in settings.items():
        if value != chosen:
            text = f"set it to {value}" if value else _NOTHING_THERE[setting]
            yield f"{SECTION}.{setting} is {chosen}, so it would be replaced, and all orders in it lost; {text}"


def database_refusals(live: LiveDatabase, wanted: DatabaseSettings, *, protect: bool) -> list[str]:
    """Return every reason why an update with these settings must not begin.

    Args:
        live: the database that has the settings' identifier.
        wanted: the settings.
        protect: the database is protected; without that a person has chosen to lose it.
    """
    reasons = [
        storage_refusal(live.storage_gibibytes, wanted),
        engine_refusal(live.version, wanted),
        window_refusal(wanted.maintenance_window, live.backup_window),
    ]
    if wanted.port not in {DATABASE_PORT, live.port}:  # the usual one is not declared, so it changes nothing
        reasons.append(
            f"it answers at port {live.port}, and would be moved to {wanted.port}, away from all who use it; set {SECTION}.port "
            f"to {live.port}"
        )
    return [*filter(None, reasons), *(_replacements(live, wanted) if protect else ())]
