"""``make restore-drill``: the backups are restored, looked at, run by a release that no user reaches, and taken away again.

It may be run on production at any time. No user's request reaches the restored database: no update of a drill moves traffic,
whoever has a release open by then, and its own release is aborted. So every order stays where it is. A release by somebody else
is refused meanwhile, by the secret's version or by the open release. docs/restore.md says what each step does and how to go on
from one that failed; the times there are written by this command.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from infra.clients.aws import AwsClients
from infra.errors import ShopCatError
from infra.foundation.existing_database import has_snapshot, refuse_taken_snapshot
from infra.names import DATABASE_NAMESPACE, DATABASE_RESTORED_JOB
from infra.release.ledger import Ledger
from infra.release.state import LedgerState
from infra.settings import Settings, read_settings, stack_file
from infra.settings.platform import MOMENT, Restore, read_moment
from pipeline import process
from pipeline.environment import REPOSITORY, aws_clients, aws_errors
from pipeline.errors import PipelineError
from pipeline.marked_text import fill
from pipeline.process import Finished
from pipeline.release import ReleaseJob
from pipeline.stack import Stack
from pipeline.steps import Steps

PAGE = REPOSITORY / "docs" / "restore.md"
BEGIN, END = "<!-- measured: make restore-drill -->", "<!-- measured until here -->"
DATABASE_KEY = "shopcat:database"
HELD = "is held before traffic moves"
DRILL_LINES = (": rows|", ": newest|", "may repeat")
"""Lines of the restored database's Job that a drill shows (infra/foundation/restored_database.py)."""
_LEDGER_SECONDS = 3600.0
"""A restored table takes minutes; DynamoDB promises no longest time."""


# Decisions ------------------------------------------------------------------------------------------------------------


def choose_moment(made: datetime, latest: datetime, retention: timedelta, asked: str) -> str:
    """Return the moment to restore, in whole seconds: the one that is asked for, or else the latest.

    Args:
        made: when the database was made.
        latest: RDS's LatestRestorableTime.
        retention: how long RDS keeps backups.
        asked: a moment such as 2026-11-29T10:00:00Z, or nothing.

    Raises:
        PipelineError: it is no moment, or RDS can't restore it.
    """
    if not asked:
        return latest.astimezone(UTC).strftime(MOMENT)
    try:
        moment = read_moment(asked)
    except ValueError as error:
        raise PipelineError(f"AT: {error}") from error
    earliest = max(made, latest - retention)
    if not earliest <= moment <= latest:
        raise PipelineError(
            f"AT={asked}: RDS can restore from {earliest.astimezone(UTC):{MOMENT}} to {latest.astimezone(UTC):{MOMENT}}"
        )
    return asked


def with_restore(document: Mapping[str, Any], restore: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a stack file's content with `shopcat:database.restore` set to this, or without it."""
    config = dict(document["config"])
    database = {name: value for name, value in (config.get(DATABASE_KEY) or {}).items() if name != "restore"}
    config[DATABASE_KEY] = {**database, **({"restore": dict(restore)} if restore else {})}
    return {**document, "config": config}


def refuse_unfit(settings: Settings, state: LedgerState) -> None:
    """Refuse a drill where it would meet something that is under way.

    Raises:
        PipelineError: a release is open, nothing is live, or a restore stands in the settings.
    """
    if settings.database.restore:
        raise PipelineError(
            "shopcat:database.restore is set, so a restore is under way; see docs/restore.md, and take it out when it is done"
        )
    if state.open:
        raise PipelineError(f"{state.open.kind} {state.open.name} is open; go on with it or abort it first")
    if state.live is None:
        raise PipelineError("nothing is live, so there is no release that the restored database could be tried with")


def compared(restored: LedgerState, present: LedgerState) -> str:
    """Tell how a restored ledger stands to the present one.

    Raises:
        PipelineError: it holds something that the present one has never held, so it is another table's.
    """
    if restored == present:
        count = len(present.releases)
        return f"the same {count} release{'s' if count != 1 else ''}, at the same version"
    strange = sorted(restored.releases.keys() - present.releases.keys())
    if restored.version > present.version or strange or restored.version == 0:
        raise PipelineError(
            f"the restored ledger is at version {restored.version} and the present one at {present.version}"
            + (f"; it holds {', '.join(strange)}, which the present one does not" if strange else "")
        )
    missing = present.version - restored.version
    return f"{len(restored.releases)} of {len(present.releases)} releases; {missing} writes are newer than the backup reaches"


@dataclass(frozen=True)
class MeasuredStep:
    """One step of a drill."""

    title: str
    seconds: float
    seen: str = ""


def section(rows: list[MeasuredStep], where: str) -> str:
    """Return the table of a drill, as it stands in docs/restore.md."""
    lines = [f"| {row.title} | {row.seconds:.0f} | {row.seen or '-'} |" for row in rows]
    total = sum(row.seconds for row in rows)
    return "\n".join(
        ["", where, "", "| step | seconds | seen |", "|---|---:|---|", *lines, f"| all together | {total:.0f} | |", ""]
    )


def written(page: str, text: str) -> str:
    """Return the page with what stands between its marks replaced.

    Raises:
        PipelineError: the marks are gone.
    """
    return fill(page, BEGIN, END, text, name=PAGE.name, error=PipelineError)


# The steps ------------------------------------------------------------------------------------------------------------


@dataclass
class Drill:
    """One drill on one stack."""

    stack: Stack
    settings: Settings
    clients: AwsClients
    asked: str = ""
    rows: list[MeasuredStep] = field(default_factory=list)
    now: Callable[[], float] = time.monotonic

    def run(self) -> None:
        """Take every step.

        Raises:
            ShopCatError: one failed; the message says where things stand and what to do.
        """
        ledger = Ledger(self.clients.get("dynamodb"), self.settings.ledger_table)
        state = ledger.read()
        refuse_unfit(self.settings, state)
        live = state.live
        if live is None:  # pragma: no cover - refused above
            return
        moment = self._moment()
        self._step("the ledger, from its backup into a second table, read and deleted", lambda: self._ledger(state))
        restore = {"at": moment}
        self._step(
            f"the database as it was at {moment}, into a second instance; checked by a Job",
            lambda: self._up(restore) or self._rows(),
        )
        self._step("the secret leads to it", lambda: self._up({**restore, "serves": "true"}))
        self._step(
            f"{live.tag} on it, every check passed, held before traffic moves", lambda: self._hold(live.tag, restore)
        )
        self._step(
            f"{live.tag} taken back", lambda: self._up({**restore, "serves": "true"}, "-c", f"shopcat:abort={live.tag}")
        )
        self._step("the secret leads to the first database again", lambda: self._up(restore))
        self._step("the second instance gone, its last snapshot kept", lambda: self._up(None))
        self._step("once more: nothing left to change", self._unchanged)
        after = ledger.read()
        if after.live != live or after.open:
            raise PipelineError(f"{live.name} was live before the drill; see `make releases`")

    def _step(self, title: str, act: Callable[[], str]) -> None:
        print(f"--- {title}", flush=True)
        began = self.now()
        seen = act()
        self.rows.append(MeasuredStep(title, self.now() - began, seen))
        print(f"    {self.rows[-1].seconds:.0f} s{f': {seen}' if seen else ''}", flush=True)

    def _show_up(self, restore: Mapping[str, Any] | None, *options: str) -> Finished:
        """Run an update that moves no traffic, not even of a release that somebody else has open by now."""
        stack = replace(self.stack, document=with_restore(self.stack.document, restore))
        return stack.show("up", *options, "-c", "shopcat:holdTraffic=true")

    def _up(self, restore: Mapping[str, Any] | None, *options: str) -> str:
        if self._show_up(restore, *options).code != 0:
            raise PipelineError(
                "`pulumi up -s prod` failed; its output is above. Users are served as before; how to go on or back from this "
                'step is in docs/restore.md, "A drill that stopped"'
            )
        return ""

    def _hold(self, tag: str, restore: Mapping[str, Any]) -> str:
        """Release the live tag on the restored database; the update ends where traffic would move."""
        finished = self._show_up({**restore, "serves": "true"}, "-c", f"shopcat:tag={tag}")
        if finished.code != 0 and HELD in finished.text:
            return "started, smoke test passed, targets healthy, no weight"
        if finished.code == 0:
            raise PipelineError(
                f'{tag} was not held: users are on the restored database. Go back by docs/restore.md, "Damaged data", step 7'
            )
        with suppress(ShopCatError):
            self._up({**restore, "serves": "true"}, "-c", f"shopcat:abort={tag}")
        raise PipelineError(
            f"{tag} on the restored database did not get as far as traffic; Pulumi's output is above, and it was aborted"
        )

    def _unchanged(self) -> str:
        self._up(None)
        changes = {name: count for name, count in self.stack.changes().items() if name != "same"}
        if changes:
            raise PipelineError(f"a further `pulumi up -s prod` changed something: {changes}")
        return "0 changes"

    def _moment(self) -> str:
        database = self.settings.database
        name, restored = database.identifier, database.restored_identifier
        with aws_errors(self.clients, f"RDS instance {name}"):
            rds = self.clients.get("rds")
            (instance,) = rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"]
            filters = [{"Name": "db-instance-id", "Values": [restored]}]
            if rds.describe_db_instances(Filters=filters)["DBInstances"]:
                raise PipelineError(
                    f"RDS instance {restored} is there: somebody else's drill or restore is under way, or was left. Once nobody "
                    "needs it, a plain `pulumi up -s prod` takes it away (docs/restore.md)"
                )
        latest = instance.get("LatestRestorableTime")
        if latest is None:
            raise PipelineError(
                f"RDS instance {name} has no backup yet that could be restored; try again in some minutes"
            )
        retention = timedelta(days=instance["BackupRetentionPeriod"])
        moment = choose_moment(instance["InstanceCreateTime"], latest, retention, self.asked)
        # The copy of a former drill has left the snapshot of its moment, and RDS lets no second one go under that name.
        while not self.asked and has_snapshot(self.clients, Restore(at=moment).last_snapshot):
            moment = f"{read_moment(moment) - timedelta(seconds=1):{MOMENT}}"
        refuse_taken_snapshot(self.clients, database.model_copy(update={"restore": Restore(at=moment)}))
        return moment

    def _rows(self) -> str:
        """Return what the Job has found in the restored database."""
        command = ["kubectl", "logs", "-n", DATABASE_NAMESPACE, f"job/{DATABASE_RESTORED_JOB}"]
        try:
            lines = process.capture(command).splitlines()
        except PipelineError as error:
            return f"the Job passed; its log can't be read: {str(error)[:120]}"
        return "; ".join(line.replace("|", " ") for line in lines if any(words in line for words in DRILL_LINES))

    def _ledger(self, present: LedgerState) -> str:
        dynamodb = self.clients.get("dynamodb")
        source, target = self.settings.ledger_table, f"{self.settings.ledger_table}-drill"
        with aws_errors(self.clients, f"DynamoDB table {source} (its backups)"):
            dynamodb.restore_table_to_point_in_time(
                SourceTableName=source, TargetTableName=target, UseLatestRestorableTime=True
            )
            try:
                until = time.monotonic() + _LEDGER_SECONDS
                while dynamodb.describe_table(TableName=target)["Table"]["TableStatus"] != "ACTIVE":
                    if time.monotonic() > until:
                        raise PipelineError(f"DynamoDB table {target} is not restored after {_LEDGER_SECONDS:.0f} s")
                    time.sleep(5)
                return compared(Ledger(dynamodb, target).read(), present)
            finally:
                dynamodb.delete_table(TableName=target)


def drill_of(environment: Mapping[str, str], asked: str) -> Drill:
    """Return the drill on production.

    Raises:
        ShopCatError: no credentials, or settings that can't be used.
    """
    # By hand on the twin, `make env` names the settings as Pulumi's own variable does.
    settings_file = environment.get("SHOPCAT_STACK_FILE") or environment.get("PULUMI_OPTION_CONFIG_FILE", "")
    stack = ReleaseJob({**environment, "SHOPCAT_STACK_FILE": settings_file}, Steps()).stack()
    config = stack_file.handed_over(stack_file.without_secrets(stack.document["config"]))
    ours = {key.partition(":")[2]: value for key, value in config.items() if key.startswith("shopcat:")}
    return Drill(stack, read_settings(ours), aws_clients(), asked)


def main(page: Path = PAGE) -> int:
    """Run ``python -m pipeline.restore_drill [moment]`` and write the times into docs/restore.md."""
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        drill = drill_of(os.environ, asked)
        account, _ = drill.clients.identity()
        drill.run()
        endpoint = drill.clients.endpoint_url or os.environ.get("AWS_ENDPOINT_URL")
        place = "a simulated AWS" if endpoint else f"account {account}, {drill.clients.region}"
        where = f"{datetime.now(UTC):%Y-%m-%d}, {place}, {drill.settings.database.instance_class}:"
        text = section(drill.rows, where)
        page.write_text(written(page.read_text(), text))
        print(text)
    except ShopCatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
