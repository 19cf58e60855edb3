"""Versions of the application's secret: which is current, and which database it leads to.

A release reads no value (its role may not), so a version's id names the instance that it leads to. Nobody can change an id or
take it away, and each release's record holds it. A staging label is neither: a secret has at most 20, and a version without any
is described no more (docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html). A version whose id names none
leads to the first instance: one from before this, or of a name that is too long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from infra.errors import PreflightError
from infra.names import APPLICATION_SECRET

_VERSION_LENGTH = 64
"""The longest that Secrets Manager takes (docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html,
ClientRequestToken, which becomes the version's id)."""
_RESTORED, _FIRST = "restored-", "leads-to-"
_NAMED = re.compile(f"(?:{_RESTORED}|{_FIRST})(.+)-[0-9a-f]{{8,}}")


def restored_version(identifier: str) -> str:
    """Return the id of a new version that leads to a restored instance of at most `LONGEST_RESTORED_NAME` characters."""
    return _new_id(_RESTORED, identifier)


def first_version(identifier: str) -> str:
    """Return the id of a new version that leads to the first instance; of one with as short a name."""
    return _new_id(_FIRST, identifier)


def _new_id(kind: str, identifier: str) -> str:
    begin = f"{kind}{identifier}-"
    return begin + token_hex(_VERSION_LENGTH)[: _VERSION_LENGTH - len(begin)]


def current_version(secret: Mapping[str, Any]) -> str:
    """Return the id of the current version, from DescribeSecret's answer; empty if there is none."""
    versions = secret.get("VersionIdsToStages", {}).items()
    return next((str(version) for version, stages in versions if "AWSCURRENT" in stages), "")


def restored_instance(version: str, first: str = "") -> str:
    """Return the name of the instance that a version leads to, if that is another than the first one.

    Args:
        version: id.
        first: name of the first instance, which a restored one may have become (docs/restore.md). Then the one that was
            first before is another.
    """
    match = _NAMED.fullmatch(version)
    return match[1] if match and match[1] != first else ""


def refuse_other_database(version: str, wanted: str, first: str = "") -> None:
    """Refuse a release that would use another database than the settings say.

    Args:
        version: id of the current one.
        wanted: name of the restored instance that serves by the settings; empty for the first instance.
        first: name of the first instance.

    Raises:
        PreflightError: they differ.
    """
    current = restored_instance(version, first)
    if current != wanted:
        raise PreflightError(
            f"secret {APPLICATION_SECRET} leads to {_named(current)}, and the settings want {_named(wanted)}: a restore is under "
            "way (docs/restore.md), and nothing is released meanwhile. With the settings that are to hold, run `pulumi up -s "
            "prod` without a tag first"
        )


def refuse_record_of_other_database(name: str, version: str, wanted: str, first: str = "") -> None:
    """Refuse to bring up a release that began with another database: orders written since would be missing there.

    Args:
        name: of the release that would get traffic.
        version: of the secret, that it began with.
        wanted: name of the restored instance that serves by the settings; empty for the first instance.
        first: name of the first instance.

    Raises:
        PreflightError: they differ.
    """
    former = restored_instance(version, first)
    if former != wanted:
        raise PreflightError(
            f"{name} would bring its users to {_named(former)}, and the settings want {_named(wanted)}. To go to that database "
            "set shopcat:database.restore.serves accordingly and run `pulumi up -s prod` without a tag first "
            "(docs/restore.md); an open release can be aborted; a former one's image can be pushed under a new tag"
        )


def refuse_forgotten_restore(name: str, version: str, first: str = "", *, is_set: bool) -> None:
    """Refuse settings that know nothing of the restored database that the live release uses.

    Args:
        name: of the live release.
        version: of the secret, that it began with.
        first: name of the first instance.
        is_set: the settings have `database.restore`.

    Raises:
        PreflightError: they don't, and it does.
    """
    restored = restored_instance(version, first)
    if version.startswith(_RESTORED) and restored and not is_set:
        raise PreflightError(
            f"live {name} uses {_named(restored)}, and shopcat:database.restore is not set: this update would lead the next "
            "release to the first database. Put the setting back as it was when that release was made (docs/restore.md)"
        )


def _named(restored: str) -> str:
    return f"the database {restored}" if restored else "the first database"
