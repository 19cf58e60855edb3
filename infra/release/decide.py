"""Decide what an update does about releases: the table of what is allowed, and what it means. Nothing is read or written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias
from uuid import NAMESPACE_OID, uuid5

from infra.errors import LedgerError, LedgerUnavailableError
from infra.names import Colour, login_secret, other_colour
from infra.release.record import Login, Provenance, Record, TemplateInput, template_differences, validated
from infra.release.state import ONCE_LIVE, Kind, LedgerState, Open, Release


@dataclass(frozen=True)
class Nothing:
    """No tag, abort, rollback or rotate is set."""


@dataclass(frozen=True)
class Tag:
    """`shopcat:tag`."""

    tag: str
    template: TemplateInput | None
    """The pods' input from the settings; `None` if the registry has no such image, and `absent` says so."""
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
        """Split the setting into its two tags.

        Raises:
            ShopCatError: it is not written `from->to`.
        """
        source, arrow, target = (part.strip() for part in text.partition("->"))
        if not (source and arrow and target):
            raise LedgerError(
                f"shopcat:rollback is {text!r}; expected <live tag>-><former tag>, such as v1.4.0->v1.3.0"
            )
        return cls(source, target, provenance or Provenance())


@dataclass(frozen=True)
class Rotate:
    """`shopcat:rotate`, the name of the live release, such as `v1.4.0-r1`."""

    release: str
    provenance: Provenance = field(default_factory=Provenance)


Wanted: TypeAlias = Nothing | Tag | Abort | Rollback | Rotate
ReleaseAction = Literal["platform", "stay", "release", "resume", "abort"]


@dataclass(frozen=True)
class Decision:
    """The decision of one update about releases.

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
        """Check for a change of any release."""
        return self.action in ("release", "resume", "abort")


def up_command(setting: str, value: str) -> str:
    """Return the command that goes on or back."""
    return f"pulumi up -s prod --config-file <copy of Pulumi.prod.yaml> -c 'shopcat:{setting}={value}'"


def go_on_or_abort(opened: Open) -> str:
    """Return both ways to end an open release, one command each."""
    return f"go on: pulumi up -s prod; abort: {up_command('abort', opened.tag)}"


def ways_out(state: LedgerState) -> str:
    """Return both ways to end the open release; nothing if none is open."""
    return go_on_or_abort(state.open) if state.open else ""


def decide(wanted: Wanted, state: LedgerState, unweighted: Colour = "green") -> Decision:
    """Decide what the update does, by the table of what is allowed.

    Args:
        wanted: from the settings.
        state: the ledger.
        unweighted: the colour without weight, where the very first release goes.

    Raises:
        ShopCatError: it is not allowed; the message says why and spells out what is.
    """
    if isinstance(wanted, Tag):
        return _decide_tag(wanted, state, unweighted)
    if isinstance(wanted, Abort):
        return _decide_abort(wanted, state)
    if isinstance(wanted, Rollback):
        return _decide_rollback(wanted, state)
    if isinstance(wanted, Rotate):
        return _decide_rotate(wanted, state)
    return _resume(state) if state.open else _stay(state)


def _stay(state: LedgerState, note: str = "") -> Decision:
    if state.live is None:
        return Decision("platform", note or "nothing has been released yet: the platform alone")
    return Decision("stay", note or f"{state.live.name} is live in {state.live.colour}")


def _resume(state: LedgerState) -> Decision:
    opened = state.open
    if opened is None:  # pragma: no cover - callers have looked
        raise LedgerUnavailableError("no release is open")
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


def _with_new_login(record: Record, attempt: int, colour: Colour, state: LedgerState) -> Record:
    """Give the record a password that is made for this claim alone.

    Its version is unlike any that was chosen before, since each version of the ledger has a writer of its own.
    """
    claim = Open(record.tag, record.revision, attempt, colour, "release").intent
    version = str(uuid5(NAMESPACE_OID, f"shopcat {claim} after {state.version} by {state.writer}"))
    beside = state.occupants.get(other_colour(colour))
    closes_owner = beside is None or state.release(beside).record.login is not None
    return replace(record, login=Login(login_secret(colour), version, claim, closes_owner))


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
        raise LedgerError(
            f"{wanted.tag} is refused while {opened.kind} {opened.name} is open (attempt {opened.attempt} in "
            f"{opened.colour}); {ways_out(state)}"
        )
    revisions = state.revisions(wanted.tag)
    live = next((each for each in revisions if state.live and each.name == state.live.name), None)
    once = [each for each in revisions if each.state in ONCE_LIVE]
    if once and not live:
        raise LedgerError(
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
        raise LedgerError(wanted.absent or f"tag {wanted.tag} is not in the registry")
    for each in revisions:
        _same_digest(wanted.tag, each.record, wanted.template)
    if live and not template_differences(wanted.template, live.record.template):
        return _stay(state)
    _same_live(wanted, state)
    colour = _idle(state, unweighted)
    same = (each for each in reversed(revisions) if each.record.template == wanted.template and not each.record.renews)
    again = next(same, None)
    if again and again.state == "aborted":
        number = again.attempts[-1].number + 1
        message = f"releases {again.name} into {colour} again, attempt {number}"
        record = _with_new_login(again.record, number, colour, state)
        return _claimed(record, number, colour, "release", message=message, provenance=wanted.provenance)
    revision = revisions[-1].record.revision + 1 if revisions else 1
    record = _with_new_login(Record(wanted.tag, revision, wanted.template, wanted.provenance), 1, colour, state)
    message = f"releases {record.name} into {colour}"
    return _claimed(record, 1, colour, "release", message=message, provenance=wanted.provenance)


def _same_live(wanted: Tag, state: LedgerState) -> None:
    """Refuse a release whose commit was compared with another one than what is live now: it may be older than that."""
    after, live = wanted.provenance.after, state.live.name if state.live else "nothing"
    if after and after != live:
        raise LedgerError(
            f"{wanted.tag}: its commit was found to be newer than {after}, but {live} is live by now; run the job again, "
            "which compares it with that"
        )


def _same_digest(tag: str, known: Record, template: TemplateInput) -> None:
    digest = template.image.rpartition("@")[2]
    if digest != known.digest:
        raise LedgerError(
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
        raise LedgerError(f"abort {wanted.tag}: the open release is {opened.name}; {ways_out(state)}")
    if state.live and wanted.tag in (state.live.tag, state.live.name):
        raise LedgerError(
            f"abort {wanted.tag}: it is live, so it can't be aborted any more; "
            f"going back is a rollback: {up_command('rollback', f'{state.live.tag}-><earlier tag>')}"
        )
    known = [each for each in state.releases.values() if wanted.tag in (each.record.tag, each.name)]
    if any(each.attempts and each.attempts[-1].outcome == "aborted" for each in known):
        return _stay(state, f"{wanted.tag} is already aborted; nothing to do")
    descriptions = "; ".join(each.describe() for each in known) or "the ledger doesn't know it"
    raise LedgerError(f"abort {wanted.tag}: no release is open ({descriptions})")


def _once_live(state: LedgerState, wanted: str, except_name: str) -> Release | None:
    """Return the youngest release of a tag or name that was live once, other than one."""
    releases = [
        each
        for each in state.releases.values()
        if wanted in (each.record.tag, each.name) and each.state in ONCE_LIVE and each.name != except_name
    ]
    return max(releases, key=lambda each: each.sequence, default=None)


def _decide_rollback(wanted: Rollback, state: LedgerState) -> Decision:
    text, opened, live = f"{wanted.source}->{wanted.target}", state.open, state.live
    is_source = live is not None and wanted.source in (live.tag, live.name)
    if opened:
        if opened.kind == "rollback" and wanted.target in (opened.tag, opened.name) and is_source:
            return _resume(state)
        raise LedgerError(f"rollback {text} is refused while {opened.kind} {opened.name} is open; {ways_out(state)}")
    if live is None:
        raise LedgerError(f"rollback {text}: nothing is live; release a tag: {up_command('tag', wanted.target)}")
    if wanted.target in (live.tag, live.name) and not is_source:
        return _stay(state, f"{live.name} is live already; nothing to roll back")
    if not is_source:
        raise LedgerError(
            f"rollback {text}: {live.name} is live, not {wanted.source}; to go back from it: "
            f"{up_command('rollback', f'{live.tag}->{wanted.target}')}"
        )
    target = _once_live(state, wanted.target, live.name)
    if target is None:
        formers = sorted({each.record.tag for each in state.releases.values() if each.state in ("former", "retired")})
        tags = ", ".join(formers) or "none"
        raise LedgerError(f"rollback {text}: {wanted.target} was never live; releases that were: {tags}")
    if contracted := state.contracted_since(target):
        raise LedgerError(
            f"rollback {text}: {contracted.name} is marked `contracts`, its migration removed what {target.name} needs; "
            "release a mended version instead"
        )
    number = target.attempts[-1].number + 1
    colour = other_colour(live.colour)
    # Nobody was put into the colour since: its password still holds, and pods that use it may still run.
    stays = state.occupants.get(colour) == target.name
    record = target.record if stays else _with_new_login(target.record, number, colour, state)
    message = f"rolls back from {live.name} to {target.name} in {colour}"
    return _claimed(record, number, colour, "rollback", message=message, provenance=wanted.provenance)


def rollback_to_kept(state: LedgerState, provenance: Provenance | None = None) -> Rollback:
    """Return the rollback from the live release to the one right before it, whose pods may still run; or the one that is open.

    Raises:
        LedgerError: there is none, or another release is open, which is aborted.
    """
    opened, live, former = state.open, state.live, state.kept_former
    if opened and opened.kind != "rollback":
        raise LedgerError(f"{opened.kind} {opened.name} is not live yet; abort it: {up_command('abort', opened.tag)}")
    if live is None:
        raise LedgerError("nothing is live, so there is nothing to go back from")
    target = opened or former
    if target is None:
        raise LedgerError(
            f"no release stands beside {live.name} that users could be moved to at once; see `make releases`, and roll "
            f"back with all steps: {up_command('rollback', f'{live.tag}-><former tag>')}"
        )
    return Rollback(live.name, target.name, provenance or Provenance())


def _decide_rotate(wanted: Rotate, state: LedgerState) -> Decision:
    opened, live, name = state.open, state.live, wanted.release
    if opened:
        if opened.kind == "rotation" and state.release(opened.name).record.renews == name:
            return _resume(state)
        raise LedgerError(f"rotate {name} is refused while {opened.kind} {opened.name} is open; {ways_out(state)}")
    if live is None:
        raise LedgerError(f"rotate {name}: nothing is live, so there is no password to renew; release a tag first")
    current = state.release(live.name).record
    if current.renews == name:
        return _stay(state, f"{live.name} is live with a newer password than {name}; nothing to do")
    if name != live.name:
        raise LedgerError(
            f"rotate {name}: {live.name} is live; to renew its password: {up_command('rotate', live.name)}"
        )
    revisions, colour = state.revisions(live.tag), other_colour(live.colour)
    again = next((each for each in revisions if each.record.renews == name and each.state == "aborted"), None)
    number = again.attempts[-1].number + 1 if again else 1
    revision = again.record.revision if again else revisions[-1].record.revision + 1
    record = Record(live.tag, revision, current.template, wanted.provenance, renews=name)
    message = f"renews the password of {name}: the same pods as {record.name} in {colour}"
    record = _with_new_login(record, number, colour, state)
    return _claimed(record, number, colour, "rotation", message=message, provenance=wanted.provenance)
