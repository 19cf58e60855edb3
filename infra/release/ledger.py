"""The release ledger: which tags were ever released, which release is open, which colour is live.

One DynamoDB table, made once per account outside every stack. Its items:

* `head`: the single slot (the open release), the live pointer, which release stands in which colour, and a version that
  every write raises. A write is one transaction, conditional on the version it was decided on, so of two updates that
  race one wins and the other is refused; whoever was overtaken can't write again.
* `release#<tag>#<revision>`: the record of a release, its state and its attempts.

A release goes claimed → live → former → retired, or claimed → aborted. `decide` is the table of what is allowed; it
reads and writes nothing. A ledger that can't be read is unknown, and what is unknown is refused.
"""

from __future__ import annotations

import json
import secrets
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError

from infra.errors import Refused
from infra.names import Colour, other_colour
from infra.release.record import Provenance, Record, TemplateInput, release_name, template_differences, validated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

KEY = "pk"
HEAD = "head"
ReleaseState = Literal["claimed", "live", "former", "retired", "aborted"]
Kind = Literal["release", "rollback"]
ONCE_LIVE: tuple[ReleaseState, ...] = ("live", "former", "retired")


class LedgerUnknown(Refused):
    """The ledger can't be read, or what it says contradicts itself."""


class LedgerConflict(Refused):
    """Somebody else wrote the ledger since it was read."""


@dataclass(frozen=True)
class Attempt:
    """One time that a release was tried."""

    number: int
    who: str
    commit: str
    run: str
    at: str
    outcome: str = ""
    """`live`, `aborted`, or nothing while it is open."""


@dataclass(frozen=True)
class Release:
    """One revision of one tag, as the ledger knows it."""

    record: Record
    state: ReleaseState
    colour: Colour
    attempts: tuple[Attempt, ...]
    sequence: int = 0
    """Order of going live, counted over all releases; 0 if it never was."""

    @property
    def name(self) -> str:
        """`v1.4.0-r1`."""
        return self.record.name

    def describe(self) -> str:
        """Its record in one line, for a person."""
        last = self.attempts[-1]
        by = f" by {last.who}" if last.who else ""
        source = f", commit {last.commit}" if last.commit else ""
        return (
            f"{self.name} ({self.record.digest}) {self.state} in {self.colour}, "
            f"attempt {last.number} of {last.at}{by}{source}"
        )


@dataclass(frozen=True)
class Open:
    """The release that holds the single slot."""

    tag: str
    revision: int
    attempt: int
    colour: Colour
    kind: Kind

    @property
    def name(self) -> str:
        """`v1.4.0-r1`."""
        return release_name(self.tag, self.revision)

    @property
    def intent(self) -> str:
        """Name of this attempt, written on both Deployments so that each new intent is a difference."""
        return f"{self.name}-a{self.attempt}"


@dataclass(frozen=True)
class Live:
    """The live pointer."""

    tag: str
    revision: int
    colour: Colour

    @property
    def name(self) -> str:
        """`v1.4.0-r1`."""
        return release_name(self.tag, self.revision)


@dataclass(frozen=True)
class LedgerState:
    """Everything the ledger says, read at one version."""

    version: int = 0
    """0: the ledger has never been initialised."""
    open: Open | None = None
    live: Live | None = None
    occupants: Mapping[Colour, str] = field(default_factory=dict)
    """The release last put into each colour; its pods or its empty Deployment are declared from that record."""
    intent: str = ""
    sequence: int = 0
    releases: Mapping[str, Release] = field(default_factory=dict)
    writer: str = ""
    """Random name of the update that wrote this version: two that write the same are still two."""

    def release(self, name: str) -> Release:
        """The release of this name (`v1.4.0-r1`).

        Raises:
            LedgerUnknown: the ledger names a release it has no record of.
        """
        try:
            return self.releases[name]
        except KeyError:
            raise LedgerUnknown(f"the ledger names release {name} but holds no record of it") from None

    @property
    def live_record(self) -> Record | None:
        """Record of the live release."""
        return self.release(self.live.name).record if self.live else None

    def revisions(self, tag: str) -> list[Release]:
        """All revisions of a tag, oldest first."""
        return sorted(
            (each for each in self.releases.values() if each.record.tag == tag), key=lambda each: each.record.revision
        )


# What is wanted -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Nothing:
    """No tag, abort or rollback is set."""


@dataclass(frozen=True)
class Tag:
    """`shopcat:tag`."""

    tag: str
    template: TemplateInput | None
    """What the settings make of it; `None` if the registry has no such image, and `absent` says so."""
    provenance: Provenance = field(default_factory=Provenance)
    absent: str = ""


@dataclass(frozen=True)
class Abort:
    """`shopcat:abort`."""

    tag: str


@dataclass(frozen=True)
class Rollback:
    """`shopcat:rollback`, as `v1.4.0->v1.3.0`."""

    source: str
    target: str
    provenance: Provenance = field(default_factory=Provenance)

    @classmethod
    def parse(cls, text: str, provenance: Provenance | None = None) -> Rollback:
        """The two tags.

        Raises:
            Refused: it is not written `from->to`.
        """
        source, arrow, target = (part.strip() for part in text.partition("->"))
        if not (source and arrow and target):
            raise Refused(f"shopcat:rollback is {text!r}; expected <live tag>-><former tag>, such as v1.4.0->v1.3.0")
        return cls(source, target, provenance or Provenance())


Wanted: TypeAlias = Nothing | Tag | Abort | Rollback
ReleaseAction = Literal["platform", "stay", "release", "resume", "abort"]


@dataclass(frozen=True)
class Decision:
    """What this update does about releases.

    `platform`: nothing was ever live and nothing is open. `stay`: the live release stays. `release`: `open` is claimed
    first. `resume`: `open` is gone on with. `abort`: `open` is taken back.
    """

    action: ReleaseAction
    message: str
    open: Open | None = None
    record: Record | None = None
    """The record of `open`."""
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def moves(self) -> bool:
        """Whether anything of a release will change."""
        return self.action in ("release", "resume", "abort")


def up_command(setting: str, value: str) -> str:
    """The one command that goes on or back."""
    return f"pulumi up -s prod --config-file <copy of Pulumi.prod.yaml> -c 'shopcat:{setting}={value}'"


def go_on_or_abort(opened: Open) -> str:
    """What is to be done about an open release: one command each."""
    return f"go on: pulumi up -s prod; abort: {up_command('abort', opened.tag)}"


def _go_on_or_abort(state: LedgerState) -> str:
    return go_on_or_abort(state.open) if state.open else ""


def decide(wanted: Wanted, state: LedgerState, unweighted: Colour = "green") -> Decision:
    """What is allowed, and what it means.

    Args:
        wanted: from the settings.
        state: the ledger.
        unweighted: the colour without weight, where the very first release goes.

    Raises:
        Refused: it is not allowed; the message says why and spells out what is.
    """
    if isinstance(wanted, Tag):
        return _decide_tag(wanted, state, unweighted)
    if isinstance(wanted, Abort):
        return _decide_abort(wanted, state)
    if isinstance(wanted, Rollback):
        return _decide_rollback(wanted, state)
    return _resume(state) if state.open else _stay(state)


def _stay(state: LedgerState, note: str = "") -> Decision:
    if state.live is None:
        return Decision("platform", note or "nothing has been released yet: the platform alone")
    return Decision("stay", note or f"{state.live.name} is live in {state.live.colour}")


def _resume(state: LedgerState) -> Decision:
    opened = state.open
    if opened is None:  # pragma: no cover - callers have looked
        raise LedgerUnknown("no release is open")
    record = state.release(opened.name).record
    message = (
        f"goes on with {opened.kind} {opened.name}, attempt {opened.attempt}; to take it back: "
        f"{up_command('abort', opened.tag)}"
    )
    return Decision("resume", message, opened, record, record.provenance)


def _claimed(
    record: Record, attempt: int, colour: Colour, kind: Kind, *, message: str, provenance: Provenance
) -> Decision:
    opened = Open(record.tag, record.revision, attempt, colour, kind)
    return Decision("release", message, opened, validated(record), provenance)


def _idle(state: LedgerState, unweighted: Colour) -> Colour:
    return other_colour(state.live.colour) if state.live else unweighted


def _decide_tag(wanted: Tag, state: LedgerState, unweighted: Colour) -> Decision:
    opened = state.open
    if opened and opened.tag == wanted.tag and opened.kind == "release":
        known = state.release(opened.name).record
        if wanted.template is not None:
            _same_digest(wanted.tag, known, wanted.template)
        return _resume(state)
    if opened:
        raise Refused(
            f"{wanted.tag} is refused while {opened.kind} {opened.name} is open (attempt {opened.attempt} in "
            f"{opened.colour}); {_go_on_or_abort(state)}"
        )
    revisions = state.revisions(wanted.tag)
    live = next((each for each in revisions if state.live and each.name == state.live.name), None)
    once = [each for each in revisions if each.state in ONCE_LIVE]
    if once and not live:
        raise Refused(
            f"tag {wanted.tag} was released before and is never released again: {once[-1].describe()}. "
            + (
                f"Only a rollback brings it back: {up_command('rollback', f'{state.live.tag}->{wanted.tag}')}"
                if state.live
                else "Push the image under a new tag"
            )
        )
    if wanted.template is None:
        if live:
            return _stay(state)
        raise Refused(wanted.absent or f"tag {wanted.tag} is not in the registry")
    for each in revisions:
        _same_digest(wanted.tag, each.record, wanted.template)
    if live and not template_differences(wanted.template, live.record.template):
        return _stay(state)
    _same_live(wanted, state)
    colour = _idle(state, unweighted)
    again = next((each for each in reversed(revisions) if each.record.template == wanted.template), None)
    if again and again.state == "aborted":
        number = again.attempts[-1].number + 1
        message = f"releases {again.name} into {colour} again, attempt {number}"
        return _claimed(again.record, number, colour, "release", message=message, provenance=wanted.provenance)
    revision = revisions[-1].record.revision + 1 if revisions else 1
    record = Record(wanted.tag, revision, wanted.template, wanted.provenance)
    message = f"releases {record.name} into {colour}"
    return _claimed(record, 1, colour, "release", message=message, provenance=wanted.provenance)


def _same_live(wanted: Tag, state: LedgerState) -> None:
    """Refuse a release whose commit was compared with another one than what is live now: it may be older than that."""
    after, live = wanted.provenance.after, state.live.name if state.live else "nothing"
    if after and after != live:
        raise Refused(
            f"{wanted.tag}: its commit was found to be newer than {after}, but {live} is live by now; run the job again, "
            "which compares it with that"
        )


def _same_digest(tag: str, known: Record, template: TemplateInput) -> None:
    digest = template.image.rpartition("@")[2]
    if digest != known.digest:
        raise Refused(
            f"tag {tag} belongs to {known.digest} since {known.name}, the registry now has {digest} under it; a tag "
            "keeps its digest for ever: push the new image under a new tag"
        )


def _decide_abort(wanted: Abort, state: LedgerState) -> Decision:
    opened = state.open
    if opened and wanted.tag in (opened.tag, opened.name):
        record = state.release(opened.name).record
        message = f"aborts {opened.kind} {opened.name}: weights back, {opened.colour} to 0"
        return Decision("abort", message, opened, record, record.provenance)
    if opened:
        raise Refused(f"abort {wanted.tag}: the open release is {opened.name}; {_go_on_or_abort(state)}")
    if state.live and wanted.tag in (state.live.tag, state.live.name):
        raise Refused(
            f"abort {wanted.tag}: it is live, so it can't be aborted any more; "
            f"going back is a rollback: {up_command('rollback', f'{state.live.tag}-><earlier tag>')}"
        )
    known = [each for each in state.releases.values() if wanted.tag in (each.record.tag, each.name)]
    if any(each.attempts and each.attempts[-1].outcome == "aborted" for each in known):
        return _stay(state, f"{wanted.tag} is already aborted; nothing to do")
    found = "; ".join(each.describe() for each in known) or "the ledger doesn't know it"
    raise Refused(f"abort {wanted.tag}: no release is open ({found})")


def _once_live(state: LedgerState, wanted: str, not_this: str) -> Release | None:
    """The youngest once-live release of this tag or name, other than the given one."""
    found = [
        each
        for each in state.releases.values()
        if wanted in (each.record.tag, each.name) and each.state in ONCE_LIVE and each.name != not_this
    ]
    return max(found, key=lambda each: each.sequence, default=None)


def _decide_rollback(wanted: Rollback, state: LedgerState) -> Decision:
    text, opened, live = f"{wanted.source}->{wanted.target}", state.open, state.live
    is_source = live is not None and wanted.source in (live.tag, live.name)
    if opened:
        if opened.kind == "rollback" and wanted.target in (opened.tag, opened.name) and is_source:
            return _resume(state)
        raise Refused(f"rollback {text} is refused while {opened.kind} {opened.name} is open; {_go_on_or_abort(state)}")
    if live is None:
        raise Refused(f"rollback {text}: nothing is live; release a tag: {up_command('tag', wanted.target)}")
    if wanted.target in (live.tag, live.name) and not is_source:
        return _stay(state, f"{live.name} is live already; nothing to roll back")
    if not is_source:
        raise Refused(
            f"rollback {text}: {live.name} is live, not {wanted.source}; to go back from it: "
            f"{up_command('rollback', f'{live.tag}->{wanted.target}')}"
        )
    target = _once_live(state, wanted.target, live.name)
    if target is None:
        formers = sorted({each.record.tag for each in state.releases.values() if each.state in ("former", "retired")})
        there = ", ".join(formers) or "none"
        raise Refused(f"rollback {text}: {wanted.target} was never live; releases that were: {there}")
    # Migrations run once, at a release's first attempt, whether or not it goes live and however often it comes back.
    for each in sorted(state.releases.values(), key=lambda release: release.attempts[0].at):
        later = each is not target and each.attempts[0].at >= target.attempts[0].at
        if later and each.record.template.contracts:
            raise Refused(
                f"rollback {text}: {each.name} is marked `contracts`, its migration removed what {target.name} needs; "
                "release a mended version instead"
            )
    number = target.attempts[-1].number + 1
    colour = other_colour(live.colour)
    message = f"rolls back from {live.name} to {target.name} in {colour}"
    return _claimed(target.record, number, colour, "rollback", message=message, provenance=wanted.provenance)


# Transitions: plain functions from state to state ---------------------------------------------------------------------


def claimed(state: LedgerState, decision: Decision, at: str) -> LedgerState:
    """The ledger after the claim of `decision.open`."""
    opened, record = decision.open, decision.record
    if opened is None or record is None or state.open is not None:
        raise LedgerConflict(f"the slot is taken by {state.open.name if state.open else '?'}")
    by = decision.provenance
    attempt = Attempt(opened.attempt, by.who, by.commit, by.run, at)
    known = state.releases.get(opened.name)
    if known:
        changed = replace(
            known,
            attempts=(*known.attempts, attempt),
            colour=opened.colour,
            state="claimed" if opened.kind == "release" else known.state,
        )
    else:
        changed = Release(record, "claimed", opened.colour, (attempt,))
    return replace(
        state,
        version=state.version + 1,
        open=opened,
        occupants={**state.occupants, opened.colour: opened.name},
        intent=opened.intent,
        releases={**state.releases, opened.name: changed},
    )


def _ended(release: Release, outcome: str) -> tuple[Attempt, ...]:
    return (*release.attempts[:-1], replace(release.attempts[-1], outcome=outcome))


def gone_live(state: LedgerState) -> LedgerState:
    """The ledger after the open release has become the live one: pointer moved, slot closed."""
    opened = state.open
    if opened is None:
        raise LedgerConflict("no release is open")
    releases = dict(state.releases)
    for name, each in releases.items():
        if each.state == "former":
            releases[name] = replace(each, state="retired")
    if state.live:
        releases[state.live.name] = replace(releases[state.live.name], state="former")
    release = releases[opened.name]
    sequence = state.sequence + 1
    releases[opened.name] = replace(release, state="live", sequence=sequence, attempts=_ended(release, "live"))
    return replace(
        state,
        version=state.version + 1,
        open=None,
        live=Live(opened.tag, opened.revision, opened.colour),
        sequence=sequence,
        releases=releases,
    )


def aborted(state: LedgerState) -> LedgerState:
    """The ledger after the open release was taken back: slot closed, live pointer untouched."""
    opened = state.open
    if opened is None:
        raise LedgerConflict("no release is open")
    release = state.release(opened.name)
    release = replace(
        release,
        state="aborted" if opened.kind == "release" else release.state,
        attempts=_ended(release, "aborted"),
    )
    return replace(
        state,
        version=state.version + 1,
        open=None,
        intent=f"{opened.intent}-abort",
        releases={**state.releases, opened.name: release},
    )


# DynamoDB -------------------------------------------------------------------------------------------------------------


def table_definition(name: str) -> dict[str, Any]:
    """Arguments of `create_table`. Point-in-time recovery is switched on by a call of its own."""
    return {
        "TableName": name,
        "AttributeDefinitions": [{"AttributeName": KEY, "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": KEY, "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
        "DeletionProtectionEnabled": True,
    }


def _head(state: LedgerState) -> dict[str, Any]:
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


def _release(release: Release) -> dict[str, Any]:
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
    """The table, read and written with conditions."""

    def __init__(self, client: Any, table: str, now: Callable[[], str] = _now) -> None:
        self._client = client
        self._table = table
        self._now = now
        self._writer = secrets.token_hex(8)

    @contextmanager
    def _reachable(self, *, writing: bool = False) -> Iterator[None]:
        """AWS errors as one message each, which says whether it was to be read or written."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""
            if code == "ResourceNotFoundException":
                raise LedgerUnknown(
                    f"release ledger: there is no DynamoDB table {self._table}; `make bootstrap` makes it"
                ) from error
            if writing:
                raise LedgerUnknown(
                    f"release ledger {self._table} can't be written: {error}. Whether it was written all the same is not "
                    "known, and nothing more is done. Mend the access, then run it again: it goes on from what the "
                    "ledger holds by then"
                ) from error
            raise LedgerUnknown(
                f"release ledger {self._table} can't be read, so what was released is unknown and nothing is done: "
                f"{error}. Mend the access, or name another table in shopcat:ledgerTable; then run it again"
            ) from error

    def initialise(self) -> bool:
        """Write the empty ledger if there is none; whether it did. For bootstrap alone."""
        try:
            with self._reachable(writing=True):
                self._client.put_item(
                    TableName=self._table,
                    Item=_head(LedgerState(version=1)),
                    ConditionExpression=f"attribute_not_exists({KEY})",
                )
        except LedgerUnknown as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and cause.response["Error"]["Code"] == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def read(self) -> LedgerState:
        """Everything, at one version.

        Raises:
            LedgerUnknown: it can't be read, or was written too often meanwhile.
        """
        for _ in range(5):
            before = self._read_head()
            releases = self._read_releases()
            if self._read_head().version == before.version:
                return replace(before, releases=releases)
        raise LedgerUnknown(f"release ledger {self._table} is being written all the time; try again")

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
            raise LedgerUnknown(f"release ledger {self._table}: its head can't be understood: {error!r}") from error

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
                    raise LedgerUnknown(
                        f"release ledger {self._table}: item {item[KEY]['S']} can't be understood: {error!r}"
                    ) from error
                releases[release.name] = release
            if "LastEvaluatedKey" not in page:
                return releases
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def _write(self, before: LedgerState, after: LedgerState) -> LedgerState:
        """Head and changed releases in one transaction, if nobody has written since `before`."""
        after = replace(after, writer=self._writer)
        puts: list[dict[str, Any]] = [
            {
                "TableName": self._table,
                "Item": _head(after),
                "ConditionExpression": "version = :version",
                "ExpressionAttributeValues": {":version": {"N": str(before.version)}},
            }
        ]
        for name, release in after.releases.items():
            known = before.releases.get(name)
            if known == release:
                continue
            put: dict[str, Any] = {"TableName": self._table, "Item": _release(release)}
            if known is None:
                put["ConditionExpression"] = f"attribute_not_exists({KEY})"
            puts.append(put)
        try:
            with self._reachable(writing=True):
                self._client.transact_write_items(TransactItems=[{"Put": put} for put in puts])
        except LedgerUnknown as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and cause.response["Error"]["Code"] == "TransactionCanceledException":
                # The write may have arrived and its answer been lost: then the ledger says exactly what was written.
                found = self.read()
                if found == after:
                    return after
                raise LedgerConflict(_conflict(found)) from error
            raise
        return after

    def claim(self, state: LedgerState, decision: Decision) -> LedgerState:
        """Take tag and slot in one transaction.

        Raises:
            LedgerConflict: somebody else was first.
        """
        return self._write(state, claimed(state, decision, self._now()))

    def hold(self, state: LedgerState) -> LedgerState:
        """Go on with the open release: whoever held it before can't write any more."""
        return self._write(state, replace(state, version=state.version + 1))

    def go_live(self, state: LedgerState) -> LedgerState:
        """Move the live pointer and close the slot."""
        return self._write(state, gone_live(state))

    def abort(self, state: LedgerState) -> LedgerState:
        """Close the slot; the live pointer stays."""
        return self._write(state, aborted(state))


def _conflict(found: LedgerState) -> str:
    if found.open:
        release = found.releases.get(found.open.name)
        detail = f": {release.describe()}" if release else ""
        return (
            f"another update was first: {found.open.kind} {found.open.name} holds the slot{detail}; "
            f"{_go_on_or_abort(found)}"
        )
    live = f"{found.live.name} is live in {found.live.colour}" if found.live else "nothing is live"
    return f"another update was first: the ledger has changed since this one began, now {live}; run it again"


class Session:
    """What one update does to the ledger, each step once, whoever asks first."""

    def __init__(self, ledger: Ledger, state: LedgerState, decision: Decision) -> None:
        self._ledger = ledger
        self._held = False
        self._lock = threading.RLock()
        """Hooks ask side by side: nobody compares the ledger with `state` while it is being written."""
        self.state = state
        self.decision = decision

    def take(self) -> bool:
        """Claim or go on with the release of the decision; whether this was the first time.

        Raises:
            LedgerConflict: somebody else was first.
        """
        with self._lock:
            if self._held:
                return False
            if self.decision.action == "release":
                self.state = self._ledger.claim(self.state, self.decision)
            elif self.decision.moves:
                self.state = self._ledger.hold(self.state)
            self._held = True
            return True

    def still_ours(self) -> None:
        """Nobody has written the ledger since this update read it or wrote it itself.

        Raises:
            LedgerConflict: somebody has.
        """
        with self._lock:
            found = self._ledger.read()
            if found.version != self.state.version:
                raise LedgerConflict(_conflict(found))

    def go_live(self) -> LedgerState:
        """The open release becomes the live one."""
        with self._lock:
            self.take()
            self.state = self._ledger.go_live(self.state)
            return self.state

    def abort(self) -> LedgerState:
        """The open release is taken back."""
        with self._lock:
            self.take()
            self.state = self._ledger.abort(self.state)
            return self.state


def table_rows(state: LedgerState) -> list[dict[str, str]]:
    """The ledger for a person: one row a release, the youngest first."""
    rows = []
    for release in state.releases.values():
        last = release.attempts[-1]
        is_open = state.open is not None and state.open.name == release.name
        rows.append(
            {
                "tag": release.record.tag,
                "revision": str(release.record.revision),
                "digest": release.record.digest,
                "colour": release.colour,
                "state": f"{release.state} (open)" if is_open else release.state,
                "attempt": str(last.number),
                "who": last.who,
                "commit": last.commit,
                "when": last.at,
            }
        )
    return sorted(rows, key=lambda row: (row["when"], row["tag"], row["revision"]), reverse=True)
