"""The release ledger: which tags were ever released, which release is open, which colour is live.

One DynamoDB table, made once per account outside every stack. Its items:

* `head`: the single slot (the open release), the live pointer, which release stands in which colour, and a version that
  every write raises. A write is one transaction, conditional on the version it was decided on, so of two updates that
  race one wins and the other is refused; whoever was overtaken can't write again.
* `release#<tag>#<revision>`: the record of a release, its state and its attempts.

What it knows is in state.py, what is allowed in decide.py, how one state follows another in transitions.py: none of them
reads or writes anything. A ledger that can't be read is unknown, and what is unknown is refused.
"""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.clients.aws import error_code
from infra.errors import LedgerConflictError, LedgerUnavailableError
from infra.release.decide import Decision, ways_out
from infra.release.record import Record
from infra.release.state import Attempt, LedgerState, Live, Open, Release
from infra.release.transitions import aborted, claimed, gone_live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

KEY = "pk"
HEAD = "head"


def table_definition(name: str) -> dict[str, Any]:
    """Return the arguments of `create_table`. Point-in-time recovery is switched on by a call of its own."""
    return {
        "TableName": name,
        "AttributeDefinitions": [{"AttributeName": KEY, "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": KEY, "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
        "DeletionProtectionEnabled": True,
    }


def _head_item(state: LedgerState) -> dict[str, Any]:
    document = {
        "open": asdict(state.open) if state.open else None,
        "live": asdict(state.live) if state.live else None,
        "occupants": dict(state.occupants),
        "intent": state.intent,
        "sequence": state.sequence,
        "writer": state.writer,
    }
    return {
        KEY: {"S": HEAD},
        "version": {"N": str(state.version)},
        "document": {"S": json.dumps(document, sort_keys=True)},
    }


def _release_key(release: Release) -> str:
    return f"release#{release.record.tag}#{release.record.revision}"


def _release_item(release: Release) -> dict[str, Any]:
    document = {
        "record": release.record.to_json(),
        "attempts": [asdict(attempt) for attempt in release.attempts],
        "colour": release.colour,
        "sequence": release.sequence,
    }
    return {
        KEY: {"S": _release_key(release)},
        "tag": {"S": release.record.tag},
        "digest": {"S": release.record.digest},
        "state": {"S": release.state},
        "document": {"S": json.dumps(document, sort_keys=True)},
    }


def _read_release(item: Mapping[str, Any]) -> Release:
    document = json.loads(item["document"]["S"])
    return Release(
        record=Record.from_json(document["record"]),
        state=item["state"]["S"],
        colour=document["colour"],
        attempts=tuple(Attempt(**each) for each in document["attempts"]),
        sequence=document["sequence"],
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Ledger:
    """The ledger's table, read consistently and written under conditions."""

    def __init__(self, client: Any, table: str, now: Callable[[], str] = _now) -> None:
        self._client = client
        self._table = table
        self._now = now
        self._writer = secrets.token_hex(8)

    @contextmanager
    def _reachable(self, *, writing: bool = False) -> Iterator[None]:
        """Turn an error of AWS into one message, which says whether the ledger was to be read or written."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            code = error_code(error)
            if code == "ResourceNotFoundException":
                raise LedgerUnavailableError(
                    f"release ledger: there is no DynamoDB table {self._table}; `make bootstrap` makes it",
                    code,
                ) from error
            if writing:
                raise LedgerUnavailableError(
                    f"release ledger {self._table} can't be written: {error}. Whether it was written all the same is not "
                    "known, and nothing more is done. Mend the access, then run it again: it goes on from what the "
                    "ledger holds by then",
                    code,
                ) from error
            raise LedgerUnavailableError(
                f"release ledger {self._table} can't be read, so what was released is unknown and nothing is done: "
                f"{error}. Mend the access, or name another table in shopcat:ledgerTable; then run it again",
                code,
            ) from error

    def initialise(self) -> bool:
        """Write the empty ledger if there is none, for bootstrap alone; true if it was written."""
        try:
            with self._reachable(writing=True):
                self._client.put_item(
                    TableName=self._table,
                    Item=_head_item(LedgerState(version=1)),
                    ConditionExpression=f"attribute_not_exists({KEY})",
                )
        except LedgerUnavailableError as error:
            if error.code == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def read(self) -> LedgerState:
        """Return the whole ledger at one version.

        Raises:
            LedgerUnavailableError: it can't be read, or was written too often meanwhile.
        """
        for _ in range(5):
            before = self._read_head()
            releases = self._read_releases()
            if self._read_head().version == before.version:
                return replace(before, releases=releases)
        raise LedgerUnavailableError(f"release ledger {self._table} is being written all the time; try again")

    def _read_head(self) -> LedgerState:
        with self._reachable():
            item = self._client.get_item(TableName=self._table, Key={KEY: {"S": HEAD}}, ConsistentRead=True).get("Item")
        if item is None:
            return LedgerState()
        try:
            document = json.loads(item["document"]["S"])
            return LedgerState(
                version=int(item["version"]["N"]),
                open=Open(**document["open"]) if document["open"] else None,
                live=Live(**document["live"]) if document["live"] else None,
                occupants=document["occupants"],
                intent=document["intent"],
                sequence=document["sequence"],
                writer=document.get("writer", ""),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerUnavailableError(
                f"release ledger {self._table}: its head can't be understood: {error!r}"
            ) from error

    def _read_releases(self) -> dict[str, Release]:
        releases: dict[str, Release] = {}
        start: dict[str, Any] = {}
        while True:
            with self._reachable():
                page = self._client.scan(TableName=self._table, ConsistentRead=True, **start)
            for item in page["Items"]:
                if item[KEY]["S"] == HEAD:
                    continue
                try:
                    release = _read_release(item)
                except (KeyError, TypeError, ValueError) as error:
                    raise LedgerUnavailableError(
                        f"release ledger {self._table}: item {item[KEY]['S']} can't be understood: {error!r}"
                    ) from error
                releases[release.name] = release
            if "LastEvaluatedKey" not in page:
                return releases
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def _write(self, before: LedgerState, after: LedgerState) -> LedgerState:
        """Write head and changed releases in one transaction, if nobody has written since `before`."""
        after = replace(after, writer=self._writer)
        puts: list[dict[str, Any]] = [
            {
                "TableName": self._table,
                "Item": _head_item(after),
                "ConditionExpression": "version = :version",
                "ExpressionAttributeValues": {":version": {"N": str(before.version)}},
            }
        ]
        for name, release in after.releases.items():
            known = before.releases.get(name)
            if known == release:
                continue
            put: dict[str, Any] = {"TableName": self._table, "Item": _release_item(release)}
            if known is None:
                put["ConditionExpression"] = f"attribute_not_exists({KEY})"
            puts.append(put)
        try:
            with self._reachable(writing=True):
                self._client.transact_write_items(TransactItems=[{"Put": put} for put in puts])
        except LedgerUnavailableError as error:
            if error.code == "TransactionCanceledException":
                # The write may have arrived and its answer been lost: then the ledger says exactly what was written.
                stored = self.read()
                if stored == after:
                    return after
                raise LedgerConflictError(conflict_message(stored)) from error
            raise
        return after

    def claim(self, state: LedgerState, decision: Decision) -> LedgerState:
        """Take tag and slot in one transaction.

        Raises:
            LedgerConflictError: somebody else was first.
        """
        return self._write(state, claimed(state, decision, self._now()))

    def hold(self, state: LedgerState) -> LedgerState:
        """Write the next version of the same content: whoever read or held the one before can't write any more."""
        return self._write(state, replace(state, version=state.version + 1))

    def go_live(self, state: LedgerState) -> LedgerState:
        """Move the live pointer and close the slot."""
        return self._write(state, gone_live(state))

    def abort(self, state: LedgerState) -> LedgerState:
        """Close the slot; the live pointer stays."""
        return self._write(state, aborted(state))


def conflict_message(state: LedgerState) -> str:
    """Say which other update was first, and what to do now."""
    if state.open:
        release = state.releases.get(state.open.name)
        detail = f": {release.describe()}" if release else ""
        return (
            f"another update was first: {state.open.kind} {state.open.name} holds the slot{detail}; {ways_out(state)}"
        )
    live = f"{state.live.name} is live in {state.live.colour}" if state.live else "nothing is live"
    return f"another update was first: the ledger has changed since this one began, now {live}; run it again"
