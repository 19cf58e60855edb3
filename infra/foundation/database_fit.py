"""Settings that a database which is there can't follow: RDS would refuse the update half-way, or the database be replaced.

Plain functions, for the takeover's plan and for the check before an update. What RDS changes while the database runs is none of
these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.names import DATABASE_PORT

if TYPE_CHECKING:
    from infra.settings.platform import DatabaseSettings

SECTION = "shopcat:database"
_NOTHING_THERE = {
    "dbName": f"it has none; name another database with {SECTION}.identifier",
    "kmsKeyArn": "it has none; remove the setting",
}
"""Setting that can't be empty, or need not be there → what mends it where the database has nothing of the kind."""


@dataclass(frozen=True)
class LiveDatabase:
    """A database as AWS describes it, in what no update may change."""

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
    reasons = [storage_refusal(live.storage_gibibytes, wanted), engine_refusal(live.version, wanted)]
    if wanted.port not in {DATABASE_PORT, live.port}:  # the usual one is not declared, so it changes nothing
        reasons.append(
            f"it answers at port {live.port}, and would be moved to {wanted.port}, away from all who use it; set {SECTION}.port "
            f"to {live.port}"
        )
    return [*filter(None, reasons), *(_replacements(live, wanted) if protect else ())]
