"""Versions of the application's secret: which is current, and which database it leads to.

A release reads no value (its role may not), so a version that leads to a restored database carries a staging label that says so
(docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html, "staging labels").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any

from infra.errors import PreflightError
from infra.names import APPLICATION_SECRET

RESTORED_LABEL = "restored:"
"""Begin of the label; the instance's name follows, then letters of the version's own: a label that two versions share would move
from one to the other."""


def restored_label(identifier: str) -> str:
    """Return a new label for a version that leads to a restored instance."""
    return f"{RESTORED_LABEL}{identifier}:{token_hex(4)}"


def current_version(secret: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return id and labels of the current version, from DescribeSecret's answer; empty if there is none."""
    for version, stages in secret.get("VersionIdsToStages", {}).items():
        if "AWSCURRENT" in stages:
            return str(version), sorted(stages)
    return "", []


def restored_instance(stages: Sequence[str]) -> str:
    """Return the name of the restored instance that a version leads to; empty for the first instance."""
    labels = [stage.removeprefix(RESTORED_LABEL) for stage in stages if stage.startswith(RESTORED_LABEL)]
    return labels[0].partition(":")[0] if labels else ""


def refuse_other_database(stages: Sequence[str], wanted: str) -> None:
    """Refuse a release that would use another database than the settings say.

    Args:
        stages: labels of the current version.
        wanted: name of the restored instance that serves by the settings; empty for the first instance.

    Raises:
        PreflightError: they differ.
    """
    current = restored_instance(stages)
    if current != wanted:
        raise PreflightError(
            f"secret {APPLICATION_SECRET} leads to {_named(current)}, and the settings want {_named(wanted)}: a restore is under "
            "way (docs/restore.md), and nothing is released meanwhile. With the settings that are to hold, run `pulumi up -s "
            "prod` without a tag first"
        )


def refuse_record_of_other_database(name: str, stages: Sequence[str], wanted: str) -> None:
    """Refuse to bring up a release that began with another database: orders written since would be missing there.

    Args:
        name: of the release that would get traffic.
        stages: labels of the secret's version that it began with.
        wanted: name of the restored instance that serves by the settings; empty for the first instance.

    Raises:
        PreflightError: they differ.
    """
    former = restored_instance(stages)
    if former != wanted:
        raise PreflightError(
            f"{name} would bring its users to {_named(former)}, and the settings want {_named(wanted)}. To go to that database "
            "set shopcat:database.restore.serves accordingly and run `pulumi up -s prod` without a tag first "
            "(docs/restore.md); an open release can be aborted; a former one's image can be pushed under a new tag"
        )


def refuse_forgotten_restore(name: str, stages: Sequence[str], *, is_set: bool) -> None:
    """Refuse settings that know nothing of the restored database that the live release uses.

    Args:
        name: of the live release.
        stages: labels of the secret's version that it began with.
        is_set: the settings have `database.restore`.

    Raises:
        PreflightError: they don't, and it does.
    """
    restored = restored_instance(stages)
    if restored and not is_set:
        raise PreflightError(
            f"live {name} uses {_named(restored)}, and shopcat:database.restore is not set: this update would lead the next "
            "release to the first database. Put the setting back as it was when that release was made (docs/restore.md)"
        )


def _named(restored: str) -> str:
    return f"the restored database {restored}" if restored else "the first database"
