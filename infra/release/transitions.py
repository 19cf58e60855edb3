"""Steps of the ledger, plain functions from state to state: claimed → live → former → retired, or claimed → aborted."""

from __future__ import annotations

from dataclasses import replace

from infra.errors import LedgerConflictError
from infra.release.decide import Decision
from infra.release.state import Attempt, LedgerState, Live, Release


def claimed(state: LedgerState, decision: Decision, at: str) -> LedgerState:
    """Return the ledger after the claim of `decision.open`."""
    opened, record = decision.open, decision.record
    if opened is None or record is None or state.open is not None:
        raise LedgerConflictError(f"the slot is taken by {state.open.name if state.open else '?'}")
    source = decision.provenance
    attempt = Attempt(opened.attempt, source.who, source.commit, source.run, at)
    known = state.releases.get(opened.name)
    if known:
        changed = replace(
            known,
            record=record,
            attempts=(*known.attempts, attempt),
            colour=opened.colour,
            state=known.state if opened.kind == "rollback" else "claimed",
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


def _attempts_ended(release: Release, outcome: str) -> tuple[Attempt, ...]:
    return (*release.attempts[:-1], replace(release.attempts[-1], outcome=outcome))


def gone_live(state: LedgerState) -> LedgerState:
    """Return the ledger after the open release has become the live one: pointer moved, slot closed."""
    opened = state.open
    if opened is None:
        raise LedgerConflictError("no release is open")
    releases = dict(state.releases)
    for name, each in releases.items():
        if each.state == "former":
            releases[name] = replace(each, state="retired")
    if state.live:
        releases[state.live.name] = replace(releases[state.live.name], state="former")
    release = releases[opened.name]
    sequence = state.sequence + 1
    releases[opened.name] = replace(release, state="live", sequence=sequence, attempts=_attempts_ended(release, "live"))
    return replace(
        state,
        version=state.version + 1,
        open=None,
        live=Live(opened.tag, opened.revision, opened.colour),
        sequence=sequence,
        releases=releases,
    )


def aborted(state: LedgerState) -> LedgerState:
    """Return the ledger after the open release was taken back: slot closed, live pointer untouched."""
    opened = state.open
    if opened is None:
        raise LedgerConflictError("no release is open")
    release = state.release(opened.name)
    release = replace(
        release,
        state=release.state if opened.kind == "rollback" else "aborted",
        attempts=_attempts_ended(release, "aborted"),
    )
    return replace(
        state,
        version=state.version + 1,
        open=None,
        intent=f"{opened.intent}-abort",
        releases={**state.releases, opened.name: release},
    )
