"""Resources that a setting of production accepts although a rule refuses them, each with its reason."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from infra.settings import Settings
from policy.rules import CLUSTER, DATABASE, KEY, MISSING_DATA


@dataclass(frozen=True)
class Acceptance:
    """A setting, and the rule that it takes back."""

    setting: str
    """The setting as it stands in the stack's file."""
    reason: str
    rule: str
    kinds: Collection[str] = ()
    """Types of resources; none is all of them."""
    argument: str = ""
    """First words of the rule's message."""

    def covers(self, rule: str, kind: str, problem: str) -> bool:
        """Tell whether what a rule says about a resource of this type is accepted."""
        is_about = not self.kinds or kind in self.kinds
        return self.rule == rule and is_about and problem.startswith(self.argument)


def acceptances(settings: Settings) -> list[Acceptance]:
    """Return what these settings of production accept."""
    taken_down = "production is being taken down (docs/destroy.md)"
    unprotected = "shopcat:protection: false"
    database = settings.database
    offered = [
        (not settings.protection, Acceptance(unprotected, taken_down, "unguarded-data")),
        (not settings.protection, Acceptance(unprotected, taken_down, MISSING_DATA)),
        (
            not database.encrypted,
            Acceptance(
                "shopcat:database.encrypted: false",
                "RDS encrypts no database that is there (docs/takeover.md)",
                "unencrypted-storage",
                {DATABASE},
                "storageEncrypted",
            ),
        ),
        (
            database.backup_retention_days == 0,
            Acceptance(
                "shopcat:database.backupRetentionDays: 0",
                "a database that is being taken over is out for a moment when its backups begin (docs/takeover.md)",
                "unguarded-data",
                {DATABASE},
                "backupRetentionPeriod",
            ),
        ),
        (
            settings.cluster.existing is not None,
            Acceptance(
                "shopcat:cluster.existing",
                "the cluster was there before, and is not this stack's (docs/takeover.md)",
                MISSING_DATA,
                {CLUSTER, KEY},
            ),
        ),
    ]
    return [acceptance for is_set, acceptance in offered if is_set]
